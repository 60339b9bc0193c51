"""`MlflowClient` alone: no fluent state, own times, large batches, logged models without files."""

import json
import sys

from mlflow import MlflowClient
from mlflow.entities import LoggedModelInput, LoggedModelOutput, Metric, Param, RunTag

START = 1_700_000_000_000


def batches(client: MlflowClient, experiment_id: str) -> str:
    """The most that one call takes, and one more call that shares it out."""
    run = client.create_run(experiment_id, start_time=START, tags={"team": "früh", "mlflow.user": "ann"}, run_name="b")
    run_id = str(run.info.run_id)
    client.log_batch(run_id, metrics=[Metric(f"m{n % 7}", n / 3, START + n, n) for n in range(1000)])
    client.log_batch(
        run_id,
        params=[Param(f"p{n}", str(n)) for n in range(100)],
        tags=[RunTag(f"t{n}", "ü" * 50) for n in range(100)],
        metrics=[Metric("same", 1.0, START, 0)] * 3,
    )
    client.set_terminated(run_id, "FINISHED", end_time=START + 60_000)
    return run_id


def singles(client: MlflowClient, experiment_id: str) -> str:
    run_id = str(client.create_run(experiment_id).info.run_id)
    client.log_param(run_id, "rate", 0.1)
    client.log_metric(run_id, "loss", 0.25, timestamp=START, step=4)
    client.set_tag(run_id, "gone", "soon")
    client.delete_tag(run_id, "gone")
    client.update_run(run_id, status="SCHEDULED")
    client.update_run(run_id, status="RUNNING", name="renamed")
    return run_id


def models(client: MlflowClient, experiment_id: str) -> tuple[str, list[str]]:
    """Logged models as records: no file is written."""
    run_id = str(client.create_run(experiment_id, run_name="models").info.run_id)
    made = [
        client.create_logged_model(
            experiment_id,
            name=name,
            source_run_id=run_id,
            tags={"stage": "new", "gone": "soon"},
            params={"depth": "3"},
            model_type="forest",
        )
        for name in ("first", "second", "third")
    ]
    first, second, third = (str(model.model_id) for model in made)
    client.log_model_params(first, {f"late{n}": "größer ✓" for n in range(120)})
    client.set_logged_model_tags(first, {"stage": "better", "größe": "✓"})
    client.delete_logged_model_tag(first, "gone")
    client.log_outputs(run_id, [LoggedModelOutput(first, 1), LoggedModelOutput(second, 2)])
    client.log_inputs(run_id, models=[LoggedModelInput(third)])
    client.log_metric(run_id, "accuracy", 0.9, timestamp=START, step=1, model_id=first)
    client.log_batch(run_id, metrics=[Metric("f1", 0.8, START, 2, model_id=second, run_id=run_id)])
    client.finalize_logged_model(first, "READY")
    client.finalize_logged_model(second, "FAILED")
    client.delete_logged_model(third)
    client.set_terminated(run_id)
    return run_id, [first, second]


def main(name: str) -> None:
    client = MlflowClient()
    experiment_id = client.create_experiment(name, tags={"made": "by hand"})
    runs = [batches(client, experiment_id), singles(client, experiment_id)]
    run_id, made = models(client, experiment_id)
    print(json.dumps({"experiment_id": experiment_id, "runs": [*runs, run_id], "models": made}))


if __name__ == "__main__":
    main(sys.argv[1])
