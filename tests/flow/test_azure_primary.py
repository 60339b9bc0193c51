"""Azure ML as the primary: what its clients miss there is made up for, and its refusals are said as MLflow's."""

import asyncio
from collections.abc import AsyncIterator

import orjson
import pytest
from aiohttp import ClientSession
from mlflow import MlflowClient

from dualtrack.demo.compare import Side
from dualtrack.demo.servers import MlflowServer
from dualtrack.emulators.azureml_scope import DEFAULT_SCOPE
from dualtrack.emulators.azureml_workspace import STRICT, settings_of
from dualtrack.emulators.faults import DropAfter, Rule
from dualtrack.emulators.tokens import Tokens
from tests.support.files import put, run_root
from tests.support.flow import SECRETS, Json, Launcher, Running, Workspace, unique
from tests.support.servers import Control, emulating


@pytest.fixture
async def azure(mlflow_primary: MlflowServer, session: ClientSession) -> AsyncIterator[Workspace]:
    settings = settings_of(STRICT, upstream=mlflow_primary.url, tokens=Tokens(SECRETS["TOKEN_A"]))
    async with emulating(settings) as url:
        side = Side(name="a", url=mlflow_primary.url)
        yield Workspace(name="a", url=f"{url}/mlflow/v2.0{DEFAULT_SCOPE}", side=side, control=Control(url, session))


@pytest.fixture
async def proxy(launch: Launcher, azure: Workspace, b: Workspace) -> Running:
    return await launch(azure, b, backends={"a": {"kind": "azureml"}})


async def test_a_client_of_mlflow_3_lists_files(proxy: Running) -> None:
    """It asks for logged models on the way, of which the workspace never heard."""
    run_id = await proxy.create_run(await proxy.create_experiment())
    await put(proxy, await run_root(proxy, run_id), "sub/a.txt", b"content")
    found = await proxy.call("POST", "logged-models/search", {"experiment_ids": ["1"]})
    listed = await asyncio.to_thread(MlflowClient(proxy.url).list_artifacts, run_id, "sub")

    assert (found.status, found.json, found.headers["X-Dualtrack"]) == (200, {}, "read")
    assert [file.path for file in listed] == ["sub/a.txt"]


async def test_a_history_comes_in_pages_that_it_takes(proxy: Running) -> None:
    run_id = await proxy.create_run(await proxy.create_experiment())
    await proxy.log_metric(run_id)
    reply = await proxy.call("GET", f"metrics/get-history?run_id={run_id}&metric_key=loss&max_results=25000")
    asked = [entry for entry in await proxy.primary.control.log() if entry["path"].endswith("metrics/get-history")]

    assert [metric["value"] for metric in reply.json["metrics"]] == [0.5]
    assert "max_results=999" in asked[-1]["query"]


async def test_its_refusals_are_said_in_mlflow_s_shape(proxy: Running) -> None:
    """A code that clients decide by and a message that people read, whatever the body was."""
    unknown = await proxy.call("GET", "logged-models/m-1/artifacts/directories")
    refused = await proxy.call("POST", "experiments/create", {"name": f"/Shared/{unique()}"})

    assert (unknown.status, unknown.code) == (404, "ENDPOINT_NOT_FOUND")
    assert "a does not have this endpoint" in unknown.json["message"]
    assert (refused.status, refused.code) == (400, "INVALID_PARAMETER_VALUE")
    assert "is not valid" in refused.json["message"]
    assert "(operation " in refused.json["message"]


LOST = {
    "experiments/create": {"name": "NAME"},
    "runs/create": {"experiment_id": "EXPERIMENT", "start_time": 77777, "run_name": "NAME"},
    "runs/log-batch": {"run_id": "RUN", "params": [{"key": "p", "value": "NAME"}]},
    "runs/set-tag": {"run_id": "RUN", "key": "t", "value": "NAME"},
    "runs/update": {"run_id": "RUN", "status": "FINISHED", "end_time": 9000, "run_name": "NAME"},
}


@pytest.mark.parametrize("path", LOST)
async def test_a_write_whose_answer_was_lost_is_settled_and_mirrored_once(
    proxy: Running, azure: Workspace, b: Workspace, path: str
) -> None:
    """The workspace is asked in words that it takes, and searches as it does."""
    name, experiment_id = unique(), await proxy.create_experiment()
    told = {"NAME": name, "EXPERIMENT": experiment_id, "RUN": await proxy.create_run(experiment_id)}
    await proxy.drained()
    await azure.control.set_faults(Rule(action=DropAfter(), path=f"{path}$", first=1))
    body = orjson.dumps(LOST[path]).decode()
    for word, value in told.items():
        body = body.replace(word, value)
    lost = await proxy.call("POST", path, body.encode())

    async def mirrored() -> list[Json]:
        return [write for write in await b.writes() if name in orjson.dumps(write).decode()]

    async def is_mirrored() -> bool:
        return bool(await mirrored())

    await proxy.until(is_mirrored)
    await proxy.drained()

    assert lost.status == 503
    assert len(await mirrored()) == 1
    assert (await proxy.backend())["parked"] == 0
