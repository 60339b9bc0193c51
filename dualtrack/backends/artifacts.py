"""The files of one backend, wherever its roots lie: picks the transport by the root, and checks the path.

What the backend serves goes through its own HTTP client, a cloud's own roots through its adapter, everything else
through `repositories`. A path is brought to
the name that a server would give it, so that all stores see the same one.
"""

from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Protocol

from dualtrack.backends.artifacts_mlflow import MlflowArtifacts
from dualtrack.backends.http import HttpBackend
from dualtrack.backends.repositories import Repositories
from dualtrack.core.artifact import Listed, UnsafePathError, effective
from dualtrack.errors import RejectedError
from dualtrack.ports import ArtifactStore, Fetched


class CloudStore(ArtifactStore, Protocol):
    """The store of a cloud's own roots."""

    async def close(self) -> None: ...


class Artifacts:
    """The `ArtifactStore` of a backend; `local` and `hosts` as in `Repositories`. `close` leaves the backend open.

    `clouds` reach the roots of a scheme that only a backend of their kind has, such as `dbfs`; closed here.
    """

    def __init__(
        self,
        backend: HttpBackend,
        *,
        local: bool = False,
        hosts: Collection[str] = (),
        clouds: Mapping[str, CloudStore] | None = None,
    ) -> None:
        self._name = backend.name
        self._clouds = clouds or {}
        self._served = MlflowArtifacts(backend)
        self._elsewhere = Repositories(backend.name, backend.base_url, local=local, hosts=hosts)

    async def put(self, root: str, path: str, source: str) -> None:
        await self._store(root).put(root, self._named(path), source)

    @asynccontextmanager
    async def fetch(self, root: str, path: str) -> AsyncIterator[Fetched | None]:
        async with self._store(root).fetch(root, self._named(path)) as fetched:
            yield fetched

    async def list(self, root: str, path: str) -> list[Listed]:
        return await self._store(root).list(root, self._named(path))

    async def delete(self, root: str, path: str) -> None:
        await self._store(root).delete(root, self._named(path))

    async def close(self) -> None:
        await self._elsewhere.close()
        for cloud in self._clouds.values():
            await cloud.close()

    def _store(self, root: str) -> ArtifactStore:
        cloud = self._clouds.get(root.partition(":")[0])
        if cloud is not None:
            return cloud
        try:
            return self._served if self._served.serves(root) else self._elsewhere
        except ValueError as error:
            raise RejectedError(
                self._name, "artifacts", f"{root} is no URI", "what does the backend answer?"
            ) from error

    def _named(self, path: str) -> str:
        try:
            return effective(path)
        except UnsafePathError as error:
            raise RejectedError(self._name, "artifacts", f"{path!r} is no safe path", "rename the file") from error
