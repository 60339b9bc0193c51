"""What one step came to, as values that the lane's loop records; and a step that is given up, as one of them."""

from dataclasses import dataclass, replace
from typing import TypeAlias

from dualtrack.core.coalesce import Batch
from dualtrack.core.exchange import JSON, Document, Exchange
from dualtrack.core.ids import Ref, Twin
from dualtrack.delivery.plan import BatchStep, SingleStep
from dualtrack.ports import Loss, Parking
from dualtrack.translate.document import write
from dualtrack.translate.mlflow import API


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """The step needs no more: delivered, found to be so already, parked or skipped; with what was learned."""

    outcome: str = "delivered"
    twins: tuple[Twin, ...] = ()
    parkings: tuple[Parking, ...] = ()
    losses: tuple[Loss, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Later:
    """Try again in `wait` seconds. `is_backend` counts against the backend's breaker."""

    wait: float
    reason: str
    is_backend: bool
    retry_after: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitFor:
    """Something it refers to is on its way in lane `key`."""

    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewritten:
    """The lane's entity was brought over whole: what was read of the lane is no longer what is in it."""


Outcome: TypeAlias = Done | Later | WaitFor | Rewritten


def parked(step: BatchStep | SingleStep, reason: str) -> Done:
    """Give a step up, for a person to see; what was to make something holds its lane."""
    if isinstance(step, BatchStep):
        return Done(outcome="parked", parkings=(parking_of(step, alone(step.run, step.batch), reason),))
    parking = _parking(step.entry.seq, step.entry.exchange, reason, holds=step.reading.operation.creates)
    return Done(outcome="parked", parkings=(replace(parking, spool=step.entry.spool),))


def parking_of(step: BatchStep, exchange: Exchange, reason: str) -> Parking:
    """What is parked of a batch: all of it, or what was refused."""
    return _parking(step.done[-1] if step.done else step.batch.last, exchange, reason)


def alone(run: Ref, batch: Batch) -> Exchange:
    """A batch told as an exchange of its own, in the client's ids, as it is parked."""
    document: Document = {"run_id": run.client_id}
    for name, listed in (("metrics", batch.metrics), ("params", batch.params), ("tags", batch.tags)):
        if listed:
            document[name] = list[JSON](listed)
    return Exchange(operation="logBatch", method="POST", path=f"{API}/runs/log-batch", body=write(document))


def _parking(seq: int, exchange: Exchange, cause: str, *, holds: bool = False) -> Parking:
    return Parking(seq=seq, exchange=exchange, reason="refused", cause=cause, holds=holds)
