"""Proof that both sides agree, entity by entity, and the writes that make them agree where they do not.

    primary ──view──┐
                    ├─ core.drift.compare ─▶ equal · explained · drift ─▶ translate.repair.plan ─▶ journal entries
    secondary ─view─┘        ▲ losses on record

It reads backends and never writes to one: a repair is a journal entry, delivered by a worker like any other write. What
is still queued is no drift: such an entity is pending, and is neither judged nor mended until it has arrived.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakValueDictionary

import structlog

from dualtrack.core.difference import Difference, DriftKind
from dualtrack.core.drift import AnyView, compare, metrics_in_doubt
from dualtrack.core.exchange import Exchange
from dualtrack.core.ids import BackendId, ClientId, EntityKind, Ref, Twin, parse_key
from dualtrack.core.standing import State
from dualtrack.core.views import ModelView, RunView
from dualtrack.errors import RejectedError
from dualtrack.metrics import Metrics
from dualtrack.ports import Adopter, Clock, Journal, Loss
from dualtrack.reconcile.lister import Lister
from dualtrack.reconcile.snapshot import Snapshots
from dualtrack.reconcile.standings import Standings
from dualtrack.reconcile.traces import Traces
from dualtrack.translate.document import field, text
from dualtrack.translate.mlflow import marks
from dualtrack.translate.names import DEFAULT_EXPERIMENT_ID
from dualtrack.translate.operations import lane_of
from dualtrack.translate.repair import Repair, Unrepaired, marking, plan

log = structlog.get_logger("dualtrack.reconcile")

_LOSSES = 1000  # of one page
_MOMENT_SECONDS = 0.1
_ACTIVE = frozenset({"RUNNING", "SCHEDULED"})
_LOOKS = 50  # for what is under way at the primary
_RUN, _MODEL, _EXPERIMENT = EntityKind.RUN, EntityKind.MODEL, EntityKind.EXPERIMENT


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What to compare: entities by any of their ids, or experiments by id or name; neither is everything.

    `since` leaves out runs that began before, in seconds since the epoch. `content` has all files of the secondary
    read, and those of the primary whose hash is not known from their upload.
    """

    ids: tuple[str, ...] = ()
    experiments: tuple[str, ...] = ()
    since: float | None = None
    content: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """One entity on one secondary."""

    ref: Ref
    backend: str
    state: State
    name: str = ""
    there: str = ""  # its id there, if it has one
    differences: tuple[Difference, ...] = ()
    lanes: frozenset[str] = frozenset()  # in which its writes travel: a model's points go with their runs
    is_active: bool = False  # a run that has not ended

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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Moment:
    """When a comparison began: the journal's number, and the time."""

    seq: int
    at: float


@dataclass(frozen=True, slots=True)
class _Pair:
    """Both views, of one kind, as far as they are there."""

    here: Any
    there: Any

    def with_files_of(self, other: "_Pair") -> "_Pair":
        """Take over what was read once and need not be read again: files, and a run's traces."""
        pairs = ((self.here, other.here), (self.there, other.there))
        return _Pair(*(replace(one, **_read_once(two)) if one and two else one for one, two in pairs))


@dataclass(frozen=True, slots=True, kw_only=True)
class _How:
    """What to read of an entity besides its fields: the points of some metrics, its files, and what is in them."""

    points_of: frozenset[str] = frozenset()
    files: bool = True
    content: bool = False


def _read_once(view: RunView | ModelView) -> dict[str, Any]:
    return {"files": view.files} | ({"traces": view.traces} if isinstance(view, RunView) else {})


