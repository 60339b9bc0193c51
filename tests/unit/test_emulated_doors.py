"""Tokens, rates, limits and folders of the emulators, without a server: who enters, how often, with how much."""

from email.utils import parsedate_to_datetime
from typing import Any

import pytest

from dualtrack.emulators.buckets import RATES, Buckets, Tells
from dualtrack.emulators.databricks_limits import Limits
from dualtrack.emulators.databricks_tree import Tree
from dualtrack.emulators.record import MARKS, Duplicates
from dualtrack.emulators.tokens import Tokens

API = "/api/2.0/mlflow/"


class Time:
    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


# --- tokens ---------------------------------------------------------------------------------------------------------


def is_good(tokens: Tokens, token: str) -> bool:
    return tokens.grant(f"Bearer {token}") is not None


def test_an_issued_token_ends_and_a_standing_one_does_not() -> None:
    now = Time()
    tokens = Tokens("stays", lifetime=60, now=now)
    first = tokens.issue(who="a-client")
    now.at += 30
    second = tokens.issue()
    assert [is_good(tokens, each) for each in ("stays", first, second)] == [True] * 3
    now.at += 30

    assert [is_good(tokens, each) for each in ("stays", first, second)] == [True, False, True]
    assert (tokens.issued, first == second) == (2, False)


def test_each_token_has_its_own_life() -> None:
    now = Time()
    tokens = Tokens("stays", now=now)
    tokens.add("short", lifetime=5)
    tokens.add("long")
    now.at += 5

    assert [is_good(tokens, each) for each in ("short", "long")] == [False, True]


def test_what_was_issued_can_be_taken_back() -> None:
    tokens = Tokens("stays")
    issued = tokens.issue()
    tokens.revoke()

    assert [is_good(tokens, each) for each in ("stays", issued)] == [True, False]


@pytest.mark.parametrize(
    ("audience", "good"),
    [("", True), ("app", True), ("APP/.default", True), ("app/", True), ("https://management.azure.com", False)],
)
def test_a_token_for_somebody_else_is_not_taken(audience: str, good: bool) -> None:
    """One that names no audience, such as a personal one, is."""
    tokens = Tokens("personal", audiences=["app"])

    assert is_good(tokens, tokens.issue(audience=audience)) is good
    assert is_good(tokens, "personal")


@pytest.mark.parametrize("header", ["", "stays", "Basic stays", "Bearer", "Bearer ", "bearer stays"])
def test_what_is_no_bearer_is_nothing(header: str) -> None:
    assert Tokens("stays").grant(header) is None


# --- rates ----------------------------------------------------------------------------------------------------------

CALLS = ("experiments/search", "runs/search", "runs/log-batch", "runs/create")


@pytest.mark.parametrize(("path", "rate"), [(path, rate) for path, (_, rate) in zip(CALLS, RATES, strict=True)])
def test_a_group_has_its_calls_of_a_second(path: str, rate: int) -> None:
    now = Time()
    buckets = Buckets(now=now)
    taken = [buckets.refusal(API + path) is None for _ in range(rate + 1)]
    now.at += 1

    assert taken == [True] * rate + [False]
    assert [buckets.refusal(API + path) is None for _ in range(rate + 1)] == taken
    assert buckets.refused == 2


def test_rates_scale_and_files_have_none() -> None:
    buckets = Buckets(0.1, now=Time())
    refusals = [buckets.refusal(API + "runs/search") for _ in range(2)]

    assert refusals == [None, {}]
    assert all(buckets.refusal("/api/2.0/fs/files/x") is None for _ in range(200))


def test_a_refusal_can_say_when_to_come_back() -> None:
    """In whole seconds, never too few; or as a date."""
    said: dict[Tells, dict[str, str] | None] = {}
    for tells in (Tells.SECONDS, Tells.DATE):
        buckets = Buckets(0.1, tells, now=Time())
        buckets.refusal(API + "runs/search")
        said[tells] = buckets.refusal(API + "runs/search")

    assert said[Tells.SECONDS] == {"Retry-After": "2"}
    assert parsedate_to_datetime((said[Tells.DATE] or {})["Retry-After"]).tzinfo is not None


# --- limits ---------------------------------------------------------------------------------------------------------


def listed(name: str, count: int) -> dict[str, Any]:
    return {"run_id": "r", name: [{"key": f"{name}{number}", "value": "1"} for number in range(count)]}


