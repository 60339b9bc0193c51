"""Models on a side without logged models: each becomes files of its run, below its name. Nothing is sent for it."""

from dualtrack.core.exchange import Answer
from dualtrack.core.ids import EntityKind, Ref, stand_in
from dualtrack.core.verdict import lacks_route
from dualtrack.delivery.files import Files
from dualtrack.delivery.losses import as_files
from dualtrack.delivery.order import Order
from dualtrack.delivery.outcome import Done, Later, Outcome
from dualtrack.delivery.plan import SingleStep
from dualtrack.delivery.policy import PATIENCE, PLACE_SECONDS
from dualtrack.delivery.resolver import Known
from dualtrack.ports import Lane, Looker, Loss
from dualtrack.translate.document import field, parse, text


class StandIns:
    """Those on one backend, called `backend`."""

    def __init__(self, backend: str, looker: Looker, files: Files, order: Order) -> None:
        self._backend = backend
        self._looker = looker
        self._files = files
        self._order = order

    async def are_needed(self, ref: Ref, answer: Answer) -> bool:
        """Say whether a create was refused because there are no logged models on this side."""
        return ref.kind is EntityKind.MODEL and lacks_route(answer) and not await self._looker.has_models()

    async def make(
        self, lane: Lane, step: SingleStep, ref: Ref, known: Known, losses: tuple[Loss, ...], attempt: int
    ) -> Outcome:
        """Give a model its folder; of two of one name the second is told apart by its id."""
        run = next((twin for known, twin in known.twins.items() if known.kind is EntityKind.RUN), None)
        if run is not None and attempt <= PATIENCE and await self._order.has_older_writes(lane, step, run.ref):
            # a file of the run's own, logged earlier, may have that name; for ever it is not waited for
            return Later(wait=PLACE_SECONDS, reason="waits for its run's files", is_backend=False)
        name = text(field(parse(step.reading.exchange.answer), "model", "info", "name")) or "model"
        made = stand_in(ref, self._backend, run, name)
        if run is not None and made.root and not await self._files.claim(run.root, made):
            made = stand_in(ref, self._backend, run, f"{name}-{ref.client_id}")
        return Done(twins=(made,), losses=(*losses, as_files(lane, ref)))
