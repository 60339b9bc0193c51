"""What the admin listener reads and changes of the journal; and the empty one of a process that keeps none.

With one backend alone nothing is mirrored, so there is no journal; its pages are empty then, not errors.
"""

from collections.abc import Sequence
from typing import Protocol

from dualtrack.core.ids import Ref, Twin
from dualtrack.core.loss import LossKind
from dualtrack.ports import Backlog, Parked, RecordedLoss, Usage


class Records(Protocol):
    """The part of the Journal port that people see; see there for the contracts."""

    async def backlogs(self) -> list[Backlog]: ...

    async def usage(self) -> Usage: ...

    async def parked(self, parked_id: int | None = None, limit: int = 100, before: int | None = None) -> list[Parked]:
        """Answer one dead letter, or the newest `limit` of them, of those before number `before`."""
        ...

    async def retry_parked(self, parked_id: int, now: float) -> bool: ...

    async def discard_parked(self, parked_id: int, note: str, items: Sequence[tuple[LossKind, str]] = ()) -> bool: ...

    async def find(self, some_id: str) -> list[Twin]: ...

    async def twin(self, ref: Ref, backend: str) -> Twin | None: ...

    async def waiting(self, backend: str, keys: Sequence[str]) -> dict[str, bool]: ...

    async def export_ids(self, after: tuple[str, str], limit: int) -> list[Twin]: ...

    async def losses(
        self, key: str | None = None, *, backend: str | None = None, before: int | None = None, limit: int = 100
    ) -> list[RecordedLoss]: ...


class NoRecords:
    """No journal: nothing was ever kept."""

    async def backlogs(self) -> list[Backlog]:
        return []

    async def usage(self) -> Usage:
        return Usage(used_bytes=0, capacity_bytes=0, entries=0, quarantined=0, is_full=False)

    async def parked(
        self,
        parked_id: int | None = None,  # noqa: ARG002
        limit: int = 100,  # noqa: ARG002
        before: int | None = None,  # noqa: ARG002
    ) -> list[Parked]:
        return []

    async def retry_parked(self, parked_id: int, now: float) -> bool:  # noqa: ARG002
        return False

    async def discard_parked(
        self,
        parked_id: int,  # noqa: ARG002
        note: str,  # noqa: ARG002
        items: Sequence[tuple[LossKind, str]] = (),  # noqa: ARG002
    ) -> bool:
        return False

    async def find(self, some_id: str) -> list[Twin]:  # noqa: ARG002
        return []

    async def twin(self, ref: Ref, backend: str) -> Twin | None:  # noqa: ARG002
        return None

    async def waiting(self, backend: str, keys: Sequence[str]) -> dict[str, bool]:  # noqa: ARG002
        return {}

    async def export_ids(self, after: tuple[str, str], limit: int) -> list[Twin]:  # noqa: ARG002
        return []

    async def losses(
        self,
        key: str | None = None,  # noqa: ARG002
        *,
        backend: str | None = None,  # noqa: ARG002
        before: int | None = None,  # noqa: ARG002
        limit: int = 100,  # noqa: ARG002
    ) -> list[RecordedLoss]:
        return []
