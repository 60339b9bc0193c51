"""A training of some length that logs every step, so that there is a middle in which things can happen.

Arguments: experiment, runs, steps, and perhaps a file: the last run goes on until that is there. It prints `go` when it
begins, so that its imports are no part of the middle, and at the end how many points each run was given.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import mlflow


def train(label: str, steps: int, is_over: Callable[[], bool]) -> tuple[str, int]:
    step = points = 0
    with mlflow.start_run(run_name=label) as run:
        mlflow.log_params({"steps": steps, "label": label})
        while step < steps or not is_over():
            mlflow.log_metric("loss", 1 / (step + 1), step=step)
            if step % 5 == 0:
                mlflow.log_metrics({"accuracy": step / steps, "rate": 0.1}, step=step)
                mlflow.set_tag("progress", step)
                points += 2
            step, points = step + 1, points + 1
        mlflow.log_param("done", "yes")
    return str(run.info.run_id), points


def main(name: str, runs: int, steps: int, end: str = "") -> None:
    print("go", flush=True)
    experiment = mlflow.set_experiment(name)
    made = dict(train(f"run {number}", steps, lambda: True) for number in range(runs - 1))
    made |= dict([train(f"run {runs - 1}", steps, lambda: not end or Path(end).exists())])
    print(json.dumps({"experiment_id": experiment.experiment_id, "runs": list(made), "points": made}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])
