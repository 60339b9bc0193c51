"""What one backend answers: counted, told to its breaker, and judged. No calls of its own, and nothing is recorded."""

from typing import Protocol

from dualtrack.core.exchange import Answer
from dualtrack.core.standing import Occasion
from dualtrack.core.verdict import Park, RetryPolicy, Verdict, judge, retry, wait_before
from dualtrack.delivery.outcome import Later, Outcome, parked
from dualtrack.delivery.plan import BatchStep, SingleStep
from dualtrack.errors import BackendError, UnauthorizedError, UnreachableError
from dualtrack.metrics import Metrics
from dualtrack.ports import Clock


class Health(Protocol):
    """Hears how a backend fares: its breaker, and who compares. None of them waits."""

    def on_success(self) -> None: ...

    def on_trouble(self, retry_after: float | None) -> None: ...

    def on_arrival(self, key: str, occasion: Occasion) -> None: ...


class Answers:
    """One backend's. `attempt` counts those at a step, from 1."""

    def __init__(self, backend: str, clock: Clock, metrics: Metrics, policy: RetryPolicy, health: Health) -> None:
        self._backend = backend
        self._clock = clock
        self._metrics = metrics
        self._policy = policy
        self._health = health

    def heard(self, operation: str, answer: Answer) -> None:
        """Count a call; an answer of the backend's own shows that it is well."""
        outcome = "ok" if answer.is_success else str(answer.status)
        self._metrics.delivery_calls.labels(self._backend, operation, outcome).inc()
        if answer.status < 500 and answer.status not in {401, 407, 408, 425, 429}:
            self.went_well()

    def went_well(self) -> None:
        """The backend did what it was asked, by a call or otherwise."""
        self._health.on_success()

    def wait(self, attempt: int) -> float:
        """Seconds until the next attempt."""
        return wait_before(attempt, self._policy, self._clock.chance())

    def judge(self, answer: Answer, step: BatchStep | SingleStep, attempt: int, items: int = 1) -> Verdict:
        """What to do about an answer to `items` items."""
        return judge(
            answer,
            attempt=attempt,
            items=items,
            age=self._age(step),
            policy=self._policy,
            chance=self._clock.chance(),
        )

    def troubled(self, step: BatchStep | SingleStep, error: BackendError, attempt: int) -> Outcome:
        """What to do when no answer came, or nobody could sign in.

        One that was silent may be at work on it still, and a repeat would come on top of that: it gets as long again.
        """
        is_ours = error.backend == self._backend
        silent, retry_after = (error.silent, error.retry_after) if isinstance(error, UnreachableError) else (0.0, None)
        # while nobody can sign in, nothing was tried: no entry grows older by it
        age = 0.0 if isinstance(error, UnauthorizedError) else self._age(step)
        verdict = retry(str(error), attempt, age, self._policy, self._clock.chance(), retry_after)
        if isinstance(verdict, Park):
            return parked(step, verdict.reason)
        wait = max(verdict.wait, silent)
        return Later(wait=wait, reason=verdict.reason, is_backend=is_ours, retry_after=verdict.retry_after)

    def _age(self, step: BatchStep | SingleStep) -> float:
        return max(0.0, self._clock.now() - max(step.settled_at, step.queued_at))
