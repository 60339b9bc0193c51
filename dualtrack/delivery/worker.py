"""One lane's turn: read its head, plan, and for each step translate, send, judge, record.

A step's outcome is committed before the next one starts, so a crash repeats at most one step, and each step is either
idempotent or looked for before it is sent again.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import structlog

from dualtrack.core.coalesce import Batch, halve
from dualtrack.core.entry import Entry
from dualtrack.core.exchange import JSON, Answer, Call, Document, Exchange, Observed
from dualtrack.core.ids import BackendId, ClientId, EntityKind, Ref, Twin, parse_key, stand_in
from dualtrack.core.limits import BatchLimits
from dualtrack.core.loss import LossKind
from dualtrack.core.verdict import (
    Bisect,
    Delivered,
    LookAgain,
    Park,
    Retry,
    RetryPolicy,
    Verdict,
    describe,
    judge,
    lacks_route,
    retry,
    wait_before,
)
from dualtrack.delivery.doubts import Doubts
from dualtrack.delivery.experiments import Experiments
from dualtrack.delivery.files import FILE_GONE, OVERFLOW, Files
from dualtrack.delivery.outcome import Done, Later, Outcome, Rewritten, WaitFor
from dualtrack.delivery.plan import BatchStep, FilesStep, SingleStep, Step, UnreadableStep, plan
from dualtrack.delivery.resolver import Awaited, Discarded, Known, Resolver
from dualtrack.errors import BackendError, RejectedError, SpoolError, UnauthorizedError, UnreachableError
from dualtrack.metrics import Metrics
from dualtrack.ports import Backend, Clock, Lane, Looker, Loss, Parking, Progress, Queue
from dualtrack.translate.document import field, parse, parse_answer, text, write
from dualtrack.translate.doubt import models_named, sent_metrics, still_to_send, unread
from dualtrack.translate.evidence import metric_keys, shows
from dualtrack.translate.files import file_write
from dualtrack.translate.fitting import Fitter, Unfit, is_full, limit_in, over_count
from dualtrack.translate.mlflow import (
    API,
    Twins,
    batch_call,
    batch_document,
    batch_references,
    references,
    translate,
)
from dualtrack.translate.operations import Reading, learn, read

log = structlog.get_logger("dualtrack.delivery")

_WAIT_SECONDS = 5.0  # a lane that waits for another is woken by it; this is in case the wake was lost in a crash
_CASCADES = frozenset({"deleteExperiment", "restoreExperiment"})  # facts section 4: all runs go along
_UNDONE_BY_CASCADES = frozenset({"deleteRun", "restoreRun"})
_FIRST_BYTES = 512 * 1024
_READS = 16  # of one turn; then other lanes have theirs
_MANY = 1000  # entries of one read
_NO_MODELS = "no_logged_models"
_IS_FILES = "is files of its run there; what names it goes without"
_TERMINAL = frozenset({"FINISHED", "FAILED", "KILLED", "3", "4", "5"})  # protobuf's JSON takes the numbers too
_PATIENCE = 5  # attempts
_TRANSFERS = 16  # files sent side by side, of all lanes: a chunk of 1 MiB each in memory
_NOT_DONE = frozenset({401, 403, 407, 425, 429})  # who answers so has done nothing
_PLACE_SECONDS = 0.5  # until a write in doubt, which keeps its place in the lane, is settled


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How one backend is delivered to. `source` is the primary's name, as the marks carry it."""

    source: str
    limits: BatchLimits
    retry: RetryPolicy
    read_ahead_bytes: int
    linger: float
    fitter: Fitter
    keeps_overflow: bool = False  # what does not fit stands in a file of the run
    copies_at_end: bool = False  # clients write to the primary's storage themselves: files come when a run ends
    since: float = 0.0  # when this process began: what was acknowledged earlier, one before it may have sent


@dataclass(frozen=True, slots=True, kw_only=True)
class _Refused:
    """What is left of an item that a backend refused; nothing if it was there already."""

    parkings: tuple[Parking, ...] = ()
    unfit: tuple[Unfit, ...] = ()


class Health(Protocol):
    """Hears how a backend fares: its breaker."""

    def on_success(self) -> None: ...

    def on_trouble(self, retry_after: float | None) -> None: ...


