"""P5, and identity (design 4): every experiment has one mirror, found by name, and no two ever share one."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from dualtrack.core.limits import CREATE_TAGS
from dualtrack.demo.compare import EXPERIMENT_MARK
from dualtrack.emulators.faults import Delay, DropAfter, Refuse, Rule
from tests.flow.test_verify import drift, verified
from tests.support.flow import Json, Launcher, Running, Workspace, unique
from tests.support.servers import call

LAST_SEGMENT = {"b": {"experiment_names": {"rule": "last-segment"}}}


def experiments(side: Workspace) -> list[Json]:
    """List the newest, deleted ones too."""
    listed: list[Json] = call(side.side.url, "experiments/search", {"max_results": 1000, "view_type": "ALL"})[
        "experiments"
    ]
    return listed


def named(side: Workspace, name: str) -> dict[str, str] | None:
    """Give the tags of the experiment with this name, and its id; None when there is none."""
    found = next((item for item in experiments(side) if item["name"] == name), None)
    if found is None:
        return None
    return {"id": found["experiment_id"]} | {tag["key"]: tag["value"] for tag in found.get("tags", [])}


def marks(side: Workspace, prefix: str) -> list[str]:
    """Say whose mirrors the experiments are whose names begin so."""
    listed = [item for item in experiments(side) if item["name"].startswith(prefix)]
    return sorted(tag["value"] for item in listed for tag in item.get("tags", []) if tag["key"] == EXPERIMENT_MARK)


async def drifting(proxy: Running, experiment_id: str) -> list[tuple[str, str]]:
    """What `verify` calls drift of an experiment."""
    found, summary = await verified(proxy, id=experiment_id)
    assert found, summary
    return drift(found)


async def test_the_default_experiment_goes_where_the_configuration_says(
    launch: Launcher, a: Workspace, b: Workspace
) -> None:
    name = unique("default")
    proxy = await launch(a, b, backends={"b": {"experiment_names": {"default_experiment": name}}})
    run_id = await proxy.log_run("0")
    await proxy.drained()

    place = named(b, name)
    assert place is not None
    mirrors = call(b.side.url, "runs/search", {"experiment_ids": [place["id"]]})["runs"]
    marks = [tag["value"] for tag in mirrors[0]["data"]["tags"] if tag["key"] == "dualtrack.source_run_id"]
    assert (len(mirrors), marks) == (1, [run_id])


async def test_two_experiments_of_one_last_segment_are_qualified_and_not_merged(
    launch: Launcher, a: Workspace, b: Workspace
) -> None:
    segment = unique("churn")
    proxy = await launch(a, b, backends=LAST_SEGMENT)
    first = await proxy.create_experiment(f"/Users/ann/{segment}")
    second = await proxy.create_experiment(f"/Users/bob/{segment}")
    runs = [await proxy.log_run(first), await proxy.log_run(second)]
    await proxy.drained()

    twins = [(await proxy.admin.call("GET", f"/api/v1/ids/{run_id}")).json for run_id in runs]
    assert all(len(found["entities"]) == 1 for found in twins)
    shown = call(b.side.url, "experiments/search", {"max_results": 1000})["experiments"]
    mirrors = {item["name"]: {t["key"]: t["value"] for t in item.get("tags", [])} for item in shown}
    marked = {mirrors[name].get(EXPERIMENT_MARK) for name in mirrors if name.startswith(segment)}
    assert marked == {first, second}  # either may be the one that is qualified
    assert [await drifting(proxy, first), await drifting(proxy, second)] == [[], []]


async def test_two_experiments_that_want_one_unmarked_name_at_once_are_not_merged(
    launch: Launcher, a: Workspace, b: Workspace
) -> None:
    """Both ask who has the name before either has marked it."""
    segment = unique("churn")
    call(b.side.url, "experiments/create", {"name": segment})
    proxy = await launch(a, b, backends=LAST_SEGMENT)
    await b.control.set_faults(Rule(path="experiments/get-by-name", action=Delay(seconds=0.5)))
    first, second = await asyncio.gather(
        proxy.create_experiment(f"/Users/ann/{segment}"), proxy.create_experiment(f"/Users/bob/{segment}")
    )
    await proxy.drained()

    assert marks(b, segment) == sorted([first, second])


async def test_an_experiment_is_not_taken_by_another_before_its_own_maker_has_marked_it(
    launch: Launcher, a: Workspace, b: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a create has no room for the marks, they come after it."""
    monkeypatch.setitem(CREATE_TAGS, "mlflow", 0)
    segment = unique("churn")
    proxy = await launch(a, b, backends=LAST_SEGMENT)
    await b.control.set_faults(Rule(path="experiments/set-experiment-tag", action=Delay(seconds=0.5)))
    first = await proxy.create_experiment(f"/Users/ann/{segment}")

    async def is_made() -> bool:
        return bool(await b.writes("experiments/create", accepted=True))

    await proxy.until(is_made)
    second = await proxy.create_experiment(f"/Users/bob/{segment}")
    await proxy.drained()

    assert marks(b, segment) == sorted([first, second])


