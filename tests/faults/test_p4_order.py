"""P4: per run, writes arrive in the order in which they were acknowledged; the terminal status arrives last.

As the secondary's own log of requests shows it, under parallel runs, and while calls fail.
"""

import asyncio
import random
from collections import defaultdict
from collections.abc import Sequence

import pytest

from dualtrack.emulators.faults import Action, DropAfter, DropBefore, Refuse, Rule
from tests.support.flow import Json, Launcher, Running, Workspace

RUNS = 8
FAULTS: tuple[Action, ...] = (
    Refuse(status=503),
    DropAfter(),
    DropBefore(),
    Refuse(status=429),
    Refuse(status=500),
    DropAfter(),
)
STORM = tuple(
    Rule(path="runs/(log-batch|update|delete-tag|create)", nth=number, action=action)
    for number, action in enumerate(FAULTS * 4, start=2)
)


async def log_numbered(proxy: Running, experiment: str, seed: int, count: int = 12) -> str:
    """Log one run whose every write carries its number, in a random mixture of calls; then end it."""
    choose = random.Random(seed)
    run_id = await proxy.create_run(experiment)
    for number in range(count):
        match choose.randrange(5):
            case 0:
                await proxy.log_metric(run_id, "number", number, step=number)
            case 1:
                await proxy.post("runs/log-parameter", run_id=run_id, key=f"p{number}", value=str(number))
            case 2:
                await proxy.set_tag(run_id, "number", str(number))
            case 3:  # a barrier: it shares no call with others
                await proxy.set_tag(run_id, f"gone{number}", str(number))
                await proxy.post("runs/delete-tag", run_id=run_id, key=f"gone{number}")
            case _:
                metrics = [{"key": "number", "value": number, "timestamp": number, "step": number}]
                await proxy.post("runs/log-batch", run_id=run_id, metrics=metrics)
    await proxy.finish(run_id)
    return run_id


def numbers(body: Json) -> list[int]:
    """The numbers that one call to the secondary carries."""
    found = [int(item["value"]) for item in body.get("metrics", ())]
    found += [int(item["value"]) for name in ("params", "tags") for item in body.get(name, ())]
    if body["_path"].endswith("delete-tag"):
        found.append(int(body["key"].removeprefix("gone")))
    return found


def by_run(writes: list[Json]) -> dict[str, list[Json]]:
    found: dict[str, list[Json]] = defaultdict(list)
    for body in writes:
        if run_id := body.get("run_id"):
            found[run_id].append(body)
    return found


def is_in_order(calls: Sequence[list[int]]) -> bool:
    """Whether each call brought only what comes after all that was there. Inside one call there is no order.

    A call whose answer was lost is made again, perhaps as part of a larger one; what it repeats is nothing new.
    """
    there: set[int] = set()
    for call in calls:
        new = set(call) - there
        if new and there and min(new) < max(there):
            return False
        there |= new
    return True


@pytest.mark.parametrize("rules", [(), STORM], ids=["calm", "storm"])
@pytest.mark.parametrize("linger", ["0s", "50ms"])
async def test_each_run_arrives_in_order(
    launch: Launcher, a: Workspace, b: Workspace, rules: tuple[Rule, ...], linger: str
) -> None:
    proxy = await launch(a, b, delivery={"linger": linger})
    experiment = await proxy.create_experiment()
    await b.control.set_faults(*rules)
    async with asyncio.TaskGroup() as group:
        for seed in range(RUNS):
            group.create_task(log_numbered(proxy, experiment, seed))
    differences = await proxy.differences(experiment, b)

    assert differences == []
    arrived = by_run(await b.writes(accepted=True))
    assert len(arrived) == RUNS
    for writes in arrived.values():
        assert is_in_order([numbers(body) for body in writes]), writes
        ends = [body["_path"].endswith("runs/update") for body in writes]
        assert ends[-1]
        assert ends == sorted(ends)  # nothing but the end's own repeats comes after it


async def test_a_run_that_fails_holds_back_no_other(proxy: Running, b: Workspace) -> None:
    experiment = await proxy.create_experiment()
    await proxy.drained()
    await b.control.set_faults(Rule(path="runs/create", nth=1, action=Refuse(status=503, retry_after="600")))
    await proxy.log_run(experiment)
    await b.control.arrived("runs/create")
    free = await proxy.log_run(experiment)

    async def is_there() -> bool:
        twins = (await proxy.admin.call("GET", f"/api/v1/ids/{free}")).json["entities"][0]["twins"]
        return len(twins) == 2 and (await proxy.backend())["lanes"] == 1

    await proxy.until(is_there)
    (update,) = await b.writes("runs/update")
    assert update["status"] == "FINISHED"


