"""A journal that was lost: mirrors are found by their marks, and what comes next goes on there, without doubles."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing

import pytest

from dualtrack.core.ids import BackendId, ClientId, EntityKind, Ref, Twin
from dualtrack.demo.servers import MlflowServer
from tests.support.files import behind
from tests.support.flow import Json, Launcher, Running, Workspace, unique
from tests.support.journals import lose_journal
from tests.support.servers import call

PARENT = "mlflow.parentRunId"
MARK = "dualtrack.source_experiment_id"


async def restarted(launch: Launcher, proxy: Running, a: Workspace, b: Workspace) -> Running:
    """Drain, stop, lose the journal, start again."""
    await proxy.drained()
    await proxy.stop()
    lose_journal(launch.folder)
    return await launch(a, b)


@pytest.fixture
async def unrepeated(b: Workspace) -> AsyncIterator[None]:
    """Nothing is made or logged twice on the secondary."""
    yield
    assert not any((await b.control.duplicates()).values()), await b.control.duplicates()


async def creates(b: Workspace) -> list[Json]:
    return await b.writes("runs/create", accepted=True)


@pytest.mark.usefixtures("unrepeated")
async def test_a_run_goes_on_where_it_was(launch: Launcher, a: Workspace, b: Workspace) -> None:
    """The first write after the loss is one to a run: its experiment is placed again, then its mirror is found."""
    proxy = await launch(a, b)
    experiment = await proxy.create_experiment()
    run_id = await proxy.create_run(experiment, run_name="goes on")
    await proxy.log_metric(run_id, value=0.5, step=0)

    proxy = await restarted(launch, proxy, a, b)
    for step in (1, 2):
        await proxy.log_metric(run_id, value=0.25, step=step)
    await proxy.set_tag(run_id, "phase", "second")
    await proxy.finish(run_id)

    assert await proxy.differences(experiment, b) == []
    assert len(await creates(b)) == 1
    assert len(await b.writes("experiments/create", accepted=True)) == 1
    points = [point for batch in await b.writes("runs/log-batch", accepted=True) for point in batch.get("metrics", [])]
    assert sorted(point["step"] for point in points) == [0, 1, 2]


@pytest.mark.usefixtures("unrepeated")
async def test_nested_runs_stay_nested(launch: Launcher, a: Workspace, b: Workspace) -> None:
    """A new child names its parent's mirror; an old one is found."""
    proxy = await launch(a, b)
    experiment = await proxy.create_experiment()
    parent = await proxy.create_run(experiment, run_name="parent")
    child = await proxy.create_run(experiment, run_name="child", tags=[{"key": PARENT, "value": parent}])

    proxy = await restarted(launch, proxy, a, b)
    await proxy.create_run(experiment, run_name="younger", tags=[{"key": PARENT, "value": parent}])
    await proxy.log_metric(child)
    await proxy.log_metric(parent)

    assert await proxy.differences(experiment, b) == []
    assert sorted(made["run_name"] for made in await creates(b)) == ["child", "parent", "younger"]


@pytest.mark.usefixtures("unrepeated")
async def test_an_experiment_is_found_by_its_mark(launch: Launcher, a: Workspace, b: Workspace) -> None:
    """New runs and tags go to the mirror that there is."""
    proxy = await launch(a, b)
    name = unique()
    experiment = await proxy.create_experiment(name)

    proxy = await restarted(launch, proxy, a, b)
    await proxy.post("experiments/set-experiment-tag", experiment_id=experiment, key="k", value="v")
    await proxy.log_run(experiment)

    assert await proxy.differences(experiment, b) == []
    assert len(await b.writes("experiments/create", accepted=True)) == 1


@pytest.mark.usefixtures("unrepeated")
async def test_an_experiment_that_is_renamed_first_of_all_has_one_mirror(
    launch: Launcher, a: Workspace, b: Workspace
) -> None:
    """Nothing has its new name yet: its mirror is found by the mark, and has that name from then on."""
    proxy = await launch(a, b)
    experiment = await proxy.create_experiment()
    run_id = await proxy.log_run(experiment)

    proxy = await restarted(launch, proxy, a, b)
    await proxy.post("experiments/update", experiment_id=experiment, new_name=(name := unique("renamed")))
    await proxy.set_tag(run_id, "after", "the loss")

    assert await proxy.differences(experiment, b) == []
    assert len(await b.writes("experiments/create", accepted=True)) == 1
    (mirror,) = marked(b, experiment)
    assert mirror["name"] == name


