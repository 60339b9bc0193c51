"""P2: a lost answer, a refusal or a wait that runs out makes no second run, experiment, metric point or model.

Every mirrored operation once loses its answer *after* the secondary did the work; then every kind of trouble meets a
whole run. Afterwards both sides are equal, and no run was made twice.
"""

import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import pytest
from aiohttp import ClientSession

from dualtrack.core.routes import ROUTES, Goes
from dualtrack.demo.compare import MODEL_MARK
from dualtrack.demo.servers import MlflowServer
from dualtrack.emulators.faults import Action, BlackHole, Body, DropAfter, DropBefore, Refuse, Rule
from dualtrack.translate.operations import OPERATIONS
from tests.support.flow import Launcher, Running, Workspace, unique, workspace
from tests.support.servers import call

DATASET = {"name": "iris", "digest": "d1", "source_type": "local", "source": "{}"}
HISTORY = '{"artifact_path": "model", "flavors": {}, "run_id": "%s", "utc_time_created": "2026-11-20 10:00:00.000000"}'


class Place:
    """What operations need: an experiment and a run on both sides already, and on demand a logged model."""

    def __init__(self, proxy: Running, experiment: str, run: str) -> None:
        self.proxy = proxy
        self.experiment = experiment
        self.run = run
        self.model = ""

    async def post(self, path: str, **body: Any) -> Any:
        return await self.proxy.post(path, **body)

    async def of_run(self, path: str, **body: Any) -> Any:
        return await self.post(f"runs/{path}", run_id=self.run, **body)

    async def of_experiment(self, path: str, **body: Any) -> Any:
        return await self.post(f"experiments/{path}", experiment_id=self.experiment, **body)

    async def create_model(self) -> None:
        body = {"experiment_id": self.experiment, "name": "model", "source_run_id": self.run}
        self.model = (await self.post("logged-models", **body))["model"]["info"]["model_id"]

    async def of_model(self, method: str, path: str = "", **body: Any) -> None:
        reply = await self.proxy.call(method, f"logged-models/{self.model}{path}", {"model_id": self.model, **body})
        assert reply.status == 200, reply


Step = Callable[[Place], Awaitable[Any]]

TAG = {"key": "k", "value": "v"}
# per operation: what has to be there before, and the write whose answer is lost
STEPS: dict[str, tuple[Step | None, Step]] = {
    "createExperiment": (None, lambda at: at.post("experiments/create", name=unique())),
    "updateExperiment": (None, lambda at: at.of_experiment("update", new_name=unique())),
    "deleteExperiment": (None, lambda at: at.of_experiment("delete")),
    "restoreExperiment": (lambda at: at.of_experiment("delete"), lambda at: at.of_experiment("restore")),
    "setExperimentTag": (None, lambda at: at.of_experiment("set-experiment-tag", **TAG)),
    "deleteExperimentTag": (
        lambda at: at.of_experiment("set-experiment-tag", **TAG),
        lambda at: at.of_experiment("delete-experiment-tag", key="k"),
    ),
    "createRun": (None, lambda at: at.post("runs/create", experiment_id=at.experiment, start_time=5)),
    "updateRun": (None, lambda at: at.of_run("update", status="FINISHED", end_time=9)),
    "deleteRun": (None, lambda at: at.of_run("delete")),
    "restoreRun": (lambda at: at.of_run("delete"), lambda at: at.of_run("restore")),
    "logMetric": (None, lambda at: at.of_run("log-metric", key="loss", value=1, timestamp=1, step=1)),
    "logParam": (None, lambda at: at.of_run("log-parameter", **TAG)),
    "setTag": (None, lambda at: at.of_run("set-tag", **TAG)),
    "logBatch": (
        None,
        lambda at: at.of_run(
            "log-batch",
            metrics=[{"key": "loss", "value": 2, "timestamp": 2, "step": 2}],
            params=[{"key": "p", "value": "1"}],
            tags=[{"key": "t", "value": "1"}],
        ),
    ),
    "deleteTag": (lambda at: at.of_run("set-tag", **TAG), lambda at: at.of_run("delete-tag", key="k")),
    "logInputs": (None, lambda at: at.of_run("log-inputs", datasets=[{"dataset": DATASET, "tags": [TAG]}])),
    "logOutputs": (Place.create_model, lambda at: at.of_run("outputs", models=[{"model_id": at.model, "step": "1"}])),
    "logModel": (None, lambda at: at.of_run("log-model", model_json=HISTORY % at.run)),
    "createLoggedModel": (None, Place.create_model),
    "finalizeLoggedModel": (Place.create_model, lambda at: at.of_model("PATCH", status="LOGGED_MODEL_READY")),
    "logLoggedModelParams": (Place.create_model, lambda at: at.of_model("POST", "/params", params=[TAG])),
    "setLoggedModelTags": (Place.create_model, lambda at: at.of_model("PATCH", "/tags", tags=[TAG])),
    "deleteLoggedModelTag": (
        lambda at: in_turn(at, Place.create_model, lambda at: at.of_model("PATCH", "/tags", tags=[TAG])),
        lambda at: at.of_model("DELETE", "/tags/k"),
    ),
    "deleteLoggedModel": (Place.create_model, lambda at: at.of_model("DELETE")),
}


