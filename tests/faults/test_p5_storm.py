"""P5: after any storm of faults on both sides, once both are up, nothing differs between them.

The faults and the traffic are drawn from a seed, which is printed.
"""

import asyncio
import random
from typing import Any

import orjson
import pytest

from dualtrack.emulators.faults import Action, Body, Delay, DropAfter, DropBefore, Refuse, Rule
from tests.support.flow import Json, Running, Workspace

SEEDS = [random.SystemRandom().randrange(10**6) for _ in range(2)]
RUNS = 6
WRITES = 12
FAULTS: tuple[Action, ...] = (
    DropBefore(),
    DropAfter(),
    DropAfter(),
    Refuse(status=500),
    Refuse(status=502, body=Body.HTML),
    Refuse(status=503),
    Refuse(status=429),
    Refuse(status=408, body=Body.EMPTY),
    Delay(seconds=0.05),
)


def storm(chance: random.Random, path: str, count: int, among: int) -> list[Rule]:
    """Draw `count` faults for the first `among` calls."""
    return [Rule(path=path, nth=nth, action=chance.choice(FAULTS)) for nth in chance.sample(range(1, among), count)]


async def repeat(proxy: Running, path: str, **body: Any) -> Json:
    """POST as MLflow's client does: again, at once, while the answer is one that it repeats."""
    while True:
        reply = await proxy.call("POST", path, body)
        if reply.status not in {408, 429, 500, 502, 503, 504}:
            assert reply.status == 200, (path, reply.status, reply.body)
            document: Json = reply.json if reply.body else {}
            return document


async def log_anything(proxy: Running, experiment: str, parent: str, seed: str) -> None:
    chance = random.Random(seed)
    tags = [{"key": "mlflow.parentRunId", "value": parent}]
    made = await repeat(proxy, "runs/create", experiment_id=experiment, start_time=chance.randrange(10**9), tags=tags)
    run_id = made["run"]["info"]["run_id"]
    for number in range(WRITES):
        key = chance.choice("xyz")
        match chance.randrange(5):
            case 0:
                await repeat(proxy, "runs/set-tag", run_id=run_id, key=key, value=str(number))
            case 1:
                await repeat(proxy, "runs/log-parameter", run_id=run_id, key=f"{key}{number}", value=key * 300)
            case 2:
                metric = {"key": key, "value": number / 3, "timestamp": number, "step": chance.randrange(3)}
                await repeat(proxy, "runs/log-metric", run_id=run_id, **metric)
            case 3:
                metrics = [{"key": key, "value": "NaN", "timestamp": number, "step": step} for step in range(9)]
                batch_tags = [{"key": key, "value": f"b{number}"}]
                await repeat(proxy, "runs/log-batch", run_id=run_id, metrics=metrics, tags=batch_tags)
            case _:
                # of this run alone: a server that gets a new dataset from two runs at once refuses one of them (400)
                dataset = {"name": key, "digest": f"{seed}.{number}", "source_type": "local", "source": "{}"}
                await repeat(proxy, "runs/log-inputs", run_id=run_id, datasets=[{"dataset": dataset}])
    await repeat(proxy, "runs/update", run_id=run_id, status=chance.choice(["FINISHED", "FAILED"]), end_time=5)


@pytest.mark.parametrize("seed", SEEDS)
async def test_after_a_storm_nothing_differs(proxy: Running, a: Workspace, b: Workspace, seed: int) -> None:
    chance = random.Random(seed)
    print(f"seed {seed}")
    experiment = await proxy.create_experiment()
    parent = await proxy.create_run(experiment)
    await a.control.set_faults(*storm(chance, "runs/", 10, RUNS * WRITES))
    await b.control.set_faults(*storm(chance, "mlflow/", 15, 60))
    async with asyncio.TaskGroup() as group:
        for number in range(RUNS):
            group.create_task(log_anything(proxy, experiment, parent, f"{seed}.{number}"))
    await a.control.clear_faults()
    await b.control.clear_faults()

    assert await proxy.differences(experiment, b) == []
    assert (await b.control.duplicates())["runs"] == 0
    assert not (await proxy.admin.call("GET", "/api/v1/parked")).json["parked"]
    verified = await proxy.admin.call("GET", f"/api/v1/verify?experiment={experiment}")
    *found, summary = [orjson.loads(line) for line in verified.body.splitlines()]
    unexplained = [each for one in found for each in one["differences"] if not each["explanation"]]
    assert (unexplained, summary["error"]) == ([], "")
    assert sum(one["kind"] == "run" for one in found) >= RUNS + 1
