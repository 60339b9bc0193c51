"""Brings files to one backend: from the spool, or from the primary where no copy was kept.

    upload   spool ──▶ store
             without a copy, or if it was lost: primary ──▶ a file here ──▶ store; gone from there: nothing
    copy     the primary's listing, file by file, folders after
    delete   the same path there

An `MLmodel` names the ids of the side it lies on, so it is translated on its way. Every step may be repeated: a file
is replaced by the same content, and what is gone stays gone.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from weakref import WeakValueDictionary

from dualtrack.core.exchange import Call, Document
from dualtrack.core.ids import BackendId, EntityKind, Ref, Twin, run_of
from dualtrack.core.loss import LossKind
from dualtrack.core.verdict import RETRIED, describe
from dualtrack.errors import RejectedError, UnreachableError
from dualtrack.metrics import Metrics
from dualtrack.ports import ArtifactStore, Backend, Looker, Loss, Queue, Spool
from dualtrack.translate.document import MalformedError, field, objects, parse_inner, text, write
from dualtrack.translate.files import COPY, DELETE, FileWrite
from dualtrack.translate.fitting import Unfit, merged
from dualtrack.translate.mlflow import API
from dualtrack.translate.mlmodel import MAX_BYTES, history_entry, is_mlmodel, references, renamed
from dualtrack.translate.references import HISTORY_TAG
from dualtrack.translate.roots import client_uri, is_hostless

OVERFLOW = "dualtrack/overflow.json"
FILE_GONE = "file_gone"
_CLAIMS = 10_000  # remembered; those of a moment ago are what counts
_INFO = {EntityKind.RUN: "run", EntityKind.MODEL: "model"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """What is needed of a backend whose files are read or written."""

    backend: Backend
    store: ArtifactStore
    looker: Looker


class Files:
    """`source` is the primary; `target` is what this delivers to. `fetches` files are on their way at once, no more."""

    def __init__(
        self, source: Side, target: Side, spool: Spool, queue: Queue, metrics: Metrics, *, fetches: int
    ) -> None:
        self.source = source
        self._target = target
        self._spool = spool
        self._queue = queue
        # files in the spool beyond its bound
        self._fetches = asyncio.Semaphore(fetches)
        self._claimed: dict[str, Ref] = {}
        # a lock lives as long as somebody holds or awaits it
        self._histories: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._bytes = metrics.artifact_bytes.labels(target.backend.name)

    async def deliver(self, told: FileWrite, spooled: str, twin: Twin) -> tuple[Loss, ...]:
        """Do there what `told` says; `spooled` is the copy in the spool, if there is one. Raises `BackendError`.

        `twin` is the run or model there. Answers what could not be given.
        """
        root = await self._root(self._target, twin)
        if not root:
            detail = f"{told.operation} {told.path}: {told.ref.key} has no files there"
            return (Loss(kind=LossKind.FILE, item=told.path, reason="no_place", detail=detail),)
        twin = replace(twin, root=root)
        if told.operation == DELETE:
            if not (told.in_doubt and await self._has(told)):
                await self._target.store.delete(root, told.path)
        elif told.operation == COPY:
            await self._copy(told.ref, told.path, twin)
        else:
            return await self._upload(told, spooled, twin)
        return ()

    async def _upload(self, told: FileWrite, spooled: str, twin: Twin) -> tuple[Loss, ...]:
        """Store a file there: its copy, or in doubt or without one what the primary has now."""
        is_kept = await self._holds(spooled)
        if not is_kept or told.in_doubt:
            try:
                if await self._bring(told.ref, told.path, twin) or not await self._is_missed(told):
                    return ()
            except RejectedError as refusal:
                # nobody may read it at the primary
                if not is_kept or refusal.backend != self.source.backend.name:
                    raise
            if not is_kept:
                detail = f"{told.path} of {told.ref.key}: no copy was kept, and the primary has it no more"
                return (Loss(kind=LossKind.FILE, item=told.path, reason=FILE_GONE, detail=detail),)
        await self._put(told.ref, told.path, twin, spooled)
        return ()

    async def _holds(self, spooled: str) -> bool:
        return bool(spooled) and await self._spool.holds(spooled)

    async def _is_missed(self, told: FileWrite) -> bool:
        """Say whether a file that is nowhere was accepted, and not deleted since through the proxy."""
        known = await self._queue.artifacts(told.ref.key)
        return any(note.path == told.path and note.sha256 for note in known)

    async def release(self, spooled: str) -> None:
        """Let go of a copy, unless somebody else still needs it."""
        if not await self._queue.is_spooled(spooled):
            await self._spool.remove(spooled)

    def history(self, run_id: str) -> asyncio.Lock:
        """Whoever adds a model to a run's history there holds this: the server reads it, appends, and writes it."""
        return self._histories.setdefault(run_id, asyncio.Lock())

    async def copy_all(self, ref: Ref, twin: Twin) -> None:
        """Bring all files of `ref` that clients wrote to the primary's storage by themselves."""
        root = await self._root(self._target, twin)
        if root and not is_hostless(await self._source_root(ref)):
            await self._copy(ref, "", replace(twin, root=root))

    async def claim(self, run_root: str, model: Twin) -> bool:
        """Take its folder of a run for a model that is only files there; False when it holds something else."""
        owner = await self._queue.rooted(self._target.backend.name, [model.root])
        is_free = owner is None or owner.ref == model.ref or owner.root != model.root
        if is_free and not (owner is not None and owner.ref == model.ref):
            is_free = not await self._target.store.list(run_root, model.backend_id.partition("/")[2])
        if len(self._claimed) > _CLAIMS:
            self._claimed.clear()
        # what others claim at this moment is not in the map yet
        return is_free and self._claimed.setdefault(model.root, model.ref) == model.ref

    async def overflow(self, twin: Twin, unfit: Sequence[Unfit]) -> None:
        """Add what a run could not hold to a file of it. A repeat changes nothing; one lane writes, so none is lost."""
        root = await self._root(self._target, twin)
        if not root:
            return
        stored = b""
        async with self._target.store.fetch(root, OVERFLOW) as fetched:
            if fetched is not None:
                stored = b"".join([chunk async for chunk in fetched.chunks])
        content = merged(stored, unfit)
        if content != stored:
            async with self._fetches, self._here(len(content), _once(content)) as here:
                await self._target.store.put(root, OVERFLOW, self._spool.path(here))

    # --- from the primary ---------------------------------------------------------------------------------------

    async def _copy(self, ref: Ref, path: str, twin: Twin) -> None:
        source = await self._source_root(ref)
        if not source:
            return
        folders = []
        for item in await self.source.store.list(source, path):
            if item.is_dir:
                if not await self._is_model(ref, f"{source.rstrip('/')}/{item.path}"):
                    folders.append(item.path)
            else:
                await self._bring(ref, item.path, twin)
        for folder in folders:
            await self._copy(ref, folder, twin)

    async def _is_model(self, ref: Ref, folder: str) -> bool:
        """Say whether a folder of the primary's run is all of a logged model, which is brought over as such."""
        owner = await self._queue.rooted(self.source.backend.name, [folder])
        return owner is not None and owner.ref != ref and owner.root == folder

    async def _bring(self, ref: Ref, path: str, twin: Twin) -> bool:
        """Fetch a file from the primary for the other side; False if it is not there."""
        source = await self._source_root(ref)
        if not source:
            return False
        # its turn comes before the primary is asked: nobody keeps an answer of it waiting
        async with self._fetches, self.source.store.fetch(source, path) as fetched:
            if fetched is None:
                return False
            async with self._here(fetched.size, fetched.chunks) as spooled:
                await self._put(ref, path, twin, spooled)
        return True

    @asynccontextmanager
    async def _here(self, size: int | None, chunks: AsyncIterator[bytes]) -> AsyncIterator[str]:
        """Bytes as a file of the spool, for as long as it is needed. It counts no `_fetches`: two may be nested."""
        file = self._spool.begin(size, transient=True, is_bounded=False)
        try:
            async for chunk in chunks:
                await file.write(chunk)
            spooled = await file.finish()
        except BaseException:
            await file.abandon()
            raise
        try:
            yield spooled.name
        finally:
            await self._spool.remove(spooled.name)

    async def _has(self, told: FileWrite) -> bool:
        source = await self._source_root(told.ref)
        if not source:
            return False
        if await self.source.store.list(source, told.path):
            return True
        async with self.source.store.fetch(source, told.path) as fetched:
            return fetched is not None

    async def _source_root(self, ref: Ref) -> str:
        name = self.source.backend.name
        twin = await self._queue.twin(ref, name)
        return await self._root(self.source, twin or Twin(ref=ref, backend=name, backend_id=BackendId(ref.client_id)))

    async def _root(self, side: Side, twin: Twin) -> str:
        """Where the files of a run or model lie on a side; asked for once if no answer has told it yet."""
        if twin.root or twin.is_stand_in:
            return twin.root
        found = await side.looker.get(twin.ref.kind, twin.backend_id)
        root = text(field(found, _INFO[twin.ref.kind], "info", "artifact_uri")) if found is not None else ""
        if root and side is self._target:
            await self._queue.learn([replace(twin, root=root)])
        return root

    # --- to the backend -----------------------------------------------------------------------------------------

    async def _put(self, ref: Ref, path: str, twin: Twin, spooled: str) -> None:
        content = await self._spool.read(spooled, MAX_BYTES) if is_mlmodel(path) else None
        if content is None:
            await self._target.store.put(twin.root, path, self._spool.path(spooled))
            self._bytes.inc(await self._spool.size(spooled))
            return
        translated = await self._translated(ref, content, twin)
        async with self._here(len(translated), _once(translated)) as here:
            await self._target.store.put(twin.root, path, self._spool.path(here))
        self._bytes.inc(len(translated))
        if twin.is_stand_in and path == "MLmodel":
            await self._tell_history(translated, twin)

    async def _translated(self, ref: Ref, content: bytes, twin: Twin) -> bytes:
        """An MLmodel in the ids of that side; an id that is not there stays what it is."""
        name = self._target.backend.name
        ids = {}
        for named in await asyncio.to_thread(references, content):  # YAML is slow to read
            there = twin if named == ref else await self._queue.twin(named, name)
            if there is not None and not there.is_discarded and not there.is_stand_in:
                ids[named] = there.backend_id
        own, primary = (await self._source_root(ref)).rstrip("/"), self.source.backend.name
        # a client writes down the root that it was shown
        roots = [spelled for spelled in (own, client_uri(own, primary, primary)) if spelled]

        def root(uri: str) -> str:
            above = next((one for one in roots if uri == one or uri.startswith(one + "/")), None)
            return twin.root.rstrip("/") + uri[len(above) :] if above is not None else uri

        return await asyncio.to_thread(renamed, content, ids, root, drops_model_id=twin.is_stand_in)

    async def _tell_history(self, content: bytes, twin: Twin) -> None:
        """Make a model that is files of a run known as one: the run's history names it, once."""
        run_id, path = run_of(twin), twin.backend_id.partition("/")[2]
        entry = await asyncio.to_thread(history_entry, content, run_id, path)
        if entry is None:
            return
        async with self.history(run_id):
            await self._add_history(run_id, entry)

    async def _add_history(self, run_id: str, entry: Document) -> None:
        run = await self._target.looker.get(EntityKind.RUN, run_id)
        tags = {text(tag.get("key")): text(tag.get("value")) for tag in objects(field(run, "run", "data", "tags"))}
        if _names(tags.get(HISTORY_TAG, ""), text(entry.get("model_uuid"))):
            return
        body = write({"run_id": run_id, "model_json": write(entry).decode()})
        call = Call(operation="logModel", method="POST", target=f"{API}/runs/log-model", body=body)
        answer = await self._target.backend.send(call)
        if not answer.is_success:
            is_brief = answer.status >= 500 or answer.status in RETRIED
            error = UnreachableError if is_brief else RejectedError
            raise error(self._target.backend.name, call.operation, describe(answer))


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content


def _names(history: str, model_uuid: str) -> bool:
    try:
        entries = parse_inner(history) if history else []
    except MalformedError:
        return False
    return bool(model_uuid) and any(text(entry.get("model_uuid")) == model_uuid for entry in objects(entries))
