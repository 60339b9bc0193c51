"""P5, and identity (design 4): every experiment has one mirror, found by name, and no two ever share one."""

from dualtrack.demo.compare import EXPERIMENT_MARK
from tests.support.flow import Launcher, Running, Workspace, unique
from tests.support.servers import call

LAST_SEGMENT = {"b": {"experiment_names": {"rule": "last-segment"}}}


def named(side: Workspace, name: str) -> dict[str, str] | None:
    """Give the tags of the experiment with this name, and its id; None when there is none."""
    listed = call(side.side.url, "experiments/search", {"max_results": 1000, "view_type": "ALL"})["experiments"]
    found = next((item for item in listed if item["name"] == name), None)
    if found is None:
        return None
    return {"id": found["experiment_id"]} | {tag["key"]: tag["value"] for tag in found.get("tags", [])}


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
    assert marked == {first, second}
    assert not await proxy.differences(first, b)


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


async def test_an_experiment_that_no_proxy_saw_is_brought_over(proxy: Running, a: Workspace, b: Workspace) -> None:
    """A run that began before the proxy is continued and not dropped."""
    name = unique("before")
    experiment = call(a.side.url, "experiments/create", {"name": name})["experiment_id"]
    run = {"experiment_id": experiment, "start_time": 1, "run_name": "early"}
    run_id = call(a.side.url, "runs/create", run)["run"]["info"]["run_id"]
    call(a.side.url, "runs/log-metric", {"run_id": run_id, "key": "loss", "value": 2, "timestamp": 5, "step": 0})
    await proxy.log_metric(run_id, step=1)

    assert not await proxy.differences(experiment, b)
