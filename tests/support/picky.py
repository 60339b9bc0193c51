"""Somebody between the proxy and an upstream, for what no rule of the emulators says.

It refuses by content, or holds answers back after the upstream has done the work.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import ClientSession, DummyCookieJar, TCPConnector, web

_DROPPED = frozenset({"host", "content-length", "transfer-encoding", "connection", "date", "server"})


class Between:
    """Passes requests on to `upstream`. Subclasses decide about them."""

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self._session: ClientSession
        self.url = ""

    async def handle(self, request: web.BaseRequest) -> web.Response:
        body = await request.read()
        return self.refuse(body) or await self.finish(request, await self._pass(request, body))

    def refuse(self, body: bytes) -> web.Response | None:  # noqa: ARG002 - for subclasses
        return None

    async def finish(self, request: web.BaseRequest, answer: web.Response) -> web.Response:  # noqa: ARG002
        return answer

    async def _pass(self, request: web.BaseRequest, body: bytes) -> web.Response:
        headers = [(name, value) for name, value in request.headers.items() if name.lower() not in _DROPPED]
        url = self._upstream + request.raw_path
        async with self._session.request(request.method, url, headers=headers, data=body or None) as answer:
            kept = [(name, value) for name, value in answer.headers.items() if name.lower() not in _DROPPED]
            return web.Response(status=answer.status, headers=kept, body=await answer.read())

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[None]:
        runner = web.ServerRunner(web.Server(self.handle, access_log=None), shutdown_timeout=0.1)
        await runner.setup()
        connector = TCPConnector(limit=0, force_close=True)
        async with ClientSession(connector=connector, cookie_jar=DummyCookieJar(), auto_decompress=False) as session:
            self._session = session
            try:
                await web.TCPSite(runner, "127.0.0.1", 0).start()
                self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
                yield
            finally:
                await runner.cleanup()


class Picky(Between):
    """Answers 400 to every body that holds the marker, as long as `is_picky`."""

    def __init__(self, upstream: str, marker: bytes) -> None:
        super().__init__(upstream)
        self._marker = marker
        self.is_picky = True

    def refuse(self, body: bytes) -> web.Response | None:
        if self.is_picky and self._marker in body:
            document = {"error_code": "INVALID_PARAMETER_VALUE", "message": "this workspace does not take that"}
            return web.json_response(document, status=400)
        return None


class Holding(Between):
    """Lets work be done and keeps the answers to matching writes to itself, until `release`."""

    def __init__(self, upstream: str) -> None:
        super().__init__(upstream)
        self.held: asyncio.Queue[str] = asyncio.Queue()
        self._pattern: re.Pattern[str] | None = None
        self._released = asyncio.Event()

    def hold(self, pattern: str) -> None:
        """Hold answers for paths that match, from now on."""
        self._pattern = re.compile(pattern)
        self._released = asyncio.Event()

    def release(self) -> None:
        """Let go: those who wait get their answers, if they are still there."""
        self._pattern = None
        self._released.set()

    async def finish(self, request: web.BaseRequest, answer: web.Response) -> web.Response:
        released = self._released
        if request.method != "GET" and self._pattern is not None and self._pattern.search(request.path):
            self.held.put_nowait(request.path)
            await released.wait()
        return answer


@asynccontextmanager
async def picky(upstream: str, marker: bytes) -> AsyncIterator[Picky]:
    made = Picky(upstream, marker)
    async with made.serve():
        yield made


@asynccontextmanager
async def holding(upstream: str) -> AsyncIterator[Holding]:
    made = Holding(upstream)
    async with made.serve():
        try:
            yield made
        finally:
            made.release()
