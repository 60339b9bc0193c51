"""A training script as any MLflow user writes it: it knows nothing of a proxy or of a second workspace.

Run it with MLFLOW_TRACKING_URI set. A small hyperparameter search with nested runs; a long descent that logs more than
some workspaces hold of one run; then one fit with autologging whose model is logged, registered and loaded again; with
figures, tables and texts on the way.
"""

import math
import time
import warnings
from collections.abc import Iterator, Sequence

import matplotlib as mpl
import mlflow
import numpy as np
import pandas as pd  # type: ignore[import-untyped]  # it has no types of its own
from matplotlib.figure import Figure
from mlflow import MlflowClient
from mlflow.entities import Metric
from mlflow.models import infer_signature
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.metrics import accuracy_score, log_loss
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

EXPERIMENT = "/Shared/dualtrack-demo"
MODEL = "dualtrack-demo-classifier"
EPOCHS = 25
RATES = (0.0001, 0.001, 0.01)
STEPS = 2500  # of the descent; with four metrics, 10,000 points
POINTS_A_CALL = 1000  # as many as MLflow takes at once
FEATURE_TAGS = {"source": "breast-cancer", "owner": "demo@example.com"}
Rows = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


def load() -> tuple[Rows, Rows, Rows, Rows]:
    features, labels = load_breast_cancer(return_X_y=True)
    parts = train_test_split(features, labels, test_size=0.3, random_state=7, stratify=labels)
    scaler = StandardScaler().fit(parts[0])
    return scaler.transform(parts[0]), scaler.transform(parts[1]), parts[2], parts[3]


def log_curve(name: str, values: list[float]) -> None:
    """Draw how a value went, epoch by epoch."""
    figure = Figure(figsize=(4, 3))
    axes = figure.subplots()
    axes.plot(range(len(values)), values, marker=".")
    axes.set_xlabel("epoch")
    axes.set_ylabel(name)
    mlflow.log_figure(figure, f"figures/{name}.png")


def log_guesses(model: SGDClassifier, epoch: int, test: Rows, labels: Rows) -> None:
    """Add some guesses to the run's table; a table that is there already is read, extended and written again."""
    rows = {"epoch": epoch, "label": labels[:5], "guess": model.predict(test[:5])}
    mlflow.log_table(pd.DataFrame(rows), artifact_file="tables/guesses.json")


def fit(rate: float, data: tuple[Rows, Rows, Rows, Rows]) -> float:
    """Train one candidate epoch by epoch in a child run; give its accuracy."""
    train, test, train_labels, test_labels = data
    with mlflow.start_run(run_name=f"alpha={rate}", nested=True) as run:
        mlflow.log_params({"alpha": rate, "epochs": EPOCHS, "penalty": "l2"})
        model = SGDClassifier(loss="log_loss", alpha=rate, random_state=7)
        accuracies, losses = [], []
        for epoch in range(EPOCHS):
            model.partial_fit(train, train_labels, classes=[0, 1])
            accuracies.append(float(accuracy_score(test_labels, model.predict(test))))
            losses.append(float(log_loss(train_labels, model.predict_proba(train))))
            mlflow.log_metrics({"accuracy": accuracies[-1], "loss": losses[-1]}, step=epoch)
            if epoch in {0, EPOCHS - 1}:
                log_guesses(model, epoch, test, test_labels)
        log_curve("loss", losses)
        mlflow.log_metric("weight_norm", float(np.linalg.norm(model.coef_)))
        mlflow.set_tag("stage", "candidate")
        print("run", run.info.run_id, run.info.run_name)
    return accuracies[-1]


def search(data: tuple[Rows, Rows, Rows, Rows]) -> str:
    """Try every rate below one parent run; give the parent's id."""
    with mlflow.start_run(run_name="search") as parent:
        dataset = mlflow.data.from_numpy(data[0], targets=data[2], name="breast-cancer")  # type: ignore[attr-defined]  # made at run time
        mlflow.log_input(dataset, context="training", tags={"split": "train"})
        mlflow.log_param("rates", RATES)
        mlflow.log_dict({"alpha": list(RATES), "epochs": EPOCHS}, "search/space.yaml")
        best = -math.inf
        bests = []
        mlflow.log_metric("best_accuracy", best, step=0)  # nothing tried so far
        mlflow.log_metric("gradient_noise", math.nan, step=0)  # not defined before the first step
        for step, rate in enumerate(RATES, start=1):
            best = max(best, fit(rate, data))
            mlflow.log_metric("best_accuracy", best, step=step)
            bests.append(best)
        log_curve("best_accuracy", bests)
        mlflow.log_text(f"größte Genauigkeit: {best:.3f} ✓\n", "notes/größte Genauigkeit.txt")
        mlflow.set_tags({"team": "demo", "note": "größer ist besser ✓"})
        print("run", parent.info.run_id, parent.info.run_name)
        return str(parent.info.run_id)


