"""Asks a backend again that gave no answer, with growing waits, until it has been in trouble for too long."""

from collections.abc import Awaitable, Callable
from itertools import count
from typing import TypeVar

import structlog

from dualtrack.core.verdict import RetryPolicy, wait_before
from dualtrack.errors import JournalFullError, UnauthorizedError, UnreachableError
from dualtrack.ports import Clock

T = TypeVar("T")

log = structlog.get_logger("dualtrack.reconcile")

_POLICY = RetryPolicy(wait_min=0.5, wait_max=15.0)


class Patience:
    """`seconds` is how long one question is asked again; what it raises last is raised then."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock = clock
        self.seconds = seconds

    async def __call__(self, work: Callable[[], Awaitable[T]]) -> T:
        deadline = self._clock.now() + self.seconds
        for attempt in count(1):
            try:
                return await work()
            except (UnreachableError, UnauthorizedError, JournalFullError) as error:
                if self._clock.now() >= deadline:
                    raise
                wait = wait_before(attempt, _POLICY, self._clock.chance())
                log.warning("reconcile.asked_again", reason=str(error), wait=round(wait, 1))
                await self._clock.wait(wait)
        raise AssertionError("count() does not end")
