"""A training of some length that logs every step, so that there is a middle in which things can happen.

Arguments: experiment, runs, steps. It prints `go` when it begins, so that its imports are no part of the middle.
"""

import json
import sys

import mlflow


def train(label: str, steps: int) -> str:
    with mlflow.start_run(run_name=label) as run:
        mlflow.log_params({"steps": steps, "label": label})
        for step in range(steps):
            mlflow.log_metric("loss", 1 / (step + 1), step=step)
            if step % 5 == 0:
                mlflow.log_metrics({"accuracy": step / steps, "rate": 0.1}, step=step)
                mlflow.set_tag("progress", step)
        mlflow.log_param("done", "yes")
    return str(run.info.run_id)


def main(name: str, runs: int, steps: int) -> None:
    print("go", flush=True)
    experiment = mlflow.set_experiment(name)
    made = [train(f"run {number}", steps) for number in range(runs)]
    print(json.dumps({"experiment_id": experiment.experiment_id, "runs": made}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
