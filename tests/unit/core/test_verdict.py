"""What becomes of an entry: the table of verdicts row by row, and the bounds of every wait."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualtrack.core.exchange import Answer
from dualtrack.core.verdict import (
    Bisect,
    Delivered,
    LookAgain,
    Park,
    Retry,
    RetryPolicy,
    Verdict,
    describe,
    judge,
    retry,
    wait_before,
)

PATIENT = RetryPolicy()
HASTY = RetryPolicy(give_up_after=60.0)
HOUR = 3600.0


def verdict(status: int, items: int = 1, age: float = 0.0, policy: RetryPolicy = PATIENT) -> Verdict:
    return judge(Answer(status=status), attempt=1, items=items, age=age, policy=policy, chance=0.5)


@pytest.mark.parametrize(
    ("statuses", "kind", "kind_of_many"),
    [
        ((200, 201, 204, 299), Delivered, Delivered),
        ((408, 425, 429), Retry, Retry),
        ((500, 501, 502, 503, 504, 599), Retry, Retry),
        ((401, 407), Retry, Retry),
        ((100, 199, 301, 302, 304, 307), Retry, Retry),
        ((404,), LookAgain, Bisect),
        ((400, 402, 403, 405, 409, 410, 413, 422, 431), LookAgain, Bisect),
    ],
)
def test_the_table(statuses: tuple[int, ...], kind: type[Verdict], kind_of_many: type[Verdict]) -> None:
    """Each row of the table, for a single write and for a batch of many."""
    assert {type(verdict(status)) for status in statuses} == {kind}
    assert {type(verdict(status, items=2)) for status in statuses} == {kind_of_many}


@pytest.mark.parametrize(("age", "kind"), [(59.9, Retry), (60.0, Park), (1e9, Park)])
def test_giving_up_is_a_policy(age: float, kind: type[Verdict]) -> None:
    """An entry is parked for its age only where that was asked for."""
    assert type(verdict(503, age=age, policy=HASTY)) is kind
    assert type(verdict(503, age=age)) is Retry
    assert type(verdict(400, age=age, policy=HASTY)) is LookAgain


def test_giving_up_says_for_how_long_it_was_tried() -> None:
    assert retry("HTTP 503", 9, 90.0, HASTY, 0.0) == Park(reason="given up after 90 s: HTTP 503")


@given(
    attempt=st.integers(1, 10_000),
    chance=st.floats(0.0, 1.0, exclude_max=True),
    retry_after=st.none() | st.floats(allow_nan=False),
    wait_min=st.floats(0.001, 60.0),
    factor=st.floats(1.0, 1000.0),
)
def test_waits_are_bounded(
    attempt: int, chance: float, retry_after: float | None, wait_min: float, factor: float
) -> None:
    """Never shorter than half the least wait, never longer than the most, or than an hour if a server asks for it."""
    policy = RetryPolicy(wait_min=wait_min, wait_max=wait_min * factor)
    wait = wait_before(attempt, policy, chance, retry_after)

    assert wait_min / 2 <= wait <= max(policy.wait_max, HOUR)
    assert wait >= min(retry_after or 0.0, HOUR)
    if retry_after is None:
        assert wait <= policy.wait_max


@given(st.integers(1, 100), st.floats(0.0, 0.999))
def test_waits_grow(attempt: int, chance: float) -> None:
    assert wait_before(attempt, PATIENT, chance) <= wait_before(attempt + 1, PATIENT, chance)


@pytest.mark.parametrize(
    ("attempt", "least", "most"), [(1, 0.5, 1.0), (2, 1.0, 2.0), (9, 128.0, 256.0), (99, 150.0, 300.0)]
)
def test_jitter_lies_above_half_of_the_exponential(attempt: int, least: float, most: float) -> None:
    assert wait_before(attempt, PATIENT, 0.0) == least
    assert wait_before(attempt, PATIENT, 0.5) == (least + most) / 2


@pytest.mark.parametrize(
    ("retry_after", "wait"), [(None, 0.5), (0.0, 0.5), (-5.0, 0.5), (7.0, 7.0), (HOUR, HOUR), (1e9, HOUR)]
)
def test_retry_after_is_a_lower_bound(retry_after: float | None, wait: float) -> None:
    """A server that asks for patience gets it, an absurd one gets an hour."""
    answer = Answer(status=429, retry_after=retry_after)
    found = judge(answer, attempt=1, items=1, age=0.0, policy=PATIENT, chance=0.0)

    assert found == Retry(wait=wait, reason="HTTP 429", retry_after=retry_after)


def test_an_answer_is_described_in_one_bounded_line() -> None:
    answer = Answer(status=400, error_code="INVALID_PARAMETER_VALUE", message="no " * 1000)

    assert describe(answer).startswith("HTTP 400 INVALID_PARAMETER_VALUE no no")
    assert len(describe(answer)) == 500
    assert describe(Answer(status=502)) == "HTTP 502"
