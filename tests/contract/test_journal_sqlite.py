"""The SQLite journal keeps to the contract of the port."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.contract import journal_suite
from tests.support.sqlite_shelf import SqliteShelf


@pytest.fixture
async def shelf(tmp_path: Path) -> AsyncIterator[SqliteShelf]:
    shelf = SqliteShelf(tmp_path / "journal.db")
    yield shelf
    await shelf.close()


class TestIntake(journal_suite.Intake): ...


class TestDoubts(journal_suite.Doubts): ...


class TestLanes(journal_suite.Lanes): ...


class TestSecondaries(journal_suite.Secondaries): ...


class TestOutcomes(journal_suite.Outcomes): ...


class TestReplacing(journal_suite.Replacing): ...


class TestWatching(journal_suite.Watching): ...


class TestIds(journal_suite.Ids): ...


class TestFiles(journal_suite.Files): ...


class TestFigures(journal_suite.Figures): ...


class TestRecovery(journal_suite.Recovery): ...


class TestLife(journal_suite.Life): ...
