"""The model registry as a deployment script uses it; argument 1 is the experiment, 2 the name of the model."""

import json
import sys
from typing import Any

import mlflow
from mlflow import MlflowClient


def register(client: MlflowClient, name: str) -> dict[str, Any]:
    with mlflow.start_run(run_name="to be registered") as run:
        for step in range(20):
            mlflow.log_metric("loss", 1 / (step + 1), step=step)
    run_id = run.info.run_id
    client.create_registered_model(name, tags={"team": "früh"}, description="größer ist besser")
    made = client.create_model_version(name, source=f"runs:/{run_id}/model", run_id=run_id, tags={"from": "script"})
    client.set_registered_model_alias(name, "champion", made.version)
    client.set_model_version_tag(name, made.version, "checked", "yes")
    client.delete_model_version_tag(name, made.version, "from")
    client.set_registered_model_tag(name, "stage", "live")
    client.update_model_version(name, made.version, description="first")
    got = client.get_model_version(name, made.version)
    by_alias = client.get_model_version_by_alias(name, "champion")
    found = client.search_model_versions(f"run_id = '{run_id}'")
    among = client.search_model_versions(f"name = '{name}' and run_id IN ('{run_id}')")
    return {
        "run_id": run_id,
        "created": made.run_id,
        "got": got.run_id,
        "by_alias": by_alias.run_id,
        "source": got.source,
        "tags": dict(got.tags),
        "found": [version.run_id for version in found],
        "among": [version.run_id for version in among],
        "latest": [version.run_id for version in client.get_registered_model(name).latest_versions],
    }


def logged_model(client: MlflowClient, experiment_id: str, name: str) -> dict[str, str]:
    """A version of a logged model, which the server looks up where the registry is."""
    with mlflow.start_run(run_name="with a logged model") as run:
        model = client.create_logged_model(experiment_id, name="m", source_run_id=run.info.run_id)
    client.finalize_logged_model(model.model_id, "READY")
    made = client.create_model_version(name, source=f"models:/{model.model_id}", model_id=model.model_id)
    return {"model_id": model.model_id, "version_model_id": made.model_id or "", "source": made.source or ""}


def prompt() -> str:
    mlflow.genai.register_prompt(name="a-prompt", template="Say {{word}}", commit_message="first")
    loaded = mlflow.genai.load_prompt("prompts:/a-prompt/1")
    return str(loaded.template)


def main(experiment_name: str, name: str) -> None:
    client = MlflowClient()
    experiment_id = mlflow.set_experiment(experiment_name).experiment_id
    document = register(client, name)
    document["model"] = logged_model(client, experiment_id, name)
    document["prompt"] = prompt()
    client.create_registered_model(f"{name}-gone")
    client.delete_registered_model(f"{name}-gone")
    print(json.dumps({"experiment_id": experiment_id, **document}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