async def test_a_third_of_a_name_is_qualified_too(launch: Launcher, tmp_path: Path, a: Workspace, b: Workspace) -> None:
    """Three teams mirror to one workspace, and each has an experiment of that name."""
    name = unique("churn")
    made = call(a.side.url, "experiments/create", {"name": name})["experiment_id"]
    for team in ("one", "two", "three"):
        changes = {"store": {"url": f"sqlite:///{tmp_path / team}.db"}, "backends": {team: {"auth": a.backend["auth"]}}}
        proxy = await launch(replace(a, name=team), b, **changes)
        await proxy.log_run(made)
        await proxy.drained()
        assert not (await proxy.admin.call("GET", "/api/v1/parked")).json["parked"]
        await proxy.stop()

    mirrors = [item for item in experiments(b) if item["name"].startswith(name)]
    marked = [{tag["key"]: tag["value"] for tag in item["tags"]} for item in mirrors]
    assert {tags["dualtrack.source"] for tags in marked} == {"one", "two", "three"}
    assert len(mirrors) == 3


async def test_an_unmarked_experiment_of_that_name_is_taken_over(proxy: Running, b: Workspace) -> None:
    name = unique("earlier")
    earlier = call(b.side.url, "experiments/create", {"name": name})["experiment_id"]
    experiment = await proxy.create_experiment(name)
    await proxy.log_run(experiment)

    assert not await proxy.differences(experiment, b)
    taken = named(b, name)
    assert taken is not None
    assert (taken["id"], taken[EXPERIMENT_MARK]) == (earlier, experiment)


async def test_a_collision_is_parked_when_the_configuration_says_so(
    launch: Launcher, a: Workspace, b: Workspace
) -> None:
    """Nothing is written into the other experiment, and everything else goes on."""
    segment = unique("churn")
    names = {"b": {"experiment_names": {"rule": "last-segment", "on_collision": "park"}}}
    proxy = await launch(a, b, backends=names)
    first = await proxy.create_experiment(f"/Users/ann/{segment}")
    await proxy.drained()
    second = await proxy.create_experiment(f"/Users/bob/{segment}")
    await proxy.log_run(second)
    await proxy.log_run(first)
    await proxy.drained()

    (parked,) = (await proxy.admin.call("GET", "/api/v1/parked")).json["parked"]
    assert (parked["key"], parked["operation"], parked["holds"]) == (f"experiment:{second}", "createExperiment", True)
    assert "belongs to another experiment" in parked["cause"]
    assert not await proxy.differences(first, b)
    assert (await proxy.backend())["backlog"] > 0


async def test_a_rename_is_translated_too(launch: Launcher, a: Workspace, b: Workspace) -> None:
    old, new = unique("old"), unique("new")
    proxy = await launch(a, b, backends=LAST_SEGMENT)
    experiment = await proxy.create_experiment(f"/Shared/{old}")
    await proxy.post("experiments/update", experiment_id=experiment, new_name=f"/Shared/{new}")

    assert not await proxy.differences(experiment, b)
    assert named(b, old) is None
    assert named(b, new) is not None
    assert await drifting(proxy, experiment) == []


async def test_a_rename_to_what_another_has_is_qualified(launch: Launcher, a: Workspace, b: Workspace) -> None:
    """And once more, as after a lost answer, changes nothing."""
    first, segment = unique("first"), unique("churn")
    proxy = await launch(a, b, backends=LAST_SEGMENT)
    experiment = await proxy.create_experiment(f"/Users/ann/{first}")
    await proxy.create_experiment(f"/Users/bob/{segment}")
    for _ in range(2):
        await proxy.post("experiments/update", experiment_id=experiment, new_name=f"/Users/ann/{segment}")
    await proxy.drained()

    names = [item["name"] for item in experiments(b) if item["name"].startswith(segment)]
    assert sorted(len(name) - len(segment) for name in names) == [0, 9]
    assert not (await proxy.admin.call("GET", "/api/v1/parked")).json["parked"]
    assert named(b, first) is None
    assert await drifting(proxy, experiment) == []


