"""What the admin listener shows of the running process, and the port through which it asks for it.

Only values that may be shown to anyone who may read the admin listener: no token, no header, no body. `app` answers
`StatusSource`; `api` and the `status` command read what it says.
"""

from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from dualtrack.ports import Usage

Role: TypeAlias = Literal["primary", "secondary"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendStatus:
    """One backend now.

    `web_url` is where its pages are, if not at `url`. `up` is None before its first answer; `lag_seconds` is None when
    nothing waits for it. `breaker` is closed, half-open or open, in the last case until `breaker_until` (seconds since
    the epoch). The primary has no backlog, so its counts are zero.
    """

    name: str
    kind: str
    role: Role
    url: str
    is_registry: bool
    web_url: str = ""
    up: bool | None = None
    breaker: str = "closed"
    breaker_until: float | None = None
    last_error: str = ""
    entries: int = 0
    lag_seconds: float | None = None
    lanes: int = 0
    held_lanes: int = 0
    parked: int = 0
    losses: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The process now; `open_entries` are writes whose outcome at the primary is not known yet.

    `spool_used_bytes` and `spool_capacity_bytes` are of the files that wait for the secondaries.
    """

    version: str
    started_at: float
    ready: bool
    reason: str
    primary: str
    registry: str
    backends: tuple[BackendStatus, ...]
    journal: Usage
    open_entries: int
    spool_used_bytes: int = 0
    spool_capacity_bytes: int = 0


class StatusSource(Protocol):
    """The running process, as far as people may look into it."""

    def ready(self) -> tuple[bool, str]:
        """Say whether this process can accept and keep a write, and if not, why. Never waits for a backend."""
        ...

    async def status(self) -> Status:
        """Answer what is known now; asks the journal, never a backend. Raise `JournalError`."""
        ...