class Verifier:
    """`snapshots` and `traces` are of every backend by its name, `lister` of the primary, called `source`.

    `expected_names` says what an experiment of the primary may be called on a backend.
    """

    def __init__(
        self,
        journal: Journal,
        source: str,
        lister: Lister,
        snapshots: Mapping[str, Snapshots],
        traces: Mapping[str, Traces],
        adopter: Adopter,
        expected_names: Callable[[str, str, Ref], tuple[str, ...]],
        standings: Standings,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._journal = journal
        self._source = source
        self._lister = lister
        self._snapshots = snapshots
        self._traces = traces
        self._adopter = adopter
        self._expected_names = expected_names
        self._standings = standings
        # a lock lives as long as somebody holds or awaits it
        self._busy: WeakValueDictionary[tuple[Ref, str], asyncio.Lock] = WeakValueDictionary()
        self._clock = clock
        self._metrics = metrics
        secondaries = [name for name in snapshots if name != source]
        metrics.at_zero(metrics.verified, secondaries, State)
        metrics.at_zero(metrics.drift, secondaries, DriftKind)
        metrics.at_zero(metrics.drifting, secondaries, EntityKind)

    # --- one entity -----------------------------------------------------------------------------------------------

    async def check(self, ref: Ref, backend: str, *, content: bool = False) -> Checked:
        """Compare one entity, with `content` its files byte by byte. Raises what reading the two backends raises."""
        checked, _ = await self._compared(ref, backend, self._now(), content=content)
        return checked

    async def _compared(self, ref: Ref, backend: str, moment: _Moment, *, content: bool) -> tuple[Checked, _Pair]:
        checked, pair = await self._look(ref, backend, moment, content=content)
        state, drift = checked.state, checked.drift
        self._standings.compared(ref, backend, moment.at, state, drift=len(drift), name=checked.name)
        self._metrics.verified.labels(backend, state).inc()
        for each in drift:
            self._metrics.drift.labels(backend, each.kind).inc()
        return checked, pair

    def _now(self) -> _Moment:
        """What changes from here on is newer than what is read from here on."""
        return _Moment(seq=self._journal.last_seq(), at=self._clock.now())

    async def _look(self, ref: Ref, backend: str, moment: _Moment, *, content: bool) -> tuple[Checked, _Pair]:
        twin = await self._journal.twin(ref, backend)
        if twin is not None and twin.is_discarded:
            return Checked(ref=ref, backend=backend, state=State.DISCARDED), _Pair(None, None)
        there_id = twin.backend_id if twin is not None else ""
        pending = (
            Checked(ref=ref, backend=backend, state=State.PENDING, there=there_id, lanes=frozenset({ref.key})),
            _Pair(None, None),
        )
        if await self._journal.is_pending(backend, ref.key):
            return pending
        losses = await self._losses(ref, backend)
        pair = await self._with_traces(await self._pair(ref, backend, twin, _How(content=content)), twin)
        differences = compare(pair.here, pair.there, losses)
        if doubtful := metrics_in_doubt(differences):
            again = await self._pair(ref, backend, twin, _How(points_of=doubtful, files=False))
            pair = again.with_files_of(pair)
            # there may be very many points, and clients are served by this loop
            differences = await asyncio.to_thread(compare, pair.here, pair.there, losses)
        state, lanes = _state_of(differences), _lanes(ref, pair)
        if state is State.DRIFT and not await self._is_still(lanes, backend, moment):
            return pending
        one = pair.here or pair.there
        checked = Checked(
            ref=ref,
            backend=backend,
            state=state,
            name=one.name if one is not None else "",
            there=there_id,
            differences=differences,
            lanes=lanes,
            is_active=isinstance(pair.here, RunView) and pair.here.status in _ACTIVE,
        )
        return checked, pair

    async def _is_still(self, lanes: frozenset[str], backend: str, moment: _Moment) -> bool:
        """Say whether the sides differ, and not only were read while something was on its way.

        A write reaches the primary a moment before the journal is told that it was accepted: such moments are waited
        out. To mend what is on its way anyway would write it twice.
        """
        upto = self._journal.last_seq()
        for _ in range(_LOOKS):
            if not any(self._journal.may_grow(key, upto) for key in lanes):
                break
            await self._clock.wait(_MOMENT_SECONDS)
        else:
            return False
        for key in lanes:
            if await self._journal.is_pending(backend, key):
                return False
        return not self._has_moved(lanes, backend, moment)

    def _has_moved(self, lanes: frozenset[str], backend: str, moment: _Moment) -> bool:
        """Say whether anything of these lanes was acknowledged, or arrived, since then. Never waits."""
        arrived = (self._standings.of(parse_key(key), backend) for key in lanes)
        has_arrived = any(standing is not None and (standing.changed_at or 0.0) >= moment.at for standing in arrived)
        return has_arrived or any(self._journal.has_grown(key, moment.seq) for key in lanes)

    async def _pair(self, ref: Ref, backend: str, twin: Twin | None, how: _How) -> _Pair:
        own = Twin(ref=ref, backend=self._source, backend_id=BackendId(ref.client_id))
        hashes = {note.path: note.sha256 for note in await self._journal.artifacts(ref.key) if note.sha256}
        here, there = self._snapshots[self._source], self._snapshots[backend]
        match ref.kind:
            case EntityKind.RUN:
                mine = self._marked(await _run(here, own, how, hashes))
                return _Pair(mine, await _run(there, twin, how, {}) if twin is not None else None)
            case EntityKind.MODEL:
                model = self._marked(await here.model(own, files=how.files, hashes=hashes, reads_content=how.content))
                other = (
                    await there.model(twin, files=how.files, reads_content=how.content) if twin is not None else None
                )
                return _Pair(model, other)
            case EntityKind.EXPERIMENT:  # pragma: no branch - there is no fourth kind
                experiment = self._marked(await here.experiment(own))
                expected = self._expected_names(backend, experiment.name, ref) if experiment is not None else ()
                theirs = await there.experiment(twin, expected_names=expected) if twin is not None else None
                return _Pair(experiment, theirs)

    async def _with_traces(self, pair: _Pair, twin: Twin | None) -> _Pair:
        """Read a run's traces if both sides have any; the secondary is asked first, as some have none at all."""
        mine, theirs = pair.here, pair.there
        if twin is None or not (isinstance(mine, RunView) and isinstance(theirs, RunView)):
            return pair
        experiment = Ref(_EXPERIMENT, ClientId(mine.experiment_id))
        place = await self._journal.twin(experiment, twin.backend)
        there = await self._traces[twin.backend].of(twin.backend_id, place.backend_id) if place is not None else None
        if there is None:
            return pair
        here = await self._traces[self._source].of(mine.ref.client_id, mine.experiment_id)
        return _Pair(replace(mine, traces=here), replace(theirs, traces=there))

    def _marked(self, view: AnyView | None) -> AnyView | None:
        """Say the primary's view as a mirror has to say it: with the marks by which that is found again."""
        if view is None:
            return None
        ours = {text(tag["key"]): text(tag["value"]) for tag in marks(view.ref, self._source)}
        return replace(view, tags={**view.tags, **ours})

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
        async for ref in self.refs(scope, backend):
            yield await self.check(ref, backend, content=scope.content)

    async def refs(self, scope: Scope, backend: str) -> AsyncIterator[Ref]:
        for some_id in scope.ids:
            yield await self._named(some_id)
        if scope.ids and not scope.experiments:
            return
        async for experiment_id in self.experiments(scope.experiments):
            async for ref in self.refs_in(experiment_id, backend, since=scope.since):
                yield ref

    async def refs_in(
        self, experiment_id: str, backend: str, *, since: float | None = None, models: bool = True
    ) -> AsyncIterator[Ref]:
        """List an experiment and what is in it: runs that began after `since`; logged models have no such time."""
        experiment = Ref(_EXPERIMENT, ClientId(experiment_id))
        # every server has a default experiment; one that nobody used is nowhere else
        if experiment_id != DEFAULT_EXPERIMENT_ID or await self._journal.twin(experiment, backend) is not None:
            yield experiment
        async for runs in self._lister.runs(experiment_id, since=since):
            for run in runs:
                yield Ref(_RUN, ClientId(text(field(run, "info", "run_id"))))
        if not models:
            return
        async for page in self._lister.models(experiment_id):
            for model in page:
                yield Ref(_MODEL, ClientId(text(field(model, "info", "model_id"))))

    async def _named(self, some_id: str) -> Ref:
        """Find an entity by any of its ids; one that the map does not know is a run of the primary."""
        twins = await self._journal.find(some_id)
        return twins[0].ref if twins else Ref(_RUN, ClientId(some_id))

    async def experiments(self, names: Sequence[str] = ()) -> AsyncIterator[str]:
        """List experiments of the primary by their ids: those of these names or ids, or all."""
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

    async def mend(
        self,
        ref: Ref,
        backend: str,
        *,
        dry_run: bool = False,
        content: bool = False,
        only: tuple[Difference, ...] | None = None,
    ) -> Mended:
        """Queue what makes one entity agree; with `dry_run` only say what that would be.

        With `only` nothing is queued unless exactly this is what drifts. What was acknowledged while we read is newer
        than what we read: then nothing is queued either, and the entity is pending.
        """
        lock = self._busy.setdefault((ref, backend), asyncio.Lock())
        async with lock:  # two at once would both queue what neither has yet
            moment = self._now()
            checked, pair = await self._compared(ref, backend, moment, content=content)
            if checked.state is not State.DRIFT or (only is not None and checked.drift != only):
                return Mended(checked=checked)
            if ref.kind is _MODEL:
                pair = await self._with_deleted_runs(pair, backend)
            repair = await asyncio.to_thread(plan, pair.here, pair.there, checked.differences)
            if not dry_run and not await self._queue(repair, checked, moment):
                return Mended(checked=replace(checked, state=State.PENDING, differences=()))
        return Mended(
            checked=checked,
            operations=tuple(exchange.operation for exchange in repair.exchanges),
            adopted=repair.adopts,
            unrepaired=repair.unrepaired,
        )

    async def _with_deleted_runs(self, pair: _Pair, backend: str) -> _Pair:
        """Say of a model which runs its points cannot go to as they are."""
        if pair.here is None or pair.there is None:
            return pair
        runs = [Ref(_RUN, ClientId(each)) for each in sorted({series.run_id for series in pair.here.metrics})]
        mine = [Twin(ref=each, backend=self._source, backend_id=BackendId(each.client_id)) for each in runs]
        theirs = [twin for each in runs if (twin := await self._journal.twin(each, backend)) is not None]
        deleted = await self._snapshots[self._source].deleted(mine), await self._snapshots[backend].deleted(theirs)
        return _Pair(
            *(replace(view, deleted_runs=each) for view, each in zip((pair.here, pair.there), deleted, strict=True))
        )

    async def _queue(self, repair: Repair, checked: Checked, moment: _Moment) -> bool:
        """Queue a repair; say whether it was, or something newer came in between."""
        backend, ref = checked.backend, checked.ref
        for adopted in repair.adopts:
            if adopted == ref and await self._journal.twin(ref, backend) is not None:
                # the backend says that it is not there: deleted for good, and the id in the map leads nowhere
                await self._journal.forget(ref, backend)
            if await self._adopter.adopt(adopted, backend) not in {adopted, None}:
                # its experiment has to be there first: whoever delivers this finds it missing then, and adopts it
                await self._journal.append(backend, adopted.key, [marking(adopted, self._source)])
            self._metrics.repairs.labels(backend, "adopt").inc()
        # between this and the first line of `append`, which takes the numbers, nothing is awaited
        if repair.exchanges and self._has_moved(checked.lanes, backend, moment):
            return False
        for key, exchanges in _by_lane(repair, ref).items():
            if self._has_moved(frozenset({key}), backend, moment):
                return False  # while another lane's were queued
            await self._journal.append(backend, key, exchanges)
            for exchange in exchanges:
                self._metrics.repairs.labels(backend, exchange.operation).inc()
        if repair.exchanges or repair.adopts:
            log.info("reconcile.repaired", backend=backend, entity=ref.key, writes=len(repair.exchanges))
        return True

    async def mends(self, scope: Scope, backend: str, *, dry_run: bool = False) -> AsyncIterator[Mended]:
        """Mend all of a scope, an experiment before what is in it."""
        async for ref in self.refs(scope, backend):
            yield await self.mend(ref, backend, dry_run=dry_run, content=scope.content)


def _by_lane(repair: Repair, ref: Ref) -> dict[str, list[Exchange]]:
    """Sort a repair's writes into their lanes, in order within each."""
    found: dict[str, list[Exchange]] = {}
    for exchange in repair.exchanges:
        found.setdefault(lane_of(exchange) or ref.key, []).append(exchange)
    return found


def _lanes(ref: Ref, pair: _Pair) -> frozenset[str]:
    """Where writes about an entity travel: a model's points in the lanes of their runs."""
    views = [view for view in (pair.here, pair.there) if isinstance(view, ModelView)]
    runs = {series.run_id for view in views for series in view.metrics if series.run_id}
    return frozenset({ref.key, *(f"{_RUN}:{run_id}" for run_id in runs)})


def _state_of(differences: Sequence[Difference]) -> State:
    if any(each.is_drift for each in differences):
        return State.DRIFT
    return State.EQUAL if all(each.is_of_any_mirror for each in differences) else State.EXPLAINED


async def _run(side: Snapshots, twin: Twin, how: _How, hashes: dict[str, str]) -> RunView | None:
    """Read a run; one whose files nobody here can reach is compared without them."""
    try:
        return await side.run(twin, points_of=how.points_of, files=how.files, hashes=hashes, reads_content=how.content)
    except RejectedError as error:
        log.warning("verify.files_not_read", entity=twin.ref.key, backend=twin.backend, reason=str(error))
        return await side.run(twin, points_of=how.points_of, files=False)
