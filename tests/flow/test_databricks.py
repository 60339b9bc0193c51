"""A Databricks workspace on either side of the proxy: names in its tree, files behind its own doors."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import ClientSession

from dualtrack.demo.servers import MlflowServer
from dualtrack.emulators.databricks import Databricks
from dualtrack.emulators.databricks_files import ARTIFACTS, Choices, DatabricksFiles
from tests.support.files import get, put, run_root
from tests.support.flow import Launcher, Running, Workspace, unique, workspace

KIND: dict[str, Any] = {"kind": "databricks", "experiment_names": {"rule": "keep"}}


@pytest.fixture(params=[0, 403], ids=["files api", "signed urls"])
def files(request: pytest.FixtureRequest) -> DatabricksFiles:
    return DatabricksFiles(Choices(rewrites=True, refuses=request.param))


@pytest.fixture
async def databricks(
    mlflow_secondary: MlflowServer, session: ClientSession, files: DatabricksFiles
) -> AsyncIterator[Workspace]:
    async with workspace("b", mlflow_secondary, session, dialect=Databricks(), site=files) as made:
        yield made


@pytest.fixture
async def mirroring(launch: Launcher, a: Workspace, databricks: Workspace) -> Running:
    return await launch(a, databricks, backends={"b": KIND})


def kept(files: DatabricksFiles) -> dict[str, bytes]:
    """All files of the workspace, by their path below a run's or a model's root."""
    found = files.shelf._files.items()
    return {key.removeprefix(ARTIFACTS).split("/", 5)[-1]: place.read_bytes() for key, place in found}


async def test_files_arrive_in_the_workspace(mirroring: Running, files: DatabricksFiles) -> None:
    run_id = await mirroring.create_run(await mirroring.create_experiment(f"/Shared/{unique()}"))
    root = await run_root(mirroring, run_id)
    for name in ("a b/ü%.txt", "empty"):
        reply = await put(mirroring, root, name, name.encode() if "/" in name else b"")
        assert reply.status == 200
    await mirroring.drained()

    assert kept(files) == {"a b/ü%.txt": "a b/ü%.txt".encode(), "empty": b""}
    assert (await mirroring.backend())["parked"] == 0


async def test_a_workspace_as_primary_keeps_and_gives_files(
    launch: Launcher, a: Workspace, databricks: Workspace, files: DatabricksFiles
) -> None:
    proxy = await launch(databricks, a, backends={"b": KIND})
    run_id = await proxy.create_run(await proxy.create_experiment(f"/Shared/{unique()}"))
    root = await run_root(proxy, run_id)
    reply = await put(proxy, root, "d/a.txt", b"hello")
    await proxy.drained()

    assert (reply.status, reply.headers["X-Dualtrack"]) == (200, "mirrored")
    assert (await get(proxy, root, "d/a.txt")).body == b"hello"
    assert kept(files) == {"d/a.txt": b"hello"}
    assert (await proxy.backend("a"))["parked"] == 0


async def test_the_folder_of_an_experiment_is_made(mirroring: Running, databricks: Workspace) -> None:
    """Also when an experiment is renamed into one; `/Workspace` is no part of a name there."""
    folder = f"/Shared/{unique()}"
    experiment = await mirroring.create_experiment(f"/Workspace{folder}/deep/one")
    await mirroring.log_run(experiment)
    await mirroring.drained()
    await mirroring.post("experiments/update", experiment_id=experiment, new_name=f"{folder}/other/one")
    await mirroring.drained()

    made = [write["path"] for write in await databricks.writes("workspace/mkdirs")]
    assert made == [f"{folder}/deep", f"{folder}/other"]
    named = [write["name"] for write in await databricks.writes("experiments/create", accepted=True)]
    assert named == [f"{folder}/deep/one"]
    assert (await mirroring.backend())["parked"] == 0


async def test_a_folder_that_may_not_be_made_is_parked_with_the_reason(mirroring: Running) -> None:
    experiment = await mirroring.create_experiment(f"/Users/nobody@example.com/{unique()}")
    await mirroring.log_run(experiment)
    await mirroring.drained()

    (parked,) = (await mirroring.admin.call("GET", "/api/v1/parked")).json["parked"]
    assert "protected" in parked["cause"]


@pytest.mark.parametrize("home", ["primary", "secondary"])
async def test_a_logged_model_is_registered_from_its_own_root(
    launch: Launcher, a: Workspace, databricks: Workspace, home: str
) -> None:
    """The workspace's registry takes Databricks' own sources alone, and no `models:/m-…`, as clients send it."""
    sides = (databricks, a) if home == "primary" else (a, databricks)
    proxy = await launch(*sides, backends={"b": KIND}, registry="b")
    experiment_id = await proxy.create_experiment(f"/Shared/{unique()}")
    run_id = await proxy.create_run(experiment_id)
    body = {"experiment_id": experiment_id, "name": "m", "source_run_id": run_id}
    model_id = (await proxy.post("logged-models", **body))["model"]["info"]["model_id"]
    name = unique()
    await proxy.post("registered-models/create", name=name)
    source = f"models:/{model_id}"
    await proxy.post("model-versions/create", name=name, source=source, model_id=model_id, run_id=run_id)
    (asked,) = await databricks.writes("model-versions/create")

    assert asked["source"].startswith("dbfs:/databricks/mlflow-tracking/")
    assert asked["source"].endswith(f"/logged_models/{asked['model_id']}/artifacts")
    assert (asked["model_id"] == model_id) is (home == "primary")
