"""The way to the primary: streamed, or whole; and how long it has been out, if it is."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from aiohttp import web

from dualtrack.ports import Clock, Reply, Upstream
from dualtrack.proxy.forward import pass_on, request_headers, response_headers

_RETRY_MIN, _RETRY_MAX = 2.0, 60.0
_WHOLE = 1024 * 1024  # of an answer to an upload, which is empty or an error


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Bounds and policies of the hot path. Sizes in bytes, times in seconds.

    `history_page` is how many points of a metric the primary gives at once.
    """

    max_body: int
    body_timeout: float
    forwards_credentials: bool
    passes_when_full: bool
    history_page: int


class Primary:
    """What clients' requests are passed to. A client that repeats waits as long as an outage has lasted so far."""

    def __init__(self, upstream: Upstream, rules: Rules, clock: Clock) -> None:
        self._upstream = upstream
        self._rules = rules
        self._clock = clock
        self._out_since: float | None = None

    @property
    def name(self) -> str:
        return self._upstream.name

    def retry_after(self) -> float:
        """It did not answer: seconds after which a client should ask again."""
        now = self._clock.now()
        if self._out_since is None:
            self._out_since = now
        return min(_RETRY_MAX, max(_RETRY_MIN, now - self._out_since))

    async def pass_on(self, request: web.BaseRequest, target: str, label: str) -> web.StreamResponse:
        """Stream a request there and its answer back."""
        response = await pass_on(
            request,
            self._upstream,
            target,
            label,
            forwards_credentials=self._rules.forwards_credentials,
            body_seconds=self._rules.body_timeout,
        )
        self._out_since = None
        return response

    async def ask(
        self, request: web.BaseRequest, target: str, body: bytes, label: str = "primary-only"
    ) -> web.Response:
        """Send a request whose body was read, and read the whole answer, uncompressed because it will be looked at."""
        headers = request_headers(request.headers, forwards_credentials=self._rules.forwards_credentials)
        headers["Accept-Encoding"] = "identity"
        headers.popall("Content-Length", None)
        reply = await self._upstream.exchange(request.method, target, headers, body)
        self._out_since = None
        return web.Response(
            status=reply.status,
            reason=reply.reason,
            headers=response_headers(reply.headers, label),
            body=reply.body,
        )

    async def upload(self, request: web.BaseRequest, target: str, body: AsyncIterator[bytes]) -> web.Response:
        """Stream `body` there as the body of `request`. What reading it raises is raised here."""
        headers = request_headers(request.headers, forwards_credentials=self._rules.forwards_credentials)
        async with self._upstream.stream(request.method, target, headers, body) as reply:
            answer = await _bounded(reply)
        self._out_since = None
        return web.Response(
            status=reply.status,
            reason=reply.reason,
            headers=response_headers(reply.headers, "primary-only"),
            body=answer,
        )


async def _bounded(reply: Reply) -> bytes:
    chunks, size = [], 0
    async for chunk in reply.body:
        size += len(chunk)
        if size <= _WHOLE:
            chunks.append(chunk)
    return b"".join(chunks)
