"""Continue the run whose id is the first argument, as after a preempted job."""

import json
import sys

import mlflow


def main(run_id: str) -> None:
    mlflow.set_experiment(experiment_id=mlflow.get_run(run_id).info.experiment_id)
    with mlflow.start_run(run_id=run_id) as run:
        for step in range(30, 40):
            mlflow.log_metric("loss", 1 / (step + 1), step=step)
        mlflow.log_param("resumed", "yes")
        mlflow.set_tag("phase", "two")
        with mlflow.start_run(run_name="child", nested=True):
            mlflow.log_metric("loss", 0.0)
    print(json.dumps({"experiment_id": run.info.experiment_id}))


if __name__ == "__main__":
    main(sys.argv[1])