async def test_a_child_waits_for_its_parent(proxy: Running, b: Workspace) -> None:
    """A run that names another is made after it, so that its tag can say the id which that one has there."""
    await b.control.set_faults(Rule(path="runs/create", first=2, action=Refuse(status=503)))
    experiment = await proxy.create_experiment()
    parent = await proxy.create_run(experiment, run_name="parent")
    tags = [{"key": "mlflow.parentRunId", "value": parent}]
    await proxy.create_run(experiment, run_name="child", tags=tags)

    assert await proxy.differences(experiment, b) == []
    made = [body["run_name"] for body in await b.writes("runs/create")]
    assert made[-2:] == ["parent", "child"]


UNREADABLE = Rule(method="GET", path="runs/get$", action=Refuse(status=503))


async def lose_answer(proxy: Running, primary: Workspace, run_id: str) -> None:
    """Have the primary store a point and not say so; what became of it cannot be found out before its faults end."""
    await primary.control.set_faults(Rule(path="runs/log-metric$", nth=1, action=DropAfter()), UNREADABLE)
    lost = await proxy.call("POST", "runs/log-metric", {"run_id": run_id, "key": "k", "value": 1.5, "timestamp": 7})
    assert lost.status == 503


async def test_a_deletion_waits_for_what_was_acknowledged_behind_a_doubt(
    launch: Launcher, a: Workspace, b: Workspace
) -> None:
    """The write in doubt is settled late, and its first attempts fail: it makes what is behind it no younger."""
    proxy = await launch(a, b, delivery={"retry_min": "1s", "retry_max": "1s"})
    experiment = await proxy.create_experiment()
    run_id = await proxy.create_run(experiment)
    await proxy.drained()
    await b.control.set_faults(Rule(path="runs/log-batch$", first=2, action=Refuse(status=503)))

    await lose_answer(proxy, a, run_id)
    await proxy.set_tag(run_id, "acknowledged", "yes")
    await proxy.post("experiments/delete", experiment_id=experiment)
    await a.control.clear_faults()
    await proxy.drained()

    assert (await proxy.backend())["parked"] == 0
    assert (await b.writes())[-1]["_path"].endswith("experiments/delete")


async def test_a_doubt_keeps_its_place_over_a_restart(launch: Launcher, a: Workspace, b: Workspace) -> None:
    """Its run was deleted behind it, and takes nothing after that."""
    proxy = await launch(a, b)
    run_id = await proxy.create_run(await proxy.create_experiment())
    await proxy.drained()

    await lose_answer(proxy, a, run_id)
    await proxy.finish(run_id)
    await proxy.post("runs/delete", run_id=run_id)
    await proxy.stop()
    proxy = await launch(a, b)
    await a.control.clear_faults()
    await proxy.drained()

    assert (await proxy.backend())["parked"] == 0
    assert (await b.writes())[-1]["_path"].endswith("runs/delete")


@pytest.mark.parametrize("makes", [True, False])
async def test_a_deletion_waits_for_a_doubt(proxy: Running, a: Workspace, b: Workspace, makes: bool) -> None:
    """Of another lane, or of none as yet: a run that was perhaps made."""
    experiment = await proxy.create_experiment()
    run_id = await proxy.create_run(experiment)
    await proxy.drained()

    if makes:
        unreadable = Rule(path="runs/search$", action=Refuse(status=503))
        await a.control.set_faults(Rule(path="runs/create$", nth=1, action=DropAfter()), unreadable)
        lost = await proxy.call("POST", "runs/create", {"experiment_id": experiment, "start_time": 5})
        assert lost.status == 503
    else:
        await lose_answer(proxy, a, run_id)
    await proxy.post("experiments/delete", experiment_id=experiment)
    await proxy.failing("waits for earlier writes")
    await a.control.clear_faults()
    await proxy.drained()

    assert (await proxy.backend())["parked"] == 0
    assert (await b.writes())[-1]["_path"].endswith("experiments/delete")
    assert len(await b.writes("runs/create", accepted=True)) == 1 + makes
