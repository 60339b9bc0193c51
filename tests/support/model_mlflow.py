"""A small honest MLflow tracking server in this event loop: real HTTP on loopback, state in dictionaries.

Answers as mlflow 3.17.2 does (facts sections 2, 4, 5 and 7): which repeats are refused, which make a second thing,
which points are one, where files lie. It knows nothing of dualtrack. Two of them stand behind a proxy in tests that
start hundreds of times, where a real server, which needs seconds, cannot.
"""

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import orjson
from aiohttp import web

Body: TypeAlias = dict[str, Any]
Point: TypeAlias = tuple[int, int, float]  # step, timestamp, value

API = "/api/2.0/mlflow/"
ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"
_TAG_FILTER = re.compile(r"tags\.`([^`]+)` = '([^']*)'")
_TIME_FILTER = re.compile(r"attributes\.start_time = (\d+)")


class RefusedError(Exception):
    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


@dataclass
class Experiment:
    experiment_id: str
    name: str
    tags: dict[str, str] = field(default_factory=dict)
    stage: str = "active"


@dataclass
class Run:
    run_id: str
    experiment_id: str
    name: str
    user: str
    start_time: int
    status: str = "RUNNING"
    end_time: int | None = None
    stage: str = "active"
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, list[Point]] = field(default_factory=dict)
    datasets: dict[tuple[str, str], Body] = field(default_factory=dict)
    writes: list[str] = field(default_factory=list)  # accepted, in order of arrival


