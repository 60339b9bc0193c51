"""Sends a single write that makes nothing and is no file: a change of what is there already.

All but one may be repeated as they are; the one that a server doubles is looked for before it is sent again.
"""

from dataclasses import replace
from typing import Final

from dualtrack.core.exchange import Answer
from dualtrack.core.ids import EntityKind, Twin
from dualtrack.core.loss import LossKind
from dualtrack.core.verdict import Bisect, Delivered, LookAgain, Park, Retry
from dualtrack.delivery.answers import Answers
from dualtrack.delivery.experiments import NAME_MAY_BE_FREED, Experiments
from dualtrack.delivery.files import Files
from dualtrack.delivery.looking import Looking
from dualtrack.delivery.losses import recorded
from dualtrack.delivery.order import Order
from dualtrack.delivery.outcome import Done, Later, Outcome, parked
from dualtrack.delivery.plan import SingleStep
from dualtrack.delivery.policy import PLACE_SECONDS, Policy
from dualtrack.delivery.resolver import Known
from dualtrack.errors import RejectedError
from dualtrack.ports import Backend, Lane, Loss, Queue
from dualtrack.translate.document import text
from dualtrack.translate.mlflow import Twins, translate
from dualtrack.translate.operations import Reading

_TERMINAL: Final = frozenset({"FINISHED", "FAILED", "KILLED", "3", "4", "5"})  # protobuf's JSON takes the numbers too


class Changes:
    """Those of one backend."""

    def __init__(
        self,
        backend: Backend,
        queue: Queue,
        looking: Looking,
        experiments: Experiments,
        files: Files,
        order: Order,
        answers: Answers,
        policy: Policy,
    ) -> None:
        self._backend = backend
        self._queue = queue
        self._looking = looking
        self._experiments = experiments
        self._files = files
        self._order = order
        self._answers = answers
        self._policy = policy

    async def make(self, lane: Lane, step: SingleStep, known: Known, losses: tuple[Loss, ...], attempt: int) -> Outcome:
        """Make a change, when its time has come and there is anything to change. `losses` are recorded with it."""
        reading = step.reading
        if _is_about_nothing_there(reading, known.twins):
            return Done(outcome="skipped", losses=losses)
        if await self._order.has_to_wait(lane, step):
            return Later(wait=PLACE_SECONDS, reason="waits for earlier writes", is_backend=False)
        if self._policy.copies_at_end and reading.subject is not None and ends(reading):
            try:
                await self._files.copy_all(reading.subject, known.twins[reading.subject])
            except RejectedError as error:  # a store that cannot be read is no reason for a run that never ends
                detail = f"files of {reading.subject.key}: {error}"
                losses += (Loss(kind=LossKind.FILE, reason="not_copied", detail=detail),)
        if reading.subject is None or reading.exchange.operation != "logModel":
            return await self._send(lane, step, known, losses, attempt)
        async with self._files.history(known.twins[reading.subject].backend_id):
            return await self._send(lane, step, known, losses, attempt)

    async def _send(
        self, lane: Lane, step: SingleStep, known: Known, losses: tuple[Loss, ...], attempt: int
    ) -> Outcome:
        reading = step.reading
        if reading.exchange.operation == "logModel" and await self._is_repeated(lane, step, known.twins):
            return Done(losses=losses)
        if reading.subject is not None and _renames(reading):
            return await self._rename(lane, step, known, known.twins[reading.subject], losses, attempt)
        call, unfit = self._policy.fitter.fit(translate(reading, known.twins, self._policy.source))
        answer = await self._backend.send(call)
        done = Done(losses=losses + recorded(unfit))
        return await self._judged(answer, done, step, known, attempt)

    async def _rename(
        self, lane: Lane, step: SingleStep, known: Known, twin: Twin, losses: tuple[Loss, ...], attempt: int
    ) -> Outcome:
        answer, name = await self._experiments.rename(lane, step, twin.backend_id)
        if answer.error_code == NAME_MAY_BE_FREED:
            return Later(wait=PLACE_SECONDS, reason=answer.message, is_backend=False)
        done = Done(twins=(replace(twin, name=name),), losses=losses)
        return await self._judged(answer, done, step, known, attempt)

    async def _judged(self, answer: Answer, done: Done, step: SingleStep, known: Known, attempt: int) -> Outcome:
        """What an answer makes of a change that is `done` if it took effect, now or before."""
        reading = step.reading
        self._answers.heard(reading.exchange.operation, answer)
        match self._answers.judge(answer, step, attempt):
            case Delivered():
                return done
            case Retry(wait=wait, reason=reason, retry_after=retry_after):
                return Later(wait=wait, reason=reason, is_backend=True, retry_after=retry_after)
            case LookAgain(reason=reason):
                looked = await self._looking.look(reading, step, known.twins, reason, attempt)
                if isinstance(looked, Delivered):
                    return done
                return parked(step, looked.reason) if isinstance(looked, Park) else looked
            case Park(reason=reason) | Bisect(reason=reason):
                return parked(step, reason)

    async def _is_repeated(self, lane: Lane, step: SingleStep, twins: Twins) -> bool:
        """Look before repeating the one change that a server doubles; write down that it is being sent."""
        if step.entry.attempted and await self._looking.is_so(step.reading, twins):
            return True
        await self._queue.mark_attempted(lane, step.entry.seq)
        return False


def _is_about_nothing_there(reading: Reading, twins: Twins) -> bool:
    """Say whether a write is about a model alone that is only files on that side, or links to nothing but such."""
    if reading.subject is not None and twins[reading.subject].is_stand_in:
        return True
    models = [twin for ref, twin in twins.items() if ref.kind is EntityKind.MODEL]
    return reading.exchange.operation == "logOutputs" and all(twin.is_stand_in for twin in models) and bool(models)


def _renames(reading: Reading) -> bool:
    return reading.exchange.operation == "updateExperiment" and bool(reading.document.get("new_name"))


def ends(reading: Reading) -> bool:
    """Say whether after this write its run or model gets no more files as a rule."""
    if reading.exchange.operation == "updateRun":
        return text(reading.document.get("status")) in _TERMINAL
    return reading.exchange.operation == "finalizeLoggedModel"