async def in_turn(at: Place, *steps: Step) -> None:
    for step in steps:
        await step(at)


@pytest.fixture
async def at(proxy: Running) -> Place:
    experiment = await proxy.create_experiment()
    place = Place(proxy, experiment, await proxy.create_run(experiment))
    await proxy.drained()
    return place


def test_every_mirrored_operation_has_a_step_here() -> None:
    assert STEPS.keys() == OPERATIONS.keys()
    assert STEPS.keys() == {route.operation for route in ROUTES if route.goes is Goes.MIRROR}


def models(side: Workspace, experiment_ids: list[str]) -> list[dict[str, Any]]:
    found = call(side.side.url, "logged-models/search", {"experiment_ids": experiment_ids, "max_results": 50})
    listed: list[dict[str, Any]] = found.get("models", [])
    return listed


def shown(model: dict[str, Any]) -> dict[str, Any]:
    """What of a logged model has to be equal on both sides."""
    info, data = model["info"], model.get("data", {})
    tags = {tag["key"]: tag["value"] for tag in info.get("tags", [])}
    kept = {key: value for key, value in tags.items() if not key.startswith("dualtrack.")}
    params = sorted((param["key"], param["value"]) for param in data.get("params", []))
    return {"name": info["name"], "status": info["status"], "tags": kept, "params": params}


async def assert_models_equal(at: Place, b: Workspace) -> None:
    entities = (await at.proxy.admin.call("GET", f"/api/v1/ids/{at.experiment}")).json["entities"]
    twins = next(entity["twins"] for entity in entities if entity["client_id"] == at.experiment)
    there = next(twin["id"] for twin in twins if twin["backend"] == "b")
    ours, theirs = models(at.proxy.primary, [at.experiment]), models(b, [there])
    marks = [tag["value"] for model in theirs for tag in model["info"]["tags"] if tag["key"] == MODEL_MARK]
    assert [shown(model) for model in theirs] == [shown(model) for model in ours]
    assert marks == [model["info"]["model_id"] for model in ours]


@pytest.mark.parametrize("operation", STEPS)
async def test_an_answer_that_is_lost_repeats_nothing(at: Place, b: Workspace, operation: str) -> None:
    before, write = STEPS[operation]
    if before is not None:
        await before(at)
        await at.proxy.drained()
    await b.control.set_faults(Rule(path="mlflow/(runs|experiments|logged-models)", nth=1, action=DropAfter()))
    seen = len(await b.control.log())
    await write(at)
    differences = await at.proxy.differences(at.experiment, b)

    assert differences == []
    await assert_models_equal(at, b)
    assert (await b.control.duplicates())["runs"] == 0
    assert "drop_after" in {entry["fault"] for entry in (await b.control.log())[seen:]}
    assert not (await at.proxy.admin.call("GET", "/api/v1/parked")).json["parked"]


# --- every kind of trouble, for a whole run -------------------------------------------------------------------------

