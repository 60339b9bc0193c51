"""One attempt at one step: its ids are found, then the room for its kind of write has it.

Trouble on the way becomes a value, and only what is refused twice is refused. Nothing is recorded here.
"""

from dataclasses import replace

import structlog

from dualtrack.delivery.answers import Answers
from dualtrack.delivery.batches import Batches
from dualtrack.delivery.changes import Changes
from dualtrack.delivery.creates import Creates
from dualtrack.delivery.order import Order
from dualtrack.delivery.outcome import Done, Later, Outcome, parked
from dualtrack.delivery.overtaken import Overtaken
from dualtrack.delivery.plan import BatchStep, SingleStep, UnreadableStep
from dualtrack.delivery.resolver import Known, Resolver, absences
from dualtrack.delivery.uploads import Uploads
from dualtrack.errors import BackendError, RejectedError, SpoolError
from dualtrack.ports import Lane, Parking
from dualtrack.translate.files import file_write
from dualtrack.translate.linking import is_link

log = structlog.get_logger("dualtrack.delivery")


class Attempt:
    """At the steps of one backend."""

    def __init__(
        self,
        resolver: Resolver,
        overtaken: Overtaken,
        order: Order,
        batches: Batches,
        creates: Creates,
        changes: Changes,
        uploads: Uploads,
        answers: Answers,
    ) -> None:
        self._resolver = resolver
        self._overtaken = overtaken
        self._order = order
        self._batches = batches
        self._creates = creates
        self._changes = changes
        self._uploads = uploads
        self._answers = answers

    async def make(self, lane: Lane, step: BatchStep | SingleStep | UnreadableStep, attempt: int) -> Outcome:
        """Attempt a step once; trouble on the way becomes a value."""
        if isinstance(step, UnreadableStep):
            parking = Parking(seq=step.entry.seq, exchange=step.entry.exchange, reason="unreadable", cause=step.cause)
            return Done(outcome="parked", parkings=(parking,))
        # asked before the attempt, as it may arrive meanwhile; what is refused at the first is tried again anyway
        has_another = attempt == 1 or await self._order.is_behind_experiment(lane, step)
        try:
            outcome = await self._deliver(lane, step, attempt)
        except RejectedError as error:
            outcome = parked(step, str(error))
        except SpoolError as error:
            return Later(wait=self._answers.wait(attempt), reason=str(error), is_backend=False)
        except BackendError as error:
            return self._answers.troubled(step, error, attempt)
        if isinstance(outcome, Done) and outcome.parkings and has_another:
            # perhaps something in another lane was not there yet, such as the restore of its experiment: only what
            # is refused twice is refused
            return Later(wait=self._answers.wait(attempt), reason=outcome.parkings[0].cause, is_backend=False)
        return _without_links(lane, outcome) if isinstance(outcome, Done) else outcome

    async def _deliver(self, lane: Lane, asked: BatchStep | SingleStep, attempt: int) -> Outcome:
        step = await self._overtaken.leave_out(asked)
        if step is None:
            return Done(outcome="skipped")
        if isinstance(step, BatchStep) and not len(step.batch):
            return Done()
        known = await self._resolver.find(lane, step)
        if not isinstance(known, Known):
            return known
        losses = absences(lane, known)
        if isinstance(step, BatchStep):
            return await self._batches.send(lane, step, known, losses, attempt)
        if step.reading.operation.creates:
            return await self._creates.make(lane, step, known, losses, attempt)
        if (told := file_write(step.reading)) is not None:
            return await self._uploads.one(step, told, known, losses, attempt)
        return await self._changes.make(lane, step, known, losses, attempt)


def _without_links(lane: Lane, done: Done) -> Done:
    """Nobody has to see to a link of ours that is refused, as by a run that is deleted: it is left out."""
    links = tuple(each for each in done.parkings if is_link(each.exchange))
    for each in links:
        log.warning("delivery.link_left_out", backend=lane.backend, entity=lane.key, reason=each.cause)
    return replace(done, parkings=tuple(each for each in done.parkings if each not in links)) if links else done
