"""Brings over whole what a secondary lacks: a run that began before the proxy, an experiment it never met.

    known by now ─▶ nothing to do      its experiment unknown ─▶ that first
    marked on the secondary ─▶ learn    else ─▶ read the primary, queue what would have made it; a run's models too

What the primary holds already contains every write of that lane acknowledged before the read began, so those are
replaced; later ones follow. A point that is written while the read goes on may be in both; MLflow keeps it once.
"""

import asyncio
from weakref import WeakValueDictionary

import structlog

from dualtrack.core.exchange import Document, Exchange
from dualtrack.core.ids import ClientId, EntityKind, Ref
from dualtrack.errors import RejectedError
from dualtrack.metrics import Metrics
from dualtrack.ports import Journal
from dualtrack.reconcile.reader import Reader
from dualtrack.translate.adoption import experiment_exchanges, model_exchanges, run_exchanges
from dualtrack.translate.document import field, objects, text
from dualtrack.translate.operations import made_by

log = structlog.get_logger("dualtrack.reconcile")

_EXPERIMENT_OF = {
    EntityKind.RUN: ("run", "info", "experiment_id"),
    EntityKind.MODEL: ("model", "info", "experiment_id"),
}


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
        # a lock lives as long as somebody holds or awaits it
        self._busy: WeakValueDictionary[tuple[Ref, str], asyncio.Lock] = WeakValueDictionary()

    async def adopt(self, ref: Ref, backend: str, *, is_own: bool = False) -> bool:
        lock = self._busy.setdefault((ref, backend), asyncio.Lock())
        async with lock:
            if await self._journal.twin(ref, backend) is not None:
                return True
            if not is_own and await self._journal.is_pending(backend, ref.key):
                return True  # somebody else was faster
            return await self._adopt(ref, backend)

    async def _adopt(self, ref: Ref, backend: str) -> bool:
        upto = self._journal.last_seq()
        try:
            found = await self._primary.get(ref.kind, ref.client_id)
        except RejectedError:
            found = None  # what the primary does not take for an id names nothing
        if found is None:
            return False
        if ref.kind is not EntityKind.EXPERIMENT:
            experiment = Ref(EntityKind.EXPERIMENT, ClientId(text(field(found, *_EXPERIMENT_OF[ref.kind]))))
            place = await self._journal.twin(experiment, backend)
            if place is None:
                await self.adopt(experiment, backend)
            elif (mirror := await self._secondaries[backend].find_mirror(ref, place.backend_id)) is not None:
                self._metrics.dedupe_hits.labels(backend, ref.kind).inc()
                await self._journal.learn([mirror])
                return True
        exchanges = await self._tell(ref, found)
        if (made := made_by(exchanges[0], self._source)) is not None:
            await self._journal.learn([made])
        await self._journal.replace(backend, ref.key, upto, exchanges)
        self._metrics.adoptions.labels(backend, ref.kind).inc()
        log.info("reconcile.adopted", backend=backend, entity=ref.key, writes=len(exchanges))
        if ref.kind is EntityKind.RUN:
            experiment_id = text(field(found, *_EXPERIMENT_OF[ref.kind]))
            for model_id in await self._primary.models_of(ref.client_id, experiment_id):
                await self.adopt(Ref(EntityKind.MODEL, ClientId(model_id)), backend)
        return True

    async def _tell(self, ref: Ref, found: Document) -> list[Exchange]:
        match ref.kind:
            case EntityKind.EXPERIMENT:
                return experiment_exchanges(found)
            case EntityKind.MODEL:
                return model_exchanges(found)
            case EntityKind.RUN:
                keys = [text(metric.get("key")) for metric in objects(field(found, "run", "data", "metrics"))]
                histories = await self._primary.histories(ref.client_id, keys)
                return run_exchanges(found, histories.values())
