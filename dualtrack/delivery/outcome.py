"""What one step came to, as values that the lane's loop records."""

from dataclasses import dataclass
from typing import TypeAlias

from dualtrack.core.ids import Twin
from dualtrack.ports import Loss, Parking


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
