"""Cloud storage behind signed URLs: bytes to and from a place that the URL itself gives the right to.

Knows no token: an `Authorization` header is never sent, whatever a caller passes, because the signature is the right
and a bearer would be leaked to another company's host. A URL is a secret too: errors name its host, never its query.
Redirects are never followed, nothing is repeated here, and files are read in chunks of 1 MiB.
"""

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

import aiohttp
from yarl import URL

from dualtrack.backends.answers import Answers, sending, whole
from dualtrack.backends.http import Watched, error_of, parse_retry_after
from dualtrack.errors import BackendError, RejectedError, UnreachableError
from dualtrack.ports import Reply, Whole

_MAX_ERROR = 64 * 1024
_MAX_ANSWER = 4 * 1024 * 1024


class SignedStorage:
    """The storage of the backend `name`. Times are seconds; `read_timeout` bounds each silence."""

    def __init__(
        self, name: str, *, connect_timeout: float, read_timeout: float, tls: ssl.SSLContext | bool, user_agent: str
    ) -> None:
        self._name = name
        self._answers = Answers(name)
        self._read_timeout = read_timeout
        self._user_agent = user_agent
        self._session = aiohttp.ClientSession(
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            connector=aiohttp.TCPConnector(ssl=tls),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout, sock_read=read_timeout),
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        )

    async def put_object(
        self,
        url: str,
        headers: Mapping[str, str],
        source: str,
        *,
        offset: int = 0,
        length: int | None = None,
        method: str = "PUT",
    ) -> str:
        """Send a local file, or `length` bytes of it from `offset` on, in one call; answer the ETag."""
        with self._answers.opened(source, _operation(method, url)) as file:
            size, chunks = sending(file, offset, length)
            try:
                async with self._call(method, url, {**headers, "Content-Length": str(size)}, chunks) as reply:
                    await self._check(reply, _operation(method, url))
                    return reply.header("ETag")
            except OSError as error:
                operation = _operation(method, url)
                raise self._answers.unreachable(operation, str(error), "can this process read the spool?") from error

    async def request(self, method: str, url: str, headers: Mapping[str, str], body: bytes = b"") -> Whole:
        """Make one small call and read its whole answer."""
        async with self._call(method, url, headers, body) as reply:
            await self._check(reply, _operation(method, url))
            content = await whole(reply, _MAX_ANSWER)
            return Whole(status=reply.status, reason=reply.reason, headers=reply.headers, body=content)

    @asynccontextmanager
    async def fetch(self, url: str, headers: Mapping[str, str]) -> AsyncIterator[Reply]:
        """Read; any status is an answer, `refusal` names it."""
        async with self._call("GET", url, {**headers, "Accept-Encoding": "identity"}) as reply:
            yield reply

    async def refusal(self, reply: Reply, operation: str) -> BackendError:
        """The error that an answer other than 2xx is."""
        code, _ = error_of(await whole(reply, _MAX_ERROR))
        cause = f"HTTP {reply.status}" + (f": {code}" if code else "")
        if reply.status < 400 or reply.status in {408, 425, 429} or reply.status >= 500:
            retry_after = parse_retry_after(reply.header("Retry-After"))
            return self._answers.unreachable(operation, cause, "is the storage up?", retry_after)
        hint = "does the storage's firewall let this machine in?" if reply.status == 403 else "see what the code means"
        return RejectedError(self._name, operation, cause, hint)

    async def close(self) -> None:
        await self._session.close()

    async def _check(self, reply: Reply, operation: str) -> None:
        if not 200 <= reply.status < 300:
            raise await self.refusal(reply, operation)

    @asynccontextmanager
    async def _call(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: Callable[[], AsyncIterator[bytes]] | bytes = b"",
    ) -> AsyncIterator[Reply]:
        sent = {name: value for name, value in headers.items() if name.lower() not in {"authorization", "cookie"}}
        watched = Watched(body()) if not isinstance(body, bytes) else None
        response = await self._begin(method, url, {"User-Agent": self._user_agent, **sent}, watched, body)
        async with response:
            yield Reply(
                status=response.status,
                reason=response.reason or "",
                headers=tuple(response.headers.items()),
                body=self._chunks(response, _operation(method, url)),
            )

    async def _begin(
        self, method: str, url: str, headers: Mapping[str, str], watched: Watched | None, body: object
    ) -> aiohttp.ClientResponse:
        try:
            async with asyncio.timeout(None) as silence:
                data = watched.taken_within(self._read_timeout, silence) if watched is not None else body
                return await self._session.request(
                    method, URL(url, encoded=True), headers=headers, data=data, allow_redirects=False
                )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            if watched is not None and watched.error is not None:
                raise watched.error from None
            raise self._unreachable(error, _operation(method, url)) from error

    async def _chunks(self, response: aiohttp.ClientResponse, operation: str) -> AsyncIterator[bytes]:
        try:
            async for chunk in response.content.iter_any():
                yield chunk
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._unreachable(error, operation) from error

    def _unreachable(self, error: Exception, operation: str) -> UnreachableError:
        cause = "no answer in time" if isinstance(error, TimeoutError) else type(error).__name__
        if isinstance(error, OSError) and error.errno is not None:
            cause = os.strerror(error.errno)
        return self._answers.unreachable(operation, cause, "is the storage up, and reachable from here?")


def _operation(method: str, url: str) -> str:
    return f"{method} {URL(url, encoded=True).host}"
