"""Files of a Databricks workspace: which road leads to a `dbfs:` root, and what is remembered of closed ones.

    dbfs:/databricks/mlflow-tracking/<exp>/<run>/artifacts                  Files API, or else signed URLs
    dbfs:/databricks/mlflow-tracking/<exp>/logged_models/<m>/artifacts      the same
    dbfs:/databricks/mlflow/<exp>/<run>/artifacts   (legacy)                signed URLs: the server knows its place
    dbfs:/Volumes/<catalog>/<schema>/<volume>/…                             Files API

Whether the Files API is open to this workspace and this principal is not documented, and its 404 is that of a missing
file as well (facts/backends B3, G). So an area, runs or models, is `open` from the first success on. Before that, what
the API refuses, or does not find, is asked for by signed URLs; if these succeed where it refused, or find what it does
not find when it is asked once more (it may have come in between), it is closed for that area for as long as this
process lives. Trying it first each time would double every call.
"""

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from dualtrack.backends.databricks_files import FILE_BYTES_MAX, ClosedError, FilesApi
from dualtrack.backends.databricks_signed import Entity, SignedFiles, Sizes
from dualtrack.backends.http import HttpBackend
from dualtrack.backends.signed import SignedStorage
from dualtrack.core.artifact import Listed
from dualtrack.errors import BackendError, RejectedError
from dualtrack.ports import Fetched

_T = TypeVar("_T")

