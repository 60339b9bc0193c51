"""P2: a lost answer, a refusal or a wait that runs out makes no second run, experiment, metric point or model.

Every mirrored operation once loses its answer *after* the secondary did the work; then every kind of trouble meets a
whole run. Afterwards both sides are equal, and no run was made twice.
"""

import contextlib
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import pytest
from aiohttp import ClientSession

from dualtrack.core.routes import ROUTES, Goes
from dualtrack.demo.compare import MODEL_MARK
from dualtrack.demo.servers import MlflowServer, free_port
from dualtrack.emulators.faults import Action, BlackHole, Body, Delay, DropAfter, DropBefore, Refuse, Rule
from dualtrack.translate.operations import OPERATIONS
from tests.support.flow import Launcher, Running, Workspace, workspace
from tests.support.servers import call
from tests.support.steps import STEPS, Place, doubles


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
    assert await doubles(b) == {}
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
    assert await doubles(b) == {}
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
    """The secondary is silent after it was asked: nobody knows whether it did the work.

    All four silences at once, so that they may be long: what a busy server does after that would be done twice.
    """
    proxy = await launch(a, b, backends={"b": {"read_timeout": "5s"}})
    experiment = await proxy.create_experiment()
    first, second = [await proxy.create_run(experiment) for _ in range(2)]
    await proxy.drained()
    paths = ("experiments/create", "runs/create", "log-batch", "runs/update")
    await b.control.set_faults(*(Rule(path=path, nth=1, action=BlackHole()) for path in paths))
    other = await proxy.create_experiment()
    await proxy.log_run(experiment)
    await proxy.log_metric(first)
    await proxy.finish(second)
    await proxy.log_run(other)

    assert await proxy.differences(experiment, b) == []
    assert await proxy.differences(other, b) == []
    assert await doubles(b) == {}
    silent = [entry["path"] for entry in await b.control.log() if entry["fault"]]
    assert len(silent) == len(paths)


async def test_what_a_secondary_does_after_its_silence_is_not_repeated(
    launch: Launcher, a: Workspace, b: Workspace
) -> None:
    """It is late, not gone: what it was asked is done when the wait for it has run out, and the repeat finds that."""
    proxy = await launch(a, b, backends={"b": {"read_timeout": "6s"}})
    experiment = await proxy.create_experiment()
    first = await proxy.create_run(experiment)
    await proxy.drained()
    await b.control.set_faults(
        *(Rule(path=path, nth=1, action=Delay(seconds=8)) for path in ("runs/create", "log-batch"))
    )
    await proxy.log_metric(first)
    await proxy.create_run(experiment)

    assert await proxy.differences(experiment, b) == []
    assert await doubles(b) == {}
    asked = [entry["path"].rpartition("/mlflow/")[2] for entry in await b.control.log()]
    assert (asked.count("runs/create"), asked.count("runs/log-batch")) == (2, 1)


async def test_an_attempt_that_takes_too_long_repeats_nothing(launch: Launcher, a: Workspace, b: Workspace) -> None:
    proxy = await launch(a, b, delivery={"attempt_timeout": "5s"})
    await b.control.set_faults(Rule(path="runs/create", nth=1, action=BlackHole()))
    experiment = await proxy.create_experiment()
    await proxy.log_run(experiment)

    assert await proxy.differences(experiment, b) == []
    assert await doubles(b) == {}


@contextmanager
def full_listener() -> Iterator[int]:
    """Listen without taking anything, with the queue full: a connection is neither made nor refused."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", free_port()), backlog=0))
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
        await proxy.failing("no connection within")
    async with workspace("b", mlflow_secondary, session, port) as b:
        assert await proxy.differences(experiment, b) == []
        assert await doubles(b) == {}
