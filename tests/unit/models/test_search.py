"""What a search of logged models finds, what it refuses, and that it comes to an end."""

from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualtrack.core.exchange import Document
from dualtrack.models.documents import RefusedError, shown
from dualtrack.models.search import Pattern, experiments_of, reads_points, search


def model(name: str, *points: Document, **tags: str) -> Document:
    info: Document = {
        "model_id": f"m-{name}",
        "name": name,
        "experiment_id": "1",
        "status": "LOGGED_MODEL_READY",
        "creation_timestamp_ms": 1,
        "tags": [{"key": key, "value": value} for key, value in tags.items()],
    }
    return shown({"info": info, "data": {}}, points)


def point(value: Any, **more: Any) -> Document:
    return {"key": "loss", "value": value, "timestamp": 1, "step": 0, **more}


MODELS = [model("one", point(0.5), team="A"), model("two", point(2, dataset_name="d"), team="b")]


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ("name LIKE '%o%'", ["one", "two"]),
        ("name LIKE 'o_e'", ["one"]),
        ("name LIKE 'on'", []),
        ("name ILIKE 'T%'", ["two"]),
        ("tags.team LIKE 'a'", []),
        ("tags.team ilike 'a'", ["one"]),
        ("metrics.loss > 1 AND name LIKE 't%'", ["two"]),
    ],
)
def test_filters(wanted: str, names: list[str]) -> None:
    found, _ = search(MODELS, {"filter": wanted})

    assert sorted(found) == [f"m-{name}" for name in names]


def test_a_pattern_that_could_be_placed_in_a_million_ways_ends() -> None:
    long = model("a" * 60, text="ab" * 4000)

    assert search([long], {"filter": f"name LIKE '{'%a' * 30}%b'"})[0] == []
    assert search([long], {"filter": f"tags.text ILIKE '{'%A_' * 200}%'"})[0] == ["m-" + "a" * 60]
    assert search([long], {"filter": f"tags.text LIKE '{'%a_' * 200}%c'"})[0] == []


def is_like(string: str, pattern: str) -> bool:
    """LIKE, as its definition says."""

    @cache
    def fits(at: int, of: int) -> bool:
        if of == len(pattern):
            return at == len(string)
        if pattern[of] == "%":
            return fits(at, of + 1) or (at < len(string) and fits(at + 1, of))
        return at < len(string) and pattern[of] in ("_", string[at]) and fits(at + 1, of + 1)

    return fits(0, 0)


@given(st.text("ab.\n", max_size=12), st.text("ab.%_", max_size=8))
def test_a_pattern_is_sql_s(string: str, pattern: str) -> None:
    assert (string == Pattern(pattern, is_any_case=False)) is is_like(string, pattern)


REFUSED: dict[str, Document] = {
    "no page": {"max_results": 0},
    "a page of less": {"max_results": -1},
    "too large a page": {"max_results": 1001},
    "no number": {"max_results": "many"},
    "a long filter": {"filter": "name = 'a' AND " * 400 + "name = 'a'"},
    "many orders": {"order_by": [{"field_name": "name"}] * 101},
    "many data sets": {"datasets": [{"dataset_name": "d"}] * 101},
    "no filter": {"filter": "name ="},
    "another search's comparator": {"filter": "name RLIKE 'a'"},
    "a number like another": {"filter": "metrics.loss LIKE 5"},
    "an order of nothing": {"order_by": [{}]},
    "an order by a number": {"order_by": [{"field_name": 5}]},
    "a token that is none": {"page_token": "xx"},
    "a token that is a number": {"page_token": 5},
}


@pytest.mark.parametrize("request_", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_read_or_takes_too_long_is_refused(request_: Document) -> None:
    with pytest.raises(RefusedError) as caught:
        search(MODELS, request_)

    assert (caught.value.status, caught.value.code) == (400, "INVALID_PARAMETER_VALUE")


@pytest.mark.parametrize("odd", [point(10**400), point("x"), point(1, timestamp="1.5"), point("NaN", step=1e300)])
def test_an_odd_point_is_in_nobody_s_way(odd: Document) -> None:
    assert search([model("odd", odd), *MODELS], {"filter": "name = 'one'"})[0] == ["m-one"]


def test_experiments_are_named_once_and_bounded() -> None:
    assert experiments_of({"experiment_ids": ["2", "1"] * 20_000}) == ["2", "1"]
    assert experiments_of({"experiment_ids": "2"}) == []
    with pytest.raises(RefusedError, match="at most 1000 experiments"):
        experiments_of({"experiment_ids": [str(number) for number in range(1001)]})


@pytest.mark.parametrize(
    ("asked", "reads"),
    [
        ({}, False),
        ({"filter": "name = 'a'", "order_by": [{"field_name": "creation_time"}]}, False),
        ({"filter": "Metric.a > 1"}, True),
        ({"order_by": [{"field_name": "metrics.a"}]}, True),
        ({"datasets": [{"dataset_name": "d"}]}, True),
    ],
)
def test_metrics_are_read_where_they_are_asked_for(asked: Document, reads: bool) -> None:
    assert reads_points(asked) is reads
