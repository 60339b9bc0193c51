"""A training script as any MLflow user writes it: it knows nothing of a proxy or of a second workspace.

Run it with MLFLOW_TRACKING_URI set. A small hyperparameter search with nested runs, then one fit with autologging, then
a registered model version.
"""

import contextlib
import math
import warnings

import mlflow
import numpy as np
from mlflow.exceptions import MlflowException
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.metrics import accuracy_score, log_loss
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

EXPERIMENT = "/Shared/dualtrack-demo"
MODEL = "dualtrack-demo-classifier"
EPOCHS = 25
RATES = (0.0001, 0.001, 0.01)
Rows = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


def load() -> tuple[Rows, Rows, Rows, Rows]:
    features, labels = load_breast_cancer(return_X_y=True)
    parts = train_test_split(features, labels, test_size=0.3, random_state=7, stratify=labels)
    scaler = StandardScaler().fit(parts[0])
    return scaler.transform(parts[0]), scaler.transform(parts[1]), parts[2], parts[3]


def fit(rate: float, data: tuple[Rows, Rows, Rows, Rows]) -> float:
    """Train one candidate epoch by epoch in a child run; give its accuracy."""
    train, test, train_labels, test_labels = data
    with mlflow.start_run(run_name=f"alpha={rate}", nested=True) as run:
        mlflow.log_params({"alpha": rate, "epochs": EPOCHS, "penalty": "l2"})
        model = SGDClassifier(loss="log_loss", alpha=rate, random_state=7)
        accuracy = 0.0
        for epoch in range(EPOCHS):
            model.partial_fit(train, train_labels, classes=[0, 1])
            accuracy = float(accuracy_score(test_labels, model.predict(test)))
            loss = float(log_loss(train_labels, model.predict_proba(train)))
            mlflow.log_metrics({"accuracy": accuracy, "loss": loss}, step=epoch)
        mlflow.log_metric("weight_norm", float(np.linalg.norm(model.coef_)))
        mlflow.set_tag("stage", "candidate")
        print("run", run.info.run_id, run.info.run_name)
    return accuracy


def search(data: tuple[Rows, Rows, Rows, Rows]) -> str:
    """Try every rate below one parent run; give the parent's id."""
    with mlflow.start_run(run_name="search") as parent:
        dataset = mlflow.data.from_numpy(data[0], targets=data[2], name="breast-cancer")  # type: ignore[attr-defined]  # made at run time
        mlflow.log_input(dataset, context="training", tags={"split": "train"})
        mlflow.log_param("rates", RATES)
        best = -math.inf
        mlflow.log_metric("best_accuracy", best, step=0)  # nothing tried so far
        mlflow.log_metric("gradient_noise", math.nan, step=0)  # not defined before the first step
        for step, rate in enumerate(RATES, start=1):
            best = max(best, fit(rate, data))
            mlflow.log_metric("best_accuracy", best, step=step)
        mlflow.set_tags({"team": "demo", "note": "größer ist besser ✓"})
        print("run", parent.info.run_id, parent.info.run_name)
        return str(parent.info.run_id)


def refit(data: tuple[Rows, Rows, Rows, Rows]) -> str:
    """Let autologging record one fit."""
    mlflow.sklearn.autolog(log_models=False, silent=True)
    with mlflow.start_run(run_name="autologged") as run:
        model = LogisticRegression(C=0.5, max_iter=200).fit(data[0], data[2])
        mlflow.log_metric("test_accuracy", float(model.score(data[1], data[3])))
        print("run", run.info.run_id, run.info.run_name)
        return str(run.info.run_id)


def register(run_id: str) -> None:
    client = mlflow.MlflowClient()
    with contextlib.suppress(MlflowException):  # a second training adds a version to the model that is there
        client.create_registered_model(MODEL, description="The demo's classifier")
    version = client.create_model_version(MODEL, source=f"runs:/{run_id}/model", run_id=run_id)
    print("model", MODEL, "version", version.version)


def main() -> None:
    warnings.filterwarnings("ignore")
    mlflow.set_experiment(EXPERIMENT)
    mlflow.set_experiment_tags({"owner": "demo@example.com", "goal": "a classifier for the demo"})
    data = load()
    search(data)
    register(refit(data))


if __name__ == "__main__":
    main()
