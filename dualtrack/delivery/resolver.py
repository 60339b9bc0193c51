"""Client ids → what the backend calls them; and what to do about those that nobody knows there yet.

in the map ─▶ twin          queued in its own lane ─▶ wait for it
nowhere    ─▶ adopt it whole, then wait for it, or for its experiment     unknown to the primary too ─▶ absent
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from dualtrack.core.ids import Ref, Twin
from dualtrack.core.loss import LossKind
from dualtrack.delivery.losses import as_files, of_entity
from dualtrack.delivery.outcome import Done, Outcome, Rewritten, WaitFor, parked
from dualtrack.delivery.plan import BatchStep, SingleStep
from dualtrack.ports import Adopter, Lane, Loss, Queue
from dualtrack.translate.mlflow import batch_references, references
from dualtrack.translate.references import Reference


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """All twins there are; `absent` are references that even the primary does not know."""

    twins: dict[Ref, Twin]
    absent: tuple[Ref, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Discarded:
    """An operator decided that this entity is not mirrored."""

    ref: Ref


@dataclass(frozen=True, slots=True, kw_only=True)
class Awaited:
    """The write can go on once something has happened in the lane of `ref`."""

    ref: Ref


Resolution: TypeAlias = Known | Discarded | Awaited


class Resolver:
    def __init__(self, backend: str, queue: Queue, adopter: Adopter) -> None:
        self._backend = backend
        self._queue = queue
        self._adopter = adopter

    async def find(self, lane: Lane, step: BatchStep | SingleStep) -> Known | Outcome:
        """Find all ids that a step names on this backend, or say what is to be done instead.

        Raises what asking the primary raises.
        """
        match step:
            case BatchStep():
                wanted = batch_references(step.batch, step.run)
            case SingleStep():
                wanted = references(step.reading)
        resolution = await self._resolve(lane.key, wanted)
        match resolution:
            case Awaited(ref=ref):
                return Rewritten() if ref.key == lane.key else WaitFor(key=ref.key)
            case Discarded(ref=ref):
                return Done(outcome="skipped", losses=(of_entity(lane, ref, "discarded", "is not mirrored"),))
            case Known(absent=absent):
                subject = step.run if isinstance(step, BatchStep) else step.reading.subject
                if subject in absent:
                    return parked(step, f"{subject.key} exists neither here nor on the primary")
                return resolution

    async def _resolve(self, key: str, wanted: Sequence[Reference]) -> Resolution:
        """Answer for all that is `wanted` of a write in lane `key`."""
        twins: dict[Ref, Twin] = {}
        absent: list[Ref] = []
        for reference in wanted:
            ref = reference.ref
            twin = await self._queue.twin(ref, self._backend)
            if twin is not None and twin.is_discarded:
                if reference.soft:
                    absent.append(ref)
                    continue
                return Discarded(ref=ref)
            if twin is not None:
                twins[ref] = twin
                continue
            # a reference into its own lane is not waited for: what is ahead in the lane is delivered already
            if ref.key != key and await self._queue.is_pending(self._backend, ref.key):
                return Awaited(ref=ref)
            awaited = await self._adopter.adopt(ref, self._backend, is_own=ref.key == key)
            if awaited is not None:
                return Awaited(ref=awaited)
            absent.append(ref)
        return Known(twins=twins, absent=tuple(absent))


def absences(lane: Lane, known: Known) -> tuple[Loss, ...]:
    """What a write that names these has to do without."""
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
    return absent + tuple(as_files(lane, ref) for ref in nameless)
