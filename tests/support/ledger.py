"""What clients were promised, run by run, held against a side as it was read without the proxy.

A record is what one client knows of a run of its own: what was acknowledged, and nothing that was not.

    {"run_id", "label", "parent", "params": {}, "tags": {}, "points": [[key, step, timestamp, value as text]],
     "files": {path: text}, "models": [id], "status", "stage"}
"""

import sys
from collections.abc import Iterable, Iterator
from typing import Any

from dualtrack.demo.compare import Run, Snapshot
from tests.support.files import sha256

Record = dict[str, Any]
PARENT = "mlflow.parentRunId"
# a server keeps infinity as the largest number that there is
LARGEST = {"inf": repr(sys.float_info.max), "-inf": repr(-sys.float_info.max)}


def unkept(records: Iterable[Record], side: Snapshot) -> list[str]:
    """Name all that was acknowledged and is not there."""
    runs = {run.run_id: run for run in side.runs}
    models = {model.model_id for model in side.models}
    return [
        f"{record['label']} ({record['run_id']}): {what}"
        for record in records
        for what in _lacking(record, runs.get(record["run_id"]), models)
    ]


def _lacking(record: Record, run: Run | None, models: set[str]) -> Iterator[str]:
    if run is None:
        yield "the run"
        return
    told = {**record["tags"], **({PARENT: record["parent"]} if record.get("parent") else {})}
    yield from (f"param {key}" for key, value in record["params"].items() if run.params.get(key) != value)
    yield from (f"tag {key}" for key, value in told.items() if run.tags.get(key) != value)
    points = {(point.key, point.step, point.timestamp, point.value) for point in run.points}
    yield from (f"point {point}" for point in record["points"] if _stored(*point) not in points)
    files = {file.path: file.sha256 for file in run.files}
    yield from (f"file {path}" for path, text in record["files"].items() if files.get(path) != sha256(text.encode()))
    yield from (f"model {name}" for name in record["models"] if name not in models)
    fields = {"status": record["status"], "lifecycle_stage": record["stage"]}
    yield from (f"{name} {value}" for name, value in fields.items() if run.fields.get(name) != value)


def _stored(key: str, step: int, timestamp: int, value: str) -> tuple[str, int, int, str]:
    return key, step, timestamp, LARGEST.get(value, value)
