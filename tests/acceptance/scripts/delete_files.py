"""Delete files of a run, or a folder with all that is in it: the first argument is the run, the others are paths."""

import json
import sys

import mlflow
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository


def main(run_id: str, *paths: str) -> None:
    root = mlflow.get_run(run_id).info.artifact_uri
    assert root is not None
    repository = get_artifact_repository(root)
    for path in paths:
        repository.delete_artifacts(path)  # type: ignore[no-untyped-call]  # mlflow's own
    print(json.dumps({"left": [item.path for item in repository.list_artifacts()]}))


if __name__ == "__main__":
    main(*sys.argv[1:])
