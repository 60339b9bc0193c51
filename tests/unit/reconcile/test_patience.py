"""A backend in trouble is asked again, with growing waits, until there is no patience left. Time is the test's."""

import asyncio
from collections.abc import Sequence

import pytest

from dualtrack.errors import JournalFullError, RejectedError, UnauthorizedError, UnreachableError
from dualtrack.reconcile.patience import Patience
from tests.support.hands import Hands

DOWN = UnreachableError("b", "searchRuns", "nobody there")
LOCKED = UnauthorizedError("b", "searchRuns", "HTTP 401")
FULL = JournalFullError("the journal is full")
NO = RejectedError("b", "searchRuns", "HTTP 400")


class Work:
    """Fails as it is told, then answers."""

    def __init__(self, *errors: Exception) -> None:
        self._errors = list(errors)

    async def __call__(self) -> str:
        if self._errors:
            raise self._errors.pop(0)
        return "answer"


@pytest.mark.parametrize("errors", [(), (DOWN,), (LOCKED,), (FULL,), (DOWN, LOCKED, FULL, DOWN)])
def test_trouble_is_waited_out(errors: Sequence[Exception]) -> None:
    clock = Hands()

    assert asyncio.run(Patience(clock, 60.0)(Work(*errors))) == "answer"
    assert len(clock.waits) == len(errors)


@pytest.mark.parametrize("error", [NO, ValueError("a mistake of ours")])
def test_a_no_is_no_trouble(error: Exception) -> None:
    clock = Hands()
    with pytest.raises(type(error)):
        asyncio.run(Patience(clock, 60.0)(Work(error)))

    assert clock.waits == []


def test_waits_grow_to_a_bound() -> None:
    """Half of each is chance; here there is none of it."""
    clock = Hands()
    asyncio.run(Patience(clock, 3600.0)(Work(*[DOWN] * 8)))

    assert clock.waits == [0.25, 0.5, 1.0, 2.0, 4.0, 7.5, 7.5, 7.5]


@pytest.mark.parametrize(("seconds", "asked_again"), [(0.0, 0), (0.25, 1), (0.3, 2), (1.75, 3), (10.0, 6)])
def test_what_came_last_is_raised_when_there_is_no_patience_left(seconds: float, asked_again: int) -> None:
    """Each question has all of it: the deadline counts from its first try."""
    clock, work = Hands(), Work(*[DOWN] * asked_again, LOCKED, *[DOWN] * 20)
    patience = Patience(clock, seconds)
    with pytest.raises(UnauthorizedError):
        asyncio.run(patience(work))
    clock.waits.clear()
    with pytest.raises(UnreachableError):
        asyncio.run(patience(work))

    assert len(clock.waits) == asked_again


def test_patience_can_change_between_two_questions() -> None:
    clock = Hands()
    patience = Patience(clock, 0.0)
    with pytest.raises(UnreachableError):
        asyncio.run(patience(Work(DOWN)))
    patience.seconds = 60.0

    assert asyncio.run(patience(Work(DOWN))) == "answer"
