"""P3 with two secondaries: each gets everything; one that is down holds back only itself, and its entries stay.

The third workspace is another façade over the primary's server: another address and token, and ids of its own.
"""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import ClientSession

from dualtrack.demo.servers import MlflowServer
from dualtrack.emulators.faults import BlackHole, DropAfter, Refuse, Rule, Spoil, Spoilt
from tests.support.flow import Json, Launcher, Running, Workspace, unique, workspace
from tests.support.servers import call


@pytest.fixture
async def c(mlflow_primary: MlflowServer, session: ClientSession) -> AsyncIterator[Workspace]:
    async with workspace("c", mlflow_primary, session) as made:
        yield made


@pytest.fixture
async def both(launch: Launcher, a: Workspace, b: Workspace, c: Workspace) -> Running:
    """A proxy before three; experiments on `c` have other names, since it shares its server with `a`."""
    return await launch(a, b, c, backends={"c": {"experiment_names": {"rule": "template", "template": "c-{name}"}}})


async def backlogs(proxy: Running) -> dict[str, int]:
    return {item["name"]: item["backlog"] for item in (await proxy.status())["backends"] if item["role"] == "secondary"}


def mirrored(c: Workspace, name: str) -> list[Json]:
    """Give the runs of one experiment of `c`."""
    listed = call(c.side.url, "experiments/search", {"max_results": 1000})["experiments"]
    ids = [item["experiment_id"] for item in listed if item["name"] == f"c-{name}"]
    runs: list[Json] = call(c.side.url, "runs/search", {"experiment_ids": ids, "max_results": 50}).get("runs", [])
    return runs


async def test_both_get_everything(both: Running, b: Workspace, c: Workspace) -> None:
    name = unique()
    experiment = await both.create_experiment(name)
    run_id = await both.log_run(experiment)

    assert await both.differences(experiment, b) == []
    (run,) = mirrored(c, name)
    original = call(both.primary.side.url, "runs/search", {"experiment_ids": [experiment]})["runs"][0]
    assert run["info"]["run_id"] != run_id
    assert run["info"]["run_name"] == original["info"]["run_name"]
    assert run["info"]["status"] == "FINISHED"
    assert run["data"]["params"] == original["data"]["params"]
    assert run["data"]["metrics"][0]["value"] == original["data"]["metrics"][0]["value"]
    twins = (await both.admin.call("GET", f"/api/v1/ids/{run_id}")).json["entities"][0]["twins"]
    assert {twin["backend"] for twin in twins} == {"a", "b", "c"}


async def test_what_was_brought_over_to_one_is_not_there_on_the_other(
    both: Running, a: Workspace, b: Workspace, c: Workspace
) -> None:
    """A backfill finds a run before its create, whose answer was lost, is settled: it has a mirror on one of them."""
    name = unique()
    experiment = await both.create_experiment(name)
    slow = Rule(method="POST", path="runs/create$", nth=1, action=Spoil(body=Spoilt.SLOW, seconds=8.0))
    await a.control.set_faults(slow, Rule(method="POST", path="runs/create$", nth=2, action=DropAfter()))
    other = asyncio.get_running_loop().create_task(both.create_run(experiment))
    await a.control.arrived("runs/create")
    lost = await both.call("POST", "runs/create", {"experiment_id": experiment, "start_time": 5})
    made = await both.admin.call("POST", "/api/v1/backfill", {"to": "b", "experiments": [experiment]})

    async def is_over() -> bool:
        return bool((await both.admin.call("GET", "/api/v1/backfill")).json["state"] != "running")

    await both.until(is_over)
    await other
    await both.drained()

    assert (lost.status, made.status) == (503, 202)
    assert await both.differences(experiment, b) == []
    assert len(mirrored(c, name)) == 2


async def test_one_that_is_down_holds_back_only_itself(both: Running, b: Workspace, c: Workspace) -> None:
    """An entry goes when both have it: what `c` lacks is still there after `b` has it all, and after a retry."""
    name = unique()
    await c.control.set_faults(Rule(action=BlackHole()))
    experiment = await both.create_experiment(name)
    await both.log_run(experiment)

    async def is_done_for_b() -> bool:
        return (await backlogs(both))["b"] == 0

    await both.until(is_done_for_b)
    left = await backlogs(both)
    used = (await both.status())["journal"]["entries"]
    assert (left["b"], left["c"] > 5, used) == (0, True, left["c"])
    await c.control.clear_faults()
    assert await both.differences(experiment, b) == []
    assert len(mirrored(c, name)) == 1
    assert (await both.status())["journal"]["entries"] == 0


async def test_one_that_refuses_parks_for_itself_alone(both: Running, b: Workspace, c: Workspace) -> None:
    await c.control.set_faults(Rule(path="runs/create", action=Refuse(status=400)))
    experiment = await both.create_experiment()
    await both.log_run(experiment)

    assert await both.differences(experiment, b) == []
    parked = (await both.admin.call("GET", "/api/v1/parked")).json["parked"]
    assert [(letter["backend"], letter["operation"]) for letter in parked] == [("c", "createRun")]
    assert (await both.backend("b"))["breaker"] == "closed"


async def test_entries_go_from_the_disk_when_all_have_them(both: Running, c: Workspace) -> None:
    """Bytes, not counts: the journal's use falls back to where it was."""
    experiment = await both.create_experiment()
    run_id = await both.create_run(experiment)
    await both.drained()
    before = (await both.status())["journal"]["used_bytes"]
    await c.control.set_faults(Rule(action=BlackHole()))
    for number in range(20):
        await both.set_tag(run_id, f"t{number}", "x" * 5000)

    async def is_done_for_b() -> bool:
        return (await backlogs(both))["b"] == 0

    await both.until(is_done_for_b)
    meanwhile = (await both.status())["journal"]["used_bytes"]
    await c.control.clear_faults()
    await both.drained()
    await both.set_tag(run_id, "last", "1")  # a commit measures
    await both.drained()
    after = (await both.status())["journal"]["used_bytes"]

    assert meanwhile > before + 20 * 5000
    assert after < before + 10 * 5000
