"""Files behind a backend's own `mlflow-artifacts` routes, as `mlflow server` and its likes serve them.

For roots `mlflow-artifacts:/…` without a host, or with the backend's own: everything goes through the backend's one
HTTP client, signed as all its calls are. A path is encoded once, so it arrives as the name that it is.

Measured on mlflow 3.17.2 (2026-11): a missing file is 404, a folder in a file's place 400, a missing folder lists as
empty, deleting what is missing is 200. What a store behind the server says is not always kept apart: a file that S3
lacks, and a file put where a folder is, are both a bare 500. So a 500 is looked into with a listing before it is taken
for trouble that passes.
"""

import mimetypes
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import PurePosixPath
from typing import BinaryIO, cast
from urllib.parse import SplitResult, quote, urlsplit

from dualtrack.backends.answers import Answers, sending
from dualtrack.backends.http import HttpBackend
from dualtrack.core.artifact import Listed, UnsafePathError, effective
from dualtrack.core.exchange import Document
from dualtrack.errors import BackendError, RejectedError, UnreachableError
from dualtrack.ports import Fetched

_ROUTE = "/api/2.0/mlflow-artifacts/artifacts"
_PORTS = {"http": 80, "https": 443}


class MlflowArtifacts:
    """An `ArtifactStore` of roots that `serves` says yes to."""

    def __init__(self, backend: HttpBackend) -> None:
        self._backend = backend
        self._answers = Answers(backend.name)

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
        with self._answers.opened(source, operation) as file:
            try:
                await self._send(target, path, file, operation)
            except UnreachableError as error:
                if _is_bare_500(error) and await self._is_in_the_way(root, path):
                    cause = "a folder has its name, or a file that of one of its folders"
                    raise RejectedError(self._backend.name, operation, cause, "rename one of them") from error
                raise

    async def _send(self, target: str, path: str, file: BinaryIO, operation: str) -> None:
        size, chunks = sending(file)
        kind = mimetypes.guess_type(path)[0] or "application/octet-stream"
        headers = {"Content-Type": kind, "Content-Length": str(size)}
        try:
            async with self._backend.transfer("PUT", target, headers, chunks) as reply:
                await self._answers.document(reply, operation)
        except OSError as error:
            raise self._answers.unreachable(operation, str(error), "can this process read the spool?") from error

    @asynccontextmanager
    async def fetch(self, root: str, path: str) -> AsyncIterator[Fetched | None]:
        operation = f"fetch {path}"
        target = self._target(operation, root, path)
        async with self._backend.transfer("GET", target, {"Accept-Encoding": "identity"}) as reply:
            if reply.status == HTTPStatus.OK:
                yield self._answers.file(reply, operation)
                return
            refusal = await self._answers.refusal(reply, operation)
        if not await self._says_missing(refusal, reply.status, root, path):
            raise refusal
        yield None

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
                document = await self._answers.document(reply, operation)
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
                await self._answers.document(reply, operation)
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
