"""Reads an entity of any backend into a view that can be compared; ids are said as the client says them.

Bounded in memory: a metric's history is read one page at a time, and only its digest is kept unless its points are
asked for, and then a bounded number; files are listed folder by folder, and hashed in chunks. Never writes.
`reconcile/verifier.py` calls it.
"""

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from typing import Protocol

from dualtrack.core.artifact import Listed
from dualtrack.core.exchange import JSON, Document
from dualtrack.core.ids import BackendId, ClientId, EntityKind, Ref, Twin
from dualtrack.core.views import (
    DatasetView,
    ExperimentView,
    FileView,
    History,
    ModelView,
    Point,
    RunView,
    Series,
    Tally,
    history,
    point,
    whole,
)
from dualtrack.ports import ArtifactStore, Queue
from dualtrack.reconcile.reader import Reader
from dualtrack.translate.document import MalformedError, field, objects, parse_inner, text, write
from dualtrack.translate.mlmodel import MAX_BYTES, is_mlmodel, kind_named, parted
from dualtrack.translate.references import HISTORY_TAG, find, sorted_history, walk
from dualtrack.translate.roots import client_uri

MOST_POINTS = 200_000  # of one view, some 50 MB; a history that has no room is known by its digest alone
_SLICE = 500  # points that are added up at once: some milliseconds
_OWN_ROOT = "(its root)"


class Names(Protocol):
    """How to say the ids of one backend in the client's; what reading a view has to know of the id map."""

    backend: str
    is_primary: bool

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
        self.backend = backend
        self.is_primary = is_primary

    async def client_id(self, kind: EntityKind, backend_id: str) -> str:
        if self.is_primary or not backend_id:
            return backend_id
        ref = await self._journal.client_ref(kind, self.backend, BackendId(backend_id))
        if ref is not None:
            return ref.client_id
        # an id of the primary over here was copied, not mirrored, unless it has no other
        twin = await self._journal.twin(Ref(kind, ClientId(backend_id)), self.backend)
        is_copied = twin is not None and not twin.is_discarded and not twin.is_stand_in
        return f"{backend_id}, untranslated" if is_copied else backend_id

    async def is_anothers(self, ref: Ref, root: str) -> bool:
        owner = await self._journal.rooted(self.backend, [root])
        return owner is not None and owner.ref != ref and owner.root == root

    async def is_stand_in(self, model_id: str) -> bool:
        if self.is_primary or not model_id:
            return False
        twin = await self._journal.twin(Ref(EntityKind.MODEL, ClientId(model_id)), self.backend)
        return twin is not None and twin.is_stand_in


