"""Files by their absolute path, through the Files API of a Databricks workspace (facts/backends B3, protocol 1).

One path names one file, `/Volumes/…` or `/WorkspaceInternal/…`. The latter may be closed to a principal or a workspace
[unverified]: then a call raises `ClosedError`, and what follows from that, `artifacts_databricks` decides.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Final, cast
from urllib.parse import quote

from dualtrack.backends.answers import Answers, sending
from dualtrack.backends.http import HttpBackend
from dualtrack.core.artifact import Listed
from dualtrack.core.exchange import Document
from dualtrack.errors import BackendError, RejectedError
from dualtrack.ports import Fetched, Reply

FILE_BYTES_MAX: Final = 5 * 1024**3  # of one PUT [code, mlflow 3.17.2]
_FILES: Final = "/api/2.0/fs/files"
_FOLDERS: Final = "/api/2.0/fs/directories"
# a namespace that is not there, or not for us: what the official client falls back on (it does on any failure)
_CLOSED: Final = {HTTPStatus.FORBIDDEN, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED}


class ClosedError(Exception):
    """The API does not take this path, or this path from us; `error` is that for the caller if it is final."""

    def __init__(self, error: BackendError) -> None:
        super().__init__(str(error))
        self.error = error


class FilesApi:
    """The files of a workspace. All raise `BackendError`, and `ClosedError` for a refusal."""

    def __init__(self, backend: HttpBackend) -> None:
        self._backend = backend
        self._answers = Answers(backend.name)

    async def put(self, path: str, source: str, operation: str) -> None:
        """Store a local file; what was there is replaced, folders are made."""
        with self._answers.opened(source, operation) as file:
            size, chunks = sending(file)
            headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
            target = f"{_FILES}{quote(path)}?overwrite=true"
            try:
                async with self._backend.transfer("PUT", target, headers, chunks) as reply:
                    await self._check(reply, operation, _CLOSED | {HTTPStatus.NOT_FOUND})
            except OSError as error:
                raise self._answers.unreachable(operation, str(error), "can this process read the spool?") from error

    @asynccontextmanager
    async def fetch(self, path: str, operation: str) -> AsyncIterator[Fetched | None]:
        """Read a file; None when there is none."""
        target = f"{_FILES}{quote(path)}"
        async with self._backend.transfer("GET", target, {"Accept-Encoding": "identity"}) as reply:
            if reply.status == HTTPStatus.OK:
                yield self._answers.file(reply, operation)
                return
            await self._check_missing(reply, operation)
        yield None

    async def list(self, path: str, folder: str, operation: str) -> list[Listed] | None:
        """Answer what is directly below a folder that callers call `folder`, sorted; None when there is none."""
        listed, tokens = list[Listed](), [""]
        while True:
            page = await self._page(path, tokens[-1], operation)
            if page is None:
                return None
            listed += [_listed(folder, entry) for entry in cast("Sequence[Document]", page.get("contents", []))]
            token = str(page.get("next_page_token") or "")
            if not token or token in tokens:
                return sorted(listed, key=lambda file: file.path)
            tokens.append(token)

    async def _page(self, path: str, token: str, operation: str) -> Document | None:
        query = f"?page_token={quote(token, safe='')}" if token else ""
        async with self._backend.transfer("GET", f"{_FOLDERS}{quote(path)}{query}", {}) as reply:
            if reply.status == HTTPStatus.OK:
                return await self._answers.document(reply, operation)
            await self._check_missing(reply, operation)
        return None

    async def delete(self, path: str, operation: str) -> bool:
        """Remove a file, or a folder with all in it; say whether anything was there."""
        if await self._remove(f"{_FILES}{quote(path)}", operation):
            return True
        entries = await self.list(path, path, operation)
        if entries is None:
            return False
        for entry in entries:
            await self.delete(entry.path, operation)
        return await self._remove(f"{_FOLDERS}{quote(path)}", operation)

    async def _remove(self, target: str, operation: str) -> bool:
        async with self._backend.transfer("DELETE", target, {}) as reply:
            if 200 <= reply.status < 300:
                return True
            await self._check_missing(reply, operation)
        return False

    async def _check_missing(self, reply: Reply, operation: str) -> None:
        """Return when the answer says that nothing of that kind is there; raise what it is otherwise."""
        try:
            await self._check(reply, operation, _CLOSED)
        except RejectedError as error:
            # a folder in a file's place, or the other way round: 400 [unverified], or 404
            is_other = reply.status == HTTPStatus.BAD_REQUEST and "directory" in error.cause.lower()
            if reply.status != HTTPStatus.NOT_FOUND and not is_other:
                raise

    async def _check(self, reply: Reply, operation: str, closed: set[HTTPStatus]) -> None:
        """Raise what an answer is, if it is no success; `ClosedError` for the statuses `closed`."""
        if 200 <= reply.status < 300:
            return
        error = await self._answers.refusal(reply, operation)
        if reply.status in closed:
            raise ClosedError(error)
        raise error


def _listed(folder: str, entry: Document) -> Listed:
    name, size, is_dir = str(entry["name"]), entry.get("file_size"), bool(entry.get("is_directory"))
    return Listed(
        path=f"{folder}/{name}" if folder else name,
        is_dir=is_dir,
        size=None if is_dir or size is None else int(str(size)),
    )