class Worker:
    """Delivers lanes of one backend."""

    def __init__(
        self,
        backend: Backend,
        queue: Queue,
        looker: Looker,
        resolver: Resolver,
        experiments: Experiments,
        files: Files,
        clock: Clock,
        metrics: Metrics,
        policy: Policy,
        health: Health,
    ) -> None:
        self._backend = backend
        self._queue = queue
        self._looker = looker
        self._resolver = resolver
        self._experiments = experiments
        self._files = files
        self._clock = clock
        self._metrics = metrics
        self._policy = policy
        self._on_success = health.on_success
        self._on_trouble = health.on_trouble
        self._delivered = metrics.delivered.labels(backend.name)
        self._coalesced = metrics.coalesced.labels(backend.name)
        self._transfers = asyncio.Semaphore(_TRANSFERS)
        self._doubts = Doubts()

    def expect_repeats(self, key: str) -> None:
        """A write of this lane took effect, and its client may send it again."""
        self._doubts.expect_repeats(key, self._clock.now())

    async def work(self, lane: Lane) -> None:
        """Deliver what the lane holds, as far as it goes."""
        try:
            await self._work(lane)
        finally:
            self._doubts.end(lane.key)

    async def _work(self, lane: Lane) -> None:
        """Deliver what the lane holds, as far as it goes, for a bounded number of reads.

        The first read is small, so that a lane that cannot move costs little; a lane that moves is read ahead.
        """
        attempt, budget = lane.attempts + 1, min(_FIRST_BYTES, self._policy.read_ahead_bytes)
        for turn in range(_READS):
            entries = await self._read(lane, budget, is_first=turn == 0)
            if not entries:
                await self._record(lane, next_at=self._clock.now() + _PLACE_SECONDS)
                return
            for step in plan(lane.key, entries, self._policy.limits):
                if not await self._go(lane, step, attempt):
                    return
                attempt = 1
            if not _is_backlog(entries, budget):
                return
            budget = self._policy.read_ahead_bytes

    async def _read(self, lane: Lane, budget: int, *, is_first: bool) -> Sequence[Entry]:
        """Read the head of a lane. What a process before this one may have sent of it lies within one whole read."""
        entries = await self._queue.read(lane, budget)
        earlier = None
        if is_first and entries and entries[0].settled_at < self._policy.since:
            entries = await self._queue.read(lane, self._policy.read_ahead_bytes)
            earlier = max((entry.seq for entry in entries if entry.settled_at < self._policy.since), default=None)
        self._doubts.begin(lane.key, earlier)
        return entries

    async def _go(self, lane: Lane, step: Step, attempt: int) -> bool:
        """Take one step; say whether the lane goes on."""
        if isinstance(step, FilesStep):
            done = await self._side_by_side(lane, step) if attempt == 1 else None  # what is in trouble is not crowded
            if done is not None:
                return await self._conclude(lane, step, done, attempt)
            for single in step.steps:  # sent again, which changes nothing, until the one that failed says why
                if not await self._go(lane, single, attempt):
                    return False
            return True
        return await self._conclude(lane, step, await self._try(lane, step, attempt), attempt)

    async def _conclude(self, lane: Lane, step: Step, outcome: Outcome, attempt: int) -> bool:
        """Commit an outcome; say whether the lane goes on."""
        now = self._clock.now()
        match outcome:
            case Done():
                # what comes in the meantime gathers again, so that a busy run is delivered in large batches
                await self._record(lane, step=step, done=outcome, next_at=now + self._policy.linger)
                self._doubts.record(lane.key, step.done)
                self._count(step, outcome)
                for entry in _entries_of(step):
                    if entry.spool:
                        await self._files.release(entry.spool)
                return not any(parking.holds for parking in outcome.parkings)
            case WaitFor(key=key):
                await self._record(lane, next_at=now + _WAIT_SECONDS, waiting_for=key)
            case Rewritten():
                await self._record(lane, next_at=now)
            case Later(wait=wait, reason=reason, is_backend=is_backend, retry_after=retry_after):
                self._metrics.retried.labels(self._backend.name, "backend" if is_backend else "entry").inc()
                note = log.warning if is_backend else log.info
                note("delivery.retry", backend=lane.backend, lane=lane.key, wait=round(wait, 1), reason=reason)
                await self._record(lane, next_at=now + wait, attempts=attempt, error=reason)
                if is_backend:
                    self._on_trouble(retry_after)
        return False

    async def _record(
        self,
        lane: Lane,
        *,
        step: Step | None = None,
        done: Done | None = None,
        next_at: float,
        attempts: int = 0,
        waiting_for: str | None = None,
        error: str = "",
    ) -> None:
        await self._queue.record(
            Progress(
                backend=lane.backend,
                key=lane.key,
                done=step.done if step is not None else (),
                twins=done.twins if done is not None else (),
                parkings=done.parkings if done is not None else (),
                losses=done.losses if done is not None else (),
                next_at=next_at,
                attempts=attempts,
                waiting_for=waiting_for,
                error=error,
            )
        )

    def _count(self, step: Step, done: Done) -> None:
        backend = self._backend.name
        if done.outcome == "delivered":
            self._delivered.inc(len(step.done))
            if isinstance(step, BatchStep) and len(step.done) > 1:
                self._coalesced.inc(len(step.done))
        for parking in done.parkings:
            self._metrics.parked.labels(backend, parking.exchange.operation).inc()
            log.error("delivery.parked", backend=backend, operation=parking.exchange.operation, cause=parking.cause)
        for loss in done.losses:
            self._metrics.losses.labels(backend, loss.reason).inc()

    # --- one attempt --------------------------------------------------------------------------------------------

    async def _try(self, lane: Lane, step: BatchStep | SingleStep | UnreadableStep, attempt: int) -> Outcome:
        """Attempt a step once; trouble on the way becomes a value."""
        if isinstance(step, UnreadableStep):
            parking = Parking(seq=step.entry.seq, exchange=step.entry.exchange, reason="unreadable", cause=step.cause)
            return Done(outcome="parked", parkings=(parking,))
        is_behind = await self._is_behind_experiment(lane, step)  # asked first: it may arrive meanwhile
        try:
            match step:
                case BatchStep():
                    outcome = await self._batch(lane, step, attempt)
                case SingleStep():
                    outcome = await self._single(lane, step, attempt)
        except RejectedError as error:
            outcome = self._park(step, str(error))
        except SpoolError as error:
            wait = wait_before(attempt, self._policy.retry, self._clock.chance())
            return Later(wait=wait, reason=str(error), is_backend=False)
        except BackendError as error:
            return self._troubled(step, error, attempt)
        if isinstance(outcome, Done) and outcome.parkings and (attempt == 1 or is_behind):
            # perhaps something in another lane was not there yet, such as the restore of its experiment: only what
            # is refused twice is refused
            wait = wait_before(attempt, self._policy.retry, self._clock.chance())
            return Later(wait=wait, reason=outcome.parkings[0].cause, is_backend=False)
        return outcome

    def _troubled(self, step: BatchStep | SingleStep, error: BackendError, attempt: int) -> Outcome:
        is_ours = error.backend == self._backend.name
        retry_after = error.retry_after if isinstance(error, UnreachableError) else None
        # while nobody can sign in, nothing was tried: no entry grows older by it
        age = 0.0 if isinstance(error, UnauthorizedError) else self._age(step)
        verdict = retry(str(error), attempt, age, self._policy.retry, self._clock.chance(), retry_after)
        if isinstance(verdict, Park):
            return self._park(step, verdict.reason)
        return Later(wait=verdict.wait, reason=verdict.reason, is_backend=is_ours, retry_after=verdict.retry_after)

    def _age(self, step: BatchStep | SingleStep) -> float:
        return max(0.0, self._clock.now() - step.settled_at)

    def _heard(self, call_operation: str, answer: Answer) -> None:
        outcome = "ok" if answer.is_success else str(answer.status)
        self._metrics.delivery_calls.labels(self._backend.name, call_operation, outcome).inc()
        if answer.status < 500 and answer.status not in {401, 407, 408, 425, 429}:
            self._on_success()

    def _judge(self, answer: Answer, step: BatchStep | SingleStep, attempt: int, count: int) -> Verdict:
        return judge(
            answer,
            attempt=attempt,
            items=count,
            age=self._age(step),
            policy=self._policy.retry,
            chance=self._clock.chance(),
        )

    async def _resolve(self, lane: Lane, step: BatchStep | SingleStep) -> Known | Outcome:
        """Find all ids that a step names on this backend."""
        match step:
            case BatchStep():
                wanted = batch_references(step.batch, step.run)
            case SingleStep():
                wanted = references(step.reading)
        resolution = await self._resolver.resolve(lane.key, wanted)
        match resolution:
            case Awaited(ref=ref):
                return Rewritten() if ref.key == lane.key else WaitFor(key=ref.key)
            case Discarded(ref=ref):
                return Done(outcome="skipped", losses=(_of_entity(lane, ref, "discarded", "is not mirrored"),))
            case Known(absent=absent):
                subject = step.run if isinstance(step, BatchStep) else step.reading.subject
                if subject in absent:
                    return self._park(step, f"{subject.key} exists neither here nor on the primary")
                return resolution

    def _absences(self, lane: Lane, known: Known) -> tuple[Loss, ...]:
        absent = tuple(
            Loss(
                kind=LossKind.REFERENCE,
                item=ref.key,
                reason="unknown_reference",
                detail=f"{ref.key} is unknown to both sides; kept as it is",
            )
            for ref in known.absent
        )
        nameless = (ref for ref, twin in known.twins.items() if twin.is_stand_in)
        return absent + tuple(_of_entity(lane, ref, _NO_MODELS, _IS_FILES) for ref in nameless)

    # --- batches ------------------------------------------------------------------------------------------------

    async def _batch(self, lane: Lane, step: BatchStep, attempt: int) -> Outcome:
        if not len(step.batch):
            return Done()
        known = await self._resolve(lane, step)
        if not isinstance(known, Known):
            return known
        losses = self._absences(lane, known)
        refused: list[Parking] = []
        todo = [step.batch]
        unfit: list[Unfit] = []
        is_again = self._doubts.covers(lane.key, step.batch, step.settled_at)
        while todo:
            batch = todo.pop(0)
            document = batch_document(batch, step.run, known.twins)
            document, told = self._policy.fitter.fit_document("logBatch", document)
            call = batch_call(document)
            if batch.metrics and (is_again or _names_stand_in(batch, known.twins)):
                answer = await self._send_missing(lane, batch, call, known.twins[step.run])
            else:
                answer = await self._send_batch(lane, batch, call)
            self._heard(call.operation, answer)
            match self._judge(answer, step, attempt, len(batch)):
                case Delivered():
                    unfit += told
                case Bisect(reason=reason):
                    is_again = True  # a refused batch may have been stored in part (facts B7)
                    if answer.status == 404 and not await self._is_there(step.run, known.twins):
                        return await self._lost(step, attempt)
                    parts, told = await self._parted(batch, reason, known.twins[step.run])
                    todo[:0] = parts
                    unfit += told
                case LookAgain(reason=reason):
                    found = await self._refused(step, batch, known.twins, reason, attempt)
                    if not isinstance(found, _Refused):
                        return found
                    refused += found.parkings
                    unfit += found.unfit
                case Park(reason=reason):
                    return self._park(step, reason)
                case Retry(wait=wait, reason=reason, retry_after=retry_after):
                    return Later(wait=wait, reason=reason, is_backend=True, retry_after=retry_after)
        losses += await self._overflow(known.twins[step.run], unfit)
        return Done(parkings=tuple(refused), losses=losses)

    async def _send_missing(self, lane: Lane, batch: Batch, call: Call, run: Twin) -> Answer:
        """Send what is not there of a batch in doubt.

        What MLflow 3's `log_model` sends once more for a model that is only files there is treated so too: its points
        are those of the run.
        """
        left = await self._missing(call, run)
        return await self._send_batch(lane, batch, left) if left is not None else Answer(status=200)

    async def _send_batch(self, lane: Lane, batch: Batch, call: Call) -> Answer:
        """Send a batch: its points are in doubt from here until the step is recorded."""
        if not batch.metrics:
            return await self._backend.send(call)
        before = self._doubts.send(lane.key, batch)
        try:
            answer = await self._backend.send(call)
        except UnreachableError as error:
            if not error.sent:
                self._doubts.take_back(lane.key, before)
            raise
        if answer.status in _NOT_DONE:
            self._doubts.take_back(lane.key, before)
        return answer

    async def _missing(self, call: Call, run: Twin) -> Call | None:
        """Look for the points of a batch on the backend; answer the call without those that are there."""
        metrics = sent_metrics(call)
        try:
            entity = await self._looker.get(EntityKind.RUN, run.backend_id)
            keys = unread(metrics, entity) if entity is not None else []
            seen = await self._looker.observe(EntityKind.RUN, run.backend_id, keys) if keys else None
            models = {name: await self._looker.get(EntityKind.MODEL, name) for name in models_named(metrics)}
        except RejectedError as error:  # a history that cannot be read: rather a point twice than none
            log.warning("delivery.unseen", backend=self._backend.name, entity=run.ref.key, reason=str(error))
            return call
        return still_to_send(call, entity or {}, seen.histories if seen is not None else {}, models)

    async def _parted(self, batch: Batch, reason: str, run: Twin) -> tuple[Sequence[Batch], tuple[Unfit, ...]]:
        """What to send in place of a refused batch, and what is left out: what the run has room for, or two halves."""
        if is_full(reason):
            found = await self._looker.get(EntityKind.RUN, run.backend_id)
            parted = self._policy.fitter.part(batch, reason, found) if found is not None else None
            if parted is not None:
                rest, unfit = parted
                return ([rest] if len(rest) else []), unfit
        return halve(batch), ()

    async def _refused(
        self, step: BatchStep, batch: Batch, twins: Twins, reason: str, attempt: int
    ) -> "_Refused | Outcome":
        """What becomes of one item that was refused: it is there already, one too many, or for a person to see."""
        if (limit := limit_in(reason)) is not None:
            return _Refused(unfit=tuple(over_count(LossKind(kind), item, limit) for kind, item in batch.items()))
        reading = read(_alone(step.run, batch))
        looked = await self._look(reading, step, twins, reason, attempt)
        if isinstance(looked, Park):
            parking = _parking(step.done[-1] if step.done else 0, reading.exchange, looked.reason)
            return _Refused(parkings=(parking,))
        return _Refused() if isinstance(looked, Delivered) else looked

    async def _overflow(self, twin: Twin, unfit: Sequence[Unfit]) -> tuple[Loss, ...]:
        """Keep what did not fit by the run's files, if that is wanted, and answer what is to be recorded."""
        losses = _recorded(unfit)
        if not unfit or not self._policy.keeps_overflow or twin.ref.kind is not EntityKind.RUN:
            return losses
        try:
            await self._files.overflow(twin, unfit)
        except RejectedError as error:
            detail = f"{OVERFLOW} of {twin.ref.key}: {error}"
            losses += (Loss(kind=LossKind.FILE, item=OVERFLOW, reason="not_copied", detail=detail),)
        return losses

    def _park(self, step: BatchStep | SingleStep, reason: str) -> Done:
        if isinstance(step, BatchStep):
            parking = _parking(step.done[-1] if step.done else 0, _alone(step.run, step.batch), reason)
            return Done(outcome="parked", parkings=(parking,))
        parking = _parking(step.entry.seq, step.entry.exchange, reason, holds=step.reading.operation.creates)
        return Done(outcome="parked", parkings=(replace(parking, spool=step.entry.spool),))

    # --- files --------------------------------------------------------------------------------------------------

    async def _side_by_side(self, lane: Lane, step: FilesStep) -> Done | None:
        """Deliver all files of a step at once; None when any of them has to be looked at by itself."""
        try:
            known = await self._resolve(lane, step.steps[0])
        except BackendError:
            return None
        if not isinstance(known, Known):
            return None
        delivered = await asyncio.gather(
            *(self._deliver(single, known) for single in step.steps), return_exceptions=True
        )
        losses = self._absences(lane, known)
        for outcome in delivered:
            if isinstance(outcome, (BackendError, SpoolError)):
                return None
            if isinstance(outcome, BaseException):
                raise outcome
            if _is_gone(outcome):
                return None
            losses += outcome
        self._on_success()
        return Done(losses=losses)

    async def _deliver(self, step: SingleStep, known: Known) -> tuple[Loss, ...]:
        told = file_write(step.reading)
        assert told is not None, "a FilesStep holds uploads"
        async with self._transfers:
            return await self._files.deliver(told, step.entry.spool, known.twins[told.ref])

    # --- single writes ------------------------------------------------------------------------------------------

    async def _single(self, lane: Lane, step: SingleStep, attempt: int) -> Outcome:
        known = await self._resolve(lane, step)
        if not isinstance(known, Known):
            return known
        losses = self._absences(lane, known)
        reading = step.reading
        if reading.operation.creates:
            return await self._create(lane, step, known, losses, attempt)
        if (told := file_write(reading)) is not None:
            delivered = await self._files.deliver(told, step.entry.spool, known.twins[told.ref])
            if _is_gone(delivered) and attempt <= _PATIENCE:
                # its deletion may be on its way to us: the primary has done it, and the journal is told a moment later
                return Later(wait=_PLACE_SECONDS, reason="looks again for a file that is gone", is_backend=False)
            losses += delivered
            self._on_success()
            return Done(losses=losses)
        if _is_about_nothing_there(reading, known.twins):
            return Done(outcome="skipped", losses=losses)
        if await self._has_to_wait(lane, step):
            return Later(wait=_PLACE_SECONDS, reason="waits for earlier writes", is_backend=False)
        if self._policy.copies_at_end and reading.subject is not None and _ends(reading):
            try:
                await self._files.copy_all(reading.subject, known.twins[reading.subject])
            except RejectedError as error:  # a store that cannot be read is no reason for a run that never ends
                detail = f"files of {reading.subject.key}: {error}"
                losses += (Loss(kind=LossKind.FILE, reason="not_copied", detail=detail),)
        return await self._change(lane, step, known, losses, attempt)

    async def _has_to_wait(self, lane: Lane, step: SingleStep) -> bool:
        """What changes every run of an experiment waits for all that was acknowledged before it.

        And what it would undo waits for it. The oldest of all never waits, so neither do both for ever.
        """
        operation = step.reading.exchange.operation
        if operation in _CASCADES:
            return await self._queue.has_older(lane.backend, lane.key, step.settled_at)
        return operation in _UNDONE_BY_CASCADES and await self._is_behind_experiment(lane, step)

    async def _is_behind_experiment(self, lane: Lane, step: BatchStep | SingleStep) -> bool:
        """Say whether something about an experiment was acknowledged earlier and is still on its way."""
        if parse_key(lane.key).kind is EntityKind.EXPERIMENT:
            return False
        return await self._queue.has_older(lane.backend, lane.key, step.settled_at, EntityKind.EXPERIMENT)

    async def _change(
        self, lane: Lane, step: SingleStep, known: Known, losses: tuple[Loss, ...], attempt: int
    ) -> Outcome:
        reading = step.reading
        name = ""
        if reading.exchange.operation == "updateExperiment" and reading.subject is not None:
            name = self._experiments.name_for(text(reading.document.get("new_name")), reading.subject)
        if reading.exchange.operation == "logModel" and await self._is_repeated(lane, step, known.twins):
            return Done(losses=losses)
        call, unfit = self._policy.fitter.fit(translate(reading, known.twins, self._policy.source, name))
        answer = await (self._experiments.send(call, name) if name else self._backend.send(call))
        self._heard(call.operation, answer)
        match self._judge(answer, step, attempt, 1):
            case Delivered():
                return Done(losses=losses + _recorded(unfit))
            case Retry(wait=wait, reason=reason, retry_after=retry_after):
                return Later(wait=wait, reason=reason, is_backend=True, retry_after=retry_after)
            case LookAgain(reason=reason):
                looked = await self._look(reading, step, known.twins, reason, attempt)
                if isinstance(looked, Delivered):
                    return Done(losses=losses)
                return self._park(step, looked.reason) if isinstance(looked, Park) else looked
            case Park(reason=reason) | Bisect(reason=reason):
                return self._park(step, reason)

    async def _is_repeated(self, lane: Lane, step: SingleStep, twins: Twins) -> bool:
        """Look before repeating the one change that a server doubles; write down that it is being sent."""
        if step.entry.attempted:
            observed = await self._observe(step.reading, twins)
            if observed is not None and shows(_seen_there(step.reading, twins), observed):
                return True
        await self._queue.mark_attempted(lane, step.entry.seq)
        return False

    async def _create(
        self, lane: Lane, step: SingleStep, known: Known, losses: tuple[Loss, ...], attempt: int
    ) -> Outcome:
        reading, ref = step.reading, step.reading.subject
        if ref is None:
            return self._park(step, "the primary's answer names no id")
        if await self._queue.twin(ref, self._backend.name) is not None:
            return Done()  # adopted in the meantime
        call, unfit = self._policy.fitter.fit(translate(reading, known.twins, self._policy.source))
        if ref.kind is EntityKind.EXPERIMENT:
            return await self._place(step, known, losses + _recorded(unfit), attempt)
        if step.entry.attempted:
            found = await self._find_mirror(ref, known.twins)
            if found is not None:
                return self._made(found, losses + await self._overflow(found, unfit), was_there=True)
        await self._queue.mark_attempted(lane, step.entry.seq)
        answer = await self._backend.send(call)
        if answer.is_success:
            learned = learn(ref.kind, ref, self._backend.name, parse_answer(answer.body))
            if learned is None:
                return self._untold(attempt)
            self._heard(reading.exchange.operation, answer)
            losses += await self._overflow(learned, unfit)
            return self._made(learned, losses, was_there=False)
        self._heard(reading.exchange.operation, answer)
        if ref.kind is EntityKind.MODEL and lacks_route(answer) and not await self._looker.has_models():
            return await self._stand_in(lane, step, ref, known, losses, attempt)
        return await self._uncreated(step, known, answer, attempt)

    async def _place(self, step: SingleStep, known: Known, losses: tuple[Loss, ...], attempt: int) -> Outcome:
        answer, twin, was_there = await self._experiments.place(step.reading)
        if twin is not None:
            return self._made(twin, losses, was_there=was_there)
        self._heard(step.reading.exchange.operation, answer)
        return self._untold(attempt) if answer.is_success else await self._uncreated(step, known, answer, attempt)

    def _untold(self, attempt: int) -> Later:
        """Something was made, and the answer does not say what: it will be found, by its mark or its name."""
        wait = wait_before(attempt, self._policy.retry, self._clock.chance())
        return Later(wait=wait, reason="the answer to a create names no id", is_backend=True)

    async def _stand_in(
        self, lane: Lane, step: SingleStep, ref: Ref, known: Known, losses: tuple[Loss, ...], attempt: int
    ) -> Outcome:
        """There are no logged models on this side: the model becomes files of its run, below its name."""
        run = next((twin for known, twin in known.twins.items() if known.kind is EntityKind.RUN), None)
        if run is not None and attempt <= _PATIENCE and await self._has_older_writes(run.ref, step):
            # a file of the run's own, logged earlier, may have that name; for ever it is not waited for
            return Later(wait=_PLACE_SECONDS, reason="waits for its run's files", is_backend=False)
        name = text(field(parse(step.reading.exchange.answer), "model", "info", "name")) or "model"
        made = stand_in(ref, self._backend.name, run, name)
        if run is not None and made.root and not await self._files.claim(run.root, made):
            made = stand_in(ref, self._backend.name, run, f"{name}-{ref.client_id}")
        return Done(twins=(made,), losses=(*losses, _of_entity(lane, ref, _NO_MODELS, _IS_FILES)))

    async def _has_older_writes(self, run: Ref, step: SingleStep) -> bool:
        lane = Lane(backend=self._backend.name, key=run.key, attempts=0)
        head = await self._queue.read(lane, 1)
        return bool(head) and head[0].settled_at < step.settled_at

    def _made(self, twin: Twin, losses: tuple[Loss, ...], *, was_there: bool) -> Done:
        if was_there:
            self._metrics.dedupe_hits.labels(self._backend.name, twin.ref.kind).inc()
        return Done(twins=(twin,), losses=losses)

    async def _uncreated(self, step: SingleStep, known: Known, answer: Answer, attempt: int) -> Outcome:
        """Decide about a create that was refused: something it needs may have gone from this side."""
        verdict = self._judge(answer, step, attempt, 1)
        if isinstance(verdict, Retry):
            return Later(wait=verdict.wait, reason=verdict.reason, is_backend=True, retry_after=verdict.retry_after)
        for ref in known.twins:
            if known.twins[ref].is_stand_in:
                continue
            entity = await self._looker.get(ref.kind, known.twins[ref].backend_id)
            if entity is None:
                return await self._forgotten(ref, attempt)
            is_deleted = field(entity, "experiment", "lifecycle_stage") == "deleted"
            if is_deleted and await self._queue.is_pending(self._backend.name, ref.key):
                return WaitFor(key=ref.key)  # it is being restored
        return self._park(step, describe(answer))

    async def _find_mirror(self, ref: Ref, twins: Twins) -> Twin | None:
        experiment = next((twin for known, twin in twins.items() if known.kind is EntityKind.EXPERIMENT), None)
        return await self._looker.find_mirror(ref, experiment.backend_id) if experiment is not None else None

    # --- looking again ------------------------------------------------------------------------------------------

    async def _look(
        self,
        reading: Reading,
        step: BatchStep | SingleStep,
        twins: Twins,
        reason: str,
        attempt: int,
    ) -> Delivered | Park | Outcome:
        """Find out what a refusal means: already so, really refused, or something went from this side."""
        for ref in twins:
            if not await self._is_there(ref, twins):
                return await self._lost(step, attempt, ref)
        observed = await self._observe(reading, twins)
        if observed is not None and shows(_seen_there(reading, twins), observed):
            return Delivered()
        pending = await self._pending_experiment(observed)
        return WaitFor(key=pending) if pending is not None else Park(reason=reason)

    async def _pending_experiment(self, observed: Observed | None) -> str | None:
        """The lane of a run's experiment if anything waits there: a restore may be what the write needs."""
        info = field(observed.entity, "run", "info") if observed is not None else None
        if field(info, "lifecycle_stage") != "deleted":
            return None
        backend_id = text(field(info, "experiment_id"))
        ref = await self._queue.client_ref(EntityKind.EXPERIMENT, self._backend.name, BackendId(backend_id))
        is_pending = ref is not None and await self._queue.is_pending(self._backend.name, ref.key)
        return ref.key if ref is not None and is_pending else None

    async def _observe(self, reading: Reading, twins: Twins) -> Observed | None:
        twin = twins.get(reading.subject) if reading.subject is not None else None
        if twin is None:
            return None
        return await self._looker.observe(twin.ref.kind, twin.backend_id, metric_keys(reading))

    async def _is_there(self, ref: Ref, twins: Twins) -> bool:
        return twins[ref].is_stand_in or await self._looker.get(ref.kind, twins[ref].backend_id) is not None

    async def _lost(self, step: BatchStep | SingleStep, attempt: int, ref: Ref | None = None) -> Outcome:
        """Something that was here is gone: forget its id, so that it is found by its mark or brought over again."""
        subject = ref or (step.run if isinstance(step, BatchStep) else step.reading.subject)
        return await self._forgotten(subject, attempt) if subject is not None else Rewritten()

    async def _forgotten(self, ref: Ref, attempt: int) -> Outcome:
        await self._queue.forget(ref, self._backend.name)
        log.warning("delivery.forgotten", backend=self._backend.name, entity=ref.key)
        wait = wait_before(attempt, self._policy.retry, self._clock.chance())
        return Later(wait=wait, reason=f"{ref.key} is no longer on {self._backend.name}", is_backend=False)


