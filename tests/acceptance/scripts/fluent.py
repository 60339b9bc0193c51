"""Everything of the fluent API that a training script may call, in one experiment."""

import json
import math
import sys

import mlflow
import numpy as np
from mlflow.entities import ViewType


def values() -> str:
    with mlflow.start_run(run_name="values", description="All kinds of values", tags={"at start": "ja"}) as run:
        mlflow.log_param("rate", 0.1)
        mlflow.log_params({"größe": "groß ✓", "leer": "", "a/b c.d-e_f:g": "x", "long": "x" * 7000, "none": None})
        for step in range(20):
            mlflow.log_metric("loss", 1 / (step + 1), step=step)
        mlflow.log_metrics({"acc": 0.5, "größe/метрика": 2.5}, step=3)
        for step, value in enumerate((math.nan, math.inf, -math.inf, 0.1 + 0.2, 1e-308, 1.7e308, -0.0, 2**53 + 1)):
            mlflow.log_metric("strange", value, step=step)
        mlflow.log_metric("negative", 1.0, step=-5)
        mlflow.log_metric("again", 1.0, step=1, timestamp=1_700_000_000_000)
        mlflow.log_metric("again", 1.0, step=1, timestamp=1_700_000_000_001)
        mlflow.log_metric("again", 2.0, step=1, timestamp=1_700_000_000_001)
        mlflow.set_tag("ключ", "значение\nzweite Zeile")
        mlflow.set_tag("once", "first")
        mlflow.set_tags({"once": "second", "gone": "soon", "number": 7, "long": "y" * 9000})
        mlflow.delete_tag("gone")
        return str(run.info.run_id)


def data() -> str:
    with mlflow.start_run(run_name="data") as run:
        features = np.arange(12.0).reshape(4, 3)
        for name, context in (("train", "training"), ("größe", "eval")):
            dataset = mlflow.data.from_numpy(features, name=name)  # type: ignore[attr-defined]  # made at run time
            mlflow.log_input(dataset, context=context, tags={"split": name})
        return str(run.info.run_id)


def renamed() -> str:
    with mlflow.start_run(run_name="before") as run:
        mlflow.set_tag("mlflow.runName", "after, by its tag")
    mlflow.MlflowClient().update_run(run.info.run_id, name="after, by update")
    return str(run.info.run_id)


def failed() -> str:
    run_id = ""
    try:
        with mlflow.start_run() as run:  # the server makes up a name
            run_id = run.info.run_id
            mlflow.log_metric("loss", 3.0)
            raise RuntimeError("diverged")
    except RuntimeError:
        return run_id


def deleted(*, is_restored: bool) -> str:
    with mlflow.start_run(run_name="deleted, restored" if is_restored else "deleted") as run:
        mlflow.log_metric("loss", 1.0)
    mlflow.delete_run(run.info.run_id)
    if is_restored:
        mlflow.MlflowClient().restore_run(run.info.run_id)
        with mlflow.start_run(run_id=run.info.run_id):
            mlflow.log_metric("loss", 0.5, step=1)
    return str(run.info.run_id)


def end_badly() -> str:
    run = mlflow.start_run(run_name="killed")
    mlflow.end_run("KILLED")
    return str(run.info.run_id)


def main(name: str) -> None:
    client = mlflow.MlflowClient()
    experiment = mlflow.set_experiment(f"{name} before")
    client.rename_experiment(experiment.experiment_id, name)
    mlflow.set_experiment(name)
    mlflow.set_experiment_tags({"owner": "jörg@example.com", "gone": "soon", "mlflow.note.content": "# Notiz ✓"})
    mlflow.set_experiment_tag("goal", "all of it")
    client.delete_experiment_tag(experiment.experiment_id, "gone")
    runs = [values(), data(), renamed(), failed(), deleted(is_restored=True), deleted(is_restored=False), end_badly()]
    found = client.search_runs([experiment.experiment_id], run_view_type=ViewType.ALL)
    assert sorted(run.info.run_id for run in found) == sorted(runs), "the client sees what it logged"
    print(json.dumps({"experiment_id": experiment.experiment_id, "runs": runs}))


if __name__ == "__main__":
    main(sys.argv[1])
