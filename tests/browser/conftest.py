"""The app in process between two façades over real servers (`tests/support/flow.py`), and a browser to look at it."""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.support.browser import Chromium, Visitor, visiting
from tests.support.flow import a, b, launch, proxy, session
from tests.support.tools import tool

__all__ = ["a", "b", "launch", "proxy", "session"]


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    started = Chromium(tool("chromium", "chromium"), tmp_path_factory.mktemp("chromium"))
    yield started
    started.stop()


@pytest.fixture
async def visitor(chromium: Chromium) -> AsyncIterator[Visitor]:
    async with visiting(chromium) as opened:
        yield opened
