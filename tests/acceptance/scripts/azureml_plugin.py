"""Runs, files and models with the vendor's own plugin in an Azure ML workspace."""

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import loopback  # type: ignore[import-not-found]  # noqa: F401 - it lies beside the script, and comes first

from mlflow import MlflowClient  # isort: skip
from mlflow.entities import Metric, Param, RunTag  # isort: skip

NAME = "a b+ü.txt"
name, files, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
client = MlflowClient()


def refused(act: Callable[[], object]) -> str:
    """Give what a call is refused with."""
    try:
        act()
    except Exception as exc:  # noqa: BLE001 - the plugin raises all kinds
        return f"{type(exc).__name__}: {exc}"
    return ""


def history(key: str) -> list[Metric]:
    """Ask for a page that the service gives; the client itself asks for 25,000 points."""
    return list(client._tracking_client.store.get_metric_history(run_id, key, max_results=999))


def tracked() -> dict[str, object]:
    for step in range(3):
        client.log_metric(run_id, "loss", 1 / (step + 1), step=step)
    client.log_param(run_id, "rate", 0.1)
    client.set_tag(run_id, "who", "ann")
    batch = [Metric("acc", 0.5, 1, 0), Metric("acc", 0.7, 2, 1)]
    client.log_batch(run_id, batch, [Param("depth", "3")], [RunTag("kind", "test")])
    for later in (
        client.log_metric(run_id, "later", 1.5, synchronous=False),
        client.log_param(run_id, "soon", "now", synchronous=False),
    ):
        assert later is not None
        later.wait()
    client.set_terminated(run_id)
    run = client.get_run(run_id)
    named = client.get_experiment_by_name(name)
    found = client.search_runs([experiment], "tags.who = 'ann' and attributes.status = 'Finished'")
    return {
        "named": named is not None and named.experiment_id == experiment,
        "status": run.info.status,
        "params": run.data.params,
        "metrics": run.data.metrics,
        "tags": {key: run.data.tags[key] for key in ("who", "kind")},
        "history": [[each.step, each.value] for each in history("acc")],
        "long": refused(lambda: client.get_metric_history(run_id, "acc")),
        "found": [each.info.run_id for each in found] == [run_id],
        "ordered": refused(lambda: client.search_runs([experiment], order_by=["metrics.acc DESC"])),
    }


def filed(folder: Path) -> dict[str, object]:
    (folder / NAME).write_bytes(b"some")
    (folder / "large").write_bytes(b"x" * size)
    many = folder / "many"
    (many / "deep").mkdir(parents=True)
    for number in range(files):
        (many / "deep" / f"{number}.txt").write_text(str(number))
    client.log_artifact(run_id, str(folder / NAME), "d")
    client.log_artifact(run_id, str(folder / "large"))
    client.log_artifacts(run_id, str(many), "many")
    got = Path(client.download_artifacts(run_id, "many", str(folder)))
    return {
        "listed": sorted([each.path, each.is_dir, each.file_size] for each in client.list_artifacts(run_id)),
        "below": refused(lambda: client.list_artifacts(run_id, "d")),
        "read": [
            Path(client.download_artifacts(run_id, f"d/{NAME}")).read_text(),
            Path(client.download_artifacts(run_id, "large")).stat().st_size,
            len([place for place in got.rglob("*") if place.is_file()]),
        ],
        "again": refused(lambda: client.log_artifact(run_id, str(folder / NAME), "d")),
    }


def registered() -> dict[str, object]:
    client.create_registered_model(name)
    version = client.create_model_version(name, f"{run.info.artifact_uri}/d", run_id)
    return {
        "version": [version.version, version.run_id == run_id, version.source],
        "foreign": refused(lambda: client.create_model_version(name, "s3://elsewhere/d")),
        "renamed": refused(lambda: client.rename_registered_model(name, f"{name}2")),
        "deleted": refused(lambda: client.delete_registered_model(name)),
    }


experiment = client.create_experiment(name)
run = client.create_run(experiment)
run_id = run.info.run_id
with tempfile.TemporaryDirectory() as place:
    done = {"run": run_id, "root": run.info.artifact_uri, **tracked(), **filed(Path(place)), **registered()}
print(json.dumps(done))
