"""Artifact roots in what clients see and say, and where a client's artifact path leads.

Outward, every root becomes a host-less `mlflow-artifacts:/…` of the proxy; inward, it becomes what the backend calls it
again. A root is only ever one that a backend stated: of a run, a logged model or an experiment, learned when it is
first shown, and looked up by the entity's id where it was not. So nobody can make the proxy reach, with its own
credentials, for a place that no backend named.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode

from dualtrack.core.exchange import JSON, Document
from dualtrack.core.ids import EntityKind, Ref, Twin
from dualtrack.errors import RejectedError
from dualtrack.ports import Looker, RootMap
from dualtrack.translate.document import MalformedError, field, parse, parse_inner, text, write
from dualtrack.translate.roots import (
    PREFIX,
    Candidate,
    client_uri,
    filter_text,
    holds_foreign,
    learned,
    locate,
    path_of,
    walk,
)

_OWN = "mlflow-artifacts:/"
_REMEMBERED = 50_000  # entities whose root was just written down; forgetting costs a repeated write
_RUN_ID = re.compile(r"[0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_MODEL_ID = re.compile(r"m-[0-9a-f]{32}")
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


class Roots:
    """`lookers` are the reads of each backend, by its name."""

    def __init__(self, known: RootMap, primary: str, lookers: Mapping[str, Looker]) -> None:
        self._known = known
        self._primary = primary
        self._lookers = lookers
        self._written: set[tuple[EntityKind, str]] = set()

    # --- outward ------------------------------------------------------------------------------------------------

    async def outward(self, body: bytes, *, learns: bool = False, rewrites: bool = True) -> bytes:
        """Make the primary's answer fit for clients. `learns` reads it even if there is nothing to rewrite."""
        is_foreign = rewrites and holds_foreign(body)
        if not (is_foreign or learns):
            return body
        try:
            document = parse_inner(body.decode())  # keys stay as they are spelled: GraphQL's, and those of users' maps
        except (MalformedError, UnicodeDecodeError):
            return body
        stated = {root for _, _, root in await self._learn(document)}
        if not is_foreign:
            return body
        shown = {uri: await self.shown(uri, self._primary, stated) for uri in _roots_in(document)}
        if all(uri == there for uri, there in shown.items()):
            return body
        renamed = walk(document, lambda uri: shown.get(uri, uri))
        return write(renamed)

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
        if new:
            await self._known.learn_roots(self._primary, new)
            if len(self._written) > _REMEMBERED:
                self._written.clear()
            self._written.update(item[:2] for item in new)
        return stated

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

    async def find(self, path: str) -> Place | None:
        """Answer where the artifact path of a client's request leads, None if to no root that a backend stated."""
        candidates = locate(path, self._primary)
        if not candidates:
            return None
        backend = candidates[0].backend
        twin = await self._rooted(backend, candidates)
        if twin is not None:
            below = next(item.path for item in candidates if item.uri == twin.root)
            owner = twin.ref if twin.ref.kind is not EntityKind.EXPERIMENT and backend == self._primary else None
            return Place(backend=backend, root=twin.root, path=below, owner=owner)
        own = next((item for item in candidates if item.uri.startswith(_OWN)), None)
        if own is None:
            return None
        # the backend's own artifact routes decide about what lies there
        below = f"{own.uri.removeprefix(_OWN)}/{own.path}".strip("/")
        return Place(backend=backend, root=_OWN, path=below)

    async def _rooted(self, backend: str, candidates: list[Candidate]) -> Twin | None:
        """The run or model below whose root it is, asked for if nobody has met it yet; else the experiment."""
        uris = [item.uri for item in candidates]
        twin = await self._known.rooted(backend, uris)
        if twin is not None and twin.ref.kind is not EntityKind.EXPERIMENT:
            return twin
        return await self._look_up(backend, uris) or twin

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
                await self._known.learn_roots(backend, [(kind, some_id, root)])
                return await self._known.rooted(backend, [root])
        return None


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
