"""P1: an acknowledged write is on disk: `kill -9` at any instant, restart, drain, and it is on both sides.

What was in doubt when the process died is settled by asking the primary: what took effect there is mirrored, once,
at the place that it had; the rest never was.
"""

import asyncio
import random
import time
from pathlib import Path

import pytest
from aiohttp import ClientConnectionError, ClientSession

from dualtrack.demo.compare import read
from dualtrack.emulators.faults import BlackHole, DropAfter, Refuse, Rule
from tests.support.flow import Json, Running, Workspace, config_text, differences, unique
from tests.support.picky import holding
from tests.support.served import Served, serving
from tests.support.servers import call

KILLS = 5
CLIENTS = 4


async def log_until(served: Served, experiment: str, over: asyncio.Event, acknowledged: list[Json]) -> None:
    """Log runs one after the other, as a training script would, and note what was acknowledged."""
    while not over.is_set():
        made = await served.repeat("runs/create", experiment_id=experiment, start_time=time.time_ns() // 10**6)
        run_id = made["run"]["info"]["run_id"]
        for step in range(10):
            point = {"run_id": run_id, "key": "loss", "value": step / 8, "timestamp": step, "step": step}
            await served.repeat("runs/log-metric", **point)
            acknowledged.append(point)
            await served.repeat("runs/set-tag", run_id=run_id, key="step", value=str(step))
        await served.repeat("runs/log-parameter", run_id=run_id, key="steps", value="10")
        await served.repeat("runs/update", run_id=run_id, status="FINISHED", end_time=99)


async def test_killed_at_random_instants_both_sides_are_equal(
    tmp_path: Path, session: ClientSession, a: Workspace, b: Workspace
) -> None:
    """Clients repeat what was not answered; every write that was is on both sides."""
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    chance = random.Random(seed)
    over, acknowledged = asyncio.Event(), list[Json]()
    async with serving(tmp_path, config_text(tmp_path, a, b), session) as served:
        experiment = str((await served.repeat("experiments/create", name=unique()))["experiment_id"])
        async with asyncio.TaskGroup() as group:
            for _ in range(CLIENTS):
                group.create_task(log_until(served, experiment, over, acknowledged))
            for _ in range(KILLS):
                writes = len(acknowledged) + chance.randrange(1, 25)
                while len(acknowledged) < writes:  # noqa: ASYNC110 - an instant in the traffic, not a time
                    await asyncio.sleep(chance.random() / 500)
                await served.restart()
            over.set()
        await served.drained()

    found = await differences(a, b, experiment)
    assert found == []
    assert len(acknowledged) >= KILLS
    stored = await points(a, experiment)
    lost = [point for point in acknowledged if (point["run_id"], point["step"]) not in stored]
    assert lost == []
    counted = await b.control.duplicates()
    # a client repeats the write that a kill left unanswered, which the primary may have: two writes of one point
    assert counted.pop("metric_points") <= KILLS * CLIENTS
    assert not any(counted[kind] for kind in ("runs", "experiments", "models"))


async def points(side: Workspace, experiment: str) -> set[tuple[str, int]]:
    snapshot = await asyncio.to_thread(read, side.side, lambda run: run["experiment_id"] == experiment)
    return {(run.run_id, point.step) for run in snapshot.runs for point in run.points}


# --- in doubt -------------------------------------------------------------------------------------------------------


IN_DOUBT: dict[str, tuple[str, Json]] = {
    "experiment": ("experiments/create", {"name": ""}),
    "run": ("runs/create", {"start_time": 77, "run_name": "in doubt", "tags": [{"key": "k", "value": "v"}]}),
    "metric": ("runs/log-metric", {"key": "doubt", "value": 1, "timestamp": 1, "step": 1}),
    "param": ("runs/log-parameter", {"key": "doubt", "value": "1"}),
    "tag": ("runs/set-tag", {"key": "doubt", "value": "1"}),
    "batch": ("runs/log-batch", {"params": [{"key": "d", "value": "1"}], "tags": [{"key": "d", "value": "1"}]}),
    "end": ("runs/update", {"status": "FINISHED", "end_time": 5}),
    "deletion": ("runs/delete", {}),
    "model": ("logged-models", {"name": "in doubt"}),
}


@pytest.mark.parametrize("what", IN_DOUBT)
async def test_killed_between_the_primary_and_the_answer(
    tmp_path: Path, session: ClientSession, a: Workspace, b: Workspace, what: str
) -> None:
    """The primary did it and nobody heard of it: after the restart it is mirrored, exactly once."""
    path, fields = IN_DOUBT[what]
    async with holding(a.url) as between:
        text = config_text(tmp_path, a, b, backends={"a": {"url": between.url}})
        async with serving(tmp_path, text, session) as served:
            experiment = await served.create_experiment()
            run_id = await served.create_run(experiment)
            between.hold(path)
            name = unique()
            body = {"experiment_id": experiment, "run_id": run_id, **fields} | (
                {"name": name} if "name" in fields else {}
            )
            asking = asyncio.get_running_loop().create_task(served.call("POST", path, body))
            await between.held.get()
            await served.kill()
            between.release()
            with pytest.raises((ClientConnectionError, OSError)):
                await asking
            await served.start()
            await served.log_metric(await served.create_run(experiment))
            await served.drained()
            in_doubt = await made(a, experiment, name, what)

    assert await differences(a, b, experiment) == []
    assert in_doubt == 1
    if what in {"experiment", "model"}:
        assert await mirrored(b, name) == 1
    assert not any((await b.control.duplicates()).values())


async def made(a: Workspace, experiment: str, name: str, what: str) -> int:
    """Count on the primary what was in doubt; 1 for what is a part of a run, which is compared."""
    if what == "run":
        runs = call(a.side.url, "runs/search", {"experiment_ids": [experiment], "max_results": 50})["runs"]
        return sum(run["info"]["run_name"] == "in doubt" for run in runs)
    return 1


async def mirrored(b: Workspace, name: str) -> int:
    experiments = call(b.side.url, "experiments/search", {"max_results": 1000})["experiments"]
    ids = [item["experiment_id"] for item in experiments]
    found = [item["name"] for item in experiments]
    for start in range(0, len(ids), 100):
        body = {"experiment_ids": ids[start : start + 100], "max_results": 50}
        found += [model["info"]["name"] for model in call(b.side.url, "logged-models/search", body).get("models", [])]
    return found.count(name)


async def test_killed_before_the_primary_was_asked(
    tmp_path: Path, session: ClientSession, a: Workspace, b: Workspace
) -> None:
    """What did not take effect is not mirrored: the entry is refused, as if the primary had said so."""
    async with serving(tmp_path, config_text(tmp_path, a, b), session) as served:
        experiment = await served.create_experiment()
        run_id = await served.create_run(experiment)
        before = (await a.control.log())[-1]["number"]
        # the connection goes unanswered and nothing is done
        await a.control.set_faults(Rule(method="POST", path="runs/(create|set-tag)", action=BlackHole()))
        asking = [
            asyncio.get_running_loop().create_task(served.call("POST", path, body))
            for path, body in (
                ("runs/create", {"experiment_id": experiment, "start_time": 5}),
                ("runs/set-tag", {"run_id": run_id, "key": "k", "value": "v"}),
            )
        ]
        for path in ("runs/create", "runs/set-tag"):
            await a.control.arrived(path, since=before)
        await served.kill()
        await a.control.clear_faults()
        for task in asking:
            with pytest.raises((ClientConnectionError, OSError)):
                await task
        await served.start()
        await served.log_metric(run_id)
        await served.drained()
        status = await served.status()

    assert status["open_entries"] == 0
    assert await differences(a, b, experiment) == []


async def test_a_create_whose_answer_was_lost_is_mirrored_once(proxy: Running, a: Workspace, b: Workspace) -> None:
    """The client repeats it, as MLflow's does, so the primary has two runs; and so has the secondary."""
    experiment = await proxy.create_experiment()
    await a.control.set_faults(Rule(method="POST", path="runs/create", nth=1, action=DropAfter()))
    body = {"experiment_id": experiment, "start_time": 5, "run_name": "lost"}
    lost = await proxy.call("POST", "runs/create", body)
    repeated = await proxy.call("POST", "runs/create", body)
    await proxy.drained()

    assert (lost.status, lost.code, repeated.status) == (503, "TEMPORARILY_UNAVAILABLE", 200)
    assert await proxy.differences(experiment, b) == []
    assert len(await b.writes("runs/create", accepted=True)) == 2
    assert not any((await b.control.duplicates()).values())


async def test_a_write_in_doubt_keeps_its_place(proxy: Running, a: Workspace, b: Workspace) -> None:
    """A tag is set, its answer is lost, and it is deleted: the other order would leave it there.

    While the primary does not say what became of the first write, nothing behind it in that run is delivered; other
    runs go on.
    """
    experiment = await proxy.create_experiment()
    run_id, other = await proxy.create_run(experiment), await proxy.create_run(experiment)
    await proxy.drained()
    await a.control.set_faults(
        Rule(method="POST", path="log-metric", nth=1, action=DropAfter()),
        Rule(method="GET", path="runs/get", action=Refuse(status=503)),
    )
    metric = {"run_id": run_id, "key": "loss", "value": 1, "timestamp": 1, "step": 1}
    lost = await proxy.call("POST", "runs/log-metric", metric)
    await proxy.set_tag(run_id, "after", "1")
    await proxy.set_tag(other, "free", "1")
    free = await b.control.arrived("log-batch")
    early = await b.writes("log-batch")
    await a.control.clear_faults()
    await proxy.drained()

    assert lost.status == 503
    assert '"free"' in free["body"]
    assert [tag["key"] for body in early for tag in body["tags"]] == ["free"]
    behind = [body for body in await b.writes("log-batch") if body["run_id"] != early[0]["run_id"]]
    keys = [item["key"] for body in behind for name in ("metrics", "tags") for item in body.get(name, ())]
    assert keys == ["loss", "after"]
    assert await proxy.differences(experiment, b) == []
