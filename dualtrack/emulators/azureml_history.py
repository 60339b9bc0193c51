"""Run history of an Azure ML workspace (facts/backends A3, checklist item 15): runs with ids that clients choose.

    PATCH …/experiments/{name}/runs/{id}, …/experimentids/{id}/runs/{id}   make the run, or change it: one run per id
    POST  …/runs/{id}/events      a start or an end moves its status
    GET   …/runs/{id}             the run as history tells it, also one that MLflow's API made
    GET, POST …/experiments/{name}, GET …/experimentids/{id}   an experiment; POST makes it unless it is there

Every run is one of the real server's, which cannot be told an id: `Ids` keeps what it is called here. Properties are
run history's alone and kept in memory. (choice) A run needs an experiment that exists; ids are what `RUN_ID` takes.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias
from urllib.parse import unquote

from dualtrack.emulators.azureml_errors import refused_lower
from dualtrack.emulators.azureml_ids import Ids
from dualtrack.emulators.azureml_names import EXPERIMENT_NAME
from dualtrack.emulators.tracking import Call, Reply, Send

JSON: TypeAlias = Any

PREFIX: Final = "history:"  # what the dialect puts in the place of the API's own prefix and workspace
MLFLOW: Final = "/api/2.0/mlflow/"
RUN_ID: Final = re.compile(r"[A-Za-z0-9_.\-]{1,256}")
EXPERIMENT = re.compile(rf"{PREFIX}/(experiments|experimentids)/([^/]+)")
RUN = re.compile(rf"{EXPERIMENT.pattern}/runs/([^/]+)")
EVENTS = re.compile(rf"{RUN.pattern}/events")

TO_MLFLOW: Final = {
    "NotStarted": "SCHEDULED",
    "Queued": "SCHEDULED",
    "Preparing": "SCHEDULED",
    "Running": "RUNNING",
    "Finalizing": "RUNNING",
    "Completed": "FINISHED",
    "Failed": "FAILED",
    "Canceled": "KILLED",
}
FROM_MLFLOW: Final = {
    "SCHEDULED": "NotStarted",
    "RUNNING": "Running",
    "FINISHED": "Completed",
    "FAILED": "Failed",
    "KILLED": "Canceled",
}
EVENT: Final = "Microsoft.MachineLearning.Run."
BY_EVENT: Final = {"Start": "RUNNING", "Completed": "FINISHED", "Failed": "FAILED", "Canceled": "KILLED"}


class HistoryError(Exception):
    """Something is refused; the answer says what."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.reply = refused_lower(status, message)


class History:
    """The run history of one workspace; a middleware, outside of its `Ids`."""

    def __init__(self, ids: Ids) -> None:
        self._ids = ids
        self._properties: dict[str, dict[str, JSON]] = {}
        self._making = asyncio.Lock()  # two who make the same id make one run

    async def __call__(self, call: Call, send: Send) -> Reply:
        if not call.path.startswith(PREFIX + "/"):
            return await send(call)
        for method, pattern, act in self._routes():
            if call.method == method and (found := pattern.fullmatch(call.path)):
                try:
                    return await act(_Asked(found, call), _Server(send))
                except HistoryError as exc:
                    return exc.reply
        return Reply(status=404)

    def _routes(self) -> tuple[tuple[str, re.Pattern[str], "Act"], ...]:
        return (
            ("PATCH", RUN, self._upsert),
            ("GET", RUN, self._show),
            ("POST", EVENTS, self._event),
            ("GET", EXPERIMENT, self._experiment),
            ("POST", EXPERIMENT, self._make_experiment),
        )

    async def _upsert(self, asked: "_Asked", server: "_Server") -> Reply:
        if not RUN_ID.fullmatch(asked.run) or asked.document.get("runId", asked.run) != asked.run:
            raise HistoryError(400, f"'{asked.run}' is no id of a run, or not the one in the body.")
        experiment = await server.experiment(asked)
        async with self._making:
            run = await server.run(asked.run)
            if run is None:
                made = await server.post("runs/create", _creation(experiment["experiment_id"], asked.document))
                self._ids.choose(asked.run, made["run"]["info"]["run_id"])
                await self._change(asked, server, asked.document.get("status", "NotStarted"))
            else:
                _check_experiment(run, experiment)
                await self._change(asked, server, asked.document.get("status", ""))
        return await self._show(asked, server)

    async def _change(self, asked: "_Asked", server: "_Server", status: str) -> None:
        """Put what the body names onto the run; what it leaves out stays."""
        if status and status not in TO_MLFLOW:
            raise HistoryError(400, f"'{status}' is no status of a run.")
        changes = {"status": TO_MLFLOW.get(status), "run_name": asked.document.get("displayName")}
        if named := {key: value for key, value in changes.items() if value}:
            await server.post("runs/update", {"run_id": asked.run, **named})
        if tags := _tags(asked.document):
            await server.post("runs/log-batch", {"run_id": asked.run, "tags": tags})
        self._properties.setdefault(asked.run, {}).update(asked.document.get("properties") or {})

    async def _event(self, asked: "_Asked", server: "_Server") -> Reply:
        run = await server.run(asked.run)
        if run is None:
            raise HistoryError(404, f"Run {asked.run} not found.")
        _check_experiment(run, await server.experiment(asked))
        name = str(asked.document.get("name", ""))
        status = BY_EVENT.get(name.removeprefix(EVENT)) if name.startswith(EVENT) else None
        if status is not None:
            ended = {} if status == "RUNNING" else {"end_time": _milliseconds(asked.document)}
            await server.post("runs/update", {"run_id": asked.run, "status": status, **ended})
        return Reply(status=200, document={})

    async def _show(self, asked: "_Asked", server: "_Server") -> Reply:
        run = await server.run(asked.run)
        if run is None:
            raise HistoryError(404, f"Run {asked.run} not found.")
        _check_experiment(run, await server.experiment(asked))
        return Reply(status=200, document=_told(run, self._properties.get(asked.run, {})))

    async def _experiment(self, asked: "_Asked", server: "_Server") -> Reply:
        found = await server.experiment(asked)
        return Reply(status=200, document={"experimentId": found["experiment_id"], "name": found["name"]})

    async def _make_experiment(self, asked: "_Asked", server: "_Server") -> Reply:
        if asked.kind == "experiments":
            if not EXPERIMENT_NAME.fullmatch(asked.experiment):
                raise HistoryError(400, f"'{asked.experiment}' is no name of an experiment.")
            await server.send("POST", "experiments/create", {"name": asked.experiment})  # there already is as good
        return await self._experiment(asked, server)


