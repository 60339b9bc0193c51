"""Files of a run and of a logged model, with mlflow's own client of a Databricks workspace."""

import json
import sys
import tempfile
from pathlib import Path

from mlflow import MlflowClient

NAME = "a b+ü.txt"

name, size = sys.argv[1], int(sys.argv[2])
client = MlflowClient()
experiment = client.create_experiment(f"/Shared/{name}")
run = client.create_run(experiment)
model = client.create_logged_model(experiment, name="m")

with tempfile.TemporaryDirectory() as place:
    for file, content in ((NAME, b"x" * size), ("empty", b"")):
        Path(place, file).write_bytes(content)
    client.log_artifact(run.info.run_id, str(Path(place, NAME)), "d")
    client.log_artifact(run.info.run_id, str(Path(place, "empty")))
    client.log_model_artifacts(model.model_id, place)


def listed(path: str) -> list[list[object]]:
    return [[file.path, file.is_dir, file.file_size] for file in client.list_artifacts(run.info.run_id, path)]


def read(path: str) -> int:
    return Path(client.download_artifacts(run.info.run_id, path)).stat().st_size


print(
    json.dumps(
        {
            "roots": [run.info.artifact_uri, model.artifact_location],
            "listed": listed("") + listed("d") + listed("empty"),
            "read": [read(f"d/{NAME}"), read("empty")],
            "of_model": sorted(file.path for file in client.list_logged_model_artifacts(model.model_id)),
        }
    )
)
