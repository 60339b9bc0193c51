"""scikit-learn with autologging, a model logged with each fit, and a search with a run per candidate."""

import json
import sys
import warnings

import mlflow
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score
from sklearn.model_selection import GridSearchCV


def main(name: str) -> None:
    warnings.filterwarnings("ignore")
    experiment = mlflow.set_experiment(name)
    features, labels = load_iris(return_X_y=True)
    mlflow.sklearn.autolog(log_models=True, silent=True)
    with mlflow.start_run(run_name="fit"):
        model = LogisticRegression(C=0.5, max_iter=200).fit(features, labels)
        accuracy_score(labels, model.predict(features))
    GridSearchCV(LogisticRegression(max_iter=300), {"C": [0.1, 1.0]}, cv=2).fit(features, labels)
    last = mlflow.last_logged_model()
    assert last is not None
    loaded = mlflow.sklearn.load_model(f"models:/{last.model_id}")
    print(json.dumps({"experiment_id": experiment.experiment_id, "model": type(loaded).__name__}))


if __name__ == "__main__":
    main(sys.argv[1])