class _Asked:
    """A call to one experiment or run, by what its path names."""

    def __init__(self, found: re.Match[str], call: Call) -> None:
        self.kind = found[1]
        self.experiment = unquote(found[2])
        self.run = unquote(found[3]) if found.re.groups > 2 else ""
        self.document = call.document


class _Server:
    """MLflow's API behind run history, in the ids of the workspace."""

    def __init__(self, send: Send) -> None:
        self._send = send

    async def send(self, method: str, path: str, document: JSON = None, **query: str) -> Reply:
        call = Call(method=method, path=MLFLOW + path, document=document or {}, query=query)
        return await self._send(call)

    async def post(self, path: str, document: JSON) -> JSON:
        """Change something; raise HistoryError when that is refused."""
        reply = await self.send("POST", path, document)
        if reply.status != 200:
            raise HistoryError(reply.status, str((reply.document or {}).get("Error", {}).get("Message", "")))
        return reply.document

    async def run(self, run_id: str) -> JSON:
        """Give a run as MLflow tells it; None when there is none."""
        reply = await self.send("GET", "runs/get", run_id=run_id)
        return reply.document["run"] if reply.status == 200 else None

    async def experiment(self, asked: _Asked) -> JSON:
        """Give the experiment that a path names; below `experiments` an id may stand for the name (A5)."""
        if asked.kind == "experiments":
            reply = await self.send("GET", "experiments/get-by-name", experiment_name=asked.experiment)
            if reply.status == 200:
                return reply.document["experiment"]
        reply = await self.send("GET", "experiments/get", experiment_id=asked.experiment)
        if reply.status != 200:
            raise HistoryError(404, f"Experiment {asked.experiment} not found.")
        return reply.document["experiment"]


Act: TypeAlias = Callable[[_Asked, _Server], Awaitable[Reply]]


def _check_experiment(run: JSON, experiment: JSON) -> None:
    if run["info"]["experiment_id"] != experiment["experiment_id"]:
        raise HistoryError(404, f"Run {run['info']['run_id']} not found in experiment {experiment['name']}.")


def _creation(experiment_id: str, document: Mapping[str, JSON]) -> JSON:
    told = str(document.get("startTimeUtc") or "")  # a field of the vendor's CreateRun
    try:
        began = datetime.fromisoformat(told) if told else datetime.now(UTC)
    except ValueError as error:
        raise HistoryError(400, f"'{told}' is no time.") from error
    name = {"run_name": document["displayName"]} if document.get("displayName") else {}
    return {"experiment_id": experiment_id, "start_time": int(began.timestamp() * 1000), **name}


def _tags(document: Mapping[str, JSON]) -> list[JSON]:
    """The tags of a body; a parent is MLflow's tag (A4)."""
    tags = dict(document.get("tags") or {})
    if parent := document.get("parentRunId"):
        tags["mlflow.parentRunId"] = parent
    return [{"key": key, "value": str(value)} for key, value in tags.items()]


def _milliseconds(document: Mapping[str, JSON]) -> int:
    """When an event was; now, if it does not say."""
    try:
        at = datetime.fromisoformat(str(document.get("timestamp", "")))
    except ValueError:
        at = datetime.now(UTC)
    return int(at.replace(tzinfo=at.tzinfo or UTC).timestamp() * 1000)


def _told(run: JSON, properties: Mapping[str, JSON]) -> JSON:
    info, data = run["info"], run.get("data", {})
    tags = {tag["key"]: tag["value"] for tag in data.get("tags", [])}
    return {
        "runId": info["run_id"],
        "experimentId": info["experiment_id"],
        "parentRunId": tags.get("mlflow.parentRunId"),
        "status": FROM_MLFLOW.get(info["status"], info["status"]),
        "displayName": info.get("run_name"),
        "startTimeUtc": _iso(info.get("start_time")),
        "endTimeUtc": _iso(info.get("end_time")),
        "tags": tags,
        "properties": dict(properties),
    }


def _iso(milliseconds: JSON) -> str | None:
    return datetime.fromtimestamp(int(milliseconds) / 1000, UTC).isoformat() if milliseconds else None
