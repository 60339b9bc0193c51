"""What a secondary lacks, told as the journal's exchanges that bring it; and what no write can bring, with the choice.

The exchanges are in the client's ids, as `translate/adoption.py` tells them, and go through the journal like any other
write: the caller appends each to the lane that `operations.lane_of` answers. Nothing is ever deleted on a secondary but
by the lifecycle of the entity itself: what only it has is named in `unrepaired`. Pure.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from dualtrack.core.drift import AnyView, Difference
from dualtrack.core.exchange import Exchange
from dualtrack.core.ids import Ref


@dataclass(frozen=True, slots=True, kw_only=True)
class Unrepaired:
    """A difference that no write mends; `choice` says, in words, what a person can do about it."""

    difference: Difference
    choice: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """What mends an entity: `exchanges`, in order; `adopts` are entities to bring over whole (`ports.Adopter`).

    `unread` are metrics whose points are needed first: read both sides again with them, compare, and plan again.
    """

    exchanges: tuple[Exchange, ...] = ()
    adopts: tuple[Ref, ...] = ()
    unrepaired: tuple[Unrepaired, ...] = ()
    unread: tuple[str, ...] = ()


def plan(here: AnyView | None, there: AnyView | None, differences: Iterable[Difference]) -> Repair:
    """Answer what makes `there` say what `here` says, as far as writes can; explained differences are left alone.

    `differences` are what `compare(here, there, …)` answered, or some of them. A repeat of what is planned changes
    nothing. The points of a metric come from the histories of both views.
    """
    raise NotImplementedError