_ARTIFACTS: Final = "/WorkspaceInternal/Mlflow/Artifacts"
_ROOT: Final = re.compile(
    r"dbfs:(?://)?(?:"
    r"/databricks/mlflow-tracking/(?P<exp>[^/]+)/logged_models/(?P<model>[^/]+)/artifacts"
    r"|/databricks/mlflow-tracking/(?P<of>[^/]+)/(?P<run>(?!tr-|logged_models/)[^/]+)/artifacts"
    r"|/databricks/mlflow/[^/]+/(?P<legacy>[^/]+)/artifacts"
    r"|(?P<volume>/Volumes/[^/]+/[^/]+/[^/]+)"
    r")(?P<below>(?:/.*)?)",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where a root lies: its path for the Files API, whose it is, and what it is below that entity's own root."""

    area: str
    files: str = ""
    entity: Entity | None = None
    below: str = ""

    def file(self, path: str) -> str:
        return f"{self.files}/{path}" if path else self.files

    def relative(self, path: str) -> str:
        return "/".join(part for part in (self.below, path) if part)


class DatabricksArtifacts:
    """An `ArtifactStore` of the `dbfs:` roots of one workspace. `close` leaves the backend open."""

    def __init__(self, backend: HttpBackend, storage: SignedStorage, sizes: Sizes | None = None) -> None:
        self._name = backend.name
        self._storage = storage
        self._files = FilesApi(backend)
        self._signed = SignedFiles(backend, storage, sizes or Sizes())
        self._is_open: dict[str, bool] = {}

    async def put(self, root: str, path: str, source: str) -> None:
        operation = f"put {path}"
        place = self._place(root, operation)

        async def by_path() -> bool:
            await self._files.put(place.file(path), source, operation)
            return True

        async def by_url(entity: Entity) -> bool:
            await self._signed.put(entity, place.relative(path), source, operation)
            return True

        if place.entity is not None and place.files and _is_larger(source, FILE_BYTES_MAX):
            await by_url(place.entity)
        else:
            await self._either(place, by_path, by_url)

    @asynccontextmanager
    async def fetch(self, root: str, path: str) -> AsyncIterator[Fetched | None]:
        operation = f"fetch {path}"
        place = self._place(root, operation)
        async with AsyncExitStack() as stack:

            async def by_path() -> Fetched | None:
                return await stack.enter_async_context(self._files.fetch(place.file(path), operation))

            async def by_url(entity: Entity) -> Fetched | None:
                return await stack.enter_async_context(self._signed.fetch(entity, place.relative(path), operation))

            yield await self._either(place, by_path, by_url)

    async def list(self, root: str, path: str) -> list[Listed]:
        operation = f"list {path}"
        place = self._place(root, operation)

        async def by_path() -> list[Listed] | None:
            return await self._files.list(place.file(path), path, operation)

        async def by_url(entity: Entity) -> list[Listed] | None:
            files = await self._signed.list(entity, place.relative(path), operation)
            return [_below(file, place.below) for file in files] or None

        return await self._either(place, by_path, by_url) or []

    async def delete(self, root: str, path: str) -> None:
        operation = f"delete {path}"
        place = self._place(root, operation)

        async def by_path() -> bool | None:
            return await self._files.delete(place.file(path), operation) or None

        async def by_url(entity: Entity) -> bool | None:
            if not await self._signed.is_there(entity, place.relative(path), operation):
                return None
            cause = f"{root} takes no deletes: the Files API is closed there, and signed URLs only read and write"
            raise RejectedError(self._name, operation, cause, "delete it in the workspace, or give access to its files")

        await self._either(place, by_path, by_url)

    async def close(self) -> None:
        await self._storage.close()

    async def _either(
        self,
        place: _Place,
        by_path: Callable[[], Awaitable[_T | None]],
        by_url: Callable[[Entity], Awaitable[_T | None]],
    ) -> _T | None:
        """Go the road that is known to be open, or find out which one is. None says that nothing is there."""
        is_open, is_refused, entity = self._is_open.get(place.area), False, place.entity
        if place.files and is_open is not False:
            try:
                found = await by_path()
            except ClosedError as closed:
                if is_open or entity is None:
                    raise closed.error from closed
                is_refused = True
            else:
                if found is not None:
                    self._is_open[place.area] = True
                if found is not None or is_open or entity is None:
                    return found
        assert entity is not None, "a place has one of the two"
        found = await by_url(entity)
        if place.files and is_open is None and (is_refused or found is not None):
            with suppress(BackendError):  # what was found is found; which road is open, another call finds out
                self._is_open[place.area] = not is_refused and await _is_seen(by_path)
        return found

    def _place(self, root: str, operation: str) -> _Place:
        match = _ROOT.fullmatch(root)
        below = (match["below"] if match else "").strip("/")
        if match is None or any(part in {"", ".", ".."} for part in root.removeprefix("dbfs:").strip("/").split("/")):
            cause = f"{root} is no root of a run, a logged model or a volume"
            hint = "dualtrack reaches dbfs:/databricks/mlflow-tracking/<experiment>/<run>/artifacts and dbfs:/Volumes/…"
            raise RejectedError(self._name, operation, cause, hint)
        suffix = f"/{below}" if below else ""
        if match["volume"]:
            return _Place(area="Volumes", files=match["volume"] + suffix)
        if match["legacy"]:
            return _Place(area="legacy", entity=Entity(match["legacy"]), below=below)
        if match["model"]:
            files = f"{_ARTIFACTS}/{match['exp']}/LoggedModels/{match['model']}/artifacts{suffix}"
            return _Place(area="LoggedModels", files=files, entity=Entity(match["model"], is_model=True), below=below)
        files = f"{_ARTIFACTS}/{match['of']}/Runs/{match['run']}/artifacts{suffix}"
        return _Place(area="Runs", files=files, entity=Entity(match["run"]), below=below)


async def _is_seen(by_path: Callable[[], Awaitable[object]]) -> bool:
    """Say whether the Files API sees by now what a signed URL leads to."""
    try:
        return await by_path() is not None
    except ClosedError:
        return False


def _below(file: Listed, below: str) -> Listed:
    path = file.path.removeprefix(f"{below}/") if below else file.path
    return Listed(path=path, is_dir=file.is_dir, size=file.size)


def _is_larger(source: str, size: int) -> bool:
    try:
        return Path(source).stat().st_size > size
    except OSError:
        return False  # whoever opens it says what is wrong
