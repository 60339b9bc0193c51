"""P6 with files: a version is registered when its files are where the registry is, and they are read from there."""

import asyncio

import pytest

from dualtrack.emulators.faults import Refuse, Rule
from tests.support.files import get, listing, put, run_root, tree
from tests.support.flow import Json, Launcher, Reply, Running, Workspace, unique


@pytest.fixture
async def proxy(launch: Launcher, a: Workspace, b: Workspace) -> Running:
    return await launch(a, b, registry="b", registry_wait="120s")


async def began(proxy: Running) -> tuple[str, str, str]:
    """A registered model, and a run with a file of the model that it will make a version from."""
    name = unique("model")
    await proxy.post("registered-models/create", name=name)
    run_id = await proxy.create_run(await proxy.create_experiment())
    root = await run_root(proxy, run_id)
    return name, run_id, root


async def register(proxy: Running, name: str, run_id: str, source: str) -> Reply:
    return await proxy.call("POST", "model-versions/create", {"name": name, "source": source, "run_id": run_id})


async def downloads(proxy: Running, name: str) -> str:
    """Where the files of the first version are read from."""
    uri = f"model-versions/get-download-uri?name={name}&version=1"
    return str((await proxy.call("GET", uri)).json["artifact_uri"])


@pytest.mark.parametrize("source", ["runs:/{run_id}/model", "{root}/model"])
async def test_a_version_waits_for_its_files(proxy: Running, b: Workspace, source: str) -> None:
    """However its source is spelled."""
    name, run_id, root = await began(proxy)
    await b.control.set_faults(Rule(method="PUT", action=Refuse(status=503)))
    await put(proxy, root, "model/MLmodel", b"run_id: " + run_id.encode())
    given = source.format(run_id=run_id, root=root)
    asking = asyncio.get_running_loop().create_task(register(proxy, name, run_id, given))
    await b.control.arrived("artifacts/model/MLmodel")
    early = await b.writes("model-versions/create")
    await b.control.clear_faults()
    reply = await asking

    assert (early, reply.status) == ([], 200), reply.body
    assert reply.json["model_version"]["source"] == given


async def test_its_files_are_read_where_it_is_registered(proxy: Running, a: Workspace, b: Workspace) -> None:
    """Through the proxy, with that side's ids in them; the primary is not asked for any of it."""
    name, run_id, root = await began(proxy)
    await put(proxy, root, "model/MLmodel", b"run_id: " + run_id.encode())
    await put(proxy, root, "model/a b.bin", b"weights")
    assert (await register(proxy, name, run_id, f"runs:/{run_id}/model")).status == 200
    before = await a.calls()
    uri = await downloads(proxy, name)
    files = await tree(proxy, uri)
    part = await get(proxy, uri, "a b.bin", Range="bytes=0-2")
    asked = (await a.calls())[len(before) :]

    assert uri.startswith("mlflow-artifacts:/_dualtrack/b/")
    assert files["a b.bin"] == b"weights"
    assert files["MLmodel"].startswith(b"run_id: ")
    assert run_id.encode() not in files["MLmodel"]
    assert (part.status, part.body) == (206, b"wei")
    assert sorted(item["path"] for item in await listing(proxy, uri)) == ["MLmodel", "a b.bin"]
    assert asked == []


async def test_a_wait_that_runs_out_says_what_is_missing(launch: Launcher, a: Workspace, b: Workspace) -> None:
    proxy = await launch(a, b, registry="b", registry_wait="100ms")
    name, run_id, root = await began(proxy)
    await b.control.set_faults(Rule(method="PUT", action=Refuse(status=503)))
    for number in range(3):
        await put(proxy, root, f"model/{number}")
    reply = await register(proxy, name, run_id, f"runs:/{run_id}/model")

    assert (reply.status, reply.code) == (503, "TEMPORARILY_UNAVAILABLE")
    assert "3 uploadArtifact" in reply.json["message"]
    assert await b.writes("model-versions/create") == []


async def test_a_version_without_its_files_is_not_made(proxy: Running, b: Workspace) -> None:
    """A file that the registry's backend refused is missing there until somebody does something about it."""
    name, run_id, root = await began(proxy)
    await b.control.set_faults(Rule(method="PUT", action=Refuse(status=403)))
    await put(proxy, root, "model/MLmodel")
    await proxy.drained()
    refused = await register(proxy, name, run_id, f"runs:/{run_id}/model")
    letters = (await proxy.admin.call("GET", "/api/v1/parked")).json["parked"]
    await b.control.clear_faults()
    await proxy.admin.call("POST", f"/api/v1/parked/{letters[0]['id']}/retry")
    again = await register(proxy, name, run_id, f"runs:/{run_id}/model")

    assert (refused.status, refused.code) == (503, "TEMPORARILY_UNAVAILABLE")
    assert "parked list" in refused.json["message"]
    assert again.status == 200


@pytest.mark.parametrize("home", ["a", "b"])
async def test_a_logged_model_is_registered_in_one_place(
    launch: Launcher, a: Workspace, b: Workspace, home: str
) -> None:
    """MLflow 3: by `models:/m-…`; no call of the registry and no byte of its reads reach the other side."""
    proxy = await launch(a, b, registry=home, registry_wait="120s")
    name = unique("model")
    experiment_id = await proxy.create_experiment()
    run_id = await proxy.create_run(experiment_id)
    made = await proxy.post("logged-models", experiment_id=experiment_id, name="m", source_run_id=run_id)
    info: Json = made["model"]["info"]
    await put(proxy, info["artifact_uri"], "MLmodel", f"model_id: {info['model_id']}\n".encode())
    body = {"model_id": info["model_id"], "status": "LOGGED_MODEL_READY"}
    assert (await proxy.call("PATCH", f"logged-models/{info['model_id']}", body)).status == 200
    await proxy.post("registered-models/create", name=name)
    version = {"name": name, "source": f"models:/{info['model_id']}", "model_id": info["model_id"]}
    reply = await proxy.call("POST", "model-versions/create", version)
    content = (await get(proxy, await downloads(proxy, name), "MLmodel")).body
    other = b if home == "a" else a

    assert reply.status == 200, reply.body
    assert reply.json["model_version"]["source"] == f"models:/{info['model_id']}"
    assert (info["model_id"].encode() in content) == (home == "a")
    assert not [entry for entry in await other.control.log() if "model-versions" in entry["path"]]
    assert not [entry for entry in await other.control.log() if "registered-models" in entry["path"]]
