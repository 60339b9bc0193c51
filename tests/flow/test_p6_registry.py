"""P6: a registry write reaches one backend, never two, whichever is named; what it refers to has arrived there before.

Here the registry is the secondary; that no spelling of a path slips past is in `test_proxy.py`.
"""

import asyncio

import pytest

from dualtrack.demo.compare import read_registry
from dualtrack.emulators.faults import BlackHole, Refuse, Rule
from tests.support.flow import Launcher, Running, Workspace, unique


@pytest.fixture
async def proxy(launch: Launcher, a: Workspace, b: Workspace) -> Running:
    return await launch(a, b, registry="b", registry_wait="120s")


async def test_a_version_names_the_run_that_the_client_knows(proxy: Running, a: Workspace, b: Workspace) -> None:
    """Over there it is the mirror's id, in the answer the client's own; the primary has no model at all."""
    name = unique("model")
    run_id = await proxy.log_run(await proxy.create_experiment())
    await proxy.post("registered-models/create", name=name)
    made = await proxy.call(
        "POST", "model-versions/create", {"name": name, "source": f"runs:/{run_id}/m", "run_id": run_id}
    )
    got = await proxy.call("GET", f"model-versions/get?name={name}&version=1")
    found = await proxy.call("GET", f"model-versions/search?filter=run_id%3D'{run_id}'&max_results=10")

    assert (made.status, made.headers["X-Dualtrack"]) == (200, "registry")
    assert made.json["model_version"]["run_id"] == run_id
    assert got.json["model_version"]["source"] == f"runs:/{run_id}/m"
    assert [version["name"] for version in found.json["model_versions"]] == [name]
    assert name not in read_registry(a.side).models
    (stored,) = [version for version in read_registry(b.side).versions if version.name == name]
    assert stored.run_id != run_id
    assert stored.source == f"runs:/{stored.run_id}/m"


async def test_a_call_waits_for_the_writes_of_its_run(proxy: Running, b: Workspace) -> None:
    name = unique("model")
    await proxy.post("registered-models/create", name=name)
    await b.control.set_faults(Rule(path="runs/create", action=Refuse(status=503)))
    run_id = await proxy.log_run(await proxy.create_experiment())
    body = {"name": name, "source": f"runs:/{run_id}/m", "run_id": run_id}
    asking = asyncio.get_running_loop().create_task(proxy.call("POST", "model-versions/create", body))
    await b.control.arrived("runs/create")
    early = await b.writes("model-versions/create")
    await b.control.clear_faults()
    reply = await asking

    assert (early, reply.status) == ([], 200)
    order = [body["_path"].rpartition("runs/")[2] for body in await b.writes(accepted=True)]
    assert order.index("update") < len(order) - 1
    assert order[-1].endswith("model-versions/create")


async def test_a_wait_that_runs_out_is_a_503_that_clients_repeat(launch: Launcher, a: Workspace, b: Workspace) -> None:
    proxy = await launch(a, b, registry="b", registry_wait="100ms")
    await b.control.set_faults(Rule(path="mlflow/(runs|experiments)", action=BlackHole()))
    run_id = await proxy.create_run(await proxy.create_experiment())
    body = {"name": unique(), "source": f"runs:/{run_id}/m", "run_id": run_id}
    reply = await proxy.call("POST", "model-versions/create", body)

    assert (reply.status, reply.code, reply.headers["X-Dualtrack"]) == (503, "TEMPORARILY_UNAVAILABLE", "registry")
    assert int(reply.headers["Retry-After"]) >= 1
    assert "registry_wait" in reply.json["message"]
    assert await b.writes("model-versions/create") == []
    assert await proxy.metric("registry_refused_total", kind="not_arrived") == 1


@pytest.mark.parametrize("call", [("POST", "registered-models/create"), ("GET", "registered-models/search")])
async def test_with_the_registry_down_nobody_else_answers(
    proxy: Running, a: Workspace, b: Workspace, call: tuple[str, str]
) -> None:
    """Tracking goes on; the registry does not move over."""
    method, path = call
    name = unique("model")
    await b.control.set_faults(Rule(action=Refuse(status=503)))
    reply = await proxy.call(method, path, {"name": name} if method == "POST" else None)

    assert reply.status == 503
    assert not [entry for entry in await a.control.log() if "registered-models" in entry["path"]]
    assert name not in read_registry(a.side).models
    assert await proxy.create_run("0")


async def test_a_registry_write_is_never_journaled(proxy: Running) -> None:
    before = (await proxy.status())["journal"]["entries"]
    name = unique("model")
    await proxy.post("registered-models/create", name=name)
    await proxy.post("registered-models/set-tag", name=name, key="k", value="v")

    assert (await proxy.status())["journal"]["entries"] == before == 0
    assert [item["backlog"] for item in (await proxy.status())["backends"]] == [0, 0]


async def test_a_registry_that_no_proxy_can_stand_for_is_refused_and_counted(proxy: Running, a: Workspace) -> None:
    reply = await proxy.call("POST", "unity-catalog/registered-models/create", {"name": "main.default.m"})

    assert (reply.status, reply.code, reply.headers["X-Dualtrack"]) == (501, "NOT_IMPLEMENTED", "registry")
    assert not [entry for entry in await a.control.log() if "unity-catalog" in entry["path"]]
    assert await proxy.metric("registry_refused_total", kind="unity_catalog") == 1
    assert await proxy.metric("unknown_route_total") == 0