def _recorded(unfit: Iterable[Unfit]) -> tuple[Loss, ...]:
    return tuple(Loss(kind=item.kind, item=item.key, reason=item.reason, detail=item.detail) for item in unfit)


def _of_entity(lane: Lane, ref: Ref, reason: str, words: str) -> Loss:
    """An entity is not there, or not as what it is: the lane's own as a whole, or another that a write names."""
    item = "" if ref.key == lane.key else ref.client_id
    return Loss(kind=LossKind(ref.kind), item=item, reason=reason, detail=f"{ref.key} {words}")


def _is_gone(losses: Iterable[Loss]) -> bool:
    return any(loss.reason == FILE_GONE for loss in losses)


def _entries_of(step: Step) -> Sequence[Entry]:
    match step:
        case FilesStep(steps=steps):
            return [single.entry for single in steps]
        case SingleStep(entry=entry):
            return [entry]
        case _:
            return []


def _names_stand_in(batch: Batch, twins: Twins) -> bool:
    named = {Ref(EntityKind.MODEL, ClientId(text(metric.get("model_id")))) for metric in batch.metrics}
    return any(ref in named and twin.is_stand_in for ref, twin in twins.items())


def _is_about_nothing_there(reading: Reading, twins: Twins) -> bool:
    """Say whether a write is about a model alone that is only files on that side, or links to nothing but such."""
    if reading.subject is not None and twins[reading.subject].is_stand_in:
        return True
    models = [twin for ref, twin in twins.items() if ref.kind is EntityKind.MODEL]
    return reading.exchange.operation == "logOutputs" and all(twin.is_stand_in for twin in models) and bool(models)


