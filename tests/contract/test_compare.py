"""Reading two real servers: what was stored alike compares equal, page for page and file for file."""

import urllib.request
from typing import Any
from urllib.parse import quote
from uuid import uuid4

from dualtrack.demo.compare import HISTORY_PAGE, Comparison, Side, compare_experiment, find_experiment, read_registry
from dualtrack.demo.servers import MlflowServer
from tests.support.servers import call

DATASET = {
    "tags": [{"key": "mlflow.data.context", "value": "training"}],
    "dataset": {"name": "d", "digest": "1", "source_type": "code", "source": "{}", "schema": "{}", "profile": "{}"},
}


def feed(server: MlflowServer, experiment_id: str, marks: dict[str, str]) -> str:
    """Log one run with a bit of everything; give its id."""
    tags = [{"key": key, "value": value} for key, value in marks.items()]
    body = {"experiment_id": experiment_id, "run_name": "fed", "start_time": 1, "user_id": "me", "tags": tags}
    run_id: str = call(server.url, "runs/create", body)["run"]["info"]["run_id"]
    points: list[dict[str, Any]] = [{"key": "loss", "value": s / 7, "timestamp": s, "step": s} for s in range(999)]
    points += [{"key": "odd", "value": value, "timestamp": 1, "step": 0} for value in ("NaN", "Infinity")]
    for start in range(0, len(points), 1000):
        call(server.url, "runs/log-batch", {"run_id": run_id, "metrics": points[start : start + 1000]})
    call(server.url, "runs/log-parameter", {"run_id": run_id, "key": "alpha", "value": "0.1"})
    call(server.url, "runs/log-inputs", {"run_id": run_id, "datasets": [DATASET]})
    call(server.url, "runs/update", {"run_id": run_id, "status": "FINISHED", "end_time": 2})
    return run_id


def side(server: MlflowServer) -> Side:
    return Side(name=server.root.name, url=server.url)


def test_a_run_fed_to_both_servers_is_equal_until_one_point_more(
    mlflow_primary: MlflowServer, mlflow_secondary: MlflowServer
) -> None:
    name = f"fed-{uuid4().hex}"
    ours = call(mlflow_primary.url, "experiments/create", {"name": f"/Shared/{name}"})["experiment_id"]
    theirs = call(mlflow_secondary.url, "experiments/create", {"name": name})["experiment_id"]
    run_id = feed(mlflow_primary, ours, {})
    mirror_id = feed(
        mlflow_secondary, theirs, {"dualtrack.source_run_id": run_id, "dualtrack.source": "mlflow_primary"}
    )

    found = compare_experiment(side(mlflow_primary), side(mlflow_secondary), ours)

    assert found.is_equal, str(found)
    assert found.secondary_experiment_id == theirs
    assert find_experiment(side(mlflow_secondary), name) == theirs
    assert find_experiment(side(mlflow_primary), name) is None
    (run,) = found.runs
    assert (run.primary_id, run.secondary_id) == (run_id, mirror_id)
    assert (run.params, run.metrics, run.points) == (1, 2, 1001)
    assert run.points > HISTORY_PAGE

    call(
        mlflow_secondary.url,
        "runs/log-metric",
        {"run_id": mirror_id, "key": "loss", "value": 9, "timestamp": 3, "step": 3},
    )
    call(mlflow_primary.url, "runs/delete", {"run_id": run_id})
    found = compare_experiment(side(mlflow_primary), side(mlflow_secondary), ours)
    assert [item.kind for item in found.all_differences] == ["field", "metric point"]


# ---- files -------------------------------------------------------------------------------------------------------

FILES = {"größe ✓/a b.txt": b"one", "größe ✓/deep/er/100%.bin": bytes(range(256)) * 600, "empty": b""}


def put(server: MlflowServer, root: str, path: str, content: bytes) -> None:
    """Store a file below a root, as a client does."""
    below = quote(f"{root.removeprefix('mlflow-artifacts:/')}/{path}")
    url = f"{server.url}/api/2.0/mlflow-artifacts/artifacts/{below}"
    with urllib.request.urlopen(urllib.request.Request(url, data=content, method="PUT"), timeout=60) as answer:
        answer.read()


