"""The shelf of the SQLite journal: a file in a test's folder."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dualtrack.store.sqlite import SqliteJournal, open_journal

ROOT = Path(__file__).parents[2]


class SqliteShelf:
    """`commits` are the seconds that each synced commit took, over all journals opened here."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now = 1000.0
        self.commits: list[float] = []
        self._opened: list[SqliteJournal] = []

    async def open(
        self,
        *,
        secondaries: tuple[str, ...] = ("b",),
        max_bytes: int = 1 << 30,
        linger: float = 0.0,
        registry: frozenset[str] = frozenset(),
    ) -> SqliteJournal:
        journal = open_journal(
            self.path,
            secondaries=secondaries,
            max_bytes=max_bytes,
            linger=linger,
            now=lambda: self.now,
            is_registry=registry.__contains__,
            observe_commit=self.commits.append,
        )
        self._opened.append(journal)
        return journal

    async def reopen(self, *, secondaries: tuple[str, ...] = ("b",), max_bytes: int = 1 << 30) -> SqliteJournal:
        await self.close()
        return await self.open(secondaries=secondaries, max_bytes=max_bytes)

    @contextmanager
    def write_elsewhere(self, what: str) -> Iterator[subprocess.Popen[str]]:
        argv = [sys.executable, "-m", "tests.support.journal_child", str(self.path), what]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT) as child:
            try:
                yield child
            finally:
                child.kill()

    async def close(self) -> None:
        while self._opened:
            await self._opened.pop().close()
