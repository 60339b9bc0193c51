"""Storage behind signed URLs, as both clouds hand them out: files in, files out, and nothing of ours but the bytes.

The query of such a URL is a password. So no request here carries a token, a cookie or follows a redirect, and no error
names more than the host: aiohttp spells whole URLs in some of its messages, which is why they are not kept as causes.
Files are streamed from disk in chunks, never read whole. Getting a new URL when one has expired is the adapter's work:
it catches `ExpiredUrlError` once. A new URL that is refused as well has not expired: a firewall, a clock or a role
stands in the way of all files for as long as it does, so what the adapter raises then is `ExpiredUrlError.again`.

Azure Blob: one PUT up to 64 MiB, above that blocks of 4 MiB, as the vendor's plugin does it (facts A5). Until the block
list is sent nothing is visible, and uncommitted blocks are replaced by a repeat.
"""

import asyncio
import base64
import os
import re
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import BinaryIO, Final
from urllib.parse import quote, urlsplit

import aiohttp
import orjson
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_random_exponential
from yarl import URL

from dualtrack.backends.answers import parts, whole
from dualtrack.backends.http import Watched, parse_retry_after
from dualtrack.errors import BackendError, RejectedError, UnreachableError
from dualtrack.ports import Reply, Whole

MIB: Final = 1024 * 1024
_SINGLE: Final = 64 * MIB  # the plugin's bound for one PUT, facts A5
_BLOCK: Final = 4 * MIB
_BLOCKS_MAX: Final = 50_000  # of one blob, Azure Storage "Scalability targets for Blob storage"
_SMALL_MAX: Final = 16 * MIB
_ERROR_MAX: Final = 64 * 1024
_KEEPALIVE_SECONDS: Final = 4.0
_NOT_OURS: Final = {"authorization", "proxy-authorization", "cookie"}
# a signature that is over: Azure and S3 say 403, S3 and GCS also 400 with one of these codes
_EXPIRED_CODES: Final = {"ExpiredToken", "RequestExpired", "TokenRefreshRequired"}
_CODE: Final = re.compile(rb"<Code>\s*([A-Za-z0-9_.]{1,100})\s*</Code>")

Bodies = Callable[[], AsyncIterator[bytes]]


class ExpiredUrlError(RejectedError):
    """The storage refuses the signature: the URL has expired, or never allowed this. Get a new one, once."""

    def again(self) -> UnreachableError:
        """Say what it is when the new URL is refused too: trouble of the whole storage, which passes when mended."""
        return UnreachableError(self.backend, self.operation, f"{self.cause}, with a new URL too", self.hint)


class MissingError(RejectedError):
    """Nothing is there (404)."""


def steadily() -> AsyncRetrying:
    """Try a part three times: a hiccup must not cost the parts before it. A storage that names a time is left alone."""
    return AsyncRetrying(
        stop=stop_after_attempt(3),
        wait=wait_random_exponential(multiplier=0.2, max=2),
        retry=retry_if_exception(lambda e: isinstance(e, UnreachableError) and e.retry_after is None),
        reraise=True,
    )


