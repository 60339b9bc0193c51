"""What of a retried write is still so: what was given up may be delivered long after the writes that followed it.

The primary is asked. What it shows otherwise by now was changed by something newer, which is delivered already or comes
behind in the lane; to send the old value would leave the mirror older than it was.
"""

from dataclasses import replace

import structlog

from dualtrack.core.exchange import Document
from dualtrack.core.ids import Ref
from dualtrack.delivery.plan import BatchStep, SingleStep
from dualtrack.errors import RejectedError
from dualtrack.ports import Looker
from dualtrack.translate.evidence import UNDOING, lasting, lasting_tags, run_tags

log = structlog.get_logger("dualtrack.delivery")


class Overtaken:
    """`primary` reads the primary; what it does not know, as a model that only we keep, is sent as it is."""

    def __init__(self, primary: Looker) -> None:
        self._primary = primary

    async def leave_out(self, step: BatchStep | SingleStep) -> BatchStep | SingleStep | None:
        """Leave out of a retried step what is not so any more; None when nothing is left of it.

        Raises what asking the primary raises.
        """
        if isinstance(step, BatchStep):
            return await self._of_batch(step) if step.batch.attempted and step.batch.tags else step
        reading = step.reading
        if not step.entry.attempted or reading.exchange.operation not in UNDOING or reading.subject is None:
            return step
        entity = await self._read(reading.subject)
        left = lasting(reading, entity) if entity is not None else reading
        if left is None:
            log.info("delivery.overtaken", entity=reading.subject.key, operation=reading.exchange.operation)
        return replace(step, reading=left) if left is not None else None

    async def _of_batch(self, step: BatchStep) -> BatchStep:
        """Params never change, and points only come to others: tags alone can be overtaken."""
        entity = await self._read(step.run)
        if entity is None:
            return step
        tags = lasting_tags(step.batch.tags, run_tags(entity))
        if len(tags) < len(step.batch.tags):
            log.info("delivery.overtaken", entity=step.run.key, tags=len(step.batch.tags) - len(tags))
        return replace(step, batch=replace(step.batch, tags=tags))

    async def _read(self, ref: Ref) -> Document | None:
        try:
            return await self._primary.get(ref.kind, ref.client_id)
        except RejectedError:
            return None
