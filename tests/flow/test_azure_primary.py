"""Azure ML as the primary: what its clients miss there is made up for, and its refusals are said as MLflow's."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import ClientSession
from mlflow import MlflowClient

from dualtrack.demo.compare import Side
from dualtrack.demo.servers import MlflowServer
from dualtrack.emulators.azureml import DEFAULT_SCOPE, AzureML
from dualtrack.emulators.tracking import Settings
from tests.support.files import put, run_root
from tests.support.flow import SECRETS, Launcher, Running, Workspace, unique
from tests.support.servers import Control, emulating


@pytest.fixture
async def azure(mlflow_primary: MlflowServer, session: ClientSession) -> AsyncIterator[Workspace]:
    dialect = AzureML(has_logged_models=False)
    settings = Settings(upstream=mlflow_primary.url, token=SECRETS["TOKEN_A"], dialect=dialect)
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
