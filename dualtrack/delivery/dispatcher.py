"""Keeps the workers of one backend fed: claims due lanes, as many as the breaker lets through.

Each backend has a dispatcher of its own, so a slow one takes nothing from another. A worker's failure that nobody
foresaw leaves its lane in the journal, to be tried again later, and is logged with its traceback: one poisoned lane
holds back itself alone.
"""

import asyncio
import math
from collections.abc import Callable

import structlog

from dualtrack.core import breaker as breakers
from dualtrack.core.breaker import Breaker, Position
from dualtrack.core.standing import Occasion
from dualtrack.delivery.worker import Worker
from dualtrack.errors import JournalError
from dualtrack.metrics import Metrics
from dualtrack.ports import Clock, Lane, Progress, Queue

log = structlog.get_logger("dualtrack.delivery")

_IDLE_SECONDS = 30.0  # look even if nobody called: the bound on a wake that was missed
_POISON_SECONDS = 30.0
_GAUGE = {Position.CLOSED: 0, Position.HALF_OPEN: 1, Position.OPEN: 2}


class Dispatcher:
    """Run with `run`; end with `stop`. `workers` lanes are delivered in parallel; `tell` hears what arrived."""

    def __init__(
        self,
        backend: str,
        queue: Queue,
        clock: Clock,
        metrics: Metrics,
        *,
        policy: breakers.Policy,
        workers: int,
        tell: Callable[[str, Occasion], None],
    ) -> None:
        self.backend = backend
        self.on_arrival = tell
        self._queue = queue
        self._clock = clock
        self._policy = policy
        self._workers = workers
        self._breaker = Breaker()
        self._gauge = metrics.breaker_state.labels(backend)
        self._wake = asyncio.Event()
        self._rests_until = 0.0
        self._busy: set[asyncio.Task[None]] = set()
        self._is_stopping = False

    @property
    def breaker(self) -> Breaker:
        return self._breaker

    def wake(self, at: float) -> None:
        """Something is due at instant `at`. Called for every acknowledged write: nearly always one comparison."""
        if at < self._rests_until:
            self._rests_until = at
            asyncio.get_running_loop().call_later(max(0.0, at - self._clock.now()), self._wake.set)

    def on_success(self) -> None:
        self._move(breakers.succeed(self._breaker))

    def on_trouble(self, retry_after: float | None) -> None:
        self._move(breakers.fail(self._breaker, self._policy, self._clock.now(), retry_after))

    def _move(self, breaker: Breaker) -> None:
        if breaker.position is not self._breaker.position:
            log.warning("delivery.breaker", backend=self.backend, position=str(breaker.position))
            self._gauge.set(_GAUGE[breaker.position])
        self._breaker = breaker

    async def run(self, worker: Worker) -> None:
        """Deliver until stopped; attempts under way are finished."""
        async with asyncio.TaskGroup() as group:
            while not self._is_stopping:
                self._wake.clear()
                try:
                    if not await self._start_some(group, worker):
                        await self._rest()
                except JournalError as error:
                    log.error("delivery.journal", backend=self.backend, error=str(error))
                    await self._clock.wait(1.0)

    async def _start_some(self, group: asyncio.TaskGroup, worker: Worker) -> bool:
        now = self._clock.now()
        _, room = breakers.slots(self._breaker, self._workers - len(self._busy), now)
        if room == 0:
            return False
        lanes = await self._queue.claim(self.backend, room, now)
        if not lanes:
            return False
        # not the breaker from before the wait: something may have moved it meanwhile
        self._move(breakers.slots(self._breaker, len(lanes), now)[0])
        for lane in lanes:
            task = group.create_task(self._turn(worker, lane), name=f"deliver {self.backend} {lane.key}")
            self._busy.add(task)
            task.add_done_callback(self._ended)
        return True

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._busy.discard(task)
        self._wake.set()

    async def _turn(self, worker: Worker, lane: Lane) -> None:
        try:
            await worker.work(lane)
        except JournalError as error:
            log.error("delivery.journal", backend=self.backend, lane=lane.key, error=str(error))
            await self._clock.wait(1.0)
        except Exception as error:  # the outermost edge of a lane: recorded, and tried again later
            log.exception("delivery.unforeseen", backend=self.backend, lane=lane.key)
            await self._postpone(lane, f"unforeseen: {type(error).__name__}: {error}")
        finally:
            self._queue.release(lane)
            if self._breaker.position is Position.HALF_OPEN:
                self._breaker = breakers.idle(self._breaker)

    async def _postpone(self, lane: Lane, reason: str) -> None:
        try:
            await self._queue.record(
                Progress(
                    backend=lane.backend,
                    key=lane.key,
                    next_at=self._clock.now() + _POISON_SECONDS,
                    attempts=lane.attempts + 1,
                    error=reason,
                )
            )
        except JournalError as error:
            log.error("delivery.journal", backend=self.backend, lane=lane.key, error=str(error))

    async def _rest(self) -> None:
        """Wait for a call, for the next due lane, or for the breaker's pause to end."""
        now = self._clock.now()
        self._rests_until = math.inf  # from before the look, so that no call is lost between look and rest
        due = await self._queue.next_due(self.backend)
        if self._workers <= len(self._busy):
            due = None
        if due is not None and self._breaker.position is Position.OPEN:
            due = max(due, self._breaker.until)
        elif due is not None and self._breaker.position is Position.HALF_OPEN and self._breaker.probing:
            due = None
        wait = _IDLE_SECONDS if due is None else min(_IDLE_SECONDS, max(0.005, due - now))
        self._rests_until = min(self._rests_until, now + wait)
        try:
            async with asyncio.timeout(wait):
                await self._wake.wait()
        except TimeoutError:
            return
        finally:
            self._rests_until = 0.0

    def stop(self) -> None:
        """Claim no more."""
        self._is_stopping = True
        self._wake.set()

    async def abandon(self) -> None:
        """End the attempts under way; what they were about stays in the journal."""
        for task in list(self._busy):
            task.cancel()
        await asyncio.gather(*self._busy, return_exceptions=True)
