"""One lane's turn: read its head, plan, have each step attempted, conclude, record, count.

A step's outcome is committed before the next one starts, so a crash repeats at most one step, and each step is either
idempotent or looked for before it is sent again. Only where a batch ends within an entry of which something is parked
or lost, its outcome waits for that of the rest.
"""

from collections.abc import Sequence
from typing import Final, TypeAlias

import structlog

from dualtrack.core.entry import Entry
from dualtrack.core.standing import Occasion
from dualtrack.delivery.answers import Health
from dualtrack.delivery.attempt import Attempt
from dualtrack.delivery.changes import ends
from dualtrack.delivery.doubts import Doubts
from dualtrack.delivery.outcome import Done, Later, Outcome, Rewritten, WaitFor
from dualtrack.delivery.plan import BatchStep, FilesStep, SingleStep, Step, plan
from dualtrack.delivery.policy import PLACE_SECONDS, Policy
from dualtrack.delivery.uploads import Uploads
from dualtrack.metrics import Metrics
from dualtrack.ports import Clock, Lane, Progress, Queue

log = structlog.get_logger("dualtrack.delivery")

Concluded: TypeAlias = tuple[Step, Done]

_WAIT_SECONDS: Final = 5.0  # a lane that waits for another is woken by it; this is in case a crash lost the wake
_FIRST_BYTES: Final = 512 * 1024
_READS: Final = 16  # of one turn; then other lanes have theirs
_MANY: Final = 1000  # entries of one read
_BACKEND, _ENTRY = "backend", "entry"  # what an attempt that is repeated failed for


