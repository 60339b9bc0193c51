"""Makes runs, models, traces and experiments on a backend: each once, though a create may be sent more than once.

That one is being sent is written down first; one that may have been sent before is looked for by its mark. Experiments
are found by their names (`experiments.py`), and a model may have to be files of its run (`stand_ins.py`).
"""

from collections.abc import Sequence

from dualtrack.core.exchange import Answer
from dualtrack.core.ids import EntityKind, Ref, Twin
from dualtrack.core.verdict import Retry, describe
from dualtrack.delivery.answers import Answers
from dualtrack.delivery.experiments import NAME_MAY_BE_FREED, Experiments
from dualtrack.delivery.looking import Looking
from dualtrack.delivery.losses import Overflow, recorded
from dualtrack.delivery.outcome import Done, Later, Outcome, parked
from dualtrack.delivery.plan import SingleStep
from dualtrack.delivery.policy import PLACE_SECONDS, Policy
from dualtrack.delivery.resolver import Known
from dualtrack.delivery.stand_ins import StandIns
from dualtrack.metrics import Metrics
from dualtrack.ports import Backend, Lane, Looker, Loss, Queue
from dualtrack.translate.document import parse_answer
from dualtrack.translate.fitting import Unfit
from dualtrack.translate.mlflow import Twins, translate
from dualtrack.translate.operations import learn


class Creates:
    """Those of one backend."""

    def __init__(
        self,
        backend: Backend,
        queue: Queue,
        looker: Looker,
        looking: Looking,
        experiments: Experiments,
        stand_ins: StandIns,
        overflow: Overflow,
        answers: Answers,
        metrics: Metrics,
        policy: Policy,
    ) -> None:
        self._backend = backend
        self._queue = queue
        self._looker = looker
        self._looking = looking
        self._experiments = experiments
        self._stand_ins = stand_ins
        self._overflow = overflow
        self._answers = answers
        self._metrics = metrics
        self._policy = policy
        metrics.at_zero(metrics.dedupe_hits, (backend.name,), EntityKind)

    async def make(self, lane: Lane, step: SingleStep, known: Known, losses: tuple[Loss, ...], attempt: int) -> Outcome:
        """Make what a step asks for, find it made, or say why there is none. `losses` are recorded with it."""
        reading, ref = step.reading, step.reading.subject
        if ref is None:
            return parked(step, "the primary's answer names no id")
        known_as = await self._queue.twin(ref, self._backend.name)
        if known_as is not None and (known_as.is_discarded or not step.entry.attempted):
            return Done()  # adopted in the meantime
        call, unfit = self._policy.fitter.fit(translate(reading, known.twins, self._policy.source))
        if ref.kind is EntityKind.EXPERIMENT:
            return await self._place(lane, step, known, losses + recorded(unfit), attempt)
        if known_as is not None:  # made by an attempt that came no further, or adopted since
            return Done(losses=losses + await self._overflow.keep(known_as, unfit))
        if step.entry.attempted:
            found = await self._find_mirror(ref, known.twins)
            if found is not None:
                return self._made(found, losses + await self._overflow.keep(found, unfit), was_there=True)
        await self._queue.mark_attempted(lane, step.entry.seq)
        answer = await self._backend.send(call)
        if answer.is_success:
            return await self._answered(ref, answer, reading.exchange.operation, unfit, losses, attempt)
        self._answers.heard(reading.exchange.operation, answer)
        if await self._stand_ins.are_needed(ref, answer):
            return await self._stand_ins.make(lane, step, ref, known, losses, attempt)
        return await self._uncreated(step, known, answer, attempt)

    async def _answered(
        self, ref: Ref, answer: Answer, operation: str, unfit: Sequence[Unfit], losses: tuple[Loss, ...], attempt: int
    ) -> Outcome:
        """It is made: learn as what, and keep what did not fit."""
        learned = learn(ref.kind, ref, self._backend.name, parse_answer(answer.body))
        if learned is None:
            return self._untold(attempt)
        self._answers.heard(operation, answer)
        if unfit:  # keeping that may fail, and a search may show late what was made: it is not made again
            await self._queue.learn([learned])
        return self._made(learned, losses + await self._overflow.keep(learned, unfit), was_there=False)

    async def _place(
        self, lane: Lane, step: SingleStep, known: Known, losses: tuple[Loss, ...], attempt: int
    ) -> Outcome:
        answer, twin, was_there = await self._experiments.place(lane, step)
        if twin is not None:
            return self._made(twin, losses, was_there=was_there)
        if answer.error_code == NAME_MAY_BE_FREED:
            return Later(wait=PLACE_SECONDS, reason=answer.message, is_backend=False)
        self._answers.heard(step.reading.exchange.operation, answer)
        return self._untold(attempt) if answer.is_success else await self._uncreated(step, known, answer, attempt)

    def _untold(self, attempt: int) -> Later:
        """Something was made, and the answer does not say what: it will be found, by its mark or its name."""
        return Later(wait=self._answers.wait(attempt), reason="the answer to a create names no id", is_backend=True)

    def _made(self, twin: Twin, losses: tuple[Loss, ...], *, was_there: bool) -> Done:
        if was_there:
            self._metrics.dedupe_hits.labels(self._backend.name, twin.ref.kind).inc()
        return Done(twins=(twin,), losses=losses)

    async def _uncreated(self, step: SingleStep, known: Known, answer: Answer, attempt: int) -> Outcome:
        """Decide about a create that was refused: something it needs may have gone from this side."""
        verdict = self._answers.judge(answer, step, attempt)
        if isinstance(verdict, Retry):
            return Later(wait=verdict.wait, reason=verdict.reason, is_backend=True, retry_after=verdict.retry_after)
        return await self._looking.missing(known.twins, attempt) or parked(step, describe(answer))

    async def _find_mirror(self, ref: Ref, twins: Twins) -> Twin | None:
        experiment = next((twin for known, twin in twins.items() if known.kind is EntityKind.EXPERIMENT), None)
        return await self._looker.find_mirror(ref, experiment.backend_id) if experiment is not None else None
