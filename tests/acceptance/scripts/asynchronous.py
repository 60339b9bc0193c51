"""Asynchronous logging: every call returns at once, and a pool of threads sends what piled up."""

import json
import sys

import mlflow


def main(name: str) -> None:
    experiment = mlflow.set_experiment(name)
    mlflow.config.enable_async_logging()  # type: ignore[no-untyped-call]  # it has no annotations
    runs = []
    for number in range(2):
        with mlflow.start_run(run_name=f"async {number}") as run:
            for step in range(100):
                mlflow.log_metric("loss", 1 / (step + 1), step=step)
                mlflow.log_metrics({"a": step, "b": -step}, step=step)
                if step % 10 == 0:
                    mlflow.log_param(f"p{step}", step)
                    mlflow.set_tag(f"t{step}", step)
            mlflow.flush_async_logging()
        runs.append(run.info.run_id)
    print(json.dumps({"experiment_id": experiment.experiment_id, "runs": runs}))


if __name__ == "__main__":
    main(sys.argv[1])