class Worker:
    """Delivers lanes of one backend, called `backend`."""

    def __init__(
        self,
        backend: str,
        queue: Queue,
        attempt: Attempt,
        uploads: Uploads,
        doubts: Doubts,
        clock: Clock,
        metrics: Metrics,
        policy: Policy,
        health: Health,
    ) -> None:
        self._backend = backend
        self._queue = queue
        self._attempt = attempt
        self._uploads = uploads
        self._doubts = doubts
        self._clock = clock
        self._metrics = metrics
        self._policy = policy
        self._health = health
        self._delivered = metrics.delivered.labels(backend)
        self._coalesced = metrics.coalesced.labels(backend)
        metrics.at_zero(metrics.retried, (backend,), (_BACKEND, _ENTRY))

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
        held: list[Concluded] = []
        for turn in range(_READS):
            entries = await self._read(lane, budget, is_first=turn == 0)
            if not entries:
                await self._record(lane, next_at=self._clock.now() + PLACE_SECONDS)
                return
            for step in plan(lane.key, entries, self._policy.limits):
                if not await self._go(lane, step, attempt, held):
                    return
                attempt = attempt if held else 1
            if not _is_backlog(entries, budget):
                return
            budget = self._policy.read_ahead_bytes

    async def _read(self, lane: Lane, budget: int, *, is_first: bool) -> Sequence[Entry]:
        """Read the head of a lane, and say what of it may have been sent before.

        What a process before this one may have sent lies within one whole read; what was given up and is queued again
        says so itself.
        """
        entries = await self._queue.read(lane, budget)
        if is_first and any(map(self._is_earlier, entries)):
            entries = await self._queue.read(lane, self._policy.read_ahead_bytes)
        sent = (entry.seq for entry in entries if entry.attempted or (is_first and self._is_earlier(entry)))
        self._doubts.begin(lane.key, max(sent, default=None))
        return entries

    def _is_earlier(self, entry: Entry) -> bool:
        return entry.settled_at < self._policy.since

    async def _go(self, lane: Lane, step: Step, attempt: int, held: list[Concluded]) -> bool:
        """Take one step; say whether the lane goes on."""
        if isinstance(step, FilesStep):
            # what is in trouble is not crowded
            done = await self._uploads.side_by_side(lane, step) if attempt == 1 else None
            if done is not None:
                return await self._conclude(lane, step, done, attempt, held)
            for single in step.steps:  # sent again, which changes nothing, until the one that failed says why
                if not await self._go(lane, single, attempt, held):
                    return False
            return True
        return await self._conclude(lane, step, await self._attempt.make(lane, step, attempt), attempt, held)

    async def _conclude(self, lane: Lane, step: Step, outcome: Outcome, attempt: int, held: list[Concluded]) -> bool:
        """Commit an outcome, with those that were `held` for it, or hold it as well; say whether the lane goes on."""
        now = self._clock.now()
        match outcome:
            case Done():
                # told before and after: whoever compares meanwhile may have read that side without it
                self._health.on_arrival(lane.key, Occasion.WROTE)
                held.append((step, outcome))
                if _tells_of_unfinished(held):
                    return True
                # what comes in the meantime gathers again, so that a busy run is delivered in large batches
                await self._record(lane, held, next_at=now + self._policy.linger)
                for concluded in held:
                    await self._recorded(lane, *concluded)
                held.clear()
                return not any(parking.holds for parking in outcome.parkings)
            case WaitFor(key=key):
                await self._record(lane, next_at=now + _WAIT_SECONDS, waiting_for=key)
            case Rewritten():
                await self._record(lane, next_at=now)
            case Later(wait=wait, reason=reason, is_backend=is_backend, retry_after=retry_after):
                self._metrics.retried.labels(self._backend, _BACKEND if is_backend else _ENTRY).inc()
                note = log.warning if is_backend else log.info
                note("delivery.retry", backend=lane.backend, lane=lane.key, wait=round(wait, 1), reason=reason)
                await self._record(lane, next_at=now + wait, attempts=attempt, error=reason)
                if is_backend:
                    self._health.on_trouble(retry_after)
        return False

    async def _recorded(self, lane: Lane, step: Step, done: Done) -> None:
        """Tell of an outcome that is on disk."""
        self._doubts.record(lane.key, step.done)
        self._count(step, done)
        self._health.on_arrival(lane.key, _occasion(step, done))
        await self._uploads.release(step)

    async def _record(
        self,
        lane: Lane,
        made: Sequence[Concluded] = (),
        *,
        next_at: float,
        attempts: int = 0,
        waiting_for: str | None = None,
        error: str = "",
    ) -> None:
        await self._queue.record(
            Progress(
                backend=lane.backend,
                key=lane.key,
                done=tuple(seq for step, _ in made for seq in step.done),
                twins=tuple(twin for _, done in made for twin in done.twins),
                parkings=tuple(parking for _, done in made for parking in done.parkings),
                losses=tuple(loss for _, done in made for loss in done.losses),
                next_at=next_at,
                attempts=attempts,
                waiting_for=waiting_for,
                error=error,
            )
        )

    def _count(self, step: Step, done: Done) -> None:
        backend = self._backend
        if done.outcome == "delivered":
            self._delivered.inc(len(step.done))
            if isinstance(step, BatchStep) and len(step.done) > 1:
                self._coalesced.inc(len(step.done))
        for parking in done.parkings:
            self._metrics.parked.labels(backend, parking.exchange.operation).inc()
            log.error("delivery.parked", backend=backend, operation=parking.exchange.operation, cause=parking.cause)
        for loss in done.losses:
            self._metrics.losses.labels(backend, loss.reason).inc()


def _tells_of_unfinished(held: Sequence[Concluded]) -> bool:
    """Say whether anything is parked or lost of an entry of which the rest is still to be sent.

    That is written down with the rest: an entry that is begun anew, as its rest failed, would tell of it once more.
    """
    finished = {seq for step, _ in held for seq in step.done}
    told = (step.batch.last for step, done in held if isinstance(step, BatchStep) and (done.parkings or done.losses))
    return any(last not in finished for last in told)


def _occasion(step: Step, done: Done) -> Occasion:
    if done.parkings:
        return Occasion.PARKED
    if done.twins:
        return Occasion.MADE
    return Occasion.ENDED if isinstance(step, SingleStep) and ends(step.reading) else Occasion.WROTE


def _is_backlog(entries: Sequence[Entry], budget: int) -> bool:
    """Say whether a read was so large that there is more where it came from."""
    return len(entries) >= _MANY or 2 * sum(len(entry.exchange.body) for entry in entries) >= budget
