"""Who is who on which backend.

The client sees the primary's ids. `(kind, client id, backend) → backend id` is the map; it holds a row for the primary
too, so that names and artifact roots of every side are found the same way.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import NewType

from dualtrack.core.artifact import folder_of

ClientId = NewType("ClientId", str)
BackendId = NewType("BackendId", str)


class EntityKind(StrEnum):
    """Things that have an id of their own on each backend."""

    EXPERIMENT = "experiment"
    RUN = "run"
    MODEL = "model"


@dataclass(frozen=True, slots=True, order=True)
class Ref:
    """One entity, named as the client names it."""

    kind: EntityKind
    client_id: ClientId

    @property
    def key(self) -> str:
        """The ordering key: entries that share it are delivered in order."""
        return f"{self.kind}:{self.client_id}"


def parse_key(key: str) -> Ref:
    kind, _, client_id = key.partition(":")
    return Ref(EntityKind(kind), ClientId(client_id))


@dataclass(frozen=True, slots=True, kw_only=True)
class Twin:
    """One row of the id map: what `ref` is called on `backend`, its name and its artifact root there, where known.

    An empty `backend_id` says that an operator discarded the entity: it is not to be mirrored to that backend. A model
    on a backend without logged models is files of its run: its id is `<run id>/<folder>` (`stand_in`).
    """

    ref: Ref
    backend: str
    backend_id: BackendId
    name: str = ""
    root: str = ""

    @property
    def is_discarded(self) -> bool:
        return not self.backend_id

    @property
    def is_stand_in(self) -> bool:
        return self.ref.kind is EntityKind.MODEL and "/" in self.backend_id


def run_of(twin: Twin) -> BackendId:
    """The run, on its backend, whose files stand in for a model."""
    return BackendId(twin.backend_id.partition("/")[0])


def stand_in(ref: Ref, backend: str, run: Twin | None, name: str) -> Twin:
    """Answer what stands for model `ref` where there are no logged models; without a run it has no files either."""
    folder = folder_of(name)
    if run is None or not run.root:
        return Twin(ref=ref, backend=backend, backend_id=BackendId(f"{run.backend_id if run else ''}/{folder}"))
    root = f"{run.root.rstrip('/')}/{folder}"
    return Twin(ref=ref, backend=backend, backend_id=BackendId(f"{run.backend_id}/{folder}"), root=root)
