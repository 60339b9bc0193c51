"""What is too long fits afterwards, differs where it differed, and is told whole."""

import hashlib
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualtrack.core.coalesce import Batch
from dualtrack.core.exchange import JSON, Call, Document
from dualtrack.core.limits import LENGTHS, Lengths
from dualtrack.core.loss import LossKind
from dualtrack.translate.fitting import Fitter, is_full, limit_in, merged, over_count

AZURE = LENGTHS["azureml"]


def call(operation: str, **body: object) -> Call:
    return Call(operation=operation, method="POST", target="/x", body=orjson.dumps(body))


def fitted(operation: str, *, skips: bool = False, **body: object) -> tuple[dict[str, Any], list[tuple[str, str, str]]]:
    sent, unfit = Fitter(AZURE, skips=skips).fit(call(operation, **body))
    return orjson.loads(sent.body), [(item.kind, item.key, item.reason) for item in unfit]


def digest(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()[:8]


def test_a_long_value_keeps_its_beginning_and_a_hash() -> None:
    value = "v" * 1001
    sent, unfit = fitted("logBatch", run_id="r", tags=[{"key": "k", "value": value}, {"key": "s", "value": "short"}])

    assert sent["tags"] == [
        {"key": "k", "value": "v" * 991 + "-" + digest(value)},
        {"key": "s", "value": "short"},
    ]
    assert unfit == [("tag", "k", "shortened")]


@pytest.mark.parametrize(("operation", "most"), [("logBatch", 100), ("createRun", 100), ("createExperiment", 250)])
def test_names_are_fitted_wherever_tags_are(operation: str, most: int) -> None:
    key = "n" * 300
    sent, unfit = fitted(operation, tags=[{"key": key, "value": "v"}])

    assert len(sent["tags"][0]["key"]) == most
    assert sent["tags"][0]["key"].endswith("-" + digest(key))
    assert unfit == [("tag", key, "shortened")]


@pytest.mark.parametrize("operation", ["deleteTag", "setExperimentTag", "deleteExperimentTag"])
def test_a_single_tag_gets_the_same_name(operation: str) -> None:
    """So that what was set under a shortened name is deleted under it too."""
    key = "n" * 300
    sent, _ = fitted(operation, run_id="r", key=key, value="v")

    assert sent["key"].endswith("-" + digest(key))
    assert sent["run_id"] == "r"


def test_metrics_have_names_and_no_values_to_shorten() -> None:
    key = "m" * 256
    sent, unfit = fitted("logBatch", metrics=[{"key": key, "value": 0.5, "step": 1, "timestamp": 2}])

    assert sent["metrics"] == [{"key": "m" * 246 + "-" + digest(key), "value": 0.5, "step": 1, "timestamp": 2}]
    assert unfit == [("metric", key, "shortened")]


def test_half_a_document_is_not_sent() -> None:
    value = orjson.dumps([{"run_id": "r"}] * 200).decode()
    sent, unfit = fitted("logBatch", tags=[{"key": "mlflow.log-model.history", "value": value}])

    assert sent["tags"] == []
    assert unfit == [("tag", "mlflow.log-model.history", "skipped")]


def test_by_policy_nothing_is_shortened() -> None:
    sent, unfit = fitted("logBatch", skips=True, tags=[{"key": "k" * 101, "value": "v"}, {"key": "s", "value": "s"}])

    assert sent["tags"] == [{"key": "s", "value": "s"}]
    assert unfit == [("tag", "k" * 101, "skipped")]


@pytest.mark.parametrize("operation", ["updateRun", "logInputs", "deleteRun"])
def test_what_has_no_bounds_is_not_even_read(operation: str) -> None:
    given_call = Call(operation=operation, method="POST", target="/x", body=b"not JSON")

    assert Fitter(AZURE).fit(given_call) == (given_call, ())
    plain = call("logBatch", tags=[{"key": "k" * 9999, "value": "v"}])
    assert Fitter(Lengths()).fit(plain) == (plain, ())


@given(st.lists(st.tuples(st.text(max_size=300), st.text(max_size=1200)), max_size=10))
def test_whatever_is_sent_fits_and_whatever_does_not_is_told(pairs: list[tuple[str, str]]) -> None:
    tags = [{"key": key, "value": value} for key, value in pairs]
    sent, unfit = Fitter(AZURE).fit(call("logBatch", tags=tags))
    kept = orjson.loads(sent.body)["tags"]

    assert all(len(tag["key"]) <= 100 and len(tag["value"]) <= 1000 for tag in kept)
    untouched = [tag for tag in tags if tag in kept]
    told = [(item.key, item.value) for item in unfit]
    assert all((tag["key"], tag["value"]) in told for tag in tags if tag not in untouched)


def test_a_backend_that_counts_is_understood() -> None:
    reason = "HTTP 400 INVALID_PARAMETER_VALUE FieldName=Parameters, Limit=200, Size=201"
    quota = (
        "Unable to log new …, exceeded maximum allowed number of logged model metrics per logged model: 1000. To raise"
    )

    assert limit_in(reason) == 200
    assert limit_in("HTTP 400 Databricks exceeded maximum allowed number of params per run: 1600") == 1600
    assert limit_in(quota) == 1000
    assert over_count(LossKind.PARAM, {"key": "p", "value": "1"}, 200).detail == "param 'p': a run takes 200 params"


@pytest.mark.parametrize(
    "reason",
    [
        "Invalid value for LimitOrder",
        "FieldName=Parameters.Value, Limit=500, Size=900",
        "FieldName=RunDto.Params/Key, Limit=100, Size=101",
        "FieldName=Tags/Value, Limit=1000, Size=1001",
        "FieldName=MetricV2Dto.Name, Limit=255, Size=256",
    ],
)
def test_a_length_is_no_count(reason: str) -> None:
    """What a backend takes of one value is nothing that a run takes: the refusal keeps its own words."""
    assert limit_in(f"HTTP 400 INVALID_PARAMETER_VALUE {reason}") is None


# --- how many there may be ------------------------------------------------------------------------------------------

MANY_PARAMS = "HTTP 400 INVALID_PARAMETER_VALUE Exceeded: FieldName=Parameters, Limit=5, Size=9"
MANY_TAGS = "HTTP 400 INVALID_PARAMETER_VALUE Exceeded: FieldName=RunDto.Tags, Limit=5, Size=9"


def pairs_of(*keys: str) -> tuple[Document, ...]:
    return tuple({"key": key, "value": f"{key}!"} for key in keys)


def holding(*, params: str = "", tags: str = "") -> Document:
    data: Document = {"params": [*pairs_of(*params.split())], "tags": [*pairs_of(*tags.split())]}
    return {"run": {"data": data}}


def parted(batch: Batch, reason: str, run: Document, lengths: Lengths = AZURE) -> tuple[list[JSON], list[JSON]] | None:
    """The keys that there is room for, and those that are left out."""
    found = Fitter(lengths).part(batch, reason, run)
    if found is None:
        return None
    rest, unfit = found
    assert {item.reason for item in unfit} == {"over_limit"}
    return [item["key"] for _, item in rest.items()], [item.key for item in unfit]


def test_what_a_run_has_no_room_for_is_left_out_at_once() -> None:
    """What it has already takes no room, so a repeat after a crash leaves out the same."""
    batch = Batch(params=pairs_of("a", "b", "c", "d"), tags=pairs_of("t"), done=(7,))

    assert parted(batch, MANY_PARAMS, holding(params="x y z")) == (["a", "b", "t"], ["c", "d"])
    assert parted(batch, MANY_PARAMS, holding(params="x y z a b")) == (["a", "b", "t"], ["c", "d"])
    assert parted(batch, MANY_PARAMS, holding(params="1 2 3 4 5")) == (["t"], ["a", "b", "c", "d"])


def test_tags_that_link_runs_come_before_others() -> None:
    batch = Batch(params=pairs_of("p"), tags=pairs_of("a", "mlflow.parentRunId", "b", "dualtrack.source"))

    assert parted(batch, MANY_TAGS, holding(tags="x y z")) == (
        ["p", "mlflow.parentRunId", "dualtrack.source"],
        ["a", "b"],
    )


def test_room_is_counted_in_the_names_of_that_side() -> None:
    """A long name stands there shortened, and a value that is not sent takes no room."""
    long, other = "l" * 200, "o" * 200
    short = f"{'l' * 91}-{digest(long)}"
    document: Document = {"key": "json", "value": orjson.dumps(["v" * 2000]).decode()}
    batch = Batch(tags=(*pairs_of(long), document, *pairs_of(other)))

    assert parted(batch, MANY_TAGS, holding(tags=f"1 2 3 4 {short}")) == ([long, "json"], [other])


@pytest.mark.parametrize(
    ("reason", "run"),
    [
        ("HTTP 400 FieldName=MetricV2Dto.Value/Count, Limit=250, Size=699", holding()),
        ("HTTP 400 FieldName=Tags/Key, Limit=100, Size=101", holding(tags="1 2 3 4 5")),
        (MANY_PARAMS, holding(params="1")),
        (MANY_TAGS, holding(params="1 2 3 4 5")),
        (MANY_PARAMS, {}),
    ],
)
def test_what_does_not_follow_from_the_run_is_left_to_bisecting(reason: str, run: Document) -> None:
    assert parted(Batch(params=pairs_of("a", "b")), reason, run) is None


@pytest.mark.parametrize(
    "reason",
    [MANY_PARAMS, "HTTP 400 BAD_REQUEST Unable …, exceeded maximum allowed number of params per run: 5. To raise"],
)
def test_a_backend_without_lengths_may_count_too(reason: str) -> None:
    assert is_full(reason)
    assert parted(Batch(params=pairs_of("a", "b")), reason, holding(params="1 2 3 4"), Lengths()) == (["a"], ["b"])


def test_a_new_run_keeps_the_tags_by_which_it_is_found() -> None:
    """They are counted before the run is made: a refused create would hold back all that follows."""
    keys = [f"t{number}" for number in range(60)]
    tags = [*pairs_of(*keys, "mlflow.user"), *pairs_of("dualtrack.source")]
    sent, unfit = Fitter(AZURE, run_tags=50).fit(call("createRun", tags=tags))
    document = orjson.loads(sent.body)

    assert [tag["key"] for tag in document["tags"]] == [*keys[:48], "mlflow.user", "dualtrack.source"]
    assert [(item.kind, item.key, item.value) for item in unfit] == [("tag", key, f"{key}!") for key in keys[48:]]
    assert "a run takes 50 tags" in unfit[0].detail


def test_the_overflow_grows_and_says_the_last_value() -> None:
    first = over_count(LossKind.PARAM, {"key": "p", "value": "1"}, 1)
    second = over_count(LossKind.TAG, {"key": "t", "value": "old"}, 1)
    third = over_count(LossKind.TAG, {"key": "t", "value": "new"}, 1)
    stored = merged(merged(b"", [first, second]), [third])

    assert orjson.loads(stored) == {"params": {"p": "1"}, "tags": {"t": "new"}}
    assert merged(stored, [third]) == stored
    assert orjson.loads(merged(b"not JSON", [third])) == {"tags": {"t": "new"}}