class Snapshots:
    """Views of what one backend holds. All raise what reading raises: `RejectedError`, `UnreachableError`, ….

    A `twin` says what the entity is called there; for the primary it is one whose `backend_id` is the client's id.
    `hashes` is by path what is known already: the journal's `artifacts(ref.key)` for the primary, nothing elsewhere.
    """

    def __init__(self, reader: Reader, store: ArtifactStore, names: Names) -> None:
        self._reader = reader
        self._names = names
        self._files = _Files(store, names)

    async def experiment(self, twin: Twin, *, expected_names: tuple[str, ...] = ()) -> ExperimentView | None:
        """Read an experiment; None when it is not there. `expected_names` are kept in the view as it is."""
        found = await self._reader.get(EntityKind.EXPERIMENT, twin.backend_id)
        if found is None:
            return None
        experiment = field(found, "experiment")
        return ExperimentView(
            ref=twin.ref,
            name=text(field(experiment, "name")),
            expected_names=expected_names,
            lifecycle_stage=text(field(experiment, "lifecycle_stage")) or "active",
            tags=_pairs(field(experiment, "tags")),
        )

    async def run(
        self,
        twin: Twin,
        *,
        points_of: Collection[str] = (),
        files: bool = True,
        hashes: Mapping[str, str] | None = None,
        reads_content: bool = False,
    ) -> RunView | None:
        """Read a run; None when it is not there. The points are kept of the metrics `points_of`, `MOST_POINTS` in all.

        Not `files`: its files are not looked at. `reads_content`: each file is read and hashed, but for those whose
        hash is known. An `MLmodel` is always read, as its ids are another on each side.
        """
        found = await self._reader.get(EntityKind.RUN, twin.backend_id)
        if found is None:
            return None
        run = field(found, "run")
        info, data = field(run, "info"), field(run, "data")
        root = text(field(info, "artifact_uri")) or twin.root
        outputs = [each async for each in self._models(field(run, "outputs", "model_outputs"))]
        keys = [text(metric.get("key")) for metric in objects(field(data, "metrics"))]
        return RunView(
            ref=twin.ref,
            experiment_id=await self._names.client_id(EntityKind.EXPERIMENT, text(field(info, "experiment_id"))),
            name=text(field(info, "run_name")),
            status=text(field(info, "status")),
            start_time=_time(field(info, "start_time")),
            end_time=_time(field(info, "end_time")),
            lifecycle_stage=text(field(info, "lifecycle_stage")) or "active",
            user=text(field(info, "user_id")),
            params=_pairs(field(data, "params")),
            tags=await self._tags(objects(field(data, "tags"))),
            metrics=await self._histories(twin.backend_id, keys, points_of),
            inputs=Counter(_dataset(each) for each in objects(field(run, "inputs", "dataset_inputs"))),
            model_inputs=frozenset([name async for name, _ in self._models(field(run, "inputs", "model_inputs"))]),
            outputs=frozenset(outputs),
            models=await self._models_of(twin.backend_id, text(field(info, "experiment_id"))),
            files=await self._files.read(twin.ref, root, hashes or {}, reads_content=reads_content) if files else None,
            is_upserted=not self._names.is_primary and str(twin.backend_id) == str(twin.ref.client_id),
        )

    async def model(
        self, twin: Twin, *, files: bool = True, hashes: Mapping[str, str] | None = None, reads_content: bool = False
    ) -> ModelView | None:
        """Read a logged model, or the files that stand in for it; None when it is not there. Points are always kept."""
        if twin.is_stand_in:
            return await self._stand_in(twin, files=files, reads_content=reads_content)
        found = await self._reader.get(EntityKind.MODEL, twin.backend_id)
        if found is None:
            return None
        info, data = field(found, "model", "info"), field(found, "model", "data")
        root = text(field(info, "artifact_uri")) or twin.root
        return ModelView(
            ref=twin.ref,
            experiment_id=await self._names.client_id(EntityKind.EXPERIMENT, text(field(info, "experiment_id"))),
            name=text(field(info, "name")),
            model_type=text(field(info, "model_type")),
            status=text(field(info, "status")),
            run_id=await self._names.client_id(EntityKind.RUN, text(field(info, "source_run_id"))),
            params=_pairs(field(data, "params")),
            tags=_pairs(field(info, "tags")),
            metrics=await self._series(objects(field(data, "metrics"))),
            files=await self._files.read(twin.ref, root, hashes or {}, reads_content=reads_content) if files else None,
        )

    async def _stand_in(self, twin: Twin, *, files: bool, reads_content: bool) -> ModelView | None:
        if not twin.root:
            return None
        there = await self._files.read(twin.ref, twin.root, {}, reads_content=reads_content) if files else None
        return ModelView(ref=twin.ref, stands_in=True, files=there)

    async def deleted(self, runs: Iterable[Twin]) -> frozenset[str]:
        """Name, by the client's ids, those of `runs` that are deleted."""
        found = {each.ref.client_id: await self._reader.get(EntityKind.RUN, each.backend_id) for each in runs}
        return frozenset(
            name for name, run in found.items() if field(run, "run", "info", "lifecycle_stage") == "deleted"
        )

    # --- parts --------------------------------------------------------------------------------------------------

    async def _histories(self, run_id: str, keys: Iterable[str], points_of: Collection[str]) -> dict[str, History]:
        found: dict[str, History] = {}
        room = MOST_POINTS
        for key in keys:
            found[key] = await self._history(run_id, key, room if key in points_of else 0)
            room -= len(found[key].points or ())
        return found

    async def _history(self, run_id: str, key: str, room: int) -> History:
        tally = Tally(room=room)
        async for page in self._reader.history(run_id, key):
            for start in range(0, len(page), _SLICE):
                tally.add(map(point, page[start : start + _SLICE]))
                await asyncio.sleep(0)  # whole pages are long, and requests of clients are served in between
        return tally.history()

    async def _series(self, metrics: Iterable[Document]) -> dict[Series, History]:
        points: dict[Series, list[Point]] = {}
        for metric in metrics:
            series = Series(
                key=text(metric.get("key")),
                run_id=await self._names.client_id(EntityKind.RUN, text(metric.get("run_id"))),
                dataset_name=text(metric.get("dataset_name")),
                dataset_digest=text(metric.get("dataset_digest")),
            )
            points.setdefault(series, []).append(point(metric))
        return {series: history(listed) for series, listed in points.items()}

    async def _models(self, listed: JSON) -> AsyncIterator[tuple[str, int]]:
        for each in objects(listed):
            yield await self._names.client_id(EntityKind.MODEL, text(each.get("model_id"))), whole(each.get("step", 0))

    async def _models_of(self, run_id: str, experiment_id: str) -> frozenset[str] | None:
        if not await self._reader.has_models():
            return None
        found = await self._reader.models_of(run_id, experiment_id)
        return frozenset([await self._names.client_id(EntityKind.MODEL, each) for each in found])

    async def _tags(self, listed: list[Document]) -> dict[str, str]:
        """Say tags in the client's ids; a history of models without those that are only files here, in one spelling."""
        ids = {each.ref: await self._names.client_id(each.ref.kind, each.ref.client_id) for each in find([*listed])}
        tags = _pairs(walk([*listed], lambda each: ids[each.ref]))
        if HISTORY_TAG in tags:
            tags[HISTORY_TAG] = sorted_history(await self._own_entries(tags[HISTORY_TAG]))
        return {key: value for key, value in tags.items() if (key, value) != (HISTORY_TAG, "[]")}

    async def _own_entries(self, written: str) -> str:
        try:
            entries = objects(parse_inner(written))
        except MalformedError:
            return written
        is_stand_in = {each: await self._names.is_stand_in(each) for each in {_uuid(entry) for entry in entries}}
        if not any(is_stand_in.values()):
            return written
        return write([entry for entry in entries if not is_stand_in[_uuid(entry)]]).decode()


