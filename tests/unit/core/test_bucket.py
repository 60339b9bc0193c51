"""The token bucket never lets more through than its rate, and never holds back what is within it."""

from hypothesis import given
from hypothesis import strategies as st

from dualtrack.core.bucket import Bucket

RATES = st.floats(min_value=0.1, max_value=1000)
GAPS = st.lists(st.floats(min_value=0, max_value=10), min_size=1, max_size=200)


def test_a_burst_goes_at_once_and_the_rest_evenly() -> None:
    bucket = Bucket(per_second=2, burst=3)

    assert [bucket.reserve(100.0) for _ in range(6)] == [0, 0, 0, 0.5, 1.0, 1.5]


def test_rest_fills_it_again_and_no_further() -> None:
    bucket = Bucket(per_second=2, burst=3)
    for _ in range(3):
        bucket.reserve(100.0)

    assert [bucket.reserve(1000.0) for _ in range(4)] == [0, 0, 0, 0.5]


@given(RATES, st.integers(min_value=1, max_value=50), GAPS)
def test_no_window_holds_more_than_the_rate(per_second: float, burst: int, gaps: list[float]) -> None:
    bucket, now, sent = Bucket(per_second, burst), 0.0, list[float]()
    for gap in gaps:
        now += gap
        sent.append(now + bucket.reserve(now))

    for first in range(len(sent)):
        for last in range(first, len(sent)):
            seconds = sent[last] - sent[first]
            assert last - first + 1 <= burst + seconds * per_second + 1e-6 * (1 + len(sent))


@given(RATES, st.lists(st.floats(min_value=1.0, max_value=5.0), min_size=1, max_size=50))
def test_what_keeps_to_the_rate_never_waits(per_second: float, gaps: list[float]) -> None:
    bucket, now = Bucket(per_second, burst=1), 0.0
    for gap in gaps:
        now += gap / per_second * (1 + 1e-9)
        assert bucket.reserve(now) <= 1e-9 * now
