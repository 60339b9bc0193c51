"""A run that is left unfinished, for another script to continue."""

import json
import sys

import mlflow


def main(name: str) -> None:
    experiment = mlflow.set_experiment(name)
    mlflow.set_experiment_tag("owner", "earlier")
    client = mlflow.MlflowClient()
    run = client.create_run(experiment.experiment_id, run_name="began early", tags={"team": "früh"})
    run_id = run.info.run_id
    for step in range(30):
        client.log_metric(run_id, "loss", 1 / (step + 1), step=step)
    client.log_param(run_id, "rate", 0.1)
    client.set_tag(run_id, "phase", "one")
    parent = client.create_run(experiment.experiment_id, run_name="parent from before")
    print(json.dumps({"experiment_id": experiment.experiment_id, "run_id": run_id, "parent": parent.info.run_id}))


if __name__ == "__main__":
    main(sys.argv[1])