async def test_a_mark_of_an_earlier_server_is_no_mirror(
    launch: Launcher, a: Workspace, b: Workspace, mlflow_secondary: MlflowServer
) -> None:
    """A primary that was set up anew counts its ids from one: what is older than the experiment is of another one."""
    old = behind(a, proxy := await launch(a, b))
    experiment = await old.create_experiment()
    tags = [{"key": MARK, "value": experiment}, {"key": "dualtrack.source", "value": "a"}]
    there = (await behind(b, proxy).post("experiments/create", name=unique(), tags=tags))["experiment_id"]
    with closing(sqlite3.connect(mlflow_secondary.root / "mlflow.db", timeout=30)) as database, database:
        database.execute("UPDATE experiments SET creation_time = 1000 WHERE experiment_id = ?", (int(there),))

    await proxy.log_run(experiment)
    await proxy.drained()

    assert len(marked(b, experiment)) == 2


def marked(b: Workspace, experiment: str) -> list[Json]:
    wanted = {"filter": f"tags.`{MARK}` = '{experiment}'", "max_results": 10}
    found: list[Json] = call(b.side.url, "experiments/search", wanted).get("experiments", [])
    return found


@pytest.mark.usefixtures("unrepeated")
async def test_models_are_found_by_their_marks(launch: Launcher, a: Workspace, b: Workspace) -> None:
    proxy = await launch(a, b)
    experiment = await proxy.create_experiment()
    run_id = await proxy.create_run(experiment)
    fields = {"experiment_id": experiment, "name": "kept", "source_run_id": run_id}
    model_id = (await proxy.post("logged-models", **fields))["model"]["info"]["model_id"]

    proxy = await restarted(launch, proxy, a, b)
    tags = [{"key": "after", "value": "the loss"}]
    reply = await proxy.call("PATCH", f"logged-models/{model_id}/tags", {"model_id": model_id, "tags": tags})
    assert reply.status == 200, reply.body
    await proxy.call("PATCH", f"logged-models/{model_id}", {"model_id": model_id, "status": "LOGGED_MODEL_READY"})
    await proxy.drained()

    assert len(await b.writes("/logged-models", accepted=True)) == 1
    ids = [
        each["experiment_id"] for each in call(b.side.url, "experiments/search", {"max_results": 500})["experiments"]
    ]
    wanted = {"experiment_ids": ids, "filter": f"tags.`dualtrack.source_model_id` = '{model_id}'", "max_results": 10}
    (found,) = call(b.side.url, "logged-models/search", wanted)["models"]
    assert found["info"]["status"] == "LOGGED_MODEL_READY"
    assert {"key": "after", "value": "the loss"} in found["info"]["tags"]


@pytest.mark.usefixtures("unrepeated")
async def test_files_go_to_the_mirror_that_there_is(launch: Launcher, a: Workspace, b: Workspace) -> None:
    proxy = await launch(a, b)
    experiment = await proxy.create_experiment()
    run_id = await proxy.create_run(experiment)
    place = f"/api/2.0/mlflow-artifacts/artifacts/{experiment}/{run_id}/artifacts"
    assert (await proxy.call("PUT", f"{place}/before.txt", b"before")).status == 200

    proxy = await restarted(launch, proxy, a, b)
    assert (await proxy.call("PUT", f"{place}/after.txt", b"after")).status == 200

    assert await proxy.differences(experiment, b) == []
    assert len(await creates(b)) == 1


async def test_a_run_of_a_discarded_experiment_is_discarded_too(launch: Launcher, a: Workspace, b: Workspace) -> None:
    """Its writes are skipped, each with a record, rather than tried for ever."""
    proxy = await launch(a, b)
    assert proxy.app.journal is not None
    experiment = await proxy.create_experiment()
    await proxy.drained()
    ref = Ref(EntityKind.EXPERIMENT, ClientId(experiment))
    await proxy.app.journal.learn([Twin(ref=ref, backend="b", backend_id=BackendId(""))])

    run_id = await proxy.log_run(experiment)
    await proxy.drained()

    assert await creates(b) == []
    assert await proxy.app.journal.losses(f"run:{run_id}") != []
