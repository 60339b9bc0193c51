"""`proxy.ranges`: the part of a file that is asked for, and the name it is kept under."""

import pytest

from dualtrack.proxy.ranges import disposition, requested_range


@pytest.mark.parametrize(
    ("header", "part"),
    [
        ("bytes=0-3", range(4)),
        ("bytes=7-", range(7, 10)),
        ("bytes=-3", range(7, 10)),
        ("bytes=-30", range(10)),
        ("bytes=8-99", range(8, 10)),
        ("bytes=9-9", range(9, 10)),
        ("bytes=10-", None),
        ("bytes=5-4", None),
        ("bytes=-0", None),
        ("bytes=0-1,3-4", None),
        ("lines=0-3", None),
        ("bytes=-", None),
        ("", None),
    ],
)
def test_a_range_of_ten_bytes(header: str, part: range | None) -> None:
    """What cannot be served in part is served whole."""
    assert requested_range(header, 10) == part


def test_a_size_that_nobody_knows_has_no_parts() -> None:
    assert requested_range("bytes=0-3", None) is None
    assert requested_range("bytes=0-3", 0) is None


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("a.txt", "attachment; filename=a.txt"),
        ("a b.txt", 'attachment; filename="a b.txt"'),
        ('say "hi".txt', 'attachment; filename="say \\"hi\\".txt"'),
        ("größe.csv", "attachment; filename=groe.csv; filename*=UTF-8''gr%C3%B6%C3%9Fe.csv"),
        ("日本", "attachment; filename=download; filename*=UTF-8''%E6%97%A5%E6%9C%AC"),
    ],
)
def test_names_in_headers(name: str, header: str) -> None:
    """As mlflow's own server spells them."""
    assert disposition(name) == header
