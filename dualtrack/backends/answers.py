"""What the adapters of files have in common: answers read and named, local files opened and sent in chunks.

Every adapter says the same of the same answer: 408, 425, 429 and 5xx may pass, a redirect or a web page is somebody
else's, 401 is about signing in, the rest is a refusal.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

import orjson

from dualtrack.backends.http import parse_retry_after
from dualtrack.backends.refusals import error_of
from dualtrack.core.exchange import Document
from dualtrack.errors import BackendError, RejectedError, UnauthorizedError, UnreachableError
from dualtrack.ports import Fetched, Reply

_CHUNK = 1024 * 1024
_MAX_LISTING = 64 * 1024 * 1024  # some 500,000 files in one folder
_MAX_ERROR = 64 * 1024


class Answers:
    """Answers of the backend `name`, as documents, files or errors.

    `hints` are next steps by status. `has_plain_404`: a 404 without an error code is the service's own, as of Azure ML;
    MLflow's names its error, so one without is a gateway's.
    """

    def __init__(
        self, name: str, *, hints: Mapping[int, str] = MappingProxyType({}), has_plain_404: bool = False
    ) -> None:
        self._name = name
        self._hints = hints
        self._has_plain_404 = has_plain_404

    async def document(self, reply: Reply, operation: str) -> Document:
        """Read an answer without a file in it; an empty one is an empty document. Raise what it is otherwise."""
        if not 200 <= reply.status < 300:
            raise await self.refusal(reply, operation)
        body = await whole(reply, _MAX_LISTING)
        try:
            document = orjson.loads(body or b"{}")
        except orjson.JSONDecodeError:
            document = None
        if not isinstance(document, dict):
            raise self.unusable(operation, "a web page" if body.lstrip()[:1] == b"<" else "no JSON")
        return document

    def file(self, reply: Reply, operation: str) -> Fetched:
        """The file that an answer of the backend itself holds; not a page to sign in on."""
        is_page = reply.header("Content-Type").startswith("text/html") and not reply.header("Content-Disposition")
        if is_page or reply.header("Content-Encoding") not in {"", "identity"}:
            raise self.unusable(operation, "a web page" if is_page else "a compressed body")
        return fetched(reply)

    async def refusal(self, reply: Reply, operation: str) -> BackendError:
        """The error that an answer other than 2xx is."""
        if 300 <= reply.status < 400:
            place = reply.header("Location").partition("?")[0]
            return self.unreachable(operation, f"HTTP {reply.status} redirects to {place}", "check url and access")
        code, message = error_of(await whole(reply, _MAX_ERROR))
        cause = ": ".join(part for part in (f"HTTP {reply.status}", code, message[:300]) if part)
        if reply.status in {408, 425, 429} or reply.status >= 500:
            retry_after = parse_retry_after(reply.header("Retry-After"))
            return self.unreachable(operation, cause, "is its artifact store up?", retry_after)
        if reply.status == HTTPStatus.NOT_FOUND and not code and not self._has_plain_404:
            return self.unreachable(operation, f"{cause} without an MLflow error", "is it a gateway's answer?")
        if reply.status == HTTPStatus.UNAUTHORIZED:
            return UnauthorizedError(self._name, operation, cause, "check the backend's credentials")
        return RejectedError(
            self._name, operation, cause, self._hints.get(reply.status, "check what the backend says of this path")
        )

    def unusable(self, operation: str, what: str) -> UnreachableError:
        return self.unreachable(operation, f"HTTP 200 with {what}", "is the url that of an MLflow API?")

    def unreachable(self, operation: str, cause: str, hint: str, retry_after: float | None = None) -> UnreachableError:
        return UnreachableError(self._name, operation, cause, hint, retry_after=retry_after)

    def opened(self, source: str, operation: str) -> BinaryIO:
        """Open a local file to send it; raise `RejectedError` when it is gone."""
        try:
            return Path(source).open("rb")
        except FileNotFoundError as error:
            raise RejectedError(self._name, operation, f"{source} is gone", "was the spool emptied?") from error
        except OSError as error:
            raise self.unreachable(operation, f"{source}: {error.strerror}", "can this process read it?") from error


def sending(file: BinaryIO) -> tuple[int, Callable[[], AsyncIterator[bytes]]]:
    """Give the size of a local file, and what reads it from its beginning, as often as it has to be sent."""
    descriptor = file.fileno()
    size = os.fstat(descriptor).st_size
    return size, lambda: parts(descriptor, 0, size)


async def parts(descriptor: int, offset: int, size: int) -> AsyncIterator[bytes]:
    """Read `size` bytes of a file in chunks, from `offset` on; a file that has shrunk breaks the transfer."""
    end = offset + size
    while offset < end:
        wanted = min(_CHUNK, end - offset)
        chunk = await asyncio.to_thread(os.pread, descriptor, wanted, offset)
        offset += len(chunk)
        if len(chunk) != wanted:
            raise OSError(f"the file ended at {offset} of {end} bytes")
        yield chunk


def fetched(reply: Reply) -> Fetched:
    """The file that an answer holds, whatever it says it is."""
    length = reply.header("Content-Length")
    return Fetched(size=int(length) if length.isdigit() else None, chunks=reply.body, etag=reply.header("ETag"))


async def whole(reply: Reply, most: int) -> bytes:
    """Read a body up to a bound."""
    body = bytearray()
    async for chunk in reply.body:
        body += chunk
        if len(body) > most:
            break
    return bytes(body[:most])
