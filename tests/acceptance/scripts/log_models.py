"""A scikit-learn model, logged, registered if it is given a name, and loaded again in every way that there is.

For clients from mlflow 2.22 on. It prints what the model predicted before it was logged, and what each loaded one did.
"""

import argparse
import json
import warnings
from typing import Any

import mlflow
import numpy as np
from mlflow import MlflowClient
from mlflow.models import infer_signature
from sklearn.linear_model import LogisticRegression

MAJOR = int(mlflow.__version__.partition(".")[0])
INPUT = [[-2.0, 0.5], [-0.5, -1.0], [0.25, 1.5], [3.0, 0.0]]
NEWEST_STAGE = "Production"


def trained() -> tuple[LogisticRegression, np.ndarray]:
    """Made from fixed numbers, so that it is the same everywhere."""
    features = np.random.default_rng(7).normal(size=(40, 2))
    labels = (features[:, 0] + features[:, 1] / 4 > 0).astype(int)
    return LogisticRegression(random_state=7).fit(features, labels), features


def predicted(uri: str) -> list[int]:
    return [int(label) for label in mlflow.pyfunc.load_model(uri).predict(np.array(INPUT))]


def logged(name: str | None) -> tuple[str, Any, list[int]]:
    """Log it in a run of its own; give the run, what the client says of the model, and its predictions."""
    model, features = trained()
    with mlflow.start_run(run_name="a model") as run:
        mlflow.log_metric("accuracy", 0.75)
        place = {"name": "model"} if MAJOR >= 3 else {"artifact_path": "model"}
        info = mlflow.sklearn.log_model(
            model,
            **place,
            registered_model_name=name,
            signature=infer_signature(features, model.predict(features)),
            input_example=features[:2],
            pip_requirements=["scikit-learn"],  # or the client starts a process of its own to find out
        )
    return str(run.info.run_id), info, [int(label) for label in model.predict(np.array(INPUT))]


def promoted(name: str, version: str) -> list[str]:
    """Give the version an alias and a stage; answer the addresses that it can be loaded from."""
    client = MlflowClient()
    client.set_registered_model_alias(name, "champion", version)
    client.transition_model_version_stage(name, version, NEWEST_STAGE)
    return [f"models:/{name}/{version}", f"models:/{name}@champion", f"models:/{name}/{NEWEST_STAGE}"]


def prompt(name: str) -> list[str]:
    """A prompt is a model in the registry too: by its version and by its alias."""
    mlflow.genai.register_prompt(name=name, template="Say {{word}}", commit_message="größer")
    mlflow.genai.set_prompt_alias(name, alias="live", version=1)
    return [str(mlflow.genai.load_prompt(uri).template) for uri in (f"prompts:/{name}/1", f"prompts:/{name}@live")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("experiment")
    parser.add_argument("--register", metavar="NAME")
    parser.add_argument("--no-prompts", action="store_true", help="the registry has none, as Azure ML's")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    experiment = mlflow.set_experiment(options.experiment)
    run_id, info, expected = logged(options.register)
    model_id = getattr(info, "model_id", None)
    uris = [f"runs:/{run_id}/model"] + ([f"models:/{model_id}"] if model_id else [])
    version = str(info.registered_model_version or "")
    prompts: list[str] = []
    if options.register:
        uris += promoted(options.register, version)
        prompts = (
            prompt(f"prompt-{run_id}") if MAJOR >= 3 and not options.no_prompts else []
        )  # in letters that prompts may have
    done = {
        "mlflow": mlflow.__version__,
        "experiment_id": experiment.experiment_id,
        "run_id": run_id,
        "model_uri": info.model_uri,
        "model_id": model_id,
        "version": version,
        "expected": expected,
        "predictions": {uri: predicted(uri) for uri in uris},
        "prompts": prompts,
    }
    print(json.dumps(done))


if __name__ == "__main__":
    main()