class SignedStorage:
    """A client for signed URLs of `name`'s storage. Times are seconds; `read_timeout` bounds each silence.

    All raise `UnreachableError` for what may go better later, else `ExpiredUrlError`, `MissingError`, or a plain
    `RejectedError`. `headers` are what the backend wants sent with its URL; a credential among them is dropped.
    """

    def __init__(
        self, name: str, *, connect_timeout: float, read_timeout: float, tls: ssl.SSLContext | bool, user_agent: str
    ) -> None:
        self._name = name
        self._read_timeout = read_timeout
        self._user_agent = user_agent
        self._session = aiohttp.ClientSession(
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            connector=aiohttp.TCPConnector(keepalive_timeout=_KEEPALIVE_SECONDS, ssl=tls),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout, sock_read=read_timeout),
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            read_bufsize=256 * 1024,
        )

    async def put_blob(self, url: str, headers: Mapping[str, str], source: str) -> None:
        """Store a local file as an Azure block blob, whole or not at all; what was there is replaced."""
        size = await asyncio.to_thread(self._size, source)
        if size <= _SINGLE:
            await self.send_file("PUT", url, {**headers, "x-ms-blob-type": "BlockBlob"}, source)
            return
        ids: list[str] = []
        step = max(_BLOCK, -(-size // _BLOCKS_MAX))
        for offset in range(0, size, step):
            ids.append(base64.b64encode(b"%08d" % len(ids)).decode())
            block = f"{_with(url, 'comp=block')}&blockid={quote(ids[-1], safe='')}"
            await self._send_part(block, headers, source, offset, min(step, size - offset))
        listed = "".join(f"<Latest>{each}</Latest>" for each in ids)
        body = f'<?xml version="1.0" encoding="utf-8"?><BlockList>{listed}</BlockList>'.encode()
        await self.request("PUT", _with(url, "comp=blocklist"), headers, body)

    async def _send_part(self, url: str, headers: Mapping[str, str], source: str, offset: int, length: int) -> None:
        """Send one part."""
        async for attempt in steadily():
            with attempt:
                # Content-Type belongs to the blob, not to a block of it
                await self.send_file("PUT", url, headers, source, offset=offset, length=length)

    async def put_object(
        self, url: str, headers: Mapping[str, str], source: str, *, offset: int = 0, length: int | None = None
    ) -> str:
        """Send a local file, or a part of it, by one presigned PUT (S3, GCS); answer the ETag as it was sent."""
        return (await self.send_file("PUT", url, headers, source, offset=offset, length=length)).header("ETag")

    async def send_file(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        source: str,
        *,
        offset: int = 0,
        length: int | None = None,
    ) -> Whole:
        """Send `length` bytes of a local file from `offset` on, to its end if None."""
        with self._opened(source, method) as descriptor:
            size = os.fstat(descriptor).st_size - offset if length is None else length
            sized = {**headers, "Content-Length": str(size)}
            # aiohttp takes an iterator without an item for a chunked body
            body = (lambda: parts(descriptor, offset, size)) if size else None
            return await self._whole(method, url, sized, body)

    async def request(self, method: str, url: str, headers: Mapping[str, str], body: bytes = b"") -> Whole:
        """Make one small call and read its whole answer."""

        async def once() -> AsyncIterator[bytes]:
            yield body

        sized = {**headers, "Content-Length": str(len(body))} if body or method != "GET" else headers
        return await self._whole(method, url, sized, once if body else None)

    async def _whole(self, method: str, url: str, headers: Mapping[str, str], body: Bodies | None) -> Whole:
        async with self._call(method, url, headers, body) as reply:
            read = await whole(reply, _SMALL_MAX)
            return Whole(status=reply.status, reason=reply.reason, headers=reply.headers, body=read)

    @asynccontextmanager
    async def fetch(self, url: str, headers: Mapping[str, str]) -> AsyncIterator[Reply]:
        """Read what is there; raises also while the body is read. A range is the caller's header."""
        async with self._call("GET", url, {"Accept-Encoding": "identity", **headers}, None) as reply:
            yield reply

    @asynccontextmanager
    async def _call(
        self, method: str, url: str, headers: Mapping[str, str], body: Bodies | None
    ) -> AsyncIterator[Reply]:
        operation = f"{method} {_host(url)}"
        sent = {"User-Agent": self._user_agent} | {k: v for k, v in headers.items() if k.lower() not in _NOT_OURS}
        response = await self._begin(operation, method, url, sent, Watched(body()) if body else None)
        async with response:
            reply = Reply(
                status=response.status,
                reason=response.reason or "",
                headers=tuple(response.headers.items()),
                body=self._chunks(response, operation),
            )
            if not 200 <= reply.status < 300:
                raise await self._refusal(reply, operation)
            yield reply

    async def _begin(
        self, operation: str, method: str, url: str, headers: Mapping[str, str], watched: Watched | None
    ) -> aiohttp.ClientResponse:
        try:
            async with asyncio.timeout(None) as silence:
                return await self._session.request(
                    method,
                    self._url(operation, url),
                    headers=headers,
                    data=watched and watched.taken_within(self._read_timeout, silence),
                    allow_redirects=False,
                )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            if watched is not None and isinstance(watched.error, OSError):
                raise self._unreachable(operation, str(watched.error), "can this process read the file?") from None
            raise self._renamed(error, operation) from None

    def _url(self, operation: str, url: str) -> URL:
        try:
            parsed = URL(url, encoded=True)
            if parsed.scheme in {"https", "http"} and parsed.host:
                return parsed
        except ValueError:
            pass  # its message may hold the URL
        raise RejectedError(self._name, operation, "the signed URL is none", "what does the backend answer?")

    async def _chunks(self, response: aiohttp.ClientResponse, operation: str) -> AsyncIterator[bytes]:
        try:
            async for chunk in response.content.iter_any():
                yield chunk
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._renamed(error, operation) from None

    def _renamed(self, error: Exception, operation: str) -> UnreachableError:
        sent = not isinstance(error, (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError))
        known = isinstance(error, (aiohttp.ClientConnectorError, aiohttp.ServerDisconnectedError))
        cause = str(error) if known else type(error).__name__
        cause = "no answer in time" if isinstance(error, TimeoutError) else cause
        hint = "is the storage up, and reachable from here? with a private endpoint it has an address of its own"
        return self._unreachable(operation, cause, hint, sent=sent)

    async def _refusal(self, reply: Reply, operation: str) -> BackendError:
        """The error that an answer other than 2xx is. Bodies are not shown: some storages repeat the signature."""
        if 300 <= reply.status < 400:
            return self._unreachable(operation, f"HTTP {reply.status} redirects", "is there a gateway in between?")
        code = reply.header("x-ms-error-code") or _code_of(await whole(reply, _ERROR_MAX))
        cause = f"HTTP {reply.status} {code}".strip()
        if reply.status in {408, 425, 429} or reply.status >= 500:
            retry_after = parse_retry_after(reply.header("Retry-After"))
            return self._unreachable(operation, cause, "is the storage up?", retry_after)
        if reply.status in {401, 403} or code in _EXPIRED_CODES:
            hint = (
                "does the storage's firewall let this machine in, is this machine's clock right, "
                "and may the backend's identity read and write there?"
            )
            return ExpiredUrlError(self._name, operation, cause, hint)
        if reply.status == 404:
            return MissingError(self._name, operation, cause, "was it deleted behind the backend's back?")
        return RejectedError(self._name, operation, cause, "look the code up in the storage's documentation")

    def _unreachable(
        self, operation: str, cause: str, hint: str, retry_after: float | None = None, *, sent: bool = True
    ) -> UnreachableError:
        return UnreachableError(self._name, operation, cause, hint, retry_after=retry_after, sent=sent)

    def _size(self, source: str) -> int:
        with self._opened(source, "PUT") as descriptor:
            return os.fstat(descriptor).st_size

    @contextmanager
    def _opened(self, source: str, operation: str) -> Iterator[int]:
        with self._file(source, operation) as file:
            yield file.fileno()

    def _file(self, source: str, operation: str) -> BinaryIO:
        try:
            return Path(source).open("rb")
        except FileNotFoundError as error:
            raise RejectedError(self._name, operation, f"{source} is gone", "was the spool emptied?") from error
        except OSError as error:
            hint = "can this process read it?"
            raise self._unreachable(operation, f"{source}: {error.strerror}", hint, sent=False) from error

    async def close(self) -> None:
        await self._session.close()


def _with(url: str, parameter: str) -> str:
    return f"{url}{'&' if urlsplit(url).query else '?'}{parameter}"


def _host(url: str) -> str:
    """What of a signed URL may be shown."""
    try:
        return urlsplit(url).hostname or "nowhere"
    except ValueError:
        return "nowhere"


def _code_of(body: bytes) -> str:
    """Read the code out of an error: XML of blobs and S3, JSON of ADLS."""
    if found := _CODE.search(body):
        return found[1].decode()
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return ""
    inner = document.get("error") if isinstance(document, dict) else None
    code = inner.get("code") if isinstance(inner, dict) else None
    return code[:100] if isinstance(code, str) else ""
