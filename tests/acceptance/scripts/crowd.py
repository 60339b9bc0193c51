"""Some runs of one process among several, with a thread per run; argument 2 says which process this is."""

import json
import sys
from concurrent.futures import ThreadPoolExecutor

import mlflow
from mlflow import MlflowClient

RUNS, STEPS = 3, 30


def train(experiment_id: str, label: str) -> str:
    client = MlflowClient()
    run_id = str(client.create_run(experiment_id, run_name=label).info.run_id)
    client.log_param(run_id, "label", label)
    for step in range(STEPS):
        client.log_metric(run_id, "loss", 1 / (step + 1), step=step)
    client.set_tag(run_id, "done", "yes")
    client.set_terminated(run_id)
    return run_id


def main(name: str, process: str) -> None:
    experiment_id = mlflow.set_experiment(name).experiment_id
    with ThreadPoolExecutor(RUNS) as pool:
        runs = list(pool.map(lambda number: train(experiment_id, f"{process}.{number}"), range(RUNS)))
    print(json.dumps({"experiment_id": experiment_id, "runs": runs}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
