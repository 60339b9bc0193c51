"""The backlog's chart: bounded, within its box, and told in words too."""

import asyncio
import re
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualtrack.admin.chart import HEIGHT, WIDTH, Samples, draw
from dualtrack.admin.records import NoRecords
from dualtrack.errors import JournalError
from dualtrack.ports import Backlog

NOW = 10_000.0


def numbers(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"([\d.-]+) ([\d.-]+)", path)]


def test_samples_are_bounded_and_by_backend() -> None:
    samples = Samples(kept=2)
    for at in (1.0, 2.0, 3.0):
        samples.add(at, {"b": int(at)})

    assert samples.of("b") == [(2.0, 2), (3.0, 3)]
    assert samples.of("a") == []


def test_the_line_runs_from_the_first_sample_to_now() -> None:
    chart = draw("b", [(NOW - 150, 10), (NOW - 75, 0)], NOW, 5)

    assert numbers(chart.line) == [(300, 0), (450, 100), (600, 50)]
    assert numbers(chart.area)[-2:] == [(600, 100), (300, 100)]
    assert (chart.top, chart.window, chart.ago) == (10, "5 minutes", "5m ago")


@pytest.mark.parametrize(
    ("seconds", "window"),
    [(0, "minute"), (61, "5 minutes"), (300, "5 minutes"), (301, "15 minutes"), (901, "hour"), (9_000, "minute")],
)
def test_the_window_is_the_smallest_that_shows_all_of_the_hour(seconds: float, window: str) -> None:
    assert draw("b", [(NOW - seconds, 1)], NOW, 0).window == window


def test_the_chart_is_told_in_words() -> None:
    assert draw("b", [(NOW - 60, 1_234)], NOW, 3).words == (
        "Writes that waited for b over the last minute: 3 now; at most 1,234, 1m 0s ago."
    )
    assert draw("b", [], NOW, 0).words == "Writes that waited for b over the last minute: 0 now."


@given(
    samples=st.lists(st.tuples(st.floats(0, 2 * NOW), st.integers(0, 10**9))),
    waiting=st.integers(0, 10**9),
)
def test_nothing_leaves_the_box(samples: list[tuple[float, int]], waiting: int) -> None:
    """Whatever the samples, clocks that went back included."""
    chart = draw("b", samples, NOW, waiting)

    assert str(chart.top).rstrip("0") in {"1", "2", "5"}
    for x, y in numbers(chart.area):
        assert 0 <= x <= WIDTH
        assert 0 <= y <= HEIGHT


@dataclass
class Failing(NoRecords):
    """A journal that fails at first."""

    fails: bool = True

    async def backlogs(self) -> list[Backlog]:
        if self.fails:
            raise JournalError("disk I/O error")
        row = Backlog(backend="b", entries=7, oldest_at=None, lanes=1, held_lanes=0, parked=0, losses=0, last_error="")
        return [row]


class Turns:
    """A clock whose waits are counted, and end after the second."""

    def __init__(self, records: Failing) -> None:
        self.records = records
        self.at = NOW

    def now(self) -> float:
        return self.at

    def chance(self) -> float:
        return 0.5

    async def wait(self, seconds: float) -> None:
        if not self.records.fails:
            raise asyncio.CancelledError
        self.at += seconds
        self.records.fails = False


async def test_a_journal_that_fails_leaves_a_gap() -> None:
    """It ends no process."""
    samples, records = Samples(), Failing()

    with pytest.raises(asyncio.CancelledError):
        await samples.watch(records, Turns(records))

    assert samples.of("b") == [(NOW + 10, 7)]
