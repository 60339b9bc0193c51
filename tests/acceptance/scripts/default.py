"""A script that names no experiment."""

import json

import mlflow


def main() -> None:
    with mlflow.start_run(run_name="no experiment named") as run:
        mlflow.log_param("rate", 0.1)
        mlflow.log_metric("loss", 0.5)
    print(json.dumps({"experiment_id": run.info.experiment_id, "run_id": run.info.run_id}))


if __name__ == "__main__":
    main()
