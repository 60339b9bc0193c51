"""Client ids → what the backend calls them; and what to do about those that nobody knows there yet.

in the map ─▶ twin          queued in its own lane ─▶ wait for it
nowhere    ─▶ adopt it whole, then wait for it, or for its experiment     unknown to the primary too ─▶ absent
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from dualtrack.core.ids import Ref, Twin
from dualtrack.ports import Adopter, Queue
from dualtrack.translate.references import Reference


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """All twins there are; `absent` are references that even the primary does not know."""

    twins: dict[Ref, Twin]
    absent: tuple[Ref, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Discarded:
    """An operator decided that this entity is not mirrored."""

    ref: Ref


@dataclass(frozen=True, slots=True, kw_only=True)
class Awaited:
    """The write can go on once something has happened in the lane of `ref`."""

    ref: Ref


Resolution: TypeAlias = Known | Discarded | Awaited


class Resolver:
    def __init__(self, backend: str, queue: Queue, adopter: Adopter) -> None:
        self._backend = backend
        self._queue = queue
        self._adopter = adopter

    async def resolve(self, key: str, references: Sequence[Reference]) -> Resolution:
        """Answer for all of `references` of a write in lane `key`. Raises what asking the primary raises."""
        twins: dict[Ref, Twin] = {}
        absent: list[Ref] = []
        for reference in references:
            ref = reference.ref
            twin = await self._queue.twin(ref, self._backend)
            if twin is not None and twin.is_discarded:
                if reference.soft:
                    absent.append(ref)
                    continue
                return Discarded(ref=ref)
            if twin is not None:
                twins[ref] = twin
                continue
            # a reference into its own lane is not waited for: what is ahead in the lane is delivered already
            if ref.key != key and await self._queue.is_pending(self._backend, ref.key):
                return Awaited(ref=ref)
            awaited = await self._adopter.adopt(ref, self._backend, is_own=ref.key == key)
            if awaited is not None:
                return Awaited(ref=awaited)
            absent.append(ref)
        return Known(twins=twins, absent=tuple(absent))
