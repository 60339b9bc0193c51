"""Files behind a backend's own `mlflow-artifacts` routes, as `mlflow server` and its likes serve them.

For roots `mlflow-artifacts:/…` without a host, or with the backend's own: everything goes through the backend's one
HTTP client, signed as all its calls are. A path is encoded once, so it arrives as the name that it is.

Measured on mlflow 3.17.2 (2026-11): a missing file is 404, a folder in a file's place 400, a missing folder lists as
empty, deleting what is missing is 200. What a store behind the server says is not always kept apart: a file that S3
lacks, and a file put where a folder is, are both a bare 500. So a 500 is looked into with a listing before it is taken
for trouble that passes.
"""

import asyncio
import mimetypes
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast
from urllib.parse import SplitResult, quote, urlsplit

import orjson

from dualtrack.backends.http import HttpBackend, parse_retry_after
from dualtrack.backends.refusals import error_of
from dualtrack.core.artifact import Listed, UnsafePathError, effective
from dualtrack.core.exchange import Document
from dualtrack.errors import BackendError, RejectedError, UnauthorizedError, UnreachableError
from dualtrack.ports import Fetched, Reply

_ROUTE = "/api/2.0/mlflow-artifacts/artifacts"
_CHUNK = 1024 * 1024
_MAX_LISTING = 64 * 1024 * 1024  # some 500,000 files in one folder
_MAX_ERROR = 64 * 1024
_PORTS = {"http": 80, "https": 443}


class MlflowArtifacts:
    """An `ArtifactStore` of roots that `serves` says yes to."""

    def __init__(self, backend: HttpBackend) -> None:
        self._backend = backend

    def serves(self, root: str) -> bool:
        """Say whether the backend itself serves `root`."""
        place = urlsplit(root)
        return place.scheme == "mlflow-artifacts" and (not place.netloc or self._is_own(place))

    def _is_own(self, place: SplitResult) -> bool:
        own = urlsplit(self._backend.base_url)
        default = _PORTS.get(own.scheme)
        return (place.hostname, place.port or default) == (own.hostname, own.port or default)

    async def put(self, root: str, path: str, source: str) -> None:
        operation = f"put {path}"
        target = self._target(operation, root, path)
        with self._opened(source, operation) as file:
            try:
                await self._send(target, path, file.fileno(), operation)
            except UnreachableError as error:
                if _is_bare_500(error) and await self._is_in_the_way(root, path):
                    cause = "a folder has its name, or a file that of one of its folders"
                    raise RejectedError(self._backend.name, operation, cause, "rename one of them") from error
                raise

    def _opened(self, source: str, operation: str) -> BinaryIO:
        try:
            return Path(source).open("rb")
        except FileNotFoundError as error:
            raise RejectedError(self._backend.name, operation, f"{source} is gone", "was the spool emptied?") from error
        except OSError as error:
            raise self._unreachable(operation, f"{source}: {error.strerror}", "can this process read it?") from error

    async def _send(self, target: str, path: str, descriptor: int, operation: str) -> None:
        size = os.fstat(descriptor).st_size
        kind = mimetypes.guess_type(path)[0] or "application/octet-stream"
        headers = {"Content-Type": kind, "Content-Length": str(size)}
        try:
            async with self._backend.transfer("PUT", target, headers, lambda: _parts(descriptor, size)) as reply:
                await self._read(reply, operation)
        except OSError as error:
            raise self._unreachable(operation, str(error), "can this process read the spool?") from error

    @asynccontextmanager
    async def fetch(self, root: str, path: str) -> AsyncIterator[Fetched | None]:
        operation = f"fetch {path}"
        target = self._target(operation, root, path)
        async with self._backend.transfer("GET", target, {"Accept-Encoding": "identity"}) as reply:
            if reply.status == HTTPStatus.OK:
                yield self._fetched(reply, operation)
                return
            refusal = await self._refusal(reply, operation)
        if not await self._says_missing(refusal, reply.status, root, path):
            raise refusal
        yield None

    def _fetched(self, reply: Reply, operation: str) -> Fetched:
        is_page = reply.header("Content-Type").startswith("text/html") and not reply.header("Content-Disposition")
        if is_page or reply.header("Content-Encoding") not in {"", "identity"}:
            raise self._unusable(operation, "a web page" if is_page else "a compressed body")
        length = reply.header("Content-Length")
        return Fetched(size=int(length) if length.isdigit() else None, chunks=reply.body)

    async def _says_missing(self, refusal: BackendError, status: int, root: str, path: str) -> bool:
        if status == HTTPStatus.NOT_FOUND:
            return isinstance(refusal, RejectedError)
        if status == HTTPStatus.BAD_REQUEST:
            return "directory" in refusal.cause
        return _is_bare_500(refusal) and await self._is_dir(root, path) is not False

    async def list(self, root: str, path: str) -> list[Listed]:
        operation = f"list {path}"
        place = _place(self._backend.name, operation, root, path)
        target = f"{_ROUTE}?path={quote(place, safe='/')}"
        async with self._backend.transfer("GET", target, {}) as reply:
            try:
                document = await self._read(reply, operation)
            except RejectedError:
                if reply.status == HTTPStatus.NOT_FOUND:
                    return []
                raise
        listed = [_listed(path, file) for file in cast("Sequence[Document]", document.get("files", []))]
        if len(listed) == 1 and not listed[0].is_dir and _name(listed[0].path) == _name(path):
            # a file lists as itself on some stores; or it is a folder that holds one file of its own name
            async with self.fetch(root, path) as fetched:
                return [] if fetched else listed
        return sorted(listed, key=lambda file: file.path)

    async def delete(self, root: str, path: str) -> None:
        operation = f"delete {path}"
        target = self._target(operation, root, path)
        try:
            async with self._backend.transfer("DELETE", target, {}) as reply:
                await self._read(reply, operation)
        except RejectedError:
            if reply.status != HTTPStatus.NOT_FOUND:
                raise
        except UnreachableError as error:
            if not _is_bare_500(error) or await self._is_dir(root, path) is not None:
                raise

    async def _is_dir(self, root: str, path: str) -> bool | None:
        """Say what is there by the listing of its folder; None for nothing."""
        folder = path.rpartition("/")[0]
        return next((file.is_dir for file in await self.list(root, folder) if file.path == path), None)

    async def _is_in_the_way(self, root: str, path: str) -> bool:
        if await self._is_dir(root, path):
            return True
        folders = [str(folder) for folder in PurePosixPath(path).parents][:-1]
        return any([await self._is_dir(root, folder) is False for folder in folders])

    def _target(self, operation: str, root: str, path: str) -> str:
        place = _place(self._backend.name, operation, root, path)
        if not place:
            raise RejectedError(self._backend.name, operation, "that is the whole artifact store", "name a folder")
        return f"{_ROUTE}/{quote(place, safe='/')}"

    async def _read(self, reply: Reply, operation: str) -> Document:
        """Read an answer without a file in it; an empty one is an empty document."""
        if not 200 <= reply.status < 300:
            raise await self._refusal(reply, operation)
        body = await _whole(reply, _MAX_LISTING)
        try:
            document = orjson.loads(body or b"{}")
        except orjson.JSONDecodeError:
            document = None
        if not isinstance(document, dict):
            raise self._unusable(operation, "a web page" if body.lstrip()[:1] == b"<" else "no JSON")
        return document

    async def _refusal(self, reply: Reply, operation: str) -> BackendError:
        """The error that an answer other than 2xx is."""
        if 300 <= reply.status < 400:
            place = reply.header("Location").partition("?")[0]
            return self._unreachable(operation, f"HTTP {reply.status} redirects to {place}", "check url and access")
        code, message = error_of(await _whole(reply, _MAX_ERROR))
        cause = ": ".join(part for part in (f"HTTP {reply.status}", code, message[:300]) if part)
        if reply.status in {408, 425, 429} or reply.status >= 500:
            retry_after = parse_retry_after(reply.header("Retry-After"))
            return self._unreachable(operation, cause, "is its artifact store up?", retry_after)
        if reply.status == HTTPStatus.NOT_FOUND and not code:  # MLflow names its error; a gateway without it does not
            return self._unreachable(operation, f"{cause} without an MLflow error", "is it a gateway's answer?")
        if reply.status == HTTPStatus.UNAUTHORIZED:
            return UnauthorizedError(self._backend.name, operation, cause, "check the backend's credentials")
        return RejectedError(self._backend.name, operation, cause, "check what the backend says of this path")

    def _unusable(self, operation: str, what: str) -> UnreachableError:
        return self._unreachable(operation, f"HTTP 200 with {what}", "is the url that of an MLflow API?")

    def _unreachable(self, operation: str, cause: str, hint: str, retry_after: float | None = None) -> UnreachableError:
        return UnreachableError(self._backend.name, operation, cause, hint, retry_after=retry_after)


