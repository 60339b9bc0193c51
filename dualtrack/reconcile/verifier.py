"""Proof that both sides agree, entity by entity, and the writes that make them agree where they do not.

    primary ──view──┐
                    ├─ core.drift.compare ─▶ equal · explained · drift ─▶ translate.repair.plan ─▶ journal entries
    secondary ─view─┘        ▲ losses on record

It reads backends and never writes to one: a repair is a journal entry, delivered by a worker like any other write. What
is still queued is no drift: such an entity is pending, and is neither judged nor mended until it has arrived.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import structlog

from dualtrack.core.difference import Difference
from dualtrack.core.drift import compare, metrics_in_doubt
from dualtrack.core.ids import BackendId, ClientId, EntityKind, Ref, Twin
from dualtrack.core.views import RunView
from dualtrack.errors import RejectedError
from dualtrack.metrics import Metrics
from dualtrack.ports import Adopter, Journal, Loss
from dualtrack.reconcile.lister import Lister
from dualtrack.reconcile.snapshot import Snapshots
from dualtrack.translate.document import field, text
from dualtrack.translate.names import DEFAULT_EXPERIMENT_ID
from dualtrack.translate.operations import lane_of
from dualtrack.translate.repair import Repair, Unrepaired, plan

log = structlog.get_logger("dualtrack.reconcile")

_LOSSES = 1000  # of one page
_RUN, _MODEL, _EXPERIMENT = EntityKind.RUN, EntityKind.MODEL, EntityKind.EXPERIMENT


class State(StrEnum):
    """What the comparison of one entity comes to."""

    EQUAL = "equal"
    EXPLAINED = "explained"  # different only by what is on record or cannot be otherwise
    DRIFT = "drift"
    PENDING = "pending"  # writes are on their way
    DISCARDED = "discarded"  # an operator left it out


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What to compare: entities by any of their ids, or experiments by id or name; neither is everything.

    `since` leaves out runs that began before, in seconds since the epoch.
    """

    ids: tuple[str, ...] = ()
    experiments: tuple[str, ...] = ()
    since: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """One entity on one secondary."""

    ref: Ref
    backend: str
    state: State
    name: str = ""
    there: str = ""  # its id there, if it has one
    differences: tuple[Difference, ...] = ()

    @property
    def drift(self) -> tuple[Difference, ...]:
        return tuple(each for each in self.differences if each.is_drift)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mended:
    """What was queued for an entity, or would be: how many writes, what comes over whole, what nothing mends."""

    checked: Checked
    operations: tuple[str, ...] = ()
    adopted: tuple[Ref, ...] = ()
    unrepaired: tuple[Unrepaired, ...] = ()


@dataclass(frozen=True, slots=True)
class _Pair:
    """Both views, of one kind, as far as they are there."""

    here: Any
    there: Any


