"""Which points of a lane may be on the backend already, though their entries are queued. Decides, and does no I/O.

    sent, and no answer, or none that was recorded ─▶ everything up to there, whatever the next read makes of it
    acknowledged before this process began         ─▶ what the one before it may have sent: one read ahead
    given up, and queued again by an operator      ─▶ everything up to there
    settled without the client hearing of it       ─▶ its repeats, for as long as clients repeat

A point in doubt is looked for before it is sent (`translate.doubt`). A doubt is about entries, by their numbers:
batches are cut anew with each read, so that a smaller one, delivered, says nothing of the rest.
"""

from collections.abc import Sequence
from typing import Final

from dualtrack.core.coalesce import Batch

_REPEATED_SECONDS: Final = 3600.0  # MLflow's client gives up within half an hour, its asynchronous queue too
_REPEATED_MAX: Final = 10_000  # lanes


class Doubts:
    """One backend's. A lane is worked on by one task at a time, so nothing here is raced for."""

    def __init__(self) -> None:
        self._reach: dict[str, int] = {}  # the last entry of a lane that may have been sent, in whole or in part
        self._read: dict[str, int] = {}  # the same when the lane was last read: what was sent since then is known
        self._repeated: dict[str, float] = {}

    def begin(self, key: str, earlier: int | None = None) -> None:
        """A lane was read. `earlier` is the last entry in it that may have been sent, and nobody here remembers."""
        if earlier is not None:
            self._reach[key] = max(earlier, self._reach.get(key, earlier))
        self._read.pop(key, None)
        if key in self._reach:
            self._read[key] = self._reach[key]

    def covers(self, key: str, batch: Batch, settled_at: float) -> bool:
        """Say whether any of a batch may be there already. `settled_at` is of its oldest entry."""
        reach = self._read.get(key)
        if reach is not None and batch.first <= reach:
            return True
        repeated = self._repeated.get(key)
        return repeated is not None and settled_at <= repeated + _REPEATED_SECONDS

    def send(self, key: str, batch: Batch) -> int | None:
        """A batch goes out now; answers what `take_back` needs if nothing comes of it."""
        before = self._reach.get(key)
        self._reach[key] = max(batch.last, before if before is not None else batch.last)
        return before

    def take_back(self, key: str, before: int | None) -> None:
        """What was just sent was certainly not done."""
        if before is None:
            self._reach.pop(key, None)
        else:
            self._reach[key] = before

    def record(self, key: str, done: Sequence[int]) -> None:
        """Entries are delivered and that is on disk; one of which only a part was sent keeps its doubt."""
        if done and self._reach.get(key, done[-1] + 1) <= done[-1]:
            del self._reach[key]
            self._read.pop(key, None)

    def end(self, key: str) -> None:
        """The lane is left alone for now."""
        self._read.pop(key, None)

    def expect_repeats(self, key: str, now: float) -> None:
        """A write of this lane took effect and its client was not told: it may come again."""
        self._repeated.pop(key, None)
        if len(self._repeated) >= _REPEATED_MAX:
            del self._repeated[next(iter(self._repeated))]
        self._repeated[key] = now
