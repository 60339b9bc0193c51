"""What the null upstream says to each MLflow call: plausible, and remembered no further than ids and names.

Pure: path, query and body in, status and JSON out. Searches find nothing, so a look-up leads to a create.
"""

from dataclasses import dataclass, field
from itertools import count
from urllib.parse import parse_qs

import orjson

VERSION = "3.17.2"

Fields = dict[str, object]


@dataclass(slots=True)
class Workspace:
    """The ids given out so far."""

    experiments: dict[str, str] = field(default_factory=lambda: {"0": "Default"})
    runs: dict[str, Fields] = field(default_factory=dict)
    ids: "count[int]" = field(default_factory=lambda: count(1))

    def answer(self, path: str, query: str, body: bytes) -> tuple[int, bytes]:
        """Answer status and body of one call; an unknown path gets 200 and an empty object."""
        if path in ("/version", "/health"):
            return 200, VERSION.encode() if path == "/version" else b"OK"
        fields = _fields(query, body)
        operation = path.partition("/mlflow/")[2]
        if operation == "runs/create":
            return 200, orjson.dumps({"run": self._create_run(fields)})
        if operation in ("runs/get", "runs/update"):
            run = self._run(str(fields.get("run_id") or fields.get("run_uuid")))
            return 200, orjson.dumps({"run": run, "run_info": run["info"]})
        if operation.startswith("experiments/"):
            return self._experiments(operation.partition("/")[2], fields)
        return 200, b"{}"

    def _experiments(self, operation: str, fields: Fields) -> tuple[int, bytes]:
        if operation == "create":
            experiment_id = str(next(self.ids))
            self.experiments[experiment_id] = str(fields.get("name"))
            return 200, orjson.dumps({"experiment_id": experiment_id})
        if operation == "get":
            return 200, orjson.dumps({"experiment": self._experiment(str(fields.get("experiment_id")))})
        if operation == "get-by-name":
            return self._by_name(str(fields.get("experiment_name")))
        return 200, b"{}"

    def _by_name(self, name: str) -> tuple[int, bytes]:
        for experiment_id, known in self.experiments.items():
            if known == name:
                return 200, orjson.dumps({"experiment": self._experiment(experiment_id)})
        missing = {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": f"No experiment named {name!r}"}
        return 404, orjson.dumps(missing)

    def _experiment(self, experiment_id: str) -> Fields:
        return {
            "experiment_id": experiment_id,
            "name": self.experiments.get(experiment_id, f"experiment-{experiment_id}"),
            "artifact_location": f"mlflow-artifacts:/{experiment_id}",
            "lifecycle_stage": "active",
            "creation_time": 1_700_000_000_000,
            "last_update_time": 1_700_000_000_000,
            "tags": [],
        }

    def _create_run(self, fields: Fields) -> Fields:
        run_id = f"{next(self.ids):032x}"
        self.runs[run_id] = fields
        return self._run(run_id)

    def _run(self, run_id: str) -> Fields:
        given = self.runs.get(run_id, {})
        experiment_id = str(given.get("experiment_id", "0"))
        name = str(given.get("run_name") or "null-run")
        info = {
            "run_id": run_id,
            "run_uuid": run_id,
            "run_name": name,
            "experiment_id": experiment_id,
            "user_id": str(given.get("user_id", "")),
            "status": "RUNNING",
            "start_time": given.get("start_time", 1_700_000_000_000),
            "artifact_uri": f"mlflow-artifacts:/{experiment_id}/{run_id}/artifacts",
            "lifecycle_stage": "active",
        }
        return {"info": info, "data": {"tags": given.get("tags") or []}, "inputs": {}, "outputs": {}}


def _fields(query: str, body: bytes) -> Fields:
    fields: Fields = {key: values[0] for key, values in parse_qs(query).items()}
    if body:
        given = orjson.loads(body)
        if isinstance(given, dict):
            fields |= given
    return fields
