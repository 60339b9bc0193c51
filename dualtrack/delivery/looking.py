"""Looks again: whether a refused write is so already, something it needs is gone, or it is really refused.

Reads the backend and never writes to it. What is gone from there is forgotten here, so that it is found by its mark or
brought over again.
"""

import structlog

from dualtrack.core.exchange import Exchange, Observed
from dualtrack.core.ids import BackendId, EntityKind, Ref, Twin
from dualtrack.core.verdict import Delivered, Park
from dualtrack.delivery.answers import Answers
from dualtrack.delivery.outcome import Later, Outcome, Rewritten, WaitFor
from dualtrack.delivery.plan import BatchStep, SingleStep
from dualtrack.ports import Looker, Queue
from dualtrack.translate.document import field, text
from dualtrack.translate.evidence import metric_keys, shows
from dualtrack.translate.mlflow import Twins, translate
from dualtrack.translate.operations import Reading, read

log = structlog.get_logger("dualtrack.delivery")


class Looking:
    """At one backend, called `backend`. Its methods raise what reading there raises."""

    def __init__(self, backend: str, queue: Queue, looker: Looker, answers: Answers) -> None:
        self._backend = backend
        self._queue = queue
        self._looker = looker
        self._answers = answers

    async def look(
        self,
        reading: Reading,
        step: BatchStep | SingleStep,
        twins: Twins,
        reason: str,
        attempt: int,
    ) -> Delivered | Park | Outcome:
        """Find out what a refusal means: already so, really refused, or something went from this side."""
        for ref in twins:
            if not await self.is_there(ref, twins):
                return await self.lost(step, attempt, twins, ref)
        observed = await self._observe(reading, twins)
        if _is_seen(reading, twins, observed):
            return Delivered()
        pending = await self._pending_experiment(observed)
        return WaitFor(key=pending) if pending is not None else Park(reason=reason)

    async def is_there(self, ref: Ref, twins: Twins) -> bool:
        return twins[ref].is_stand_in or await self._looker.get(ref.kind, twins[ref].backend_id) is not None

    async def lost(self, step: BatchStep | SingleStep, attempt: int, twins: Twins, ref: Ref | None = None) -> Outcome:
        """Something that was here is gone: forget its id, so that it is found by its mark or brought over again."""
        subject = ref or (step.run if isinstance(step, BatchStep) else step.reading.subject)
        return await self._forgotten(twins[subject], attempt) if subject is not None else Rewritten()

    async def is_so(self, reading: Reading, twins: Twins) -> bool:
        """Say whether the backend shows what a write asks for."""
        return _is_seen(reading, twins, await self._observe(reading, twins))

    async def missing(self, twins: Twins, attempt: int) -> Outcome | None:
        """What to do first about what a refused create needs: it is gone, or being restored; None if all is there."""
        for ref in twins:
            if twins[ref].is_stand_in:
                continue
            entity = await self._looker.get(ref.kind, twins[ref].backend_id)
            if entity is None:
                return await self._forgotten(twins[ref], attempt)
            is_deleted = field(entity, "experiment", "lifecycle_stage") == "deleted"
            if is_deleted and await self._queue.is_pending(self._backend, ref.key):
                return WaitFor(key=ref.key)  # it is being restored
        return None

    async def _pending_experiment(self, observed: Observed | None) -> str | None:
        """The lane of a run's experiment if anything waits there: a restore may be what the write needs."""
        info = field(observed.entity, "run", "info") if observed is not None else None
        if field(info, "lifecycle_stage") != "deleted":
            return None
        backend_id = text(field(info, "experiment_id"))
        ref = await self._queue.client_ref(EntityKind.EXPERIMENT, self._backend, BackendId(backend_id))
        is_pending = ref is not None and await self._queue.is_pending(self._backend, ref.key)
        return ref.key if ref is not None and is_pending else None

    async def _observe(self, reading: Reading, twins: Twins) -> Observed | None:
        twin = twins.get(reading.subject) if reading.subject is not None else None
        if twin is None:
            return None
        return await self._looker.observe(twin.ref.kind, twin.backend_id, metric_keys(reading))

    async def _forgotten(self, twin: Twin, attempt: int) -> Outcome:
        # another lane may have found it anew by now
        await self._queue.forget(twin.ref, self._backend, twin.backend_id)
        log.warning("delivery.forgotten", backend=self._backend, entity=twin.ref.key)
        wait = self._answers.wait(attempt)
        return Later(wait=wait, reason=f"{twin.ref.key} is no longer on {self._backend}", is_backend=False)


def _is_seen(reading: Reading, twins: Twins, observed: Observed | None) -> bool:
    return observed is not None and shows(_seen_there(reading, twins), observed)


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
