"""Which writes wait for what other lanes still hold. Asks, changes nothing; within a lane the journal keeps order."""

from typing import Final

from dualtrack.core.ids import EntityKind, Ref, parse_key
from dualtrack.delivery.plan import BatchStep, SingleStep
from dualtrack.ports import Lane, Looker, Queue

_CASCADES: Final = frozenset({"deleteExperiment", "restoreExperiment"})  # facts section 4: all runs go along
_UNDONE_BY_CASCADES: Final = frozenset({"deleteRun", "restoreRun"})


class Order:
    """The lanes of one backend."""

    def __init__(self, queue: Queue, looker: Looker) -> None:
        self._queue = queue
        self._looker = looker

    async def has_to_wait(self, lane: Lane, step: SingleStep) -> bool:
        """What changes every run of an experiment waits for all that was acknowledged before it.

        And what it would undo waits for it. The oldest of all never waits, so neither do both for ever.
        """
        operation = step.reading.exchange.operation
        if operation in _CASCADES:
            return await self._queue.has_older(lane.backend, lane.key, step.settled_at)
        if operation == "deleteRun" and await self._is_behind_models(lane, step):
            return True
        return operation in _UNDONE_BY_CASCADES and await self.is_behind_experiment(lane, step)

    async def is_behind_experiment(self, lane: Lane, step: BatchStep | SingleStep) -> bool:
        """Say whether something about an experiment was acknowledged earlier and is still on its way."""
        if parse_key(lane.key).kind is EntityKind.EXPERIMENT:
            return False
        return await self._queue.has_older(lane.backend, lane.key, step.settled_at, EntityKind.EXPERIMENT)

    async def has_older_writes(self, lane: Lane, step: SingleStep, run: Ref) -> bool:
        """Say whether the lane of `run` holds what was acknowledged before this step of another lane."""
        head = await self._queue.read(Lane(backend=lane.backend, key=run.key, attempts=0), 1)
        return bool(head) and head[0].settled_at < step.settled_at

    async def _is_behind_models(self, lane: Lane, step: SingleStep) -> bool:
        """Say whether models that become files of runs there are on their way: a deleted run is told of none."""
        is_older = await self._queue.has_older(lane.backend, lane.key, step.settled_at, EntityKind.MODEL)
        return is_older and not await self._looker.has_models()
