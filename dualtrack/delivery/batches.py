"""Sends a batch: whole, without the points that are there, or in parts until what was refused stands alone.

A batch in doubt (`doubts.py`) is looked for first; from its sending until its step is recorded its points are in doubt.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from dualtrack.core.coalesce import Batch, halve
from dualtrack.core.exchange import Answer, Call
from dualtrack.core.ids import ClientId, EntityKind, Ref, Twin
from dualtrack.core.loss import LossKind
from dualtrack.core.verdict import Bisect, Delivered, LookAgain, Park, Retry
from dualtrack.delivery.answers import Answers
from dualtrack.delivery.doubts import Doubts
from dualtrack.delivery.looking import Looking
from dualtrack.delivery.losses import Overflow
from dualtrack.delivery.outcome import Done, Later, Outcome, alone, parked, parking_of
from dualtrack.delivery.plan import BatchStep
from dualtrack.delivery.resolver import Known
from dualtrack.errors import RejectedError, UnreachableError
from dualtrack.ports import Backend, Lane, Looker, Loss, Parking
from dualtrack.translate.document import text
from dualtrack.translate.doubt import models_named, sent_metrics, still_to_send, unread
from dualtrack.translate.fitting import Fitter, Unfit, is_full, limit_in, over_count
from dualtrack.translate.mlflow import Twins, batch_call, batch_document
from dualtrack.translate.operations import read

log = structlog.get_logger("dualtrack.delivery")

_NOT_DONE: Final = frozenset({401, 403, 407, 425, 429})  # who answers so has done nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class _Refused:
    """What is left of an item that a backend refused; nothing if it was there already."""

    parkings: tuple[Parking, ...] = ()
    unfit: tuple[Unfit, ...] = ()


class Batches:
    """Those to one backend."""

    def __init__(
        self,
        backend: Backend,
        looker: Looker,
        looking: Looking,
        overflow: Overflow,
        doubts: Doubts,
        answers: Answers,
        fitter: Fitter,
    ) -> None:
        self._backend = backend
        self._looker = looker
        self._looking = looking
        self._overflow = overflow
        self._doubts = doubts
        self._answers = answers
        self._fitter = fitter

    async def send(self, lane: Lane, step: BatchStep, known: Known, losses: tuple[Loss, ...], attempt: int) -> Outcome:
        """Send all of a step, as far as the backend takes it. `losses` are recorded with it."""
        refused: list[Parking] = []
        todo = [step.batch]
        unfit: list[Unfit] = []
        is_again = self._doubts.covers(lane.key, step.batch, step.settled_at)
        while todo:
            batch = todo.pop(0)
            document = batch_document(batch, step.run, known.twins)
            document, told = self._fitter.fit_document("logBatch", document)
            call = batch_call(document)
            if batch.metrics and (is_again or _names_stand_in(batch, known.twins)):
                answer = await self._send_missing(lane, batch, call, known.twins[step.run])
            else:
                answer = await self._send_batch(lane, batch, call)
            self._answers.heard(call.operation, answer)
            match self._answers.judge(answer, step, attempt, len(batch)):
                case Delivered():
                    unfit += told
                case Bisect(reason=reason):
                    is_again = True  # a refused batch may have been stored in part (facts B7)
                    if answer.status == 404 and not await self._looking.is_there(step.run, known.twins):
                        return await self._looking.lost(step, attempt, known.twins)
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
                    return parked(step, reason)
                case Retry(wait=wait, reason=reason, retry_after=retry_after):
                    return Later(wait=wait, reason=reason, is_backend=True, retry_after=retry_after)
        losses += await self._overflow.keep(known.twins[step.run], unfit)
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
            parted = self._fitter.part(batch, reason, found) if found is not None else None
            if parted is not None:
                rest, unfit = parted
                return ([rest] if len(rest) else []), unfit
        return halve(batch), ()

    async def _refused(
        self, step: BatchStep, batch: Batch, twins: Twins, reason: str, attempt: int
    ) -> _Refused | Outcome:
        """What becomes of one item that was refused: it is there already, one too many, or for a person to see."""
        if (limit := limit_in(reason)) is not None:
            return _Refused(unfit=tuple(over_count(LossKind(kind), item, limit) for kind, item in batch.items()))
        reading = read(alone(step.run, batch))
        looked = await self._looking.look(reading, step, twins, reason, attempt)
        if isinstance(looked, Park):
            return _Refused(parkings=(parking_of(step, reading.exchange, looked.reason),))
        return _Refused() if isinstance(looked, Delivered) else looked


def _names_stand_in(batch: Batch, twins: Twins) -> bool:
    named = {Ref(EntityKind.MODEL, ClientId(text(metric.get("model_id")))) for metric in batch.metrics}
    return any(ref in named and twin.is_stand_in for ref, twin in twins.items())
