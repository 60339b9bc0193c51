"""The files of one backend, wherever its roots lie: picks the transport by the root, and checks the path.

What the backend serves goes through its own HTTP client; what an Azure ML workspace keeps through its registration and
signed URLs; everything else through `repositories`. A path is brought to
the name that a server would give it, so that all stores see the same one.
"""

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

from dualtrack.backends.artifacts_azureml import AzureArtifacts
from dualtrack.backends.artifacts_mlflow import MlflowArtifacts
from dualtrack.backends.http import HttpBackend
from dualtrack.backends.repositories import Repositories
from dualtrack.backends.signed import SignedStorage
from dualtrack.core.artifact import Listed, UnsafePathError, effective
from dualtrack.errors import RejectedError
from dualtrack.ports import ArtifactStore, Fetched


class Artifacts:
    """The `ArtifactStore` of a backend; `local` and `hosts` as in `Repositories`.

    `close` closes the storage too, and leaves the backend open.
    """

    def __init__(
        self, backend: HttpBackend, storage: SignedStorage, *, local: bool = False, hosts: Collection[str] = ()
    ) -> None:
        self._name = backend.name
        self._storage = storage
        self._served = MlflowArtifacts(backend)
        self._azure = AzureArtifacts(backend, storage)
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
        await self._storage.close()

    def _store(self, root: str) -> ArtifactStore:
        try:
            if self._served.serves(root):
                return self._served
            return self._azure if self._azure.serves(root) else self._elsewhere
        except ValueError as error:
            raise RejectedError(
                self._name, "artifacts", f"{root} is no URI", "what does the backend answer?"
            ) from error

    def _named(self, path: str) -> str:
        try:
            return effective(path)
        except UnsafePathError as error:
            raise RejectedError(self._name, "artifacts", f"{path!r} is no safe path", "rename the file") from error
