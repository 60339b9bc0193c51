"""The life of a journal entry.

    open ──accept──▶ queued ──claim──▶ leased ──confirm──▶ delivered ──▶ (pruned)
      │                ▲ ▲              │ │ │
      │ refuse         │ └───release────┘ │ └──give up──▶ parked ──retry──▶ queued
      ▼                │                  │                 │
    refused            └──────────────────┼─────────────────┤
    (pruned)                              └──skip──▶ skipped ◀──discard──┘

`open` is written before the primary is asked, so a crash in between leaves an open entry and never a silent gap.
Settling (accept or refuse) follows the primary's answer. From `queued` on there is one such life per secondary. A
lease belongs to the process that claimed it and ends with it: after a crash a leased entry is queued again. The
alternative that lost: one state column per entry for all secondaries, which cannot say that one side has it and the
other has not.
"""

from dataclasses import dataclass
from enum import StrEnum

from dualtrack.core.exchange import Exchange


class State(StrEnum):
    OPEN = "open"
    REFUSED = "refused"
    QUEUED = "queued"
    LEASED = "leased"
    DELIVERED = "delivered"
    PARKED = "parked"
    SKIPPED = "skipped"


class Event(StrEnum):
    ACCEPT = "accept"
    REFUSE = "refuse"
    CLAIM = "claim"
    RELEASE = "release"
    CONFIRM = "confirm"
    GIVE_UP = "give up"
    SKIP = "skip"
    RETRY = "retry"
    DISCARD = "discard"


TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.OPEN, Event.ACCEPT): State.QUEUED,
    (State.OPEN, Event.REFUSE): State.REFUSED,
    (State.QUEUED, Event.CLAIM): State.LEASED,
    (State.LEASED, Event.RELEASE): State.QUEUED,
    (State.LEASED, Event.CONFIRM): State.DELIVERED,
    (State.LEASED, Event.GIVE_UP): State.PARKED,
    (State.LEASED, Event.SKIP): State.SKIPPED,
    (State.PARKED, Event.RETRY): State.QUEUED,
    (State.PARKED, Event.DISCARD): State.SKIPPED,
}

FINAL = frozenset({State.REFUSED, State.DELIVERED, State.SKIPPED})


def advance(state: State, event: Event) -> State:
    """Answer the state after `event`; `ValueError` when the table has no such step."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise ValueError(f"an entry that is {state} cannot {event}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A queued write on its way to one secondary.

    `seq` orders a lane: the order in which writes were acknowledged. `attempted` says that an earlier attempt may have
    reached the backend, so that it is looked for before it is sent again: of a create, or of anything given up and
    retried. `spool` names the file that an upload needs, empty for all else. `queued_at` is when a person had it queued
    again, or about `settled_at`: it is given up only a while after both.
    """

    seq: int
    exchange: Exchange
    settled_at: float
    queued_at: float = 0.0
    attempted: bool = False
    spool: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenEntry:
    """A write whose outcome at the primary is not known; `seq` is the place kept for it in its lane.

    `key` is None for a create: what it made has no id yet that anybody could have used.
    """

    entry_id: int
    seq: int
    key: str | None