@pytest.mark.parametrize(
    ("path", "body", "most"),
    [
        ("runs/log-batch", listed("metrics", 1000), None),
        ("runs/log-batch", listed("metrics", 1001), 1000),
        ("runs/log-batch", listed("params", 101), 100),
        ("runs/log-batch", listed("tags", 101), 100),
        ("runs/log-batch", listed("metrics", 950) | listed("tags", 51), 1000),
        ("experiments/create", listed("tags", 20), None),
        ("experiments/create", listed("tags", 21), 20),
        ("runs/search", {"max_results": 50_000}, None),
        ("runs/search", {"max_results": 50_001}, 50_000),
        ("runs/create", listed("tags", 200), None),
    ],
)
def test_a_call_has_its_limits(path: str, body: dict[str, Any], most: int | None) -> None:
    refusal = Limits().refusal(API + path, body, {}, 10)

    assert (refusal is None) is (most is None)
    assert most is None or f"at most {most}," in str(refusal)


def test_a_body_and_a_page_have_theirs() -> None:
    batch, history = API + "runs/log-batch", API + "metrics/get-history"

    assert Limits().refusal(batch, {}, {}, 1_000_000) is None
    assert Limits().refusal(batch, {}, {}, 1_000_001) is not None
    assert Limits().refusal(history, {}, {"max_results": "25000"}, 0) is None
    assert Limits().refusal(history, {}, {"max_results": "25001"}, 0) is not None


@pytest.mark.parametrize(("name", "path"), [("params", "runs/log-parameter"), ("tags", "runs/set-tag")])
def test_a_run_has_its_quota(name: str, path: str) -> None:
    """A name that it has already costs nothing, whatever run another one is."""
    limits = Limits()
    for number in range(1600):
        assert limits.refusal(API + path, {"run_id": "r", "key": str(number), "value": "1"}, {}, 0) is None

    refusal = limits.refusal(API + path, {"run_id": "r", "key": "one more", "value": "1"}, {}, 0)

    assert refusal is not None
    assert refusal.code == "BAD_REQUEST"
    assert f"exceeded maximum allowed number of {name} per run: 1600." in refusal.message
    assert limits.refusal(API + path, {"run_id": "r", "key": "7", "value": "2"}, {}, 0) is None
    assert limits.refusal(API + path, {"run_id": "other", "key": "one more", "value": "1"}, {}, 0) is None


# --- the tree -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("work", "INVALID_PARAMETER_VALUE"),
        ("/Shared/work", None),
        ("/Workspace/Shared/work", None),
        ("/Workspacework", None),
        ("/Shared/missing/work", "RESOURCE_DOES_NOT_EXIST"),
        ("/Users/demo@example.com", "RESOURCE_ALREADY_EXISTS"),
        ("/Workspace/Shared", "RESOURCE_ALREADY_EXISTS"),
        ("/", "RESOURCE_ALREADY_EXISTS"),
    ],
)
def test_names_by_the_table(name: str, code: str | None) -> None:
    """Facts B2, row by row."""
    refusal = Tree().check(name)

    assert (refusal.code if refusal is not None else None) == code


def test_folders_have_ids_that_stay() -> None:
    tree = Tree()
    shared = tree.object_id("/Shared")
    assert tree.make("/Workspace/Shared/a/b") is tree.make("/Shared/a/b") is None

    assert tree.object_id("/Workspace/Shared") == shared
    assert len({tree.object_id(path) for path in ("/Shared", "/Shared/a", "/Shared/a/b")}) == 3
    assert tree.has_id(str(tree.object_id("/Shared/a")))
    assert not any(map(tree.has_id, ("", "x", "1")))
    assert tree.object_id("Shared") is tree.object_id("/Nowhere") is None


# --- counters -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MARKS)
def test_what_is_made_twice_under_one_mark_is_counted(kind: str) -> None:
    path, mark = MARKS[kind]
    counted = Duplicates()
    for value in ("one", "two", "two"):
        counted.accept(API.rstrip("/") + path, {"tags": [{"key": mark, "value": value}, {"key": "k", "value": "v"}]})
    report = counted.report()

    assert {name: report[name] for name in ("metric_points", *MARKS)} == dict.fromkeys(("metric_points", *MARKS), 0) | {
        kind: 1
    }
    assert report[f"{kind.removesuffix('s')}_examples"] == ["two"]
    counted.clear()
    assert not any(counted.report().values())