def _ends(reading: Reading) -> bool:
    """Say whether after this write its run or model gets no more files as a rule."""
    if reading.exchange.operation == "updateRun":
        return text(reading.document.get("status")) in _TERMINAL
    return reading.exchange.operation == "finalizeLoggedModel"


def _is_backlog(entries: Sequence[Entry], budget: int) -> bool:
    """Say whether a read was so large that there is more where it came from."""
    return len(entries) >= _MANY or 2 * sum(len(entry.exchange.body) for entry in entries) >= budget


def _seen_there(reading: Reading, twins: Twins) -> Reading:
    """The same write in that side's ids, to be held against that side's state."""
    call = translate(reading, twins, "")
    exchange = Exchange(
        operation=reading.exchange.operation,
        method=reading.exchange.method,
        path=reading.exchange.path,
        body=call.body,
        answer=reading.exchange.answer,
    )
    return read(exchange)


def _alone(run: Ref, batch: Batch) -> Exchange:
    """A batch told as an exchange of its own, in the client's ids, as it is parked."""
    document: Document = {"run_id": run.client_id}
    for name, listed in (("metrics", batch.metrics), ("params", batch.params), ("tags", batch.tags)):
        if listed:
            document[name] = list[JSON](listed)
    return Exchange(operation="logBatch", method="POST", path=f"{API}/runs/log-batch", body=write(document))


def _parking(seq: int, exchange: Exchange, cause: str, *, holds: bool = False) -> Parking:
    return Parking(seq=seq, exchange=exchange, reason="refused", cause=cause, holds=holds)
