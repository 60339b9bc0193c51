"""Histories of many runs in one request: which are asked for, what of an answer counts, and when nobody asks again."""

import asyncio
from typing import Any
from urllib.parse import parse_qs, urlsplit

import orjson
import pytest

from dualtrack.core.exchange import Answer, Call
from dualtrack.reconcile.album import Album, Albums

MANY = 5_000  # an answer of so many points may be cut
TWO = {"r1": ("loss", "f1"), "r2": ("loss",)}


class Primary:
    """Answers each request as it is told, the last answer for ever; keeps what it was asked."""

    name = "a"

    def __init__(self, *answers: Answer) -> None:
        self._answers = list(answers)
        self.asked: list[dict[str, list[str]]] = []

    async def send(self, call: Call) -> Answer:
        self.asked.append(parse_qs(urlsplit(call.target).query))
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]

    @property
    def keys(self) -> list[str]:
        return [asked["metric_key"][0] for asked in self.asked]


def points(*run_ids: str, **point: Any) -> Answer:
    told = [{"key": "loss", "value": 0.5, "timestamp": 1, "step": 0, "run_id": run_id, **point} for run_id in run_ids]
    return Answer(status=200, body=orjson.dumps({"metrics": told}))


def read(primary: Primary, keys: dict[str, tuple[str, ...]], albums: Albums | None = None) -> Album:
    return asyncio.run((albums or Albums(primary)).read(keys, 7))  # type: ignore[arg-type]  # all that it is asked for


@pytest.mark.parametrize(
    ("keys", "asked"),
    [
        ({}, []),
        ({"r1": ("loss", "f1")}, []),
        ({"r1": ("loss",), "r2": ("f1",)}, []),
        (TWO, [("loss", ["r1", "r2"])]),
        ({"r1": ("a", "b"), "r2": ("b", "a"), "r3": ("b",)}, [("a", ["r1", "r2"]), ("b", ["r1", "r2", "r3"])]),
    ],
)
def test_what_several_runs_have_is_asked_for(
    keys: dict[str, tuple[str, ...]], asked: list[tuple[str, list[str]]]
) -> None:
    """One request for each metric; what one run alone has costs as much the common way."""
    primary = Primary(points())
    read(primary, keys)

    assert [(each["metric_key"][0], each["run_id"]) for each in primary.asked] == asked


def test_a_history_is_whole_and_its_runs_own() -> None:
    album = read(Primary(points("r1", "r2", "r1")), TWO)

    plain = {"key": "loss", "value": 0.5, "timestamp": 1, "step": 0}
    assert (album.upto, album.history("r1", "loss"), album.history("r2", "loss")) == (7, [plain, plain], [plain])
    assert (album.history("r1", "f1"), album.history("r3", "loss")) == ([], [])


def test_a_value_that_json_has_no_word_for_is_kept() -> None:
    """Flask writes NaN as Python does."""
    answer = Answer(status=200, body=b'{"metrics": [{"run_id": "r1", "key": "loss", "value": NaN}]}')

    assert read(Primary(answer), TWO).history("r1", "loss") == [{"key": "loss", "value": "NaN"}]


@pytest.mark.parametrize(
    "answer",
    [
        Answer(status=200, body=b""),
        Answer(status=200, body=b"<html>"),
        points(*["r1"] * MANY),
    ],
    ids=["empty", "a page", "as long as an answer may be"],
)
def test_what_cannot_be_read_is_left_to_the_common_way(answer: Answer) -> None:
    """And the next metric is asked for all the same."""
    primary = Primary(answer, points("r1", "r2", key="f1"))
    album = read(primary, {"r1": ("loss", "f1"), "r2": ("loss", "f1")})

    assert primary.keys == ["loss", "f1"]
    assert (album.history("r1", "loss"), len(album.history("r1", "f1"))) == ([], 1)


@pytest.mark.parametrize(
    ("status", "is_asked_again"),
    [(404, False), (400, False), (403, False), (501, False)] + [(status, True) for status in (429, 500, 502, 503, 504)],
)
def test_a_backend_that_lacks_it_is_asked_once(status: int, is_asked_again: bool) -> None:
    """One that is in trouble is asked for the next metric, and for the next album."""
    primary = Primary(Answer(status=status, body=b""))
    albums = Albums(primary)  # type: ignore[arg-type]
    for _ in range(2):
        read(primary, {"r1": ("a", "b"), "r2": ("a", "b")}, albums)

    assert primary.keys == (["a", "b", "a", "b"] if is_asked_again else ["a"])


def test_an_album_is_bounded() -> None:
    """20,000 points are in memory at once, and what may come with one more answer."""
    keys = tuple("abcdefgh")
    primary = Primary(points(*["r1"] * (MANY - 1)))
    read(primary, {"r1": keys, "r2": keys})

    assert primary.keys == list("abcde")
