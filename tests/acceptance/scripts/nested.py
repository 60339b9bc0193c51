"""Runs in runs, three deep; then one below a run that was there before (its id is the second argument)."""

import json
import sys

import mlflow


def descend(depth: int, label: str) -> None:
    with mlflow.start_run(run_name=label, nested=True):
        mlflow.log_metric("depth", depth)
        for child in range(2 if depth < 3 else 0):
            descend(depth + 1, f"{label}.{child}")


def main(name: str) -> None:
    experiment = mlflow.set_experiment(name)
    descend(1, "root")
    for parent in sys.argv[2:]:
        with mlflow.start_run(run_name="late child", parent_run_id=parent):
            mlflow.log_metric("depth", 2)
    print(json.dumps({"experiment_id": experiment.experiment_id}))


if __name__ == "__main__":
    main(sys.argv[1])
