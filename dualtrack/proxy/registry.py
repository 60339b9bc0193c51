"""Registry calls when the registry lives on a secondary.

Ids are translated, the run's writes waited for, answers translated back. A call goes to the registry and nowhere else.
What it names must have arrived there first, files included, so the call waits, bounded, until nothing of those runs
and models is queued any more; when the wait runs out the client gets a 503 that says what is missing, and repeats it.
A version's files are read where it is registered: its download address leads to the registry's own store.
"""

from collections import Counter
from collections.abc import Iterable
from urllib.parse import parse_qsl, urlencode

from aiohttp import web

from dualtrack.core.exchange import Document
from dualtrack.core.ids import BackendId, EntityKind, Ref, Twin, run_of
from dualtrack.core.routes import Match
from dualtrack.ports import Adopter, Backend, Clock, Lane, Queue
from dualtrack.proxy.errors import Refusal, unavailable
from dualtrack.proxy.forward import pass_on, request_headers, response_headers
from dualtrack.proxy.roots import Roots
from dualtrack.translate.document import MalformedError, parse, text, write
from dualtrack.translate.files import COPY, UPLOAD
from dualtrack.translate.registry import (
    Name,
    Place,
    as_ref,
    by_entity,
    by_files,
    from_query,
    named_model,
    names,
    roots_above,
    to_query,
    walk,
)

_LOOK_SECONDS = 0.05
_DOWNLOAD_URI = "getModelVersionDownloadUri"
_TOLD_BYTES = 256 * 1024  # of a lane, to say what is missing