TROUBLE: dict[str, Action] = {
    "500": Refuse(status=500),
    "503": Refuse(status=503),
    "503, come back in 1 s": Refuse(status=503, retry_after="1"),
    "503, come back at a date": Refuse(status=503, retry_after="Wed, 21 Oct 2015 07:28:00 GMT"),
    "503, nonsense": Refuse(status=503, retry_after="soon"),
    "502 as a page": Refuse(status=502, body=Body.HTML),
    "504 and nothing": Refuse(status=504, body=Body.EMPTY),
    "408": Refuse(status=408),
    "429": Refuse(status=429),
    "429, come back in 1 s": Refuse(status=429, retry_after="1"),
    "200 as a page": Refuse(status=200, body=Body.HTML),
    "302": Refuse(status=302, body=Body.EMPTY),
    "401": Refuse(status=401),
    "dropped before": DropBefore(),
    "dropped after": DropAfter(),
}


@pytest.mark.parametrize("action", TROUBLE.values(), ids=TROUBLE.keys())
async def test_trouble_repeats_nothing_and_loses_nothing(
    proxy: Running, a: Workspace, b: Workspace, action: Action
) -> None:
    """Each call to the secondary meets the trouble once, and then goes through."""
    paths: tuple[str, ...] = ("get-by-name", "experiments/create", "runs/create", "log-batch", "runs/update")
    if isinstance(action, Refuse) and action.retry_after == "1":
        paths = ("runs/create",)  # each takes its second
    await b.control.set_faults(*(Rule(path=path, nth=1, action=action) for path in paths))
    experiment = await proxy.create_experiment()
    await proxy.log_run(experiment)

    assert await proxy.differences(experiment, b) == []
    assert (await b.control.duplicates())["runs"] == 0
    assert {entry["path"].rpartition("/")[2] for entry in await b.control.log() if entry["fault"]} == {
        path.rpartition("/")[2] for path in paths
    }
    assert not (await proxy.admin.call("GET", "/api/v1/parked")).json["parked"]


async def test_retry_after_is_waited_for(proxy: Running, b: Workspace) -> None:
    """A secondary that says when to come back is left alone until then."""
    await b.control.set_faults(Rule(path="experiments/create", nth=1, action=Refuse(status=429, retry_after="1")))
    await proxy.create_experiment()
    await b.control.arrived("experiments/create")
    await proxy.drained()

    first, second = [
        datetime.fromisoformat(entry["at"])
        for entry in await b.control.log()
        if entry["path"].endswith("experiments/create")
    ]
    assert (second - first).total_seconds() >= 1.0


async def test_a_read_that_runs_out_repeats_nothing(launch: Launcher, a: Workspace, b: Workspace) -> None:
    """The secondary is silent after it was asked: nobody knows whether it did the work."""
    proxy = await launch(a, b, backends={"b": {"read_timeout": "200ms"}})
    paths = ("experiments/create", "runs/create", "log-batch", "runs/update")
    await b.control.set_faults(*(Rule(path=path, nth=1, action=BlackHole()) for path in paths))
    experiment = await proxy.create_experiment()
    await proxy.log_run(experiment)

    assert await proxy.differences(experiment, b) == []
    assert (await b.control.duplicates())["runs"] == 0


async def test_an_attempt_that_takes_too_long_repeats_nothing(launch: Launcher, a: Workspace, b: Workspace) -> None:
    proxy = await launch(a, b, delivery={"attempt_timeout": "200ms"})
    await b.control.set_faults(Rule(path="runs/create", nth=1, action=BlackHole()))
    experiment = await proxy.create_experiment()
    await proxy.log_run(experiment)

    assert await proxy.differences(experiment, b) == []
    assert (await b.control.duplicates())["runs"] == 0


@contextmanager
def full_listener() -> Iterator[int]:
    """Listen without taking anything, with the queue full: a connection is neither made nor refused."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(8):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


async def test_a_connection_that_is_not_made_in_time_repeats_nothing(
    launch: Launcher, a: Workspace, mlflow_secondary: MlflowServer, session: ClientSession
) -> None:
    with full_listener() as port:
        late = {"url": f"http://127.0.0.1:{port}", "auth": {"type": "token", "token": "${TOKEN_B}"}}
        proxy = await launch(a, backends={"b": {**late, "connect_timeout": "100ms"}})
        experiment = await proxy.create_experiment()
        await proxy.log_run(experiment)

        async def has_failed() -> bool:
            return "no connection within" in (await proxy.backend())["last_error"]

        await proxy.until(has_failed)
    async with workspace("b", mlflow_secondary, session, port) as b:
        assert await proxy.differences(experiment, b) == []
        counted = await b.control.duplicates()
        assert {name: count for name, count in counted.items() if count} == {}