async def _parts(descriptor: int, size: int) -> AsyncIterator[bytes]:
    """Read a file in chunks, from its beginning; a file that has shrunk breaks the transfer."""
    for offset in range(0, size, _CHUNK):
        wanted = min(_CHUNK, size - offset)
        chunk = await asyncio.to_thread(os.pread, descriptor, wanted, offset)
        if len(chunk) != wanted:
            raise OSError(f"the file ended at {offset + len(chunk)} of {size} bytes")
        yield chunk


async def _whole(reply: Reply, most: int) -> bytes:
    body = bytearray()
    async for chunk in reply.body:
        body += chunk
        if len(body) > most:
            break
    return bytes(body[:most])


def _place(backend: str, operation: str, root: str, path: str) -> str:
    """The path that the server knows `path` by: below the root's own, which may be encoded."""
    try:
        return effective(f"{urlsplit(root).path}/{path}".strip("/"))
    except UnsafePathError as error:
        raise RejectedError(backend, operation, f"{root} with {path!r} is no safe path", "rename the file") from error


def _listed(folder: str, file: Document) -> Listed:
    """A listing names files relative to the folder that was asked for, and leaves out the size of a folder."""
    name, size = str(file["path"]), file.get("file_size")
    return Listed(
        path=f"{folder}/{name}" if folder else name,
        is_dir=bool(file.get("is_dir")),
        size=None if size is None else int(str(size)),
    )


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _is_bare_500(error: BackendError) -> bool:
    return error.cause.startswith("HTTP 500")
