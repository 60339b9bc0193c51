"""Sizes, durations and instants as people read them."""

import pytest

from dualtrack.core.wording import age, instant, size


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 30, "5.0 GiB"), (1 << 55, "32768.0 TiB")]
)
def test_sizes(count: int, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "-"), (0.4, "0s"), (125, "2m 5s"), (3725, "1h 2m"), (200_000, "2d 7h")]
)
def test_ages(seconds: float | None, text: str) -> None:
    assert age(seconds) == text


def test_instants_are_utc() -> None:
    assert instant(1_700_000_000.9) == "2023-11-14 22:13:20Z"
