"""Artifact roots in what clients see and say, and where a client's artifact path leads.

Outward, every root becomes a host-less `mlflow-artifacts:/…` of the proxy; inward, it becomes what the backend calls it
again. A root is only ever one that a backend stated: of a run, a logged model or an experiment, learned when it is
first shown, and looked up by the entity's id where it was not. So nobody can make the proxy reach, with its own
credentials, for a place that no backend named.
"""

import asyncio
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar
from urllib.parse import parse_qsl, urlencode

import structlog

from dualtrack.core.exchange import JSON, Document
from dualtrack.core.ids import BackendId, ClientId, EntityKind, Ref, Twin
from dualtrack.errors import JournalError, RejectedError
from dualtrack.ports import Looker, RootMap
from dualtrack.translate.document import MalformedError, field, parse, parse_inner, text, write
from dualtrack.translate.roots import (
    PREFIX,
    Candidate,
    client_uri,
    filter_text,
    holds_foreign,
    is_hostless,
    learned,
    locate,
    path_of,
    walk,
)

log = structlog.get_logger("dualtrack.proxy")
T = TypeVar("T")

_OWN = "mlflow-artifacts:/"
_REMEMBERED = 50_000  # entities whose root was just written down; forgetting costs a repeated write
_RUN_ID = re.compile(r"[0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_MODEL_ID = re.compile(r"m-[0-9a-f]{32}")
_LARGE = 256 * 1024  # bytes of JSON that are read, walked and written in some 10 ms
_TRACE = re.compile(r"(traces/[^/]+/artifacts)(?:/(.*))?", re.DOTALL)  # facts section 7
_FOUND = 1_000  # places whose root is known without asking the journal
_LOOKS = 4  # ids of one path that are asked for
_FILTERS = ("filter", "filter_string")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a client's artifact path leads: below `root` of `backend`. `owner` is None below no run and no model."""

    backend: str
    root: str
    path: str
    owner: Ref | None = None

    @property
    def uri(self) -> str:
        return f"{self.root}/{self.path}" if self.path and not self.root.endswith("/") else self.root + self.path


class Reading(StrEnum):
    """How an answer is read on its way back.

    ONE    names an entity that a client may write files to next: always read, so that its root is known
    MANY   may be a large page: read only when it holds a root that has to be rewritten; its entities' roots are learned
    SHOWN  the same, and nothing is learned: what it says may be what a client wrote
    FLAGS  what the server can do with files, and no roots: nothing that goes around us
    """

    ONE = "one"
    MANY = "many"
    SHOWN = "shown"
    FLAGS = "flags"


class Roots:
    """`lookers` are the reads of each backend whose files clients may read, by its name."""

    def __init__(self, known: RootMap, primary: str, lookers: Mapping[str, Looker]) -> None:
        self._known = known
        self._primary = primary
        self._lookers = lookers
        self._written: set[tuple[EntityKind, str]] = set()
        # of the primary, by place: whose root is the longest at or above it. A run's files come one after the other; it
        # is not by root, because a model's may lie below its run's (`models.front`)
        self._found: dict[str, Twin] = {}

    # --- outward ------------------------------------------------------------------------------------------------

    async def outward(self, body: bytes, reading: Reading = Reading.MANY, *, rewrites: bool = True) -> bytes:
        """Make the primary's answer fit for clients. What is large is read and written in a thread."""
        is_foreign = rewrites and holds_foreign(body)
        if not is_foreign and reading is not Reading.ONE:
            return body
        size = len(body)
        try:
            # keys stay as they are spelled: GraphQL's, and those of users' maps
            document = await _aside(size, lambda: parse_inner(body.decode()))
        except (MalformedError, UnicodeDecodeError):
            return body
        stated = set() if reading is Reading.SHOWN else {root for _, _, root in await self._learn(document)}
        if not is_foreign:
            return body
        roots = await _aside(size, lambda: _roots_in(document))
        shown = {uri: await self.shown(uri, self._primary, stated) for uri in roots}
        if all(uri == there for uri, there in shown.items()):
            return body
        return await _aside(size, lambda: write(walk(document, lambda uri: shown.get(uri, uri))))

    async def shown(self, uri: str, backend: str, stated: frozenset[str] | set[str] = frozenset()) -> str:
        """What clients see of a URI of `backend`; one that lies below no known root is not ours to show."""
        if uri in stated or uri.startswith("mlflow-artifacts:"):
            return client_uri(uri, backend, self._primary)
        candidates = _candidates(uri, backend, self._primary)
        if candidates and await self._rooted(backend, candidates) is not None:
            return client_uri(uri, backend, self._primary)
        return uri

    async def _learn(self, document: JSON) -> list[tuple[EntityKind, str, str]]:
        stated = learned(document)
        new = [item for item in stated if item[:2] not in self._written and item[2]]
        if new and await self._remember(self._primary, new):
            self.forget_found()
            if len(self._written) > _REMEMBERED:
                self._written.clear()
            self._written.update(item[:2] for item in new)
        return stated

    async def _remember(self, backend: str, stated: list[tuple[EntityKind, str, str]]) -> bool:
        """Write roots down, if there is room: the answer that stated them is a client's, whatever becomes of ours."""
        try:
            await self._known.learn_roots(backend, stated)
        except JournalError as error:
            log.warning("proxy.roots_not_learned", roots=len(stated), error=str(error))
            return False
        return True

    def forget_found(self) -> None:
        """There is a new root, which may lie below one that was found."""
        self._found = {}  # a new one: who is just asking keeps what it hears in the old one

    # --- inward -------------------------------------------------------------------------------------------------

    async def inward_body(self, body: bytes) -> bytes:
        """Turn what a client says about roots back; anything without our prefix passes untouched."""
        if PREFIX.encode() not in body:
            return body
        try:
            document = parse(body)
        except MalformedError:
            return body
        renamed = await self._inward(document)
        return write(renamed) if renamed != document else body

    async def inward_query(self, query: str) -> str:
        if PREFIX not in query:
            return query
        pairs = [(name, await self._inward_value(name, value)) for name, value in parse_qsl(query, True)]
        return urlencode(pairs)

    async def _inward(self, document: Document) -> Document:
        uris = [uri for uri in _roots_in(document) if PREFIX in uri]
        meant = {uri: await self.meant(uri) for uri in uris}
        renamed = walk(document, lambda uri: meant.get(uri, uri))
        assert isinstance(renamed, dict)
        for name in _FILTERS:
            value = renamed.get(name)
            if isinstance(value, str):
                renamed[name] = await self._inward_value(name, value)
        return renamed

    async def _inward_value(self, name: str, value: str) -> str:
        if name not in _FILTERS:
            return await self.meant(value)
        meant: dict[str, str] = {}
        filter_text(value, lambda uri: meant.setdefault(uri, uri))
        for uri in meant:
            meant[uri] = await self.meant(uri)
        return filter_text(value, lambda uri: meant.get(uri, uri))

    async def meant(self, uri: str) -> str:
        """What the backend calls a URI that a client was shown. It is only said to a backend, which judges it."""
        path = path_of(uri)
        if path is None or not path.startswith(PREFIX):
            return uri
        place = await self.find(path)
        if place is not None:
            return place.uri
        whole = next((item for item in locate(path, self._primary) if not item.path), None)
        return whole.uri if whole is not None else uri

    # --- where a path leads -------------------------------------------------------------------------------------

    async def find(self, path: str, *, is_file: bool = False) -> Place | None:
        """Answer where the artifact path of a client's request leads, None if to no root that a backend stated.

        `is_file` says that it is no root itself: whose its folder is, it is.
        """
        candidates = locate(path, self._primary)
        if not candidates:
            return None
        backend = candidates[0].backend
        if backend not in self._lookers:
            return None
        twin = await self._rooted(backend, candidates, is_file=is_file)
        if twin is not None and (twin.ref.kind is not EntityKind.EXPERIMENT or is_hostless(twin.root)):
            below = next(item.path for item in candidates if item.uri == twin.root)
            owner = twin.ref if twin.ref.kind is not EntityKind.EXPERIMENT and backend == self._primary else None
            return Place(backend=backend, root=twin.root, path=below, owner=owner)
        if twin is not None:
            return _of_trace(twin, candidates)
        if path.partition("/")[0] == PREFIX:
            return None
        # the primary's own artifact routes decide about what lies there
        return Place(backend=backend, root=_OWN, path=path)

    async def _rooted(self, backend: str, candidates: list[Candidate], *, is_file: bool = False) -> Twin | None:
        """The run or model below whose root it is, asked for if nobody has met it yet; else the experiment."""
        uris = [item.uri for item in candidates]
        above, known = uris[int(is_file) :], self._found
        if backend == self._primary and above and (found := known.get(above[0])) is not None:
            return found
        twin = await self._known.rooted(backend, uris)
        if twin is None or twin.ref.kind is EntityKind.EXPERIMENT:
            return await self._look_up(backend, uris) or twin
        if backend == self._primary and twin.root in above:
            if len(known) >= _FOUND:
                known.clear()
            known[above[0]] = twin
        return twin

    async def _look_up(self, backend: str, uris: list[str]) -> Twin | None:
        looker = self._lookers.get(backend)
        if looker is None or not uris:
            return None
        named = [
            segment for segment in uris[0].split("/") if _MODEL_ID.fullmatch(segment) or _RUN_ID.fullmatch(segment)
        ]
        for some_id in named[:_LOOKS]:
            kind = EntityKind.MODEL if _MODEL_ID.fullmatch(some_id) else EntityKind.RUN
            try:
                found = await looker.get(kind, some_id)
            except RejectedError:
                continue
            info = field(found, "run" if kind is EntityKind.RUN else "model", "info") if found is not None else None
            root = text(field(info, "artifact_uri")).rstrip("/")
            if root and root in uris:
                await self._remember(backend, [(kind, some_id, root)])
                if backend != self._primary:
                    return await self._known.rooted(backend, [root])
                ref = Ref(kind, ClientId(some_id))
                return Twin(ref=ref, backend=backend, backend_id=BackendId(some_id), root=root)
        return None


def _of_trace(experiment: Twin, candidates: list[Candidate]) -> Place | None:
    """The files of a trace, which lie below its experiment's location by MLflow's own rule.

    Nothing else there is anybody's: whoever creates an experiment says where its location is, and it may be `/home`.
    """
    below = next(item.path for item in candidates if item.uri == experiment.root)
    match = _TRACE.fullmatch(below)
    if match is None:
        return None
    root = f"{experiment.root.rstrip('/')}/{match[1]}"
    return Place(backend=experiment.backend, root=root, path=match[2] or "")


async def _aside(size: int, work: Callable[[], T]) -> T:
    """Do pure work on a document of `size` bytes: in a thread if it would hold up other clients."""
    return await asyncio.to_thread(work) if size > _LARGE else work()


def _roots_in(document: JSON) -> list[str]:
    found: dict[str, None] = {}

    def collect(uri: str) -> str:
        found[uri] = None
        return uri

    walk(document, collect)
    return list(found)


def _candidates(uri: str, backend: str, primary: str) -> list[Candidate]:
    path = path_of(client_uri(uri, backend, primary))
    return locate(path, primary) if path is not None else []
