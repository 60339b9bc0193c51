"""Calls that page through a backend, and whether something listed is itself a mirror."""

from urllib.parse import parse_qs, urlsplit

import pytest

from dualtrack.core.exchange import Document
from dualtrack.core.ids import EntityKind
from dualtrack.core.routes import classify
from dualtrack.translate.document import parse
from dualtrack.translate.listing import (
    NEWEST_FIRST,
    OLDEST_FIRST,
    PAGE,
    from_source,
    mirrors,
    search_experiments,
    search_models,
    search_runs,
)
from tests.support.exchanges import pair

LISTED: dict[EntityKind, tuple[str, tuple[str, ...]]] = {
    EntityKind.EXPERIMENT: ("dualtrack.source_experiment_id", ("tags",)),
    EntityKind.RUN: ("dualtrack.source_run_id", ("data", "tags")),
    EntityKind.MODEL: ("dualtrack.source_model_id", ("info", "tags")),
}


def test_deleted_ones_are_listed_too() -> None:
    call = search_experiments("")
    query = parse_qs(urlsplit(call.target).query)

    assert query["view_type"] == ["ALL"]
    assert parse(search_runs("1", "", OLDEST_FIRST, "").body)["run_view_type"] == "ALL"


@pytest.mark.parametrize(
    ("first", "next_one"),
    [
        (search_experiments(""), search_experiments("t")),
        (search_runs("1", "", OLDEST_FIRST, ""), search_runs("1", "", OLDEST_FIRST, "t")),
        (search_models("1", ""), search_models("1", "t")),
    ],
)
def test_a_page_follows_where_the_last_one_ended(first: object, next_one: object) -> None:
    assert "page_token" not in str(first)
    assert "page_token" in str(next_one)


def test_what_is_asked_is_what_routes_know() -> None:
    for call in (search_experiments(""), search_runs("1", "", OLDEST_FIRST, ""), search_models("1", "")):
        match = classify(call.method, urlsplit(call.target).path)
        assert match is not None
        assert match.route.operation == call.operation


def test_a_filter_goes_as_it_is() -> None:
    body = parse(search_runs("1", "metrics.a > 1", NEWEST_FIRST, "").body)

    assert (body["filter"], body["order_by"], body["max_results"]) == ("metrics.a > 1", [NEWEST_FIRST], PAGE)
    assert "filter" not in parse(search_runs("1", "", NEWEST_FIRST, "").body)
    assert from_source("it's") == "tags.`dualtrack.source` = 'its'"


@pytest.mark.parametrize("kind", LISTED)
def test_a_mirror_is_known_by_both_its_marks(kind: EntityKind) -> None:
    """The mark names what it mirrors, the source on which backend."""
    mark, (first, *rest) = LISTED[kind]

    def listed(*tags: Document) -> Document:
        return {first: {rest[0]: list(tags)} if rest else list(tags)}

    both = listed(pair(mark, "1"), pair("dualtrack.source", "b"))
    assert mirrors(kind, both, "b")
    assert not mirrors(kind, both, "c")
    assert not mirrors(kind, listed(pair("dualtrack.source", "b")), "b")
    assert not mirrors(kind, {}, "b")
