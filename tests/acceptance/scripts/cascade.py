"""An experiment deleted and restored in the middle of the work: each time all of its runs go along."""

import json
import sys

import mlflow
from mlflow import MlflowClient


def train(label: str) -> str:
    with mlflow.start_run(run_name=label) as run:
        for step in range(5):
            mlflow.log_metric("loss", 1 / (step + 1), step=step)
    return str(run.info.run_id)


def main(name: str) -> None:
    client = MlflowClient()
    experiment_id = mlflow.set_experiment(name).experiment_id
    first = train("first")
    client.delete_run(first)
    mlflow.delete_experiment(experiment_id)
    client.restore_experiment(experiment_id)  # restores `first` as well
    client.log_metric(first, "after", 1.0)
    second = train("second")
    client.delete_run(second)  # after the restore, so it stays deleted
    third = train("third")
    print(json.dumps({"experiment_id": experiment_id, "runs": [first, second, third]}))


if __name__ == "__main__":
    main(sys.argv[1])
