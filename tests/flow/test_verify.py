"""Both sides are compared through the running proxy, and mended by journal entries."""

import asyncio
from typing import Any

import orjson
import pytest

from dualtrack.cli.verify import _lines
from dualtrack.emulators.faults import Refuse, Rule
from tests.support.files import behind, mirror_of, put, run_root
from tests.support.flow import Json, Running, Workspace


async def verified(proxy: Running, **asked: str) -> tuple[list[Json], Json]:
    """What `GET /api/v1/verify` says: a document per entity, and the sum."""
    query = "&".join(f"{name}={value}" for name, value in asked.items())
    reply = await proxy.admin.call("GET", f"/api/v1/verify?{query}")
    assert reply.status == 200, reply.body
    *found, summary = [orjson.loads(line) for line in reply.body.splitlines()]
    return found, summary


async def reconciled(proxy: Running, **asked: Any) -> tuple[list[Json], Json]:
    reply = await proxy.admin.call("POST", "/api/v1/reconcile", asked)
    assert reply.status == 200, reply.body
    *found, summary = [orjson.loads(line) for line in reply.body.splitlines()]
    return found, summary


async def logged(proxy: Running) -> tuple[str, str]:
    """An experiment with a run of every kind of write, files and a model."""
    experiment_id = await proxy.create_experiment()
    run_id = await proxy.log_run(experiment_id, points=5)
    await put(proxy, await run_root(proxy, run_id), "d/a.txt", b"content")
    body = {"experiment_id": experiment_id, "name": "m", "source_run_id": run_id}
    model = (await proxy.post("logged-models", **body))["model"]["info"]
    await put(proxy, model["artifact_uri"], "model.pkl", b"pickled")
    await proxy.drained()
    return experiment_id, run_id


def drift(found: list[Json]) -> list[tuple[str, str]]:
    return [(each["kind"], each["item"]) for one in found for each in one["differences"] if not each["explanation"]]


async def test_what_arrived_is_equal(proxy: Running) -> None:
    experiment_id, run_id = await logged(proxy)
    found, summary = await verified(proxy, experiment=experiment_id)
    alone, _ = await verified(proxy, id=run_id)

    assert drift(found) == []
    assert [one["kind"] for one in found] == ["experiment", "run", "model"]
    assert {one["state"] for one in found} <= {"equal", "explained"}
    assert summary["error"] == ""
    assert [one["id"] for one in alone] == [run_id]
    assert await proxy.metric("verify_runs_total", backend="b", outcome="drift") == 0


async def test_drift_is_found_and_mended_once(proxy: Running, b: Workspace) -> None:
    """What somebody changed on the secondary, of every kind that a write can mend; a second time nothing is written."""
    _, run_id = await logged(proxy)
    there = (await mirror_of(b, proxy, run_id))["info"]["run_id"]
    direct = behind(b, proxy)
    await direct.post("runs/set-tag", run_id=there, key="stage", value="other")
    await direct.post("runs/update", run_id=there, status="FAILED")
    await behind(proxy.primary, proxy).post("runs/log-parameter", run_id=run_id, key="late", value="1")
    await behind(proxy.primary, proxy).post(
        "runs/log-metric", run_id=run_id, key="late", value=2.5, timestamp=5, step=1
    )
    found, summary = await verified(proxy, id=run_id)
    planned, _ = await reconciled(proxy, ids=[run_id], dry_run=True)
    unchanged, _ = await verified(proxy, id=run_id)
    done, _ = await reconciled(proxy, ids=[run_id])
    await proxy.drained()
    after, _ = await verified(proxy, id=run_id)
    again, _ = await reconciled(proxy, ids=[run_id])

    assert set(drift(found)) == {("tag", "stage"), ("field", "status"), ("param", "late"), ("metric", "late")}
    assert summary["summary"] == {"drift": 1}
    assert planned[0]["writes"] == done[0]["writes"] != []
    assert drift(unchanged) == drift(found)
    assert drift(after) == []
    assert (again[0]["writes"], again[0]["unrepaired"]) == ([], [])
    assert await proxy.metric("drift_total", backend="b", kind="param") > 0


async def test_what_no_write_mends_is_named_with_the_choice(proxy: Running, b: Workspace) -> None:
    """A param that differs, and what only the secondary has: reported, never deleted."""
    _, run_id = await logged(proxy)
    there = (await mirror_of(b, proxy, run_id))["info"]["run_id"]
    await behind(b, proxy).post("runs/log-parameter", run_id=there, key="extra", value="1")
    done, _ = await reconciled(proxy, ids=[run_id])
    await proxy.drained()
    lines = "\n".join(_lines(done[0]))

    assert [(each["kind"], each["item"]) for each in done[0]["unrepaired"]] == [("param", "extra")]
    assert done[0]["unrepaired"][0]["choice"]
    assert "not mended: param extra" in lines
    params = (await mirror_of(b, proxy, run_id))["data"]["params"]
    assert {"key": "extra", "value": "1"} in params


async def test_a_run_that_no_proxy_saw_is_drift_and_comes_over_whole(
    proxy: Running, a: Workspace, b: Workspace
) -> None:
    before = behind(a, proxy)
    experiment_id = await before.create_experiment()
    run_id = await before.log_run(experiment_id)
    found, _ = await verified(proxy, experiment=experiment_id)
    await reconciled(proxy, experiments=[experiment_id])
    await proxy.drained()
    after, _ = await verified(proxy, experiment=experiment_id)

    assert {one["state"] for one in found} == {"drift"}
    assert {one["state"] for one in after} <= {"equal", "explained"}
    assert await mirror_of(b, proxy, run_id)


async def test_what_is_on_its_way_is_pending(proxy: Running, b: Workspace) -> None:
    experiment_id = await proxy.create_experiment()
    await proxy.drained()
    await b.control.set_faults(Rule(path="runs/create", action=Refuse(status=503)))
    run_id = await proxy.create_run(experiment_id)
    found, _ = await verified(proxy, id=run_id)
    await b.control.clear_faults()
    await proxy.drained()

    assert [one["state"] for one in found] == ["pending"]


async def test_everything_is_compared_but_a_default_experiment_that_nobody_used(proxy: Running) -> None:
    """Marks, which every mirror has, are for programs alone."""
    experiment_id, run_id = await logged(proxy)
    found, _ = await verified(proxy)
    run = next(one for one in found if one["id"] == run_id)

    assert {("experiment", experiment_id), ("run", run_id)} <= {(one["kind"], one["id"]) for one in found}
    assert ("experiment", "0") not in {(one["kind"], one["id"]) for one in found}
    assert [each["item"] for each in run["differences"] if each["explanation"] == "our own mark"]
    assert not [line for line in _lines(run) if "dualtrack.source" in line]


@pytest.mark.parametrize("query", ["experiment=none-of-that-name", "since=x", "backend=nobody"])
async def test_what_cannot_be_compared_is_said(proxy: Running, query: str) -> None:
    reply = await proxy.admin.call("GET", f"/api/v1/verify?{query}")
    last = orjson.loads(reply.body.splitlines()[-1])

    assert last["error"]


async def test_mending_needs_the_token(proxy: Running) -> None:
    reply = await asyncio.wait_for(proxy.admin.call("POST", "/api/v1/reconcile", {}, Authorization="Bearer x"), 10)

    assert reply.status in {401, 403}
