"""Both sides are compared through the running proxy, and mended by journal entries."""

import asyncio
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import ClientSession

from dualtrack.cli.verify import _lines
from dualtrack.core.drift import compare
from dualtrack.demo.servers import MlflowServer
from dualtrack.emulators.faults import Refuse, Rule
from dualtrack.reconcile import traces, verifier
from tests.support.files import behind, mirror_of, mirrored, put, run_root
from tests.support.flow import PATIENCE, Client, Json, Launcher, Running, Workspace, workspace


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


async def test_points_are_compared_beside_the_loop(proxy: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """There may be very many, and it is the loop that serves the clients."""
    _, run_id = await logged(proxy)
    await behind(proxy.primary, proxy).post(
        "runs/log-metric", run_id=run_id, key="late", value=2.5, timestamp=5, step=1
    )
    threads: list[tuple[bool, int]] = []

    def compared(here: Any, there: Any, losses: Any) -> Any:
        holds_points = any(each.points for each in here.metrics.values())
        threads.append((holds_points, threading.get_ident()))
        return compare(here, there, losses)

    monkeypatch.setattr(verifier, "compare", compared)
    found, _ = await verified(proxy, id=run_id)

    assert drift(found) == [("metric", "late")]
    assert [holds_points for holds_points, _ in threads] == [False, True]
    assert threads[1][1] != threading.get_ident()


async def test_traces_are_told_apart_from_drift_and_cost_nothing_where_there_are_none(
    proxy: Running, a: Workspace, b: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are not mirrored by this release; an experiment without them is asked about once, whatever runs it has."""
    monkeypatch.setattr(traces, "_KEPT_SECONDS", 3600.0)  # however long the comparing takes
    experiment_id, _ = await logged(proxy)
    for _ in range(3):
        await proxy.log_run(experiment_id)
    await proxy.drained()
    await verified(proxy, experiment=experiment_id)
    searches = [await searched(side, "traces/search") for side in (a, b)]
    other_id, other_run = await logged(proxy)
    await trace(behind(a, proxy), other_id, other_run, "tr-1")
    found, _ = await verified(proxy, experiment=other_id)
    await trace(behind(b, proxy), (await mirror_of(b, proxy, other_run))["info"]["experiment_id"], "", "tr-2")
    again, _ = await verified(proxy, experiment=other_id)

    assert searches == [1, 1]
    run = next(one for one in found if one["kind"] == "run")
    told = [(each["kind"], each["item"], each["there"], each["explanation"]) for each in run["differences"]]
    assert told == [("trace", "tr-1", None, "not mirrored by this release")]
    assert run["state"] == "explained"
    assert {one["state"] for one in again} <= {"equal", "explained"}


async def searched(side: Workspace, path: str) -> int:
    return sum(1 for entry in await side.control.log() if entry["path"].endswith(path))


async def trace(direct: Client, experiment_id: str, run_id: str, trace_id: str) -> None:
    """Start a trace as MLflow's client does."""
    place = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": experiment_id}}
    info = {
        "trace_id": trace_id,
        "trace_location": place,
        "request_time": "2026-05-01T12:00:00Z",
        "execution_duration": "1s",
        "state": "OK",
        "trace_metadata": {"mlflow.sourceRun": run_id} if run_id else {},
        "tags": {"mlflow.traceName": "predict"},
    }
    reply = await direct.call("POST", "/api/3.0/mlflow/traces", {"trace": {"trace_info": info}})
    assert reply.status == 200, reply.body


MARKS = {
    "experiment": "dualtrack.source_experiment_id",
    "run": "dualtrack.source_run_id",
    "model": "dualtrack.source_model_id",
}


async def test_marks_that_are_gone_are_drift_and_set_again(proxy: Running, b: Workspace) -> None:
    """Without them a lost journal would mean a second mirror."""
    experiment_id, _ = await logged(proxy)
    found, _ = await verified(proxy, experiment=experiment_id)
    direct = behind(b, proxy)
    for one in found:
        await deface(direct, one["kind"], one["there"])
    defaced, _ = await verified(proxy, experiment=experiment_id)
    await reconciled(proxy, experiments=[experiment_id])
    await proxy.drained()
    after, _ = await verified(proxy, experiment=experiment_id)

    assert {one["state"] for one in found} == {"equal"}
    assert drift(defaced) == [("tag", MARKS[one["kind"]]) for one in found]
    assert {one["state"] for one in after} == {"equal"}


async def deface(direct: Client, kind: str, there: str) -> None:
    """Take the mark off a mirror; off an experiment, whose tags a server cannot delete, by another value."""
    key = MARKS[kind]
    match kind:
        case "run":
            await direct.post("runs/delete-tag", run_id=there, key=key)
        case "model":
            reply = await direct.call("DELETE", f"logged-models/{there}/tags/{key}")
            assert reply.status == 200, reply.body
        case _:
            await direct.post("experiments/set-experiment-tag", experiment_id=there, key=key, value="another")


async def test_points_of_a_model_go_to_a_deleted_run_too(proxy: Running, b: Workspace) -> None:
    """One that only the primary has, of a model whose run was deleted since: it arrives, and the run stays deleted."""
    experiment_id, run_id = await logged(proxy)
    found, _ = await verified(proxy, experiment=experiment_id)
    model_id = found[-1]["id"]
    point = {"key": "late", "value": 2.5, "timestamp": 5, "step": 1, "model_id": model_id}
    await behind(proxy.primary, proxy).post("runs/log-batch", run_id=run_id, metrics=[point])
    await proxy.post("runs/delete", run_id=run_id)
    await proxy.drained()
    done, _ = await reconciled(proxy, ids=[model_id])
    await proxy.drained()
    after, _ = await verified(proxy, id=model_id)

    assert done[0]["writes"] == ["restoreRun", "logBatch", "deleteRun"]
    assert after[0]["state"] == "equal"
    assert (await mirror_of(b, proxy, run_id))["info"]["lifecycle_stage"] == "deleted"


async def test_a_repair_stops_where_a_client_writes_meanwhile(
    proxy: Running, b: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two lanes of it a client restores the second run, which is not deleted again then."""
    experiment_id, first = await logged(proxy)
    found, _ = await verified(proxy, experiment=experiment_id)
    model_id = found[-1]["id"]
    runs = {first, await proxy.create_run(experiment_id)}
    point = {"key": "late", "value": 2.5, "timestamp": 5, "step": 1, "model_id": model_id}
    for run_id in runs:
        await behind(proxy.primary, proxy).post("runs/log-batch", run_id=run_id, metrics=[point])
        await proxy.post("runs/delete", run_id=run_id)
    await proxy.drained()
    journal, restored = proxy.app.journal, list[str]()
    assert journal is not None
    append = journal.append

    async def slow(backend: str, key: str, exchanges: Any) -> None:
        await append(backend, key, exchanges)
        if not restored:
            (other,) = runs - {key.removeprefix("run:")}
            restored.append(other)
            await proxy.post("runs/restore", run_id=other)

    monkeypatch.setattr(journal, "append", slow)
    done, _ = await reconciled(proxy, ids=[model_id])
    await proxy.drained()

    assert done[0]["state"] == "pending"
    assert (await mirror_of(b, proxy, restored[0]))["info"]["lifecycle_stage"] == "active"


async def test_content_is_compared_when_asked(proxy: Running, b: Workspace) -> None:
    """Other bytes of the same size, in a run's file and in a model's; the ids in an `MLmodel` are no drift."""
    experiment_id, run_id = await logged(proxy)
    found, _ = await verified(proxy, experiment=experiment_id)
    model_id = found[-1]["id"]
    told = (await proxy.call("GET", f"logged-models/{model_id}")).json["model"]["info"]
    written = f"model_id: {model_id}\nmodel_uuid: {model_id}\nrun_id: {run_id}\nflavors: {{}}\n".encode()
    await put(proxy, told["artifact_uri"], "MLmodel", written)
    await proxy.drained()
    equal, _ = await verified(proxy, experiment=experiment_id, content="true")
    direct = behind(b, proxy)
    mirror = await mirror_of(b, proxy, run_id)
    there = (await direct.call("GET", f"logged-models/{found[-1]['there']}")).json["model"]["info"]
    await put(direct, mirror["info"]["artifact_uri"], "d/a.txt", b"CONTENT")
    await put(direct, there["artifact_uri"], "model.pkl", b"spoiled")
    sizes, _ = await verified(proxy, experiment=experiment_id)
    contents, _ = await verified(proxy, experiment=experiment_id, content="true")
    await reconciled(proxy, experiments=[experiment_id], content=True)
    await proxy.drained()
    after, _ = await verified(proxy, experiment=experiment_id, content="true")

    assert {one["state"] for one in (*found, *equal, *sizes, *after)} == {"equal"}
    assert drift(contents) == [("file", "d/a.txt"), ("file", "model.pkl")]
    assert await mirrored(b, proxy, run_id) == {"d/a.txt": b"content"}


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


async def test_a_mirror_that_was_deleted_for_good_comes_back_once(
    proxy: Running, b: Workspace, mlflow_secondary: MlflowServer
) -> None:
    run_id = await proxy.log_run(await proxy.create_experiment())
    await put(proxy, await run_root(proxy, run_id), "d/a.txt", b"content")
    await proxy.drained()
    gone = (await mirror_of(b, proxy, run_id))["info"]["run_id"]
    purge(mlflow_secondary, gone)
    found, _ = await verified(proxy, id=run_id)
    await reconciled(proxy, ids=[run_id])
    await proxy.drained()
    after, _ = await verified(proxy, id=run_id)
    again, _ = await reconciled(proxy, ids=[run_id])

    assert drift(found) == [("run", "")]
    assert (await mirror_of(b, proxy, run_id))["info"]["run_id"] != gone
    assert drift(after) == []
    assert again[0]["writes"] == []
    assert await mirrored(b, proxy, run_id) == {"d/a.txt": b"content"}


def purge(server: MlflowServer, run_id: str) -> None:
    """Take a run from its server as `mlflow gc` does."""
    with closing(sqlite3.connect(server.root / "mlflow.db", timeout=30)) as database, database:
        for table in ("params", "tags", "metrics", "latest_metrics", "runs"):
            database.execute(f"DELETE FROM {table} WHERE run_uuid = ?", (run_id,))


async def test_a_run_comes_over_although_its_experiment_takes_its_time(
    proxy: Running, a: Workspace, b: Workspace
) -> None:
    """One pass is enough: what cannot be made yet is made as soon as its experiment has its place."""
    before = behind(a, proxy)
    experiment_id = await before.create_experiment()
    run_id = await before.log_run(experiment_id)
    body = {"experiment_id": experiment_id, "name": "m", "source_run_id": run_id}
    await before.post("logged-models", **body)
    await b.control.set_faults(Rule(path="experiments/create", action=Refuse(status=503)))
    await reconciled(proxy, experiments=[experiment_id])
    await b.control.clear_faults()
    await proxy.drained()
    after, _ = await verified(proxy, experiment=experiment_id)

    assert {one["state"] for one in after} <= {"equal", "explained"}
    assert [one["kind"] for one in after] == ["experiment", "run", "model"]


async def test_what_is_on_its_way_is_pending(proxy: Running, b: Workspace) -> None:
    experiment_id = await proxy.create_experiment()
    await proxy.drained()
    await b.control.set_faults(Rule(path="runs/create", action=Refuse(status=503)))
    run_id = await proxy.create_run(experiment_id)
    found, _ = await verified(proxy, id=run_id)
    await b.control.clear_faults()
    await proxy.drained()

    assert [one["state"] for one in found] == ["pending"]


@pytest.fixture
def lone_server(tmp_path: Path) -> Iterator[MlflowServer]:
    """One that no other test writes to: to compare all that hundreds of tests left on the others takes very long."""
    with MlflowServer(tmp_path / "lone") as server:
        yield server


async def test_everything_is_compared_but_a_default_experiment_that_nobody_used(
    launch: Launcher, b: Workspace, lone_server: MlflowServer, session: ClientSession
) -> None:
    async with workspace("a", lone_server, session) as lone:
        proxy = await launch(lone, b)
        experiment_id, run_id = await logged(proxy)
        found, summary = await verified(proxy)

        assert [one["kind"] for one in found] == ["experiment", "run", "model"]
        assert [one["id"] for one in found[:2]] == [experiment_id, run_id]
        assert found[1]["differences"] == []
        assert summary["error"] == ""
        await proxy.stop()


@pytest.mark.parametrize("query", ["experiment=none-of-that-name", "since=x", "backend=nobody", "content=x"])
async def test_what_cannot_be_compared_is_said(proxy: Running, query: str) -> None:
    reply = await proxy.admin.call("GET", f"/api/v1/verify?{query}")
    last = orjson.loads(reply.body.splitlines()[-1])

    assert last["error"]


async def test_mending_needs_the_token(proxy: Running) -> None:
    reply = await asyncio.wait_for(
        proxy.admin.call("POST", "/api/v1/reconcile", {}, Authorization="Bearer x"), PATIENCE
    )

    assert reply.status in {401, 403}