class Verifier:
    """`snapshots` are of every backend by its name, `lister` of the primary, called `source`.

    `expected_name` says what an experiment of the primary should be called on a backend.
    """

    def __init__(
        self,
        journal: Journal,
        source: str,
        lister: Lister,
        snapshots: Mapping[str, Snapshots],
        adopter: Adopter,
        expected_name: Callable[[str, str, Ref], str],
        metrics: Metrics,
    ) -> None:
        self._journal = journal
        self._source = source
        self._lister = lister
        self._snapshots = snapshots
        self._adopter = adopter
        self._expected_name = expected_name
        self._metrics = metrics

    # --- one entity -----------------------------------------------------------------------------------------------

    async def check(self, ref: Ref, backend: str) -> Checked:
        """Compare one entity. Raises what reading the two backends raises."""
        checked, _ = await self._compared(ref, backend)
        self._metrics.verified.labels(backend, checked.state).inc()
        for each in checked.drift:
            self._metrics.drift.labels(backend, each.kind).inc()
        return checked

    async def _compared(self, ref: Ref, backend: str) -> tuple[Checked, _Pair]:
        twin = await self._journal.twin(ref, backend)
        if twin is not None and twin.is_discarded:
            return Checked(ref=ref, backend=backend, state=State.DISCARDED), _Pair(None, None)
        there_id = twin.backend_id if twin is not None else ""
        if await self._journal.is_pending(backend, ref.key):
            return Checked(ref=ref, backend=backend, state=State.PENDING, there=there_id), _Pair(None, None)
        losses = await self._losses(ref, backend)
        pair = await self._pair(ref, backend, twin)
        differences = compare(pair.here, pair.there, losses)
        if doubtful := metrics_in_doubt(differences):
            pair = await self._pair(ref, backend, twin, points_of=doubtful)
            differences = compare(pair.here, pair.there, losses)
        state = State.EQUAL
        if differences:
            state = State.DRIFT if any(each.is_drift for each in differences) else State.EXPLAINED
        one = pair.here or pair.there
        name = one.name if one is not None else ""
        checked = Checked(ref=ref, backend=backend, state=state, name=name, there=there_id, differences=differences)
        return checked, pair

    async def _pair(self, ref: Ref, backend: str, twin: Twin | None, points_of: frozenset[str] = frozenset()) -> _Pair:
        own = Twin(ref=ref, backend=self._source, backend_id=BackendId(ref.client_id))
        hashes = {note.path: note.sha256 for note in await self._journal.artifacts(ref.key) if note.sha256}
        here, there = self._snapshots[self._source], self._snapshots[backend]
        match ref.kind:
            case EntityKind.RUN:
                mine = await _run(here, own, points_of, hashes)
                return _Pair(mine, await _run(there, twin, points_of, {}) if twin is not None else None)
            case EntityKind.MODEL:
                model = await here.model(own, hashes=hashes)
                return _Pair(model, await there.model(twin) if twin is not None else None)
            case EntityKind.EXPERIMENT:  # pragma: no branch - there is no fourth kind
                experiment = await here.experiment(own)
                expected = self._expected_name(backend, experiment.name, ref) if experiment is not None else ""
                theirs = await there.experiment(twin, expected_name=expected) if twin is not None else None
                return _Pair(experiment, theirs)

    async def _losses(self, ref: Ref, backend: str) -> list[Loss]:
        found: list[Loss] = []
        before: int | None = None
        while True:
            page = await self._journal.losses(ref.key, backend=backend, before=before, limit=_LOSSES)
            found += [each.loss for each in page]
            if len(page) < _LOSSES:
                return found
            before = page[-1].loss_id

    # --- many -----------------------------------------------------------------------------------------------------

    async def checks(self, scope: Scope, backend: str) -> AsyncIterator[Checked]:
        """Compare all of a scope, an experiment before what is in it. Raise `RejectedError` for what is not there."""
        async for ref in self._refs(scope, backend):
            yield await self.check(ref, backend)

    async def _refs(self, scope: Scope, backend: str) -> AsyncIterator[Ref]:
        for some_id in scope.ids:
            yield await self._named(some_id)
        if scope.ids and not scope.experiments:
            return
        async for experiment_id in self._experiments(scope.experiments):
            experiment = Ref(_EXPERIMENT, ClientId(experiment_id))
            # every server has a default experiment; one that nobody used is nowhere else
            if experiment_id != DEFAULT_EXPERIMENT_ID or await self._journal.twin(experiment, backend) is not None:
                yield experiment
            async for runs in self._lister.runs(experiment_id, since=scope.since):
                for run in runs:
                    yield Ref(_RUN, ClientId(text(field(run, "info", "run_id"))))
            async for models in self._lister.models(experiment_id):
                for model in models:
                    yield Ref(_MODEL, ClientId(text(field(model, "info", "model_id"))))

    async def _named(self, some_id: str) -> Ref:
        """Find an entity by any of its ids; one that the map does not know is a run of the primary."""
        twins = await self._journal.find(some_id)
        return twins[0].ref if twins else Ref(_RUN, ClientId(some_id))

    async def _experiments(self, names: Sequence[str]) -> AsyncIterator[str]:
        for name in names:
            found = await self._lister.experiment(name)
            if found is None:
                raise RejectedError(self._source, "verify", f"there is no experiment {name!r}")
            yield text(found.get("experiment_id"))
        if names:
            return
        async for page in self._lister.experiments():
            for experiment in page:
                yield text(experiment.get("experiment_id"))

    # --- repairs --------------------------------------------------------------------------------------------------

    async def mend(self, ref: Ref, backend: str, *, dry_run: bool = False) -> Mended:
        """Queue what makes one entity agree; with `dry_run` only say what that would be."""
        checked, pair = await self._compared(ref, backend)
        if checked.state is not State.DRIFT:
            return Mended(checked=checked)
        repair = plan(pair.here, pair.there, checked.differences)
        if not dry_run:
            await self._queue(repair, ref, backend)
        return Mended(
            checked=checked,
            operations=tuple(exchange.operation for exchange in repair.exchanges),
            adopted=repair.adopts,
            unrepaired=repair.unrepaired,
        )

    async def _queue(self, repair: Repair, ref: Ref, backend: str) -> None:
        for adopted in repair.adopts:
            await self._adopter.adopt(adopted, backend)
            self._metrics.repairs.labels(backend, "adopt").inc()
        for exchange in repair.exchanges:
            await self._journal.append(backend, lane_of(exchange) or ref.key, [exchange])
            self._metrics.repairs.labels(backend, exchange.operation).inc()
        if repair.exchanges or repair.adopts:
            log.info("reconcile.repaired", backend=backend, entity=ref.key, writes=len(repair.exchanges))

    async def mends(self, scope: Scope, backend: str, *, dry_run: bool = False) -> AsyncIterator[Mended]:
        """Mend all of a scope, an experiment before what is in it."""
        async for ref in self._refs(scope, backend):
            yield await self.mend(ref, backend, dry_run=dry_run)


async def _run(side: Snapshots, twin: Twin, points_of: frozenset[str], hashes: dict[str, str]) -> RunView | None:
    """Read a run; one whose files nobody here can reach is compared without them."""
    try:
        return await side.run(twin, points_of=points_of, hashes=hashes)
    except RejectedError as error:
        log.warning("verify.files_not_read", entity=twin.ref.key, backend=twin.backend, reason=str(error))
        return await side.run(twin, points_of=points_of, files=False)
