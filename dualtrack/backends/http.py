"""One HTTP client per backend: bytes in, bytes out, foreign exceptions renamed, error bodies read once.

`stream` is what a client's request goes through; `send` is for dualtrack's own calls. Redirects are never followed:
one to a login page is the error that it is. A pooled connection is given up after 4 s of rest, because uvicorn, which
serves MLflow, closes its side after 5 s, and a request that meets a closing connection cannot be told from a lost one.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import cast

import aiohttp
import orjson
from yarl import URL

from dualtrack.backends.auth import SignIn
from dualtrack.core.exchange import Answer, Call, Document
from dualtrack.errors import UnreachableError
from dualtrack.metrics import Metrics
from dualtrack.ports import Reply

_KEEPALIVE_SECONDS = 4.0
_MAX_ANSWER = 256 * 1024 * 1024  # a page of 50,000 runs is some 100 MB


class HttpBackend:
    """A backend behind `base_url`. Times are seconds; `read_timeout` bounds each silence, not a whole transfer."""

    def __init__(
        self,
        name: str,
        base_url: str,
        sign_in: SignIn,
        metrics: Metrics,
        *,
        connect_timeout: float,
        read_timeout: float,
        call_timeout: float,
        connections: int,
        tls: ssl.SSLContext | bool,
        user_agent: str,
    ) -> None:
        self.name = name
        self._base = base_url
        self._sign_in = sign_in
        self._metrics = metrics
        self._call_timeout = call_timeout
        self._user_agent = user_agent
        self._up = metrics.backend_up.labels(name)
        self._throttled = metrics.throttled.labels(name)
        self._waited = metrics.upstream_duration.labels(name)
        self._session = aiohttp.ClientSession(
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            connector=aiohttp.TCPConnector(limit=connections, keepalive_timeout=_KEEPALIVE_SECONDS, ssl=tls),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout, sock_read=read_timeout),
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            read_bufsize=256 * 1024,
        )
        self.is_up: bool | None = None

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes | AsyncIterator[bytes] | None,
    ) -> AsyncIterator[Reply]:
        """Pass one request on. `headers` win over the backend's own sign-in where both name one."""
        signed = {**await self._sign_in.headers(), **headers}
        started = asyncio.get_running_loop().time()
        try:
            async with self._session.request(
                method, URL(self._base + target, encoded=True), headers=signed, data=body, allow_redirects=False
            ) as response:
                self._waited.observe(asyncio.get_running_loop().time() - started)
                self._saw(response.status)
                yield Reply(
                    status=response.status,
                    reason=response.reason or "",
                    headers=tuple(response.headers.items()),
                    body=self._chunks(response, method),
                )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._renamed(error, method, target) from error

    async def _chunks(self, response: aiohttp.ClientResponse, method: str) -> AsyncIterator[bytes]:
        try:
            async for chunk in response.content.iter_any():
                yield chunk
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._renamed(error, method, str(response.url.path)) from error

    async def send(self, call: Call) -> Answer:
        headers = {"Content-Type": "application/json", "User-Agent": self._user_agent}
        answer = await self._ask(call, headers)
        if answer.status == 401:
            headers |= await self._sign_in.headers(fresh=True)
            answer = await self._ask(call, headers)
        return answer

    async def _ask(self, call: Call, headers: Mapping[str, str]) -> Answer:
        try:
            async with asyncio.timeout(self._call_timeout):
                async with self.stream(call.method, call.target, headers, call.body or None) as reply:
                    body = b"".join([chunk async for chunk in _bounded(reply.body)])
        except TimeoutError as error:
            raise self._renamed(error, call.method, call.target) from error
        return self._read(call, reply, body)

    def _read(self, call: Call, reply: Reply, body: bytes) -> Answer:
        retry_after = parse_retry_after(reply.header("Retry-After"))
        if 200 <= reply.status < 300:
            if body.lstrip()[:1] == b"<":
                raise UnreachableError(
                    self.name,
                    call.operation,
                    f"HTTP {reply.status} with a web page instead of JSON",
                    "is the url that of an MLflow API?",
                )
            return Answer(status=reply.status, body=body)
        if 300 <= reply.status < 400:
            location = reply.header("Location").partition("?")[0]
            raise UnreachableError(
                self.name,
                call.operation,
                f"HTTP {reply.status} redirects to {location}",
                "check url and network access",
            )
        code, message = error_of(body)
        return Answer(status=reply.status, body=body, error_code=code, message=message, retry_after=retry_after)

    def _saw(self, status: int) -> None:
        self.is_up = status < 500
        self._up.set(1 if self.is_up else 0)
        if status == 429:
            self._throttled.inc()

    def _renamed(self, error: Exception, method: str, target: str) -> UnreachableError:
        self.is_up = False
        self._up.set(0)
        sent = not isinstance(error, (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError))
        cause = "no answer in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
        operation = f"{method} {target.partition('?')[0]}"
        return UnreachableError(self.name, operation, cause, "is it up, and reachable from here?", sent=sent)

    async def close(self) -> None:
        await self._session.close()
        await self._sign_in.close()


async def _bounded(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    size = 0
    async for chunk in chunks:
        size += len(chunk)
        if size > _MAX_ANSWER:
            raise aiohttp.ClientPayloadError(f"the answer is larger than {_MAX_ANSWER} bytes")
        yield chunk


def parse_retry_after(value: str) -> float | None:
    """Read seconds or an HTTP date; None for anything else."""
    if not value:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (at - datetime.now(UTC)).total_seconds()) if at.tzinfo else None


def error_of(body: bytes) -> tuple[str, str]:
    """Read code and message out of an error body: MLflow's shape, Azure ML's (facts A6), or bounded plain text."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return "", body[:200].decode(errors="replace").strip() if body[:1] != b"<" else ""
    if not isinstance(document, dict):
        return "", ""
    inner = document.get("Error") or document.get("error") or {}
    nested = cast("Document", inner) if isinstance(inner, dict) else {}
    code = document.get("error_code") or nested.get("code") or nested.get("Code") or ""
    message = document.get("message") or nested.get("message") or nested.get("Message") or document.get("detail") or ""
    return str(code), str(message)[:1000]
