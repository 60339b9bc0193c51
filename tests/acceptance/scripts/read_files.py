"""Every file of one run or logged model, as a client finds it that is pointed straight at a server.

The argument is a run's id, or a model's; it prints the hash of each file by its path.
"""

import hashlib
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.entities import FileInfo

List = Callable[[str, str | None], list[FileInfo]]


def paths(entries: List, owner: str, path: str | None = None) -> list[str]:
    found: list[str] = []
    for item in entries(owner, path):
        found += paths(entries, owner, item.path) if item.is_dir else [item.path]
    return found


def main(owner: str) -> None:
    client = MlflowClient()
    is_model = owner.startswith("m-")
    entries: List = client.list_logged_model_artifacts if is_model else client.list_artifacts
    root = client.get_logged_model(owner).artifact_location if is_model else client.get_run(owner).info.artifact_uri
    with tempfile.TemporaryDirectory() as folder:
        top = Path(mlflow.artifacts.download_artifacts(artifact_uri=root, dst_path=folder))
        files = {path: hashlib.sha256((top / path).read_bytes()).hexdigest() for path in paths(entries, owner)}
        texts = {path: (top / path).read_text() for path in files if Path(path).name == "MLmodel"}
        assert sum(path.is_file() for path in top.rglob("*")) == len(files), "listed is not what came back"
    print(json.dumps({"root": root, "files": files, "texts": texts}))


if __name__ == "__main__":
    main(sys.argv[1])
