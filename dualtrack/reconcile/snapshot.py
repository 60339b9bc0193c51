"""Reads an entity of any backend into a view that can be compared; ids are said as the client says them.

Bounded in memory: a metric's history is read one page at a time, and only its digest is kept unless its points are
asked for; files are listed folder by folder, and hashed in chunks. Never writes. `reconcile/verifier.py` calls it.
"""

from collections.abc import Collection
from typing import Protocol

from dualtrack.core.ids import EntityKind, Ref, Twin
from dualtrack.core.views import ExperimentView, ModelView, RunView
from dualtrack.ports import ArtifactStore, Queue
from dualtrack.reconcile.reader import Reader


class Names(Protocol):
    """How to say the ids of one backend in the client's; what reading a view has to know of the id map."""

    async def client_id(self, kind: EntityKind, backend_id: str) -> str:
        """Answer the client's id; what nobody knows stays as it is, what should have been translated is marked so."""
        ...

    async def is_anothers(self, ref: Ref, root: str) -> bool:
        """Say whether a folder of the files of `ref` is all of another entity, which is compared by itself."""
        ...

    async def is_stand_in(self, model_id: str) -> bool:
        """Say whether that model, by the client's id, is only files on this backend."""
        ...


class MapNames:
    """`Names` from the journal's id map; `is_primary` says that the backend's ids are the client's."""

    def __init__(self, journal: Queue, backend: str, *, is_primary: bool) -> None:
        self._journal = journal
        self._backend = backend
        self._is_primary = is_primary

    async def client_id(self, kind: EntityKind, backend_id: str) -> str:
        raise NotImplementedError

    async def is_anothers(self, ref: Ref, root: str) -> bool:
        raise NotImplementedError

    async def is_stand_in(self, model_id: str) -> bool:
        raise NotImplementedError


class Snapshots:
    """Views of what one backend holds. All raise what reading raises: `RejectedError`, `UnreachableError`, ….

    A `twin` says what the entity is called there; for the primary it is one whose `backend_id` is the client's id.
    `hashes` is by path what is known already: the journal's `artifacts(ref.key)` for the primary, nothing elsewhere.
    """

    def __init__(self, reader: Reader, store: ArtifactStore, names: Names) -> None:
        self._reader = reader
        self._store = store
        self._names = names

    async def experiment(self, twin: Twin, *, expected_name: str = "") -> ExperimentView | None:
        """Read an experiment; None when it is not there. `expected_name` is kept in the view as it is."""
        raise NotImplementedError

    async def run(
        self,
        twin: Twin,
        *,
        points_of: Collection[str] = (),
        files: bool = True,
        hashes: dict[str, str] | None = None,
        reads_content: bool = False,
    ) -> RunView | None:
        """Read a run; None when it is not there. The points are kept of the metrics `points_of`.

        Not `files`: its files are not looked at. `reads_content`: each file is read and hashed, but for those whose
        hash is known.
        """
        raise NotImplementedError

    async def model(
        self, twin: Twin, *, files: bool = True, hashes: dict[str, str] | None = None, reads_content: bool = False
    ) -> ModelView | None:
        """Read a logged model, or the files that stand in for it; None when it is not there. Points are always kept."""
        raise NotImplementedError