def statistics(train: Rows, names: Sequence[str]) -> dict[str, float]:
    """Say how each feature is spread: ten numbers each."""
    levels = {f"q{level:02}": np.quantile(train, level / 100, axis=0) for level in (5, 10, 25, 50, 75, 90, 95)}
    spread = {"mean": train.mean(axis=0), "min": train.min(axis=0), "max": train.max(axis=0), **levels}
    return {f"{name}.{what}": float(each[at]) for what, each in spread.items() for at, name in enumerate(names)}


def descend(train: Rows, labels: Rows) -> Iterator[dict[str, float]]:
    """Fit a logistic regression by plain gradient descent; tell after each step how it goes."""
    weights, signs = np.zeros(train.shape[1]), 2 * labels - 1
    for _ in range(STEPS):
        margins = signs * (train @ weights)
        chances = 1 / (1 + np.exp(margins))
        gradient = -(train * (signs * chances)[:, None]).mean(axis=0)
        weights -= 0.5 * gradient
        yield {
            "descent_loss": float(np.logaddexp(0, -margins).mean()),
            "descent_accuracy": float((margins > 0).mean()),
            "gradient_norm": float(np.linalg.norm(gradient)),
            "weight_norm": float(np.linalg.norm(weights)),
        }


def log_all(data: tuple[Rows, Rows, Rows, Rows]) -> None:
    """Log everything about one long fit: 300 params, 60 tags, a note and a curve of 10,000 points."""
    names = [str(name).replace(" ", "_") for name in load_breast_cancer().feature_names]
    with mlflow.start_run(run_name="descent") as run:
        mlflow.log_params(statistics(data[0], names))
        mlflow.set_tag("mlflow.note.content", "\n".join(f"- {name}: scaled, größer ist schlechter" for name in names))
        mlflow.set_tags({f"{name}.{what}": value for name in names for what, value in FEATURE_TAGS.items()})
        points = [
            Metric(key, value, timestamp=int(time.time() * 1000), step=step)
            for step, values in enumerate(descend(data[0], data[2]))
            for key, value in values.items()
        ]
        for start in range(0, len(points), POINTS_A_CALL):
            MlflowClient().log_batch(run.info.run_id, metrics=points[start : start + POINTS_A_CALL])
        log_curve("descent_loss", [point.value for point in points if point.key == "descent_loss"])
        print("run", run.info.run_id, run.info.run_name)


def refit(data: tuple[Rows, Rows, Rows, Rows]) -> None:
    """Let autologging record one fit; log and register its model, then load it as others will."""
    train, test, train_labels, test_labels = data
    mlflow.sklearn.autolog(log_models=False, silent=True)
    with mlflow.start_run(run_name="autologged") as run:
        model = LogisticRegression(C=0.5, max_iter=200).fit(train, train_labels)
        mlflow.log_metric("test_accuracy", float(model.score(test, test_labels)))
        log_curve("probability", sorted(model.predict_proba(test)[:, 1]))
        logged = mlflow.sklearn.log_model(
            model,
            name="classifier",
            signature=infer_signature(test, model.predict(test)),
            input_example=test[:3],
            registered_model_name=MODEL,
        )
        print("run", run.info.run_id, run.info.run_name)
    uri = f"models:/{MODEL}/{logged.registered_model_version}"
    loaded = mlflow.sklearn.load_model(uri)
    print("model", MODEL, "version", logged.registered_model_version)
    print("predictions equal", np.array_equal(loaded.predict(test), model.predict(test)))


def main() -> None:
    warnings.filterwarnings("ignore")
    mpl.use("Agg")  # no screen is needed
    mlflow.set_experiment(EXPERIMENT)
    mlflow.set_experiment_tags({"owner": "demo@example.com", "goal": "a classifier for the demo"})
    data = load()
    search(data)
    log_all(data)
    refit(data)


if __name__ == "__main__":
    main()
