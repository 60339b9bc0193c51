"""What is too long fits afterwards, differs where it differed, and is told whole."""

import hashlib
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualtrack.core.exchange import Call
from dualtrack.core.limits import LENGTHS, Lengths
from dualtrack.translate.fitting import Fitter, is_over_count, merged, over_count

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


@pytest.mark.parametrize(
    "reason",
    [
        "HTTP 400 INVALID_PARAMETER_VALUE FieldName=Parameters, Limit=200, Size=201",
        "HTTP 400 BAD_REQUEST Unable to log …, exceeded maximum allowed number of logged model metrics per …: 1000.",
    ],
)
def test_a_backend_that_counts_is_understood(reason: str) -> None:
    assert is_over_count(reason)
    assert not is_over_count("HTTP 400 INVALID_PARAMETER_VALUE Invalid value for LimitOrder")
    assert over_count("param", {"key": "p", "value": "1"}, reason).detail == f"param 'p': {reason}"


def test_the_overflow_grows_and_says_the_last_value() -> None:
    first = over_count("param", {"key": "p", "value": "1"}, "x")
    second = over_count("tag", {"key": "t", "value": "old"}, "x")
    third = over_count("tag", {"key": "t", "value": "new"}, "x")
    stored = merged(merged(b"", [first, second]), [third])

    assert orjson.loads(stored) == {"params": {"p": "1"}, "tags": {"t": "new"}}
    assert merged(stored, [third]) == stored
    assert orjson.loads(merged(b"not JSON", [third])) == {"tags": {"t": "new"}}
