"""How an entity stands on a secondary: what its latest comparison with the primary came to."""

from dataclasses import dataclass
from enum import StrEnum

from dualtrack.core.ids import Ref


class State(StrEnum):
    """What the comparison of one entity comes to."""

    EQUAL = "equal"  # but for our marks and that side's own ids and names
    EXPLAINED = "explained"  # different only by what is on record or cannot be otherwise
    DRIFT = "drift"
    PENDING = "pending"  # writes are on their way
    DISCARDED = "discarded"  # an operator left it out


class Occasion(StrEnum):
    """What happened to an entity on a secondary, as far as anybody besides delivery wants to know."""

    WROTE = "wrote"
    MADE = "made"  # from now on it is there
    ENDED = "ended"  # a run's terminal status, a model's finalization
    PARKED = "parked"
    LEFT_OVER = "left_over"  # on its way when this process began


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What is known of one entity on one secondary. Instants are seconds since the epoch.

    `changed_at` is when something of it last arrived there, `compared_at` when it was last compared; each is None
    before the first time. `state` and `drift`, the count of differences that nothing explains, are of that comparison.
    """

    ref: Ref
    backend: str
    name: str = ""
    changed_at: float | None = None
    compared_at: float | None = None
    state: State | None = None
    drift: int = 0

    @property
    def is_stale(self) -> bool:
        """Say whether it changed since it was compared, or never was."""
        return self.compared_at is None or (self.changed_at or 0.0) > self.compared_at
