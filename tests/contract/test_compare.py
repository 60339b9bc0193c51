"""Reading two real servers: what was stored alike compares equal, page for page, and the registry is listed."""

from typing import Any
from uuid import uuid4

from dualtrack.demo.compare import HISTORY_PAGE, Side, compare_experiment, find_experiment, read_registry
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


def test_the_registry_is_listed(mlflow_primary: MlflowServer) -> None:
    name = f"model-{uuid4().hex}"
    call(mlflow_primary.url, "registered-models/create", {"name": name})
    for _ in range(2):
        call(mlflow_primary.url, "model-versions/create", {"name": name, "source": "s3://bucket/x"})

    registry = read_registry(side(mlflow_primary))

    assert name in registry.models
    assert {item.version for item in registry.versions if item.name == name} == {"1", "2"}