def _uuid(entry: Document) -> str:
    return text(entry.get("model_uuid"))


def _pairs(listed: JSON) -> dict[str, str]:
    return {text(item.get("key")): text(item.get("value")) for item in objects(listed)}


def _time(value: JSON) -> int | None:
    return whole(value) or None


def _dataset(item: Document) -> DatasetView:
    told = {name: text(field(item, "dataset", name)) for name in _DATASET}
    return DatasetView(**told, tags=tuple(sorted(_pairs(item.get("tags")).items())))


_DATASET = ("name", "digest", "source_type", "source", "schema", "profile")


class _Files:
    """The trees of one backend's runs and models."""

    def __init__(self, store: ArtifactStore, names: Names) -> None:
        self._store = store
        self._names = names

    async def read(
        self, ref: Ref, root: str, hashes: Mapping[str, str], *, reads_content: bool
    ) -> dict[str, FileView] | None:
        """List all files below `root`; what another entity owns of it is left out."""
        found: dict[str, FileView] = {}
        folders = [""] if root else []
        while folders:
            for item in await self._store.list(root, folders.pop()):
                if not item.is_dir:
                    found[item.path] = await self._file(root, item, hashes.get(item.path), reads_content=reads_content)
                elif not await self._names.is_anothers(ref, f"{root.rstrip('/')}/{item.path}"):
                    folders.append(item.path)
        return found

    async def _file(self, root: str, item: Listed, known: str | None, *, reads_content: bool) -> FileView:
        if is_mlmodel(item.path) and (item.size is None or item.size <= MAX_BYTES):
            return await self._mlmodel(root, item)
        if known or not reads_content:
            return FileView(size=item.size, sha256=known or None)
        size, digest = 0, hashlib.sha256()
        async for chunk in self._chunks(root, item.path):
            size += len(chunk)
            digest.update(chunk)
        return FileView(size=size, sha256=digest.hexdigest())

    async def _mlmodel(self, root: str, item: Listed) -> FileView:
        content = bytearray()
        async for chunk in self._chunks(root, item.path):
            content += chunk
            if len(content) > MAX_BYTES:  # no MLmodel, whatever its name
                return FileView(size=item.size)
        names, rest = parted(bytes(content))
        said = {entry: await self._said(entry, value, root) for entry, value in names.items()}
        return FileView(size=len(content), sha256=hashlib.sha256(rest).hexdigest(), names=said)

    async def _said(self, entry: str, value: str, root: str) -> str:
        kind = kind_named(entry)
        if kind is not None:
            return await self._names.client_id(kind, value)
        own = root.rstrip("/")
        # a client of the primary writes down the root that it was shown, which is the same but for its spelling
        for spelled in (own, client_uri(own, self._names.backend, self._names.backend)):
            if value == spelled or value.startswith(f"{spelled}/"):
                return _OWN_ROOT + value[len(spelled) :]
        return value

    async def _chunks(self, root: str, path: str) -> AsyncIterator[bytes]:
        async with self._store.fetch(root, path) as fetched:
            if fetched is not None:
                async for chunk in fetched.chunks:
                    yield chunk
