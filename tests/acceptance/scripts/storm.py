"""Many small runs of all that a training logs: nested ones, files, models, some deleted and restored.

Arguments: experiment, a label from which all is drawn, how many runs. One thread logs with the fluent interface, two
with clients of their own. It prints what was acknowledged, run by run (tests/support/ledger.py).
"""

import json
import random
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.models import Model

BEGIN = 1_700_000_000_000
SPECIAL = (float("nan"), float("inf"), -float("inf"))
Record = dict[str, Any]


def record(run_id: str, label: str, **known: Any) -> Record:
    begun: Record = {
        "run_id": run_id,
        "label": label,
        "params": {},
        "tags": {},
        "points": [],
        "files": {},
        "models": [],
    }
    return begun | {"status": "RUNNING", "stage": "active", **known}


def drawn(chance: random.Random) -> float:
    return chance.choice(SPECIAL) if chance.random() < 0.1 else chance.uniform(-1, 1)


def once(act: Callable[[], object], is_done: Callable[[], bool]) -> None:
    """Do what cannot be done twice: a client that repeats it, because no answer came, is refused the second time."""
    try:
        act()
    except MlflowException:
        if not is_done():
            raise


class Trainee:
    """One thread's client."""

    def __init__(self, experiment_id: str, seed: str, folder: Path) -> None:
        self.client = MlflowClient()
        self.chance = random.Random(seed)
        self.made: list[Record] = []
        self._experiment_id = experiment_id
        self._seed = seed
        self._folder = folder

    def train_all(self, count: int) -> None:
        for number in range(count):
            self._train(number)

    def _train(self, number: int) -> None:
        label = f"{self._seed}.{number}"
        parent = self.chance.choice(self.made)["run_id"] if self.made and self.chance.random() < 0.4 else None
        nested = {"mlflow.parentRunId": parent} if parent else {}
        run_id = self.client.create_run(self._experiment_id, run_name=label, tags=nested).info.run_id
        done = record(run_id, label, parent=parent)
        self.made.append(done)
        self._log(done, label)
        if self.chance.random() < 0.25:
            self._log_file(done, label)
        if self.chance.random() < 0.2:
            self._log_model(done, label)
        done["status"] = self.chance.choice(("FINISHED", "FAILED"))
        self.client.set_terminated(run_id, done["status"])
        if self.chance.random() < 0.15:
            self._delete(done)

    def _log(self, done: Record, label: str) -> None:
        run_id = done["run_id"]
        batch = [("loss", step, BEGIN + step, drawn(self.chance)) for step in range(self.chance.randrange(1, 6))]
        self.client.log_batch(
            run_id,
            metrics=[Metric(key, value, timestamp, step) for key, step, timestamp, value in batch],
            params=[Param("label", label)],
            tags=[RunTag("stage", "begun")],
        )
        done["params"]["label"] = label
        done["points"] += batch
        for step in range(self.chance.randrange(1, 4)):
            point = ("late", step, BEGIN + step, drawn(self.chance))
            self.client.log_metric(run_id, point[0], point[3], timestamp=point[2], step=step)
            done["points"].append(point)
        self.client.log_param(run_id, "größe", "ü" * self.chance.randrange(1, 50))
        self.client.set_tag(run_id, "stage", "logged")
        done["tags"]["stage"] = "logged"

    def _log_file(self, done: Record, label: str) -> None:
        text = label * self.chance.randrange(1, 500)
        self.client.log_text(done["run_id"], text, "notes/größe 1.txt")
        done["files"]["notes/größe 1.txt"] = text

    def _log_model(self, done: Record, label: str) -> None:
        run_id = done["run_id"]
        model = self.client.create_logged_model(
            self._experiment_id, name="forest", source_run_id=run_id, params={"depth": "3"}, tags={"label": label}
        )
        place = self._folder / label
        place.mkdir()
        known = {"artifact_path": model.artifact_location, "run_id": run_id, "model_uuid": model.model_id}
        Model(**known, model_id=model.model_id).save(str(place / "MLmodel"))
        (place / "weights.bin").write_text(label * 100)
        self.client.log_model_artifacts(model.model_id, str(place))
        self.client.finalize_logged_model(model.model_id, "READY")
        done["models"].append(model.model_id)

    def _delete(self, done: Record) -> None:
        run_id = done["run_id"]
        once(lambda: self.client.delete_run(run_id), lambda: self._stage(run_id) == "deleted")
        done["stage"] = "deleted"
        if self.chance.random() < 0.5:
            once(lambda: self.client.restore_run(run_id), lambda: self._stage(run_id) == "active")
            done["stage"] = "active"

    def _stage(self, run_id: str) -> str:
        return str(self.client.get_run(run_id).info.lifecycle_stage)


def descend(made: list[Record], label: str, depth: int, chance: random.Random, *, is_nested: bool) -> None:
    """A run with `depth` more inside one another, by the fluent interface."""
    parent = made[-1]["run_id"] if is_nested else None
    with mlflow.start_run(run_name=label, nested=True) as run:
        done = record(run.info.run_id, label, parent=parent)
        made.append(done)
        mlflow.log_params({"label": label, "depth": depth})
        done["params"] |= {"label": label, "depth": str(depth)}
        for step in range(3):
            values = {"loss": drawn(chance), "rate": drawn(chance)}
            mlflow.log_metrics(values, step=step, timestamp=BEGIN + step)
            done["points"] += [(key, step, BEGIN + step, value) for key, value in values.items()]
        if depth:
            descend(made, f"{label}.{depth}", depth - 1, chance, is_nested=True)
        mlflow.set_tag("done", label)
        done["tags"]["done"] = label
    done["status"] = "FINISHED"


def main(name: str, label: str, runs: int) -> None:
    experiment_id = mlflow.set_experiment(name).experiment_id
    chance = random.Random(label)
    fluent: list[Record] = []
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor() as pool:
        trainees = [Trainee(experiment_id, f"{label}-{thread}", Path(folder)) for thread in range(2)]
        each = runs // 3
        under_way = [pool.submit(trainee.train_all, each) for trainee in trainees]
        while len(fluent) < runs - 2 * each:
            descend(fluent, f"{label}-f{len(fluent)}", chance.randrange(3), chance, is_nested=False)
        for work in under_way:
            work.result()
    records = [*fluent, *(done for trainee in trainees for done in trainee.made)]
    for done in records:
        done["points"] = [[key, step, at, repr(float(value))] for key, step, at, value in done["points"]]
    print(json.dumps({"experiment_id": experiment_id, "runs": records}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
