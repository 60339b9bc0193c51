"""What happened on the wire: a request as the client sent it and, once known, what the primary answered.

The journal keeps exchanges as they happened; translation is at delivery time, when the id map knows most. Headers are
not kept: nothing that a tracking write means is in them, and credentials are (P9).
"""

from dataclasses import dataclass, field
from typing import TypeAlias, Union

# a Union of real types, not a string: annotations such as `Document | None` are evaluated
JSON: TypeAlias = Union[dict[str, "JSON"], list["JSON"], str, int, float, bool, None]  # noqa: UP007 - recursive
Document: TypeAlias = dict[str, JSON]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One tracking write. `path` is the `/api/…` form; `answer` is empty unless mirroring needs it (creates)."""

    operation: str
    method: str
    path: str
    query: str = ""
    body: bytes = b""
    answer: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request that dualtrack makes of a backend itself; `target` is path and query below the backend's base."""

    operation: str
    method: str
    target: str
    body: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a backend said to a call. Error bodies of each vendor's shape are read into `error_code` and `message`."""

    status: int
    body: bytes = b""
    error_code: str = ""
    message: str = ""
    retry_after: float | None = None

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What a backend answers for an entity, and for a run the histories of the metrics in question."""

    entity: Document
    histories: dict[str, list[Document]] = field(default_factory=dict)
