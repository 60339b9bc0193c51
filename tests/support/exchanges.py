"""One realistic exchange of each mirrored operation, as the Python client 3.17 sends it (facts sections 2, 3, 10).

Ids are the primary's: experiment 7, runs `RUN` and `PARENT`, logged model `MODEL`. The `backend_id` of each on another
backend is the same with `-there`, in `TWINS`.
"""

import orjson

from dualtrack.core.exchange import JSON, Document, Exchange
from dualtrack.core.ids import BackendId, ClientId, EntityKind, Ref, Twin

API = "/api/2.0/mlflow"
BACKEND = "mirror"

EXPERIMENT = Ref(EntityKind.EXPERIMENT, ClientId("7"))
RUN = Ref(EntityKind.RUN, ClientId("0123456789abcdef0123456789abcdef"))
PARENT = Ref(EntityKind.RUN, ClientId("fedcba9876543210fedcba9876543210"))
MODEL = Ref(EntityKind.MODEL, ClientId("m-00112233445566778899aabbccddeeff"))

TWINS = {
    ref: Twin(ref=ref, backend=BACKEND, backend_id=BackendId(f"{ref.client_id}-there"))
    for ref in (EXPERIMENT, RUN, PARENT, MODEL)
}

_RUN, _PARENT, _MODEL = RUN.client_id, PARENT.client_id, MODEL.client_id

MODEL_JSON = orjson.dumps(
    {
        "artifact_path": "model",
        "flavors": {"python_function": {"loader_module": "mlflow.sklearn", "pythonVersion": "3.11"}},
        "metadata": {"myKey": "kept", "CamelCase": {"innerKey": 1}},
        "model_id": _MODEL,
        "model_uuid": "5f1c",
        "run_id": _RUN,
        "utc_time_created": "2026-11-21 03:00:00",
    }
).decode()

DATASET: Document = {
    "tags": [{"key": "mlflow.data.context", "value": "training"}],
    "dataset": {"name": "cancer", "digest": "d1", "source_type": "code", "source": '{"tags": {"run_id": "text"}}'},
}

RUN_INFO: Document = {
    "run_id": _RUN,
    "run_uuid": _RUN,
    "experiment_id": "7",
    "run_name": "bold-fox-12",
    "user_id": "ann",
    "start_time": 1_700_000_000_000,
    "status": "RUNNING",
    "lifecycle_stage": "active",
    "artifact_uri": f"mlflow-artifacts:/7/{_RUN}/artifacts",
}

MODEL_INFO: Document = {
    "model_id": _MODEL,
    "experiment_id": "7",
    "name": "model",
    "model_type": "sklearn",
    "source_run_id": _RUN,
    "status": "LOGGED_MODEL_PENDING",
    "artifact_uri": f"mlflow-artifacts:/7/models/{_MODEL}/artifacts",
    "tags": [{"key": "mlflow.user", "value": "ann"}],
}


def post(operation: str, path: str, body: Document, answer: Document | None = None, method: str = "POST") -> Exchange:
    return Exchange(
        operation=operation,
        method=method,
        path=f"{API}/{path}",
        body=orjson.dumps(body) if body else b"",
        answer=orjson.dumps(answer) if answer is not None else b"",
    )


def pair(key: str, value: str) -> Document:
    return {"key": key, "value": value}


def both(**fields: JSON) -> Document:
    """A body that names its run twice, as some client calls do."""
    return {"run_id": _RUN, "run_uuid": _RUN, **fields}


def one(**fields: JSON) -> Document:
    return {"run_id": _RUN, **fields}


_POINT: Document = {"key": "loss", "value": 0.5, "timestamp": 1_700_000_001_000, "step": 3}

_EXCHANGES = [
    post(
        "createExperiment",
        "experiments/create",
        {"name": "/Users/ann/churn", "artifact_location": "dbfs:/here/only", "tags": [pair("team", "a")]},
        {"experiment_id": "7"},
    ),
    post("updateExperiment", "experiments/update", {"experiment_id": "7", "new_name": "/Users/ann/stay"}),
    post("deleteExperiment", "experiments/delete", {"experiment_id": "7"}),
    post("restoreExperiment", "experiments/restore", {"experiment_id": "7"}),
    post("setExperimentTag", "experiments/set-experiment-tag", {"experiment_id": "7", **pair("team", "b")}),
    post("deleteExperimentTag", "experiments/delete-experiment-tag", {"experiment_id": "7", "key": "team"}),
    post(
        "createRun",
        "runs/create",
        {"experiment_id": "7", "user_id": "ann", "start_time": 1_700_000_000_000, "tags": [pair("mlflow.user", "ann")]},
        {
            "run": {
                "info": RUN_INFO,
                "data": {
                    "tags": [
                        pair("mlflow.user", "ann"),
                        pair("mlflow.runName", "bold-fox-12"),
                        pair("mlflow.parentRunId", _PARENT),
                    ]
                },
            }
        },
    ),
    post("updateRun", "runs/update", both(status="FINISHED", end_time=1_700_000_009_000, run_name="new")),
    post("deleteRun", "runs/delete", one()),
    post("restoreRun", "runs/restore", one()),
    post("logMetric", "runs/log-metric", both(**_POINT, model_id=_MODEL)),
    post("logParam", "runs/log-parameter", both(key="depth", value="3")),
    post("setTag", "runs/set-tag", both(key="mlflow.parentRunId", value=_PARENT)),
    post(
        "logBatch",
        "runs/log-batch",
        one(
            metrics=[{**_POINT, "run_id": _RUN, "model_id": _MODEL, "dataset_name": "cancer", "dataset_digest": "d1"}],
            params=[pair("depth", "3")],
            tags=[
                pair("mlflow.rootRunId", _PARENT),
                pair("mlflow.sourceRunId", _PARENT),
                pair("mlflow.log-model.history", f"[{MODEL_JSON}]"),
                pair("note", f"run_id {_RUN} in words stays"),
            ],
        ),
    ),
    post("deleteTag", "runs/delete-tag", one(key="note")),
    post("logInputs", "runs/log-inputs", one(datasets=[DATASET], models=[{"model_id": _MODEL}])),
    post("logOutputs", "runs/outputs", one(models=[{"model_id": _MODEL, "step": 0}])),
    post("logModel", "runs/log-model", one(model_json=MODEL_JSON)),
    post(
        "createLoggedModel",
        "logged-models",
        {"experiment_id": "7", "name": "model", "source_run_id": _RUN, "params": [pair("depth", "3")]},
        {"model": {"info": MODEL_INFO, "data": {"params": [pair("depth", "3")]}}},
    ),
    post(
        "finalizeLoggedModel",
        f"logged-models/{_MODEL}",
        {"model_id": _MODEL, "status": "LOGGED_MODEL_READY"},
        method="PATCH",
    ),
    post("logLoggedModelParams", f"logged-models/{_MODEL}/params", {"model_id": _MODEL, "params": [pair("a", "1")]}),
    post(
        "setLoggedModelTags",
        f"logged-models/{_MODEL}/tags",
        {"model_id": _MODEL, "tags": [pair("stage", "new")]},
        method="PATCH",
    ),
    post("deleteLoggedModelTag", f"logged-models/{_MODEL}/tags/stage%20x", {}, method="DELETE"),
    post("deleteLoggedModel", f"logged-models/{_MODEL}", {}, method="DELETE"),
]

EXCHANGES = {exchange.operation: exchange for exchange in _EXCHANGES}
