"""What an MLflow server makes of an exchange, on views: as much as a property of repairs needs."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import orjson

from dualtrack.core.exchange import Exchange
from dualtrack.core.views import (
    DatasetView,
    ExperimentView,
    FileView,
    History,
    ModelView,
    Point,
    RunView,
    Series,
    history,
    point,
)
from dualtrack.translate.references import sorted_history

Viewed = TypeVar("Viewed", RunView, ModelView, ExperimentView)
Json = dict[str, Any]


class RefusedError(AssertionError):
    """A server would not take it."""


def apply(view: Viewed, exchange: Exchange, files: Mapping[str, FileView]) -> Viewed:
    """Answer the view after a write; `files` are those of the primary, where an upload without a copy comes from."""
    body = orjson.loads(exchange.body)
    is_deleted = not isinstance(view, ModelView) and view.lifecycle_stage == "deleted"
    if is_deleted and exchange.operation not in {"restoreRun", "deleteRun", "restoreExperiment", "deleteExperiment"}:
        raise RefusedError(f"{exchange.operation} of what is deleted")
    if exchange.operation == "uploadArtifact":
        assert not isinstance(view, ExperimentView)
        return replace(view, files={**(view.files or {}), body["path"]: files[body["path"]]})
    done: Viewed = _DONE[exchange.operation](view, body)
    return done


def _stage(stage: str) -> Callable[[Any, Json], Any]:
    return lambda view, _: replace(view, lifecycle_stage=stage)


def _pairs(listed: list[Json]) -> dict[str, str]:
    return {each["key"]: each["value"] for each in listed}


def _params(held: Mapping[str, str], given: Mapping[str, str]) -> dict[str, str]:
    if any(held.get(key, value) != value for key, value in given.items()):
        raise RefusedError("a param never changes")
    return {**held, **given}


def _with_points(held: History | None, points: list[Point]) -> History:
    """A server keeps an exact repeat once."""
    there = dict(held.points or {}) if held is not None else {}
    new = [each for each in dict.fromkeys(points) if each not in there]
    return history([*(each for each, count in there.items() for _ in range(count)), *new])


def _batch(view: Any, body: Json) -> RunView | ModelView:
    metrics: dict[Any, History] = dict(view.metrics)
    for metric in body.get("metrics", ()):
        key: Any = metric["key"]
        if isinstance(view, ModelView):
            assert metric["model_id"] == view.ref.client_id
            dataset = metric.get("dataset_name", ""), metric.get("dataset_digest", "")
            key = Series(key=key, run_id=body["run_id"], dataset_name=dataset[0], dataset_digest=dataset[1])
        metrics[key] = _with_points(metrics.get(key), [point(metric)])
    params = _params(view.params, _pairs(body.get("params", [])))
    changed: RunView | ModelView = replace(
        view, metrics=metrics, params=params, tags={**view.tags, **_pairs(body.get("tags", []))}
    )
    return changed


def _update(view: RunView, body: Json) -> RunView:
    return replace(
        view,
        name=body.get("run_name") or view.name,
        status=body.get("status") or view.status,
        end_time=body["end_time"] if body.get("end_time") is not None else view.end_time,
    )


def _inputs(view: RunView, body: Json) -> RunView:
    inputs = dict(view.inputs)
    for each in body["datasets"]:
        held = {(other.name, other.digest) for other in inputs}
        if (each["dataset"]["name"], each["dataset"]["digest"]) not in held:
            tags = tuple(sorted(_pairs(each["tags"]).items()))
            inputs[DatasetView(**each["dataset"], tags=tags)] = 1
    return replace(view, inputs=inputs, model_inputs=view.model_inputs | {each["model_id"] for each in body["models"]})


def _outputs(view: RunView, body: Json) -> RunView:
    held = {model_id for model_id, _ in view.outputs}
    given = {(each["model_id"], each["step"]) for each in body["models"]}
    return replace(view, outputs=view.outputs | {each for each in given if each[0] not in held})


def _history(view: RunView, body: Json) -> RunView:
    key = "mlflow.log-model.history"
    entries = orjson.loads(view.tags.get(key, "[]"))
    entry = orjson.loads(body["model_json"])
    entries += [entry] if entry not in entries else []  # delivery looks before it repeats one
    return replace(view, tags={**view.tags, key: sorted_history(orjson.dumps(entries).decode())})


_DONE: Mapping[str, Callable[[Any, Json], Any]] = {
    "logBatch": _batch,
    "updateRun": _update,
    "deleteRun": _stage("deleted"),
    "restoreRun": _stage("active"),
    "logInputs": _inputs,
    "logOutputs": _outputs,
    "logModel": _history,
    "setLoggedModelTags": lambda view, body: replace(view, tags={**view.tags, **_pairs(body["tags"])}),
    "logLoggedModelParams": lambda view, body: replace(view, params=_params(view.params, _pairs(body["params"]))),
    "finalizeLoggedModel": lambda view, body: replace(view, status=body["status"]),
    "setExperimentTag": lambda view, body: replace(view, tags={**view.tags, body["key"]: body["value"]}),
    "updateExperiment": lambda view, body: replace(view, name=body["new_name"]),
    "deleteExperiment": _stage("deleted"),
    "restoreExperiment": _stage("active"),
}
