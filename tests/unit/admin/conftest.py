"""A journal for the admin listener to tell of."""

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dualtrack.store.sqlite import SqliteJournal, open_journal


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[SqliteJournal]:
    opened = open_journal(tmp_path / "journal.db", secondaries=["b"], max_bytes=1 << 24, linger=0.0, now=time.time)
    await opened.start()
    yield opened
    await opened.close()
