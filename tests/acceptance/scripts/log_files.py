"""Files of every kind that a training logs, in one run; it ends with what a download of all of them gave back.

For clients from mlflow 2.22 on. The argument is the name of the experiment.
"""

import hashlib
import json
import sys
import tempfile
from pathlib import Path

import matplotlib as mpl
import mlflow
import numpy as np
from matplotlib.figure import Figure

NAMES = ("with space.txt", "100% sure.txt", "a+b=c&d;e,f.txt", "größe ✓ 日本.txt", "~tilde (1)'s [x]!.txt", "%41.txt")


def single(folder: Path) -> None:
    """Files one by one: any name, none of them at the same place; an empty one; one that is replaced."""
    for number, name in enumerate(NAMES):
        path = folder / name
        path.write_text(f"{name}: {number}\n" * 3)
        mlflow.log_artifact(str(path))
        mlflow.log_artifact(str(path), "deep/größe + %/er")
    (folder / "empty.bin").touch()
    mlflow.log_artifact(str(folder / "empty.bin"))
    (folder / "large.bin").write_bytes(bytes(range(256)) * 4096 * 3)
    mlflow.log_artifact(str(folder / "large.bin"), "large")
    for text in ("first", "second, and longer"):
        mlflow.log_text(text, "replaced.txt")


def nested(folder: Path) -> None:
    for path in ("top.txt", "one/two/three/deep.txt", "one/two/größe.csv", "one/empty", "a b/c+d/%.json"):
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("" if path.endswith("empty") else path)
    mlflow.log_artifacts(str(folder), "tree")
    mlflow.log_artifacts(str(folder / "one"))


def made() -> None:
    """What the client writes by itself, a table that it reads and writes again, images with its own names included."""
    mlflow.log_text("größer ✓\r\nzweite Zeile", "notes/text.md")
    mlflow.log_dict({"größe": [1, 2.5, None], "b": {"c": "✓"}}, "config/settings.json")
    mlflow.log_dict({"a": 1}, "config/settings.yaml")
    figure = Figure(figsize=(1, 1))
    figure.subplots().plot([0, 1], [1, 0])
    mlflow.log_figure(figure, "plots/curve.png")
    for row in range(2):
        mlflow.log_table({"row": [row], "text": [f"größe {row}"]}, "tables/rows.json")
    image = np.arange(64, dtype=np.uint8).reshape(8, 8)
    mlflow.log_image(image, artifact_file="images/plain.png")
    for step in range(2):
        mlflow.log_image(image, key="noise heavy.1", step=step)
    mlflow.flush_artifact_async_logging()  # images by key go from a thread that only logs what fails


def listed(client: mlflow.MlflowClient, run_id: str, path: str | None = None) -> dict[str, int]:
    """Every file below `path`, with its size; clients have none for an empty file."""
    found: dict[str, int] = {}
    for item in client.list_artifacts(run_id, path):
        found |= listed(client, run_id, item.path) if item.is_dir else {item.path: item.file_size or 0}
    return found


def downloaded(run_id: str, folder: Path) -> dict[str, str]:
    root = Path(mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path="", dst_path=str(folder)))
    files = [path for path in root.rglob("*") if path.is_file()]
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def main(name: str) -> None:
    mpl.use("agg")
    experiment = mlflow.set_experiment(name)
    with tempfile.TemporaryDirectory() as scratch:
        folders = [Path(scratch) / each for each in ("single", "nested", "back")]
        for folder in folders:
            folder.mkdir()
        with mlflow.start_run(run_name="files") as run:
            single(folders[0])
            nested(folders[1])
            made()
        run_id = run.info.run_id
        sizes = listed(mlflow.MlflowClient(), run_id)
        files = downloaded(run_id, folders[2])
        back = {path: (folders[2] / path).stat().st_size for path in files}
        assert sizes == back, f"listed is not what came back: {sizes.items() ^ back.items()}"
        table = mlflow.load_table("tables/rows.json", run_ids=[run_id])
    assert list(table["row"]) == [0, 1], "both rows are in the table"
    done = {"mlflow": mlflow.__version__, "experiment_id": experiment.experiment_id, "run_id": run_id, "files": files}
    print(json.dumps(done))


if __name__ == "__main__":
    main(sys.argv[1])
