"""Brings over whole what a secondary lacks: a run that began before the proxy, an experiment it never met.

    known by now ─▶ nothing to do      its experiment has no place yet ─▶ that first; whoever asked waits for it
    marked on the secondary ─▶ learn    else ─▶ read the primary, queue what would have made it; a run's models too

A mark can be looked for only in an experiment whose place is known. The alternative that lost: to queue the experiment
and the run together, which after a lost journal made a second run beside the one that was there.

What the primary holds already contains every write of that lane acknowledged before the read began, so those are
replaced; later ones follow. A point that is written while the read goes on may be in both; MLflow keeps it once.
A history is read page by page, and each page becomes exchanges at once: a run's points are held as bytes, never as
one list of objects.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from weakref import WeakValueDictionary

import structlog

from dualtrack.core.exchange import Document, Exchange
from dualtrack.core.ids import BackendId, ClientId, EntityKind, Ref, Twin
from dualtrack.errors import RejectedError
from dualtrack.metrics import Metrics
from dualtrack.ports import Journal
from dualtrack.reconcile.album import Album
from dualtrack.reconcile.reader import Reader
from dualtrack.translate.adoption import METRICS, experiment_exchanges, metric_exchanges, model_exchanges, run_exchanges
from dualtrack.translate.document import field, objects, text
from dualtrack.translate.operations import learn, made_by

log = structlog.get_logger("dualtrack.reconcile")

_EXPERIMENT_OF = {
    EntityKind.RUN: ("run", "info", "experiment_id"),
    EntityKind.MODEL: ("model", "info", "experiment_id"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What whoever brings over many sees to by itself: False leaves it out.

    `marks`: a mark may be there, look for it. `models`: a run's models come along. `deletion`: a deleted experiment is
    deleted there as well; no run can be made in it after that. `album` holds histories that were read already.
    """

    marks: bool = True
    models: bool = True
    deletion: bool = True
    album: Album | None = None


ALL = Terms()


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopted:
    """What to wait for, as `Adopter.adopt` answers it; `was_there` says that its mark was found, nothing is queued."""

    ref: Ref | None
    was_there: bool = False


class WholeAdopter:
    """The Adopter port; `source` is the primary's name. Two callers who need the same entity share one adoption."""

    def __init__(
        self, journal: Journal, source: str, primary: Reader, secondaries: dict[str, Reader], metrics: Metrics
    ) -> None:
        self._journal = journal
        self._source = source
        self._primary = primary
        self._secondaries = secondaries
        self._metrics = metrics
        metrics.at_zero(metrics.adoptions, (name for name in secondaries if name != source), EntityKind)
        # a lock lives as long as somebody holds or awaits it
        self._busy: WeakValueDictionary[tuple[Ref, str], asyncio.Lock] = WeakValueDictionary()

    async def adopt(self, ref: Ref, backend: str, *, is_own: bool = False) -> Ref | None:
        return (await self.bring(ref, backend, is_own=is_own)).ref

    async def bring(self, ref: Ref, backend: str, *, is_own: bool = False, terms: Terms = ALL) -> Adopted:
        """Adopt, on `terms`."""
        lock = self._busy.setdefault((ref, backend), asyncio.Lock())
        async with lock:
            # in this order: a create that is delivered meanwhile leaves its lane and has its id at once
            is_pending = not is_own and await self._journal.is_pending(backend, ref.key)
            if is_pending or await self._journal.twin(ref, backend) is not None:
                return Adopted(ref=ref)  # there, or somebody else was faster
            return await self._adopt(ref, backend, terms)

    async def _adopt(self, ref: Ref, backend: str, terms: Terms) -> Adopted:
        upto = self._journal.last_seq() if terms.album is None else terms.album.upto
        try:
            found = await self._primary.get(ref.kind, ref.client_id)
        except RejectedError:
            found = None  # what the primary does not take for an id names nothing
        if found is None:
            return Adopted(ref=None)
        if ref.kind is not EntityKind.EXPERIMENT:
            experiment = Ref(EntityKind.EXPERIMENT, ClientId(text(field(found, *_EXPERIMENT_OF[ref.kind]))))
            place = await self._journal.twin(experiment, backend)
            if place is None:
                return await self.bring(experiment, backend)
            if await self._is_settled(ref, found, place, terms):
                return Adopted(ref=ref, was_there=True)
        exchanges = await self._tell(ref, found, terms)
        if (made := made_by(exchanges[0], self._source)) is not None:
            await self._journal.learn([made])
        await self._journal.replace(backend, ref.key, upto, exchanges)
        self._metrics.adoptions.labels(backend, ref.kind).inc()
        log.info("reconcile.adopted", backend=backend, entity=ref.key, writes=len(exchanges))
        if ref.kind is EntityKind.RUN and terms.models:
            experiment_id = text(field(found, *_EXPERIMENT_OF[ref.kind]))
            for model_id in await self._primary.models_of(ref.client_id, experiment_id):
                await self.bring(Ref(EntityKind.MODEL, ClientId(model_id)), backend)
        return Adopted(ref=ref)

    async def _is_settled(self, ref: Ref, found: Document, place: Twin, terms: Terms) -> bool:
        """Say whether nothing has to be made: the mirror is there already, or its experiment was discarded."""
        if place.is_discarded:
            await self._journal.learn([Twin(ref=ref, backend=place.backend, backend_id=BackendId(""))])
            return True
        if not terms.marks:
            return False
        mirror = await self._secondaries[place.backend].find_mirror(ref, place.backend_id)
        if mirror is None:
            return False
        self._metrics.dedupe_hits.labels(place.backend, ref.kind).inc()
        ours = learn(ref.kind, ref, self._source, found)
        await self._journal.learn([mirror] if ours is None else [mirror, ours])
        return True

    async def _tell(self, ref: Ref, found: Document, terms: Terms) -> list[Exchange]:
        match ref.kind:
            case EntityKind.EXPERIMENT:
                return experiment_exchanges(found, with_deletion=terms.deletion)
            case EntityKind.MODEL:
                return model_exchanges(found)
            case EntityKind.RUN:
                keys = [text(metric.get("key")) for metric in objects(field(found, "run", "data", "metrics"))]
                points = [told async for page in self._points(ref.client_id, keys, terms.album) for told in page]
                return run_exchanges(found, points)

    async def _points(self, run_id: str, keys: Sequence[str], album: Album | None) -> AsyncIterator[list[Exchange]]:
        """Tell all points of a run; short histories share an exchange."""
        waiting: list[Document] = []
        for key in keys:
            async for page in self._history(run_id, key, album):
                waiting += page
                whole = len(waiting) - len(waiting) % METRICS
                yield metric_exchanges(run_id, waiting[:whole])
                del waiting[:whole]
        yield metric_exchanges(run_id, waiting)

    async def _history(self, run_id: str, key: str, album: Album | None) -> AsyncIterator[list[Document]]:
        known = album.history(run_id, key) if album is not None else []
        if known:
            yield known
            return
        async for page in self._primary.history(run_id, key):
            yield page
