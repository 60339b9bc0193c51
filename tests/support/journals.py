"""Where a journal lies, whichever engine keeps it: what the contract suite needs besides the port."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from subprocess import Popen
from typing import Protocol

from dualtrack.core.exchange import Exchange
from dualtrack.errors import JournalFullError
from dualtrack.ports import Journal, Settlement
from tests.support.writes import note


class OpenedJournal(Journal, Protocol):
    """The port, and the two ends of its life."""

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    def on_due(self, waker: Callable[[float], None]) -> None: ...


class Shelf(Protocol):
    """One journal's place. `now` is the time that an opened journal goes by; a test moves it."""

    now: float

    async def open(
        self,
        *,
        secondaries: tuple[str, ...] = ("b",),
        max_bytes: int = 1 << 30,
        linger: float = 0.0,
        registry: frozenset[str] = frozenset(),
    ) -> OpenedJournal:
        """Open what lies here; closed at the end of the test at the latest."""
        ...

    async def reopen(
        self,
        *,
        secondaries: tuple[str, ...] = ("b",),
        max_bytes: int = 1 << 30,
    ) -> OpenedJournal:
        """Close what was opened here, then open it again, as a restart does."""
        ...

    def write_elsewhere(self, what: str) -> AbstractContextManager[Popen[str]]:
        """Run `tests/support/journal_child.py` with task `what` on this place, in a process of its own."""
        ...


async def keep(journal: Journal, key: str, text: str) -> int:
    """Write `text` in lane `key` as the hot path does; give the entry's id."""
    return await keep_exchange(journal, key, note(text))


async def keep_exchange(journal: Journal, key: str, exchange: Exchange) -> int:
    entry_id = await journal.open(exchange)
    await journal.settle(Settlement(entry_id=entry_id, key=key))
    return entry_id


async def fill(journal: Journal, key: str, size: int) -> list[str]:
    """Write texts of `size` until the journal is full; give what it acknowledged."""
    acknowledged: list[str] = []
    for number in range(10_000):
        text = f"{number}:".ljust(size, "x")
        try:
            await keep(journal, key, text)
        except JournalFullError:
            return acknowledged
        acknowledged.append(text)
    raise AssertionError("the journal is never full")


def lose_journal(folder: Path) -> None:
    """Delete the journal's file with all that belongs to it."""
    for path in folder.glob("journal.db*"):
        path.unlink()