class RegistryRelay:
    """Relays to `registry`, a secondary. `wait` is how many seconds a call may wait for a run's writes.

    `roots` makes artifact roots fit for clients; None where clients reach the backends' storage themselves.
    """

    def __init__(
        self,
        registry: Backend,
        primary: str,
        queue: Queue,
        adopter: Adopter,
        clock: Clock,
        wait: float,
        roots: Roots | None = None,
    ) -> None:
        self._registry = registry
        self._primary = primary
        self._queue = queue
        self._adopter = adopter
        self._clock = clock
        self._wait = wait
        self._roots = roots

    async def relay(
        self, request: web.BaseRequest, match: Match, path: str, query: str, body: bytes
    ) -> web.StreamResponse:
        """Answer a registry call. Raises `Refusal`, and what reaching the registry raises."""
        pairs = from_query(parse_qsl(query, keep_blank_values=True))
        try:
            document = parse(body)
        except MalformedError as error:
            raise Refusal(400, "MALFORMED_REQUEST", str(error), label="registry") from error
        wanted: Document = {"query": pairs, "body": await self._by_files(document)}
        there = await self._there(names(wanted))
        renamed = walk(wanted, lambda item: there.get(item, _same(item)))
        assert isinstance(renamed, dict)
        target = f"{path}?{urlencode(to_query(_object(renamed['query'])))}" if query else path
        sent = write(_object(renamed["body"])) if body else b""
        headers = request_headers(request.headers, forwards_credentials=False)
        headers.popall("Content-Length", None)
        headers["Accept-Encoding"] = "identity"
        reply = await self._registry.exchange(request.method, target, headers, sent)
        back = response_headers(reply.headers, "registry")
        back.popall("Content-Length", None)
        stays_there = match.route.operation == _DOWNLOAD_URI
        answer = await self._translated_back(reply.body, stays_there=stays_there)
        return web.Response(status=reply.status, reason=reply.reason, headers=back, body=answer)

    async def download(self, request: web.BaseRequest, target: str) -> web.StreamResponse:
        """Stream a model version's file; it is named by model and version, which need no translation."""
        return await pass_on(request, self._registry, target, "registry")

    async def _by_files(self, document: Document) -> Document:
        """A version of a model that is files of its run there is registered by where they lie, and by the run."""
        model = named_model(document)
        if model is None:
            return document
        ref = as_ref(model)
        await self._arrived(ref, self._clock.now() + self._wait)
        twin = await self._queue.twin(ref, self._registry.name)
        here = await self._queue.twin(ref, self._primary)
        if twin is None or not twin.is_stand_in or here is None:
            return document
        run = await self._queue.client_ref(EntityKind.RUN, self._registry.name, run_of(twin))
        return by_files(document, run.client_id if run is not None else "", here.root)

    # --- there --------------------------------------------------------------------------------------------------

    async def _there(self, wanted: Iterable[Name | Place]) -> dict[Name | Place, str]:
        """What the registry calls everything that a request names; waits for what is on its way."""
        deadline = self._clock.now() + self._wait
        found: dict[Name | Place, str] = {}
        for item in wanted:
            root = ""
            if isinstance(item, Name):
                ref: Ref | None = as_ref(item)
            else:
                owner = await self._queue.rooted(self._primary, roots_above(item.uri))
                ref, root = (owner.ref, owner.root) if owner is not None else (None, "")
            if ref is None:
                continue
            twin = await self._arrived(ref, deadline)
            if twin is None or twin.is_discarded:
                continue
            if isinstance(item, Name):
                found[item] = twin.backend_id
            elif twin.root:
                found[item] = twin.root + item.uri[len(root) :]
        return found

    async def _arrived(self, ref: Ref, deadline: float) -> Twin | None:
        """Wait until nothing of `ref` is queued for the registry; None when nobody knows it."""
        name = self._registry.name
        awaited, asked = ref, False  # or its experiment, which is placed first
        while True:
            if not await self._queue.is_pending(name, awaited.key):
                twin = await self._queue.twin(ref, name)
                if twin is not None:
                    await self._check_files(ref)
                    return twin
                adopted = None if asked else await self._adopter.adopt(ref, name)
                if adopted is None:
                    return None
                awaited, asked = adopted, adopted == ref
            if self._clock.now() >= deadline:
                raise unavailable(
                    f"the registry is on {name}, and writes of {ref.key} have not all arrived there within"
                    f" {self._wait:.0f} s (registry_wait): {await self._missing(ref)}. `dualtrack status` says why;"
                    " the call can be repeated",
                    retry_after=10,
                    label="registry",
                )
            await self._clock.wait(_LOOK_SECONDS)

    async def _missing(self, ref: Ref) -> str:
        """Name what waits in the lane of `ref`, by operation; the head of it when it is long."""
        lane = Lane(backend=self._registry.name, key=ref.key, attempts=0)
        waiting = Counter(entry.exchange.operation for entry in await self._queue.read(lane, _TOLD_BYTES))
        return ", ".join(f"{count} {operation}" for operation, count in waiting.items()) or "a write in doubt"

    async def _check_files(self, ref: Ref) -> None:
        """Refuse to register what lacks a file there that nobody will send again by itself."""
        cause = await self._queue.has_parked(self._registry.name, ref.key, (UPLOAD, COPY))
        if cause is not None:
            raise unavailable(
                f"the registry is on {self._registry.name}, which refused a file of {ref.key}: {cause}."
                " `dualtrack parked list` shows it; retry it there, then repeat the call",
                retry_after=30,
                label="registry",
            )

    # --- back ---------------------------------------------------------------------------------------------------

    async def _translated_back(self, body: bytes, *, stays_there: bool) -> bytes:
        try:
            document = parse(body)
        except MalformedError:
            return body
        if stays_there:
            document = await self._placed(document)
        back = {item: await self._back(item, stays_there=stays_there) for item in names(document)}
        if all(value == _same(item) for item, value in back.items()):
            return body
        renamed = walk(document, lambda item: back.get(item, _same(item)))
        return write(_object(renamed))

    async def _placed(self, document: Document) -> Document:
        """A download address that names a run or model there, as the root of its files there."""
        found = by_entity(text(document.get("artifact_uri")))
        if found is None or self._roots is None:
            return document
        (named, below), name = found, self._registry.name
        ref = await self._queue.client_ref(named.kind, name, BackendId(named.value))
        twin = await self._queue.twin(ref, name) if ref is not None else None
        return {**document, "artifact_uri": twin.root.rstrip("/") + below} if twin and twin.root else document

    async def _back(self, item: Name | Place, *, stays_there: bool) -> str:
        name = self._registry.name
        if isinstance(item, Name):
            ref = await self._queue.client_ref(item.kind, name, BackendId(item.value))
            return ref.client_id if ref is not None else item.value
        if stays_there and self._roots is not None:
            return await self._roots.shown(item.uri, name)
        owner = await self._queue.rooted(name, roots_above(item.uri))
        here = await self._queue.twin(owner.ref, self._primary) if owner is not None else None
        if owner is None or here is None or not here.root:
            return await self._shown(item.uri, name)
        return await self._shown(here.root + item.uri[len(owner.root) :], self._primary)

    async def _shown(self, uri: str, backend: str) -> str:
        return await self._roots.shown(uri, backend) if self._roots is not None else uri


def _same(item: Name | Place) -> str:
    return item.value if isinstance(item, Name) else item.uri


def _object(node: object) -> Document:
    return node if isinstance(node, dict) else {}
