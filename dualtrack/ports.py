"""The Protocols between the rooms: what the hot path, delivery and reconciling ask of the outside.

Adapters live in `store` and `backends`; only `app` knows which one stands behind a port.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from dualtrack.core.artifact import Listed
from dualtrack.core.entry import Entry, OpenEntry
from dualtrack.core.exchange import Answer, Call, Document, Exchange, Observed
from dualtrack.core.ids import BackendId, EntityKind, Ref, Twin
from dualtrack.core.loss import LossKind


class Clock(Protocol):
    """Time and chance, injected so that tests decide about both."""

    def now(self) -> float:
        """Seconds since the epoch, UTC; also right after a restart, so journal columns hold it."""
        ...

    def chance(self) -> float:
        """A random number in [0, 1)."""
        ...

    async def wait(self, seconds: float) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactNote:
    """What the primary acknowledged of the file `path` of an entity: its size in bytes and its SHA-256 in hex.

    An empty `sha256` says that its content is not known any more, or that it is gone: with all below it, and for an
    empty `path` all of the entity's files. `spool` names the copy that waits for the secondaries, if there is one.
    """

    path: str
    size: int
    sha256: str
    spool: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """The primary accepted entry `entry_id`: deliver it in the lane `key`, at `seq` if a place was kept for it.

    `exchange` replaces what was opened when only a part of it took effect (a settled crash) or when the answer
    matters (a create). `twins` is what the answer says of the primary's own ids. `artifact` is what the write made of a
    file; its `spool` replaces what `open` was told, an upload may end without a copy.
    """

    entry_id: int
    key: str
    exchange: Exchange | None = None
    seq: int | None = None
    twins: tuple[Twin, ...] = ()
    artifact: ArtifactNote | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Parking:
    """An entry, or one item of it, that a backend will not take. `holds` keeps everything behind it back.

    `spool` names the file that it needs when it is retried.
    """

    seq: int
    exchange: Exchange
    reason: str
    cause: str
    holds: bool = False
    spool: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """What a backend cannot hold (P7): for programs (`core.loss`), a reason to count by, a detail for people."""

    kind: LossKind
    item: str = ""
    reason: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedLoss:
    """A loss as the journal keeps it: `times` so often, of the entity `key`; `loss_id` grows with each new one."""

    loss_id: int
    backend: str
    key: str
    loss: Loss
    times: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The outcome of work on one lane, committed in one transaction.

    `done` are the seqs that need no further delivery. `next_at` is when the lane is due again if anything is left;
    `waiting_for` names the lane whose progress makes it due earlier; `error` is the last trouble, in words.
    """

    backend: str
    key: str
    done: tuple[int, ...] = ()
    twins: tuple[Twin, ...] = ()
    parkings: tuple[Parking, ...] = ()
    losses: tuple[Loss, ...] = ()
    next_at: float = 0.0
    attempts: int = 0
    waiting_for: str | None = None
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """A claimed ordering key of one backend; `attempts` failed since it last moved."""

    backend: str
    key: str
    attempts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """What waits for one backend. `oldest_at` is when the oldest of it was acknowledged, None when nothing waits."""

    backend: str
    entries: int
    oldest_at: float | None
    lanes: int
    held_lanes: int
    parked: int
    losses: int
    last_error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Parked:
    """A dead letter as people see it."""

    parked_id: int
    backend: str
    key: str
    operation: str
    reason: str
    cause: str
    parked_at: float
    holds: bool
    next_step: str
    exchange: Exchange | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Disk use of the journal, in bytes, against its bound, and records set aside as damaged."""

    used_bytes: int
    capacity_bytes: int
    entries: int
    quarantined: int
    is_full: bool


class Intake(Protocol):
    """The journal as the hot path sees it."""

    async def open(self, exchange: Exchange, spool: str = "") -> int:
        """Keep `exchange` so that it survives this process. Raise `JournalFullError`, `RegistryEntryError`.

        `spool` names the file that delivery will need: it is referred to before it exists.
        """
        ...

    async def settle(self, settlement: Settlement) -> None:
        """Queue an opened entry for every secondary; synced to disk on return. Raise `JournalError`."""
        ...

    def refuse(self, entry_id: int) -> None:
        """Forget an entry that the primary refused. Never waits: if it is lost, recovery finds it refused again."""
        ...

    def doubt(self, entry_id: int, key: str | None) -> OpenEntry:
        """Keep the entry's place in its lane until somebody has asked the primary what became of it.

        A create's, without a `key`, is in no lane: it holds back only what waits for all older writes (`has_older`).
        """
        ...

    def give_up_place(self, key: str, seq: int) -> None:
        """Let the lane go past a place that was kept: the write there was refused after all.

        An empty `key` is for the place of a create; `refuse` gives that up as well.
        """
        ...


class RootMap(Protocol):
    """Artifact roots, and whose they are. What is learned here only from reading says nothing about mirroring."""

    async def rooted(self, backend: str, uris: Sequence[str]) -> Twin | None:
        """Answer whose artifact root is the longest of `uris` on `backend`; a run's or model's before others."""
        ...

    async def learn_roots(self, backend: str, stated: Iterable[tuple[EntityKind, str, str]]) -> None:
        """Remember (kind, the backend's id, root) as the backend stated it. Survives this process, not the power."""
        ...


class IdMap(RootMap, Protocol):
    async def twin(self, ref: Ref, backend: str) -> Twin | None: ...

    async def client_ref(self, kind: EntityKind, backend: str, backend_id: BackendId) -> Ref | None:
        """Answer which entity `backend` calls `backend_id`."""
        ...

    async def named(self, kind: EntityKind, backend: str, name: str) -> Twin | None: ...

    async def learn(self, twins: Iterable[Twin], *, synced: bool = True) -> None:
        """Keep rows of the map; not `synced` is for what can be read again, and may be lost with the power."""
        ...

    async def forget(self, ref: Ref, backend: str, backend_id: BackendId | None = None) -> None:
        """Forget an entity's id on `backend`, whatever it is; or only if it is still `backend_id`, which is gone."""
        ...


class Queue(IdMap, Protocol):
    """The journal as delivery sees it."""

    async def claim(self, backend: str, limit: int, now: float) -> list[Lane]:
        """Lease at most `limit` due lanes, the longest due first. The lease ends with `release` or the process."""
        ...

    def release(self, lane: Lane) -> None: ...

    async def next_due(self, backend: str) -> float | None:
        """Answer when the next unleased lane is due, None when there is none."""
        ...

    async def read(self, lane: Lane, max_bytes: int) -> list[Entry]:
        """Answer the head of a lane in order, bounded; nothing beyond a place kept for a doubtful write."""
        ...

    async def mark_attempted(self, lane: Lane, seq: int) -> None:
        """Write down, synced, that a create is about to be sent."""
        ...

    async def record(self, progress: Progress) -> None:
        """Commit an outcome with the ids it revealed, in one transaction."""
        ...

    async def is_pending(self, backend: str, key: str) -> bool:
        """Say whether anything is queued in that lane."""
        ...

    async def waiting(self, backend: str, keys: Sequence[str]) -> dict[str, bool]:
        """Answer those of `keys` whose lanes hold anything; True for one that cannot go on without a person."""
        ...

    async def has_older(self, backend: str, key: str, than: float, kind: EntityKind | None = None) -> bool:
        """Say whether another lane (of that kind) still has a write acknowledged before instant `than`.

        Or one in doubt since before that; creates in doubt, whose lane nobody knows, only where no kind is asked for.
        """
        ...

    async def is_at_rest(self, backend: str) -> bool:
        """Say whether nothing is queued for `backend` but what waits for a person: a held lane, and what follows it."""
        ...

    async def artifacts(self, key: str) -> list[ArtifactNote]:
        """Answer what the primary acknowledged of an entity's files, sorted by path; without the spool's names."""
        ...

    async def is_spooled(self, name: str) -> bool:
        """Say whether any entry or dead letter still needs that file."""
        ...

    async def has_parked(self, backend: str, key: str, operations: Sequence[str]) -> str | None:
        """Answer the cause of the newest dead letter of that lane with one of `operations`; None if there is none."""
        ...

    async def has_dead_letters(self, backend: str, key: str) -> bool:
        """Say whether anything of that lane is parked."""
        ...

    async def queued(self, backend: str, limit: int) -> list[str]:
        """Answer at most `limit` lanes that hold something for `backend`."""
        ...

    def last_seq(self) -> int:
        """Answer a number that no write acknowledged so far exceeds."""
        ...

    def has_grown(self, key: str, since: int) -> bool:
        """Say whether a write of that lane was acknowledged after number `since` (`last_seq`), if not long ago."""
        ...

    def is_under_way(self, upto: int, operation: str = "") -> bool:
        """Say whether a write (of that kind) that was opened up to `upto` has no answer of the primary. Not files."""
        ...

    def may_grow(self, key: str, upto: int) -> bool:
        """Say whether a write that was opened up to `upto` may still come into that lane.

        One that is under way at the primary may be of any lane; one in doubt is of its own. Files do not count.
        """
        ...

    async def replace(self, backend: str, key: str, upto: int, exchanges: Sequence[Exchange]) -> None:
        """Put `exchanges` in the place of all that the lane holds up to `upto`: they already contain it."""
        ...

    async def append(self, backend: str, key: str, exchanges: Sequence[Exchange]) -> None:
        """Queue `exchanges` for one backend, behind all that its lane holds; synced on return."""
        ...


class Journal(Intake, Queue, Protocol):
    """All of it, as `app`, `admin` and `reconcile` see it."""

    async def left_open(self, key_of: Callable[[Exchange], str | None]) -> list[OpenEntry]:
        """Answer, once at start, the entries that a crash left open, each with its place kept.

        It is the one before all that was acknowledged since the entry was opened.
        """
        ...

    async def opened(self, entry_id: int) -> Exchange | None:
        """Read an open entry; None when it is not open any more, or damaged."""
        ...

    async def set_aside(self, entry_id: int, key: str, why: str) -> None:
        """Take an open entry that nobody can make sense of out of the way; its record is kept in quarantine.

        `key` is its lane's, empty for a create.
        """
        ...

    async def backlogs(self) -> list[Backlog]: ...

    async def usage(self) -> Usage: ...

    async def parked(self, parked_id: int | None = None, limit: int = 100, before: int | None = None) -> list[Parked]:
        """Answer one dead letter, or the newest `limit` of them, of those before number `before`."""
        ...

    async def retry_parked(self, parked_id: int, now: float) -> bool: ...

    async def discard_parked(self, parked_id: int, note: str, items: Sequence[tuple[LossKind, str]] = ()) -> bool:
        """Give up a dead letter, `note` kept with the loss of `items`, or of its operation where it has none.

        A create takes its whole entity along.
        """
        ...

    async def spooled(self) -> set[str]:
        """Answer the names of all files that entries and dead letters need, at one moment."""
        ...

    async def find(self, some_id: str) -> list[Twin]:
        """Answer every twin of the entities that any backend calls `some_id`."""
        ...

    async def export_ids(self, after: tuple[str, str], limit: int) -> list[Twin]: ...

    async def losses(
        self, key: str | None = None, *, backend: str | None = None, before: int | None = None, limit: int = 100
    ) -> list[RecordedLoss]:
        """Answer what was lost, of one entity or backend if named, the newest first; `before` is where a page ended."""
        ...


# --- logged models that no backend keeps --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptModel:
    """A logged model that only dualtrack knows: `document` is JSON as MLflow answers it, without metrics."""

    model_id: str
    experiment_id: str
    root: str
    document: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelLink:
    """A model that went into a run (`is_input`), or came out of it at `step`."""

    run_id: str
    model_id: str
    is_input: bool
    step: int


class ModelShelf(Protocol):
    """Logged models of a primary that has none. What is written survives the power on return; `JournalError`."""

    async def is_used(self) -> bool:
        """Say whether there was ever a model; asked of the disk once."""
        ...

    async def add(self, model: KeptModel) -> bool:
        """Keep a new model; False when its root is another one's."""
        ...

    async def model(self, model_id: str) -> KeptModel | None: ...

    async def models(self, experiment_ids: Sequence[str]) -> list[KeptModel]: ...

    async def change(self, model_id: str, change: Callable[[bytes], bytes]) -> KeptModel | None:
        """Change a document, one at a time; None when it is not there. What `change` raises changes nothing."""
        ...

    async def remove(self, model_id: str) -> bool:
        """Forget a model, its points and links; its root stays taken, as its files stay where they are."""
        ...

    async def points(self, model_ids: Sequence[str]) -> dict[str, list[bytes]]: ...

    async def add_points(self, points: Sequence[tuple[str, bytes]]) -> None:
        """Keep (model id, metric as JSON); the very same one again is no second one."""
        ...

    async def links(self, run_ids: Sequence[str]) -> list[ModelLink]: ...

    async def link(self, links: Sequence[ModelLink]) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer being streamed: head now, body as it arrives. Header names and values are as received."""

    status: int
    reason: str
    headers: tuple[tuple[str, str], ...]
    body: AsyncIterator[bytes]

    def header(self, name: str) -> str:
        wanted = name.lower()
        return next((value for key, value in self.headers if key.lower() == wanted), "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """An answer read whole."""

    status: int
    reason: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str:
        wanted = name.lower()
        return next((value for key, value in self.headers if key.lower() == wanted), "")


class Upstream(Protocol):
    """The narrow seam to a backend that a client's request is passed to. Raises `UnreachableError`."""

    async def exchange(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Whole:
        """Send one small request and read its whole answer."""
        ...

    name: str

    def stream(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes | AsyncIterator[bytes] | None,
    ) -> AbstractAsyncContextManager[Reply]: ...


class Backend(Upstream, Protocol):
    """A backend that dualtrack calls on its own behalf."""

    async def send(self, call: Call) -> Answer:
        """Make one call. Raise `UnreachableError` when no answer came, `UnauthorizedError` when signing in failed."""
        ...


class Looker(Protocol):
    """Reads of one backend by which a doubtful or refused write is judged. Raises `UnreachableError`."""

    async def get(self, kind: EntityKind, backend_id: str) -> Document | None:
        """Read an entity as the backend answers it; None when it is not there."""
        ...

    async def observe(self, kind: EntityKind, backend_id: str, metric_keys: Sequence[str]) -> Observed | None: ...

    async def histories(self, run_id: str, keys: Sequence[str]) -> dict[str, list[Document]]:
        """Read all points of these metrics of a run."""
        ...

    async def find_mirror(self, ref: Ref, experiment_id: str) -> Twin | None: ...

    async def has_models(self) -> bool:
        """Say whether the backend knows logged models at all. Raise `UnreachableError` in doubt."""
        ...


class Adopter(Protocol):
    """Brings an entity that a secondary lacks over whole, as journal entries."""

    async def adopt(self, ref: Ref, backend: str, *, is_own: bool = False) -> Ref | None:
        """Queue all that the primary holds of `ref`; answer what to wait for, None when the primary lacks it too.

        That is `ref` itself, or its experiment: only where that has its place can a mirror of `ref` be looked for. Then
        nothing of `ref` is queued yet, and whoever needs it asks again once the experiment is there.

        `is_own` says that the caller has claimed the lane of `ref` itself; otherwise a lane that holds anything is
        taken to be on its way.
        """
        ...


# --- files ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """A file being read. `size` in bytes, None where the store does not say; `etag` changes with the content."""

    size: int | None
    chunks: AsyncIterator[bytes]
    etag: str = ""


class ArtifactStore(Protocol):
    """The files of one backend, in whatever store its roots name.

    `root` is an artifact root as the backend itself names it (`mlflow-artifacts:/1/…`, `s3://…`, `/mlruns/…`); `path`
    is relative to it, decoded, and checked (`core.artifact.effective`). Everything may be repeated. All raise
    `UnreachableError` for what may go better later, `RejectedError` for what will not (a scheme that nobody here can
    reach included), `UnauthorizedError` when signing in failed.
    """

    async def put(self, root: str, path: str, source: str) -> None:
        """Store the local file `source` there; what was there is replaced. Nothing partial is visible."""
        ...

    def fetch(self, root: str, path: str) -> AbstractAsyncContextManager[Fetched | None]:
        """Read a file; None when there is none. Raises also while the chunks are read."""
        ...

    async def list(self, root: str, path: str) -> list[Listed]:
        """Answer what is directly below a folder, sorted; empty for a file and for what does not exist."""
        ...

    async def delete(self, root: str, path: str) -> None:
        """Remove a file, or a folder with all in it; what is not there is fine."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Spooled:
    """A file that is safely on disk here: its name in the spool, its size in bytes, its SHA-256 in hex."""

    name: str
    size: int
    sha256: str


class SpoolFile(Protocol):
    """A file on its way into the spool. Ends with `finish` or `abandon`; `abandon` after either does nothing."""

    name: str

    async def write(self, chunk: bytes) -> None:
        """Append. Raise `SpoolFullError` when the bound or the disk is reached."""
        ...

    async def finish(self) -> Spooled:
        """Sync and give the file its lasting name; it survives a loss of power on return."""
        ...

    async def abandon(self) -> None: ...


class Spool(Protocol):
    """Files that wait for the secondaries, on this machine's disk, within a bound."""

    def begin(self, size: int | None = None, *, transient: bool = False, is_bounded: bool = True) -> SpoolFile:
        """Start a file; `size` bytes are reserved if known. Raise `SpoolFullError` at once when they do not fit.

        A `transient` one is no entry's: whoever began it removes it. One that is not `is_bounded` is for a delivery
        under way: a full spool does not refuse it, because what fills the spool can only leave by deliveries.
        """
        ...

    def path(self, name: str) -> str:
        """Answer where a finished file lies."""
        ...

    async def holds(self, name: str) -> bool: ...

    async def size(self, name: str) -> int: ...

    async def read(self, name: str, max_bytes: int) -> bytes | None:
        """Read a finished file whole; None when it is larger. Raise `SpoolError`."""
        ...

    async def remove(self, name: str) -> None:
        """Forget a finished file; one that is gone is fine."""
        ...

    @property
    def used_bytes(self) -> int: ...

    @property
    def capacity_bytes(self) -> int: ...
