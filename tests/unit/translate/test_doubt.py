"""What of a batch in doubt is still to be sent: what is missing there, and nothing that is there."""

from typing import Any

import orjson
import pytest

from dualtrack.core.exchange import Call, Document
from dualtrack.translate.doubt import models_named, sent_metrics, still_to_send, unread


def metric(key: str = "loss", step: int = 1, value: Any = 0.5, **more: Any) -> Document:
    return {"key": key, "value": value, "timestamp": 1000 + step, "step": step, **more}


def batch(*metrics: Document, **more: Any) -> Call:
    body = orjson.dumps({"run_id": "r", "metrics": list(metrics), **more})
    return Call(operation="logBatch", method="POST", target="/api/2.0/mlflow/runs/log-batch", body=body)


def run(*latest: Document) -> Document:
    return {"run": {"data": {"metrics": list(latest)}}}


def left(call: Call, entity: Document, **seen: Any) -> Any:
    """The body that is still to be sent; None for nothing."""
    found = still_to_send(call, entity, seen.get("histories", {}), seen.get("models", {}))
    return None if found is None else orjson.loads(found.body)


@pytest.mark.parametrize(
    ("metrics", "entity", "keys"),
    [
        ([metric()], run(), []),
        ([metric()], run(metric("other")), []),
        ([metric(step=2), metric(step=3)], run(metric(step=1)), []),
        ([metric()], run(metric()), []),
        ([metric(value="0.5"), metric()], run(metric()), []),
        ([metric(step=1), metric(step=2)], run(metric(step=2)), ["loss"]),
        ([metric(step=1)], run(metric(step=2)), ["loss"]),
        ([metric(step=1)], run(metric(step=1, value=7)), ["loss"]),
        ([metric(step=1), metric("acc")], run(metric(step=2), metric("acc", step=9)), ["loss", "acc"]),
        ([metric(step=2)], run(metric(step=1, value="NaN") | {"step": "x"}), ["loss"]),
        ([metric()], {}, []),
    ],
)
def test_only_histories_that_tell_more_are_read(metrics: list[Document], entity: Document, keys: list[str]) -> None:
    """One read of the run says it all, unless its latest point lies among or behind what was sent."""
    assert unread(metrics, entity) == keys


def test_a_batch_of_which_nothing_is_there_goes_as_it_is() -> None:
    call = batch(metric())

    assert still_to_send(call, run(), {}, {}) is call


def test_points_that_are_there_are_left_out() -> None:
    """However their numbers are spelled; the rest of the body stays, for params and tags may be repeated."""
    call = batch(metric(step=1, value="NaN"), metric(step=2), metric(step=3), params=[{"key": "p", "value": "1"}])
    there = [metric(value=float("nan")) | {"value": "NaN"}, {**metric(step=2), "step": "2", "timestamp": "1002"}]

    assert left(call, run(metric(step=2)), histories={"loss": there}) == {
        "run_id": "r",
        "metrics": [metric(step=3)],
        "params": [{"key": "p", "value": "1"}],
    }


def test_the_latest_point_alone_says_that_it_is_there() -> None:
    assert left(batch(metric()), run(metric())) is None
    assert left(batch(metric(), tags=[{"key": "t"}]), run(metric())) == {"run_id": "r", "tags": [{"key": "t"}]}


@pytest.mark.parametrize(
    ("model", "is_left"),
    [
        ({"model": {"data": {"metrics": [metric()]}}}, False),
        ({"model": {"data": {"metrics": [metric("other")]}}}, True),
        ({"model": {"data": {}}}, True),
        (None, True),
    ],
)
def test_a_model_s_copy_has_to_be_there_too(model: Document | None, is_left: bool) -> None:
    """A run may have had the same point before, of no model; and servers store the two apart."""
    call = batch(metric(model_id="m-1"))

    assert models_named(sent_metrics(call)) == ["m-1"]
    assert (left(call, run(metric()), models={"m-1": model}) is not None) is is_left