class ModelMlflow:
    """One server. `prefix` and `first_id` tell its ids from another's."""

    def __init__(self, prefix: str, first_id: int) -> None:
        self.experiments: dict[str, Experiment] = {}
        self.runs: dict[str, Run] = {}
        self.files: dict[str, bytes] = {}  # by their paths below the artifact store's own root
        self._prefix = prefix
        self._next_id = first_id
        self._routes: dict[tuple[str, str], Callable[[Body], Body]] = {
            ("POST", "experiments/create"): self._create_experiment,
            ("GET", "experiments/get"): lambda body: _shown_experiment(self._experiment(body)),
            ("GET", "experiments/get-by-name"): self._experiment_by_name,
            ("POST", "experiments/set-experiment-tag"): self._tag_experiment,
            ("POST", "runs/create"): self._create_run,
            ("POST", "runs/update"): self._update_run,
            ("POST", "runs/delete"): lambda body: self._move(body, "deleted"),
            ("POST", "runs/restore"): lambda body: self._move(body, "active"),
            ("GET", "runs/get"): lambda body: {"run": _shown_run(self._run(body))},
            ("POST", "runs/search"): self._search,
            ("POST", "runs/log-metric"): lambda body: self._log(body, "log-metric", metrics=[body]),
            ("POST", "runs/log-parameter"): lambda body: self._log(body, "log-parameter", params=[body]),
            ("POST", "runs/set-tag"): lambda body: self._log(body, "set-tag", tags=[body]),
            ("POST", "runs/log-batch"): self._log_batch,
            ("POST", "runs/delete-tag"): self._delete_tag,
            ("POST", "runs/log-inputs"): self._log_inputs,
            ("GET", "metrics/get-history"): self._history,
            ("POST", "logged-models/search"): lambda _: {},  # there are none
        }

    async def handle(self, request: web.BaseRequest) -> web.Response:
        if request.path == "/version":
            return web.Response(text="3.17.2")
        if request.path == ARTIFACTS or request.path.startswith(f"{ARTIFACTS}/"):
            return await self._artifact(request, request.path.removeprefix(ARTIFACTS).strip("/"))
        route = self._routes.get((request.method, request.path.removeprefix(API)))
        if route is None:
            return web.Response(status=404, text="<html>Not Found</html>", content_type="text/html")
        body = dict(request.query) if request.method == "GET" else orjson.loads(await request.read() or b"{}")
        try:
            return _answer(200, route(body))
        except RefusedError as refusal:
            return _answer(refusal.status, {"error_code": refusal.code, "message": str(refusal)})

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[str]:
        """Listen on a free loopback port; give the address."""
        runner = web.ServerRunner(web.Server(self.handle, access_log=None), shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()

    def _number(self) -> int:
        self._next_id += 1
        return self._next_id

    # --- experiments --------------------------------------------------------------------------------------------

    def _create_experiment(self, body: Body) -> Body:
        if any(experiment.name == body["name"] for experiment in self.experiments.values()):
            raise RefusedError(400, "RESOURCE_ALREADY_EXISTS", f"Experiment(name={body['name']}) already exists.")
        experiment = Experiment(str(self._number()), body["name"], _pairs(body.get("tags", [])))
        self.experiments[experiment.experiment_id] = experiment
        return {"experiment_id": experiment.experiment_id}

    def _experiment(self, body: Body) -> Experiment:
        found = self.experiments.get(str(body.get("experiment_id")))
        if found is None:
            raise RefusedError(404, "RESOURCE_DOES_NOT_EXIST", f"No Experiment with id={body.get('experiment_id')}")
        return found

    def _experiment_by_name(self, body: Body) -> Body:
        for experiment in self.experiments.values():
            if experiment.name == body["experiment_name"]:
                return _shown_experiment(experiment)
        raise RefusedError(404, "RESOURCE_DOES_NOT_EXIST", f"Could not find experiment {body['experiment_name']}")

    def _tag_experiment(self, body: Body) -> Body:
        self._experiment(body).tags[body["key"]] = body["value"]
        return {}

    # --- runs ---------------------------------------------------------------------------------------------------

    def _create_run(self, body: Body) -> Body:
        experiment = self._experiment(body)
        number = self._number()
        tags = _pairs(body.get("tags", []))
        name = body.get("run_name") or tags.get("mlflow.runName") or f"calm-fox-{number}"
        if tags.setdefault("mlflow.runName", name) != name:
            raise RefusedError(400, "INVALID_PARAMETER_VALUE", "Both 'run_name' and the tag are given")
        run = Run(
            run_id=f"{self._prefix}{number:031x}",
            experiment_id=experiment.experiment_id,
            name=name,
            user=body.get("user_id", ""),
            start_time=int(body.get("start_time", 0)),
            tags=tags,
        )
        run.writes.append("create")
        self.runs[run.run_id] = run
        return {"run": _shown_run(run)}

    def _run(self, body: Body) -> Run:
        run_id = body.get("run_id") or body.get("run_uuid")
        found = self.runs.get(str(run_id))
        if found is None:
            raise RefusedError(404, "RESOURCE_DOES_NOT_EXIST", f"Run with id={run_id} not found")
        return found

    def _active(self, body: Body) -> Run:
        run = self._run(body)
        if run.stage != "active":
            raise RefusedError(400, "INVALID_PARAMETER_VALUE", f"The run {run.run_id} must be in the 'active' state.")
        return run

    def _update_run(self, body: Body) -> Body:
        run = self._active(body)
        run.status = body.get("status", run.status)
        run.end_time = int(body["end_time"]) if body.get("end_time") else run.end_time
        if body.get("run_name"):
            run.name = run.tags["mlflow.runName"] = body["run_name"]
        run.writes.append("update")
        return {"run_info": _shown_run(run)["info"]}

    def _move(self, body: Body, stage: str) -> Body:
        run = self._run(body)
        run.stage = stage
        run.writes.append(stage)
        return {}

    def _log_batch(self, body: Body) -> Body:
        given = {name: body.get(name, []) for name in ("metrics", "params", "tags")}
        return self._log(body, "log-batch", **given)

    def _log(
        self,
        body: Body,
        write: str,
        *,
        metrics: list[Body] | None = None,
        params: list[Body] | None = None,
        tags: list[Body] | None = None,
    ) -> Body:
        run = self._active(body)
        for key, value in _pairs(params or []).items():
            if run.params.get(key, value) != value:
                raise RefusedError(400, "INVALID_PARAMETER_VALUE", f"Changing param values is not allowed: {key}")
        run.params |= _pairs(params or [])
        for metric in metrics or []:
            point = (int(metric.get("step") or 0), int(metric["timestamp"]), float(metric["value"]))
            history = run.metrics.setdefault(metric["key"], [])
            if point not in history:
                history.append(point)
        run.tags |= _pairs(tags or [])
        run.writes.append(write)
        return {}

    def _delete_tag(self, body: Body) -> Body:
        run = self._active(body)
        if run.tags.pop(body["key"], None) is None:
            raise RefusedError(404, "RESOURCE_DOES_NOT_EXIST", f"No tag with name: {body['key']}")
        run.writes.append("delete-tag")
        return {}

    def _log_inputs(self, body: Body) -> Body:
        run = self._active(body)
        for item in body.get("datasets", []):
            run.datasets.setdefault((item["dataset"]["name"], item["dataset"]["digest"]), item)
        run.writes.append("log-inputs")
        return {}

    def _history(self, body: Body) -> Body:
        points = self._run(body).metrics.get(body["metric_key"], [])
        return {"metrics": [_shown_point(body["metric_key"], point) for point in points]}

    def _search(self, body: Body) -> Body:
        wanted = body.get("filter", "")
        tag, time = _TAG_FILTER.fullmatch(wanted), _TIME_FILTER.fullmatch(wanted)
        if tag is None and time is None:
            raise RefusedError(400, "INVALID_PARAMETER_VALUE", f"this model does not know the filter {wanted!r}")
        found = [
            _shown_run(run)
            for run in self.runs.values()
            if run.experiment_id in body["experiment_ids"]
            and (tag is None or run.tags.get(tag[1]) == tag[2])
            and (time is None or run.start_time == int(time[1]))
        ]
        return {"runs": found} if found else {}

    # --- files --------------------------------------------------------------------------------------------------

    def files_of(self, run: Run) -> dict[str, bytes]:
        """All files of a run, by their paths below its root."""
        below = _root(run).removeprefix("mlflow-artifacts:/") + "/"
        return {path.removeprefix(below): content for path, content in self.files.items() if path.startswith(below)}

    async def _artifact(self, request: web.BaseRequest, path: str) -> web.Response:
        match request.method:
            case "PUT":
                content = await request.read()  # raises for a body that is cut: nothing of it is stored
                self.files[path] = content
                self._note(path, "put")
                return web.Response()
            case "DELETE":
                self.files = {name: content for name, content in self.files.items() if not _is_in(name, path)}
                self._note(path, "remove")
                return _answer(200, {})
            case _ if not path:
                return _answer(200, self._listing(request.query.get("path", "").strip("/")))
            case _ if path in self.files:
                name = path.rpartition("/")[2]
                headers = {"Content-Disposition": f'attachment; filename="{name}"'}
                return web.Response(body=self.files[path], content_type="application/octet-stream", headers=headers)
        return _answer(404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": f"No such artifact: {path}"})

    def _note(self, path: str, write: str) -> None:
        """The server itself does not tie files to runs; who reads `writes` wants to know their order."""
        for run in self.runs.values():
            if run.run_id in path.split("/"):
                run.writes.append(write)

    def _listing(self, folder: str) -> Body:
        prefix = f"{folder}/" if folder else ""
        listed: dict[str, Body] = {}
        for path, content in sorted(self.files.items()):
            if path.startswith(prefix):
                name, _, below = path.removeprefix(prefix).partition("/")
                is_file = {"path": name, "is_dir": False, "file_size": len(content)}
                listed.setdefault(name, {"path": name, "is_dir": True} if below else is_file)
        return {"files": list(listed.values())}


def _is_in(name: str, path: str) -> bool:
    return name == path or name.startswith(f"{path}/")


def _root(run: Run) -> str:
    return f"mlflow-artifacts:/{run.experiment_id}/{run.run_id}/artifacts"


def _pairs(listed: list[Body]) -> dict[str, str]:
    pairs = {item["key"]: str(item["value"]) for item in listed}
    if len(pairs) < len(listed):
        raise RefusedError(400, "BAD_REQUEST", "duplicate keys")
    return pairs


def _listed(pairs: dict[str, str]) -> list[Body]:
    return [{"key": key, "value": value} for key, value in pairs.items()]


def _shown_point(key: str, point: Point) -> Body:
    return {"key": key, "step": point[0], "timestamp": point[1], "value": point[2]}


def _shown_experiment(experiment: Experiment) -> Body:
    return {
        "experiment": {
            "experiment_id": experiment.experiment_id,
            "name": experiment.name,
            "lifecycle_stage": experiment.stage,
            "tags": _listed(experiment.tags),
        }
    }


def _shown_run(run: Run) -> Body:
    info = {
        "run_id": run.run_id,
        "run_uuid": run.run_id,
        "run_name": run.name,
        "experiment_id": run.experiment_id,
        "user_id": run.user,
        "status": run.status,
        "start_time": run.start_time,
        "lifecycle_stage": run.stage,
        "artifact_uri": _root(run),
    }
    if run.end_time is not None:
        info["end_time"] = run.end_time
    latest = [_shown_point(key, max(history)) for key, history in run.metrics.items()]
    data = {"metrics": latest, "params": _listed(run.params), "tags": _listed(run.tags)}
    return {"info": info, "data": data, "inputs": {"dataset_inputs": list(run.datasets.values())}}


def _answer(status: int, body: Body) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(body), content_type="application/json")