def log_files(server: MlflowServer, experiment_id: str, marks: dict[str, str]) -> tuple[str, str]:
    """Log a run with files and a model with an MLmodel of its own ids; give both ids."""
    source = [{"key": "dualtrack.source", "value": "primary"}] if marks else []

    def tags(mark: str) -> list[dict[str, str]]:
        return [{"key": mark, "value": marks[mark]}, *source] if mark in marks else []

    body = {"experiment_id": experiment_id, "run_name": "files", "start_time": 1, "user_id": "me"}
    info = call(server.url, "runs/create", {**body, "tags": tags("dualtrack.source_run_id")})["run"]["info"]
    for path, content in FILES.items():
        put(server, info["artifact_uri"], path, content)
    body = {"experiment_id": experiment_id, "name": "m", "source_run_id": info["run_id"]}
    asked = {**body, "tags": tags("dualtrack.source_model_id"), "params": [{"key": "depth", "value": "3"}]}
    model = call(server.url, "logged-models", asked)["model"]["info"]
    metric = {"key": "loss", "value": 0.5, "timestamp": 7, "step": 1, "model_id": model["model_id"]}
    call(server.url, "runs/log-batch", {"run_id": info["run_id"], "metrics": [metric]})
    put(server, model["artifact_uri"], "MLmodel", mlmodel(info["run_id"], model))
    put(server, model["artifact_uri"], "data/model.pkl", b"pickled")
    return str(info["run_id"]), str(model["model_id"])


def mlmodel(run_id: str, model: dict[str, Any]) -> bytes:
    lines = {"artifact_path": model["artifact_uri"], "flavors": "{}", "model_id": model["model_id"], "run_id": run_id}
    return "".join(f"{key}: {value}\n" for key, value in lines.items()).encode()


def model_info(server: MlflowServer, experiment_id: str, model_id: str) -> dict[str, Any]:
    found = call(server.url, "logged-models/search", {"experiment_ids": [experiment_id]})["models"]
    info: dict[str, Any] = next(model["info"] for model in found if model["info"]["model_id"] == model_id)
    return info


def test_files_and_models_are_equal_until_one_byte_differs(
    mlflow_primary: MlflowServer, mlflow_secondary: MlflowServer
) -> None:
    name = f"files-{uuid4().hex}"
    ours = call(mlflow_primary.url, "experiments/create", {"name": name})["experiment_id"]
    theirs = call(mlflow_secondary.url, "experiments/create", {"name": name})["experiment_id"]
    run_id, model_id = log_files(mlflow_primary, ours, {})
    marks = {"dualtrack.source_run_id": run_id, "dualtrack.source_model_id": model_id}
    mirror_run, mirror_model = log_files(mlflow_secondary, theirs, marks)

    def compared() -> Comparison:
        return compare_experiment(side(mlflow_primary), side(mlflow_secondary), ours)

    found = compared()
    (run,), (model,) = found.runs, found.models
    assert found.is_equal, str(found)
    assert (run.files, run.file_bytes) == (3, sum(map(len, FILES.values())))
    assert (model.primary_id, model.secondary_id) == (model_id, mirror_model)
    assert (model.files, model.params, model.points) == (2, 1, 1)

    info = call(mlflow_secondary.url, "runs/update", {"run_id": mirror_run})["run_info"]
    root = info["artifact_uri"]
    there = model_info(mlflow_secondary, theirs, mirror_model)["artifact_uri"]
    put(mlflow_secondary, root, "empty", b"not")
    copied = mlmodel(run_id, model_info(mlflow_primary, ours, model_id))
    put(mlflow_secondary, there, "MLmodel", copied)
    differences = [(item.kind, item.key) for item in compared().all_differences]
    assert differences == [
        ("file", "empty"),
        ("id in MLmodel:", "artifact_path"),
        ("id in MLmodel:", "model_id"),
        ("id in MLmodel:", "run_id"),
    ]


def test_the_registry_is_listed(mlflow_primary: MlflowServer) -> None:
    name = f"model-{uuid4().hex}"
    call(mlflow_primary.url, "registered-models/create", {"name": name})
    for _ in range(2):
        call(mlflow_primary.url, "model-versions/create", {"name": name, "source": "s3://bucket/x"})

    registry = read_registry(side(mlflow_primary))

    assert name in registry.models
    assert {item.version for item in registry.versions if item.name == name} == {"1", "2"}