@pytest.mark.parametrize(("is_taken", "lost"), [(False, 1), (True, 2)])
async def test_a_rename_whose_answer_is_lost_arrives_once(
    launch: Launcher, a: Workspace, b: Workspace, is_taken: bool, lost: int
) -> None:
    """A server that refuses the name that an experiment has already, as a tree of paths does, is asked who has it."""
    segment = unique("churn")
    proxy = await launch(a, b, backends=LAST_SEGMENT)
    experiment = await proxy.create_experiment(f"/Users/ann/{unique('old')}")
    if is_taken:
        await proxy.create_experiment(f"/Users/bob/{segment}")
    await proxy.drained()
    await b.control.set_faults(
        Rule(path="experiments/update", nth=lost, action=DropAfter()),
        Rule(path="experiments/update", nth=2 * lost, action=Refuse(status=400, code="RESOURCE_ALREADY_EXISTS")),
    )
    await proxy.post("experiments/update", experiment_id=experiment, new_name=f"/Users/ann/{segment}")

    await proxy.drained()
    assert not (await proxy.admin.call("GET", "/api/v1/parked")).json["parked"]
    assert await drifting(proxy, experiment) == []


@pytest.mark.parametrize("makes", [True, False])
async def test_a_name_that_is_being_given_up_is_waited_for(
    launch: Launcher, a: Workspace, b: Workspace, makes: bool
) -> None:
    """Archive one and start anew under its name, while the archiving is on its way over there."""
    name = unique("churn")
    proxy = await launch(a, b)
    first = await proxy.create_experiment(name)
    second = "" if makes else await proxy.create_experiment()
    await proxy.drained()
    await b.control.set_faults(Rule(path="experiments/update", nth=1, action=Delay(seconds=1)))
    await proxy.post("experiments/update", experiment_id=first, new_name=f"{name}-old")
    if makes:
        second = await proxy.create_experiment(name)
    else:
        await proxy.post("experiments/update", experiment_id=second, new_name=name)
    await proxy.drained()

    assert {item["name"] for item in experiments(b) if item["name"].startswith(name)} == {name, f"{name}-old"}
    (known,) = (await proxy.admin.call("GET", f"/api/v1/ids/{second}")).json["entities"]
    assert [twin["name"] for twin in known["twins"] if twin["backend"] == "b"] == [name]
    assert not await proxy.differences(second, b)


async def test_a_name_is_waited_for_while_it_is_in_doubt_whether_it_was_given_up(
    launch: Launcher, a: Workspace, b: Workspace
) -> None:
    name = unique("churn")
    proxy = await launch(a, b)
    first = await proxy.create_experiment(name)
    await proxy.drained()
    await a.control.set_faults(
        Rule(path="experiments/update$", nth=1, action=DropAfter()),
        Rule(path="experiments/get$", action=Refuse(status=503)),
    )
    renamed = {"experiment_id": first, "new_name": f"{name}-old"}
    lost = await proxy.call("POST", "experiments/update", renamed)
    second = await proxy.create_experiment(name)
    await proxy.failing("belongs to another experiment")
    await a.control.clear_faults()
    await proxy.drained()

    assert lost.status == 503
    assert {item["name"] for item in experiments(b) if item["name"].startswith(name)} == {name, f"{name}-old"}
    assert not await proxy.differences(second, b)


async def test_a_rename_of_what_somebody_deleted_is_parked(proxy: Running, b: Workspace) -> None:
    """MLflow says 500, which no wait changes; `reconcile` restores the mirror, and renames it."""
    experiment = await proxy.create_experiment(old := unique("old"))
    await proxy.drained()
    place = named(b, old)
    assert place is not None
    call(b.side.url, "experiments/delete", {"experiment_id": place["id"]})
    await proxy.post("experiments/update", experiment_id=experiment, new_name=(new := unique("new")))
    await proxy.drained()

    (letter,) = (await proxy.admin.call("GET", "/api/v1/parked")).json["parked"]
    assert "INVALID_STATE" in letter["cause"]
    assert (await proxy.admin.call("POST", "/api/v1/reconcile", {"id": experiment})).status == 200
    await proxy.drained()
    assert named(b, new) is not None
    assert await drifting(proxy, experiment) == []


async def test_an_experiment_that_no_proxy_saw_is_brought_over(proxy: Running, a: Workspace, b: Workspace) -> None:
    """A run that began before the proxy is continued and not dropped."""
    name = unique("before")
    experiment = call(a.side.url, "experiments/create", {"name": name})["experiment_id"]
    run = {"experiment_id": experiment, "start_time": 1, "run_name": "early"}
    run_id = call(a.side.url, "runs/create", run)["run"]["info"]["run_id"]
    call(a.side.url, "runs/log-metric", {"run_id": run_id, "key": "loss", "value": 2, "timestamp": 5, "step": 0})
    await proxy.log_metric(run_id, step=1)

    assert not await proxy.differences(experiment, b)
