"""Backfill: what no proxy ever saw is brought over whole, once, and a second pass writes nothing."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from dualtrack.cli.backfill import ask, bring
from dualtrack.cli.client import AdminClient
from dualtrack.cli.exits import UnreachableProxyError
from dualtrack.cli.settings import between
from dualtrack.core.ids import ClientId, EntityKind, Ref, Twin
from dualtrack.emulators.faults import Refuse, Rule
from dualtrack.errors import RejectedError, UnreachableError
from dualtrack.ports import Settlement
from dualtrack.reconcile.adopter import Terms
from dualtrack.reconcile.arrivals import Arrivals
from dualtrack.reconcile.backfill import Backfill, Selection
from tests.support.bar import Bar
from tests.support.flow import (
    PATIENCE,
    SECRETS,
    Client,
    Json,
    Launcher,
    Running,
    Workspace,
    configure,
    differences,
    unique,
)
from tests.support.journals import lose_journal
from tests.support.servers import call
from tests.support.sides import assert_equal

PARENT = "mlflow.parentRunId"


@pytest.fixture
def old(a: Workspace, session: ClientSession) -> Client:
    """A client of the primary itself: what it writes no proxy sees."""
    return Client(a.side.url, session)


@pytest.fixture
def config_of(tmp_path: Path, a: Workspace, b: Workspace) -> Any:
    return lambda **changes: configure(tmp_path, a, b, **changes)


async def filled(config: Any, *experiments: str, **selected: Any) -> Json:
    """Bring the experiments over; give what the command would print."""
    selection = Selection(experiments=experiments, **selected)
    (outcome,) = await bring(config, ["b"], selection, patience=PATIENCE)
    return outcome


async def wrote(b: Workspace) -> int:
    return len(await b.writes(accepted=True))


async def test_runs_that_no_proxy_saw_are_brought_over_once(
    a: Workspace, b: Workspace, old: Client, config_of: Any
) -> None:
    """Params, histories, tags, nested runs, ends and deletions; the second pass writes nothing."""
    experiment = await old.create_experiment()
    runs = [await old.log_run(experiment, points=5) for _ in range(3)]
    parent = await old.create_run(experiment, run_name="parent", start_time=5000)
    child_tags = [{"key": PARENT, "value": parent}]
    await old.create_run(experiment, run_name="child", start_time=10, tags=child_tags)
    await old.post("runs/delete", run_id=runs[0])

    first = await filled(config_of(), experiment)
    done = await wrote(b)
    second = await filled(config_of(), experiment)

    assert await differences(a, b, experiment) == []
    assert (first["found"], first["brought"], first["complete"]) == (5, 5, True)
    assert (second["found"], second["there"], second["complete"]) == (5, 5, True)
    assert await wrote(b) == done
    assert not any((await b.control.duplicates()).values())


async def test_models_and_files_come_along(a: Workspace, b: Workspace, old: Client, config_of: Any) -> None:
    """Those of a run, and a model that no run made."""
    experiment = await old.create_experiment()
    run_id = await old.log_run(experiment)
    files = f"/api/2.0/mlflow-artifacts/artifacts/{experiment}/{run_id}/artifacts"
    assert (await old.call("PUT", f"{files}/deep/down.txt", b"x" * 100_000)).status == 200
    for source in ({"source_run_id": run_id}, {}):
        made = await old.post("logged-models", experiment_id=experiment, name="m", params=[], **source)
        model_id = made["model"]["info"]["model_id"]
        place = f"/api/2.0/mlflow-artifacts/artifacts/{experiment}/models/{model_id}/artifacts"
        assert (await old.call("PUT", f"{place}/MLmodel", b"flavors: {}\n")).status == 200
        ready = {"model_id": model_id, "status": "LOGGED_MODEL_READY"}
        assert (await old.call("PATCH", f"logged-models/{model_id}", ready)).status == 200

    found = await filled(config_of(), experiment)
    again = await filled(config_of(), experiment)

    assert (found["brought"], found["models"], again["models"]) == (1, 2, 0)
    await asyncio.to_thread(assert_equal, a.side.url, b.side.url, experiment, runs=1)


async def test_an_experiment_without_runs_is_there_too(a: Workspace, b: Workspace, old: Client, config_of: Any) -> None:
    name = unique()
    await old.create_experiment(name)

    found = await filled(config_of(), name)

    assert (found["experiments"], found["found"], found["complete"]) == (1, 0, True)
    assert call_by_name(b, name)["lifecycle_stage"] == "active"


async def test_a_deleted_experiment_gets_its_runs_and_is_deleted_then(
    b: Workspace, old: Client, config_of: Any
) -> None:
    """No run can be made in a deleted one; one that comes later restores it for itself."""
    name = unique()
    experiment = await old.create_experiment(name)
    for _ in range(2):
        await old.log_run(experiment)
    await old.post("experiments/delete", experiment_id=experiment)
    first = await filled(config_of(), experiment)
    mirror = call_by_name(b, name)
    await old.post("experiments/restore", experiment_id=experiment)
    await old.log_run(experiment)
    await old.post("experiments/delete", experiment_id=experiment)
    second = await filled(config_of(), experiment)
    done = await wrote(b)
    await filled(config_of(), experiment)

    assert (first["brought"], first["complete"], mirror["lifecycle_stage"]) == (2, True, "deleted")
    assert (second["there"], second["brought"], second["complete"]) == (2, 1, True)
    assert call_by_name(b, name)["lifecycle_stage"] == "deleted"
    wanted = {"experiment_ids": [mirror["experiment_id"]], "run_view_type": "ALL", "max_results": 10}
    runs = call(b.side.url, "runs/search", wanted)["runs"]
    assert [run["info"]["lifecycle_stage"] for run in runs] == ["deleted"] * 3
    assert await wrote(b) == done


def call_by_name(b: Workspace, name: str) -> Json:
    listed = call(b.side.url, "experiments/search", {"max_results": 1000, "view_type": "ALL"})["experiments"]
    (found,) = (each for each in listed if each["name"] == name)
    return dict(found)


async def test_only_what_is_selected(b: Workspace, old: Client, config_of: Any) -> None:
    """By the search language, and by when a run began; an experiment without such runs is left alone."""
    name = unique()
    experiment = await old.create_experiment(name)
    early = await old.create_run(experiment, start_time=1_000)
    late = await old.create_run(experiment, start_time=2_000_000)
    good = await old.create_run(experiment, start_time=1_500)
    await old.post("runs/log-parameter", run_id=good, key="kind", value="good")

    nothing = await filled(config_of(), experiment, since=9_000.0)
    assert not [each for each in await b.writes("experiments/create") if each["name"] == name]
    by_time = await filled(config_of(), experiment, since=2_000.0)
    by_words = await filled(config_of(), experiment, wanted="params.kind = 'good'")

    assert (nothing["found"], by_time["brought"], by_words["brought"]) == (0, 1, 1)
    brought = {mark(made) for made in await b.writes("runs/create", accepted=True)}
    assert {late, good} <= brought
    assert early not in brought


def mark(made: Json) -> str:
    return str(next(tag["value"] for tag in made["tags"] if tag["key"] == "dualtrack.source_run_id"))


async def test_a_lost_journal_finds_the_mirrors(
    tmp_path: Path, a: Workspace, b: Workspace, old: Client, config_of: Any
) -> None:
    experiment = await old.create_experiment()
    for _ in range(2):
        await old.log_run(experiment)
    await filled(config_of(), experiment)
    lose_journal(tmp_path)
    await old.log_run(experiment)
    done = len(await b.writes("runs/create"))

    found = await filled(config_of(), experiment)

    assert (found["marked"], found["brought"], found["complete"]) == (2, 1, True)
    assert len(await b.writes("runs/create")) == done + 1
    assert await differences(a, b, experiment) == []


async def test_a_proxy_goes_on_where_a_backfill_ended(
    a: Workspace, b: Workspace, old: Client, config_of: Any, launch: Launcher
) -> None:
    """Also a run that was still running then."""
    experiment = await old.create_experiment()
    run_id = await old.create_run(experiment)
    await old.log_metric(run_id, step=0)
    await filled(config_of(), experiment)

    proxy = await launch(a, b)
    await proxy.log_metric(run_id, step=1)
    await proxy.finish(run_id)

    assert await proxy.differences(experiment, b) == []


async def test_between_two_other_backends(tmp_path: Path, b: Workspace, a: Workspace, old: Client) -> None:
    """From the secondary back: what was made there itself comes over, and mirrors of the target's own runs do not."""
    experiment = await old.create_experiment()
    await old.log_run(experiment)
    config = configure(tmp_path, a, b)
    await filled(config, experiment)
    theirs = call_of(b, experiment)
    made = {"experiment_id": theirs, "start_time": 1, "run_name": "made on b"}
    call(b.side.url, "runs/create", made)

    other, targets = between(config, "b", "a")
    (found,) = await bring(other, targets, Selection(experiments=(theirs,)), patience=PATIENCE)

    assert targets == ("a",)
    assert other.store.path != config.store.path
    assert (found["found"], found["there"], found["brought"]) == (2, 1, 1)
    runs = call(a.side.url, "runs/search", {"experiment_ids": [experiment], "max_results": 10})["runs"]
    assert sorted(run["info"]["run_name"] == "made on b" for run in runs) == [False, True]


def call_of(b: Workspace, experiment: str) -> str:
    """What `b` calls an experiment of the primary."""
    listed = call(b.side.url, "experiments/search", {"max_results": 1000})["experiments"]
    marks = {tag["value"]: each["experiment_id"] for each in listed for tag in each.get("tags", ())}
    return str(marks[experiment])


async def test_what_a_backend_refuses_is_left_over(b: Workspace, old: Client, config_of: Any) -> None:
    """A run whose create is parked is stuck, and the others arrive; a person's retry brings it."""
    experiment = await old.create_experiment()
    await old.log_run(experiment)
    await b.control.set_faults(Rule(action=Refuse(status=400), path="runs/create"))
    stuck = await filled(config_of(), experiment)
    await b.control.clear_faults()
    await old.log_run(experiment)

    found = await filled(config_of(), experiment)

    assert (stuck["brought"], stuck["stuck"], stuck["parked"], stuck["complete"]) == (0, 1, 1, False)
    assert (found["brought"], found["stuck"], found["parked"], found["complete"]) == (1, 1, 1, False)


async def test_what_nobody_understands_is_wrong_usage(old: Client, config_of: Any) -> None:
    experiment = await old.create_experiment()

    with pytest.raises(RejectedError, match="no experiment 'nobody'"):
        await filled(config_of(), "nobody")
    with pytest.raises(RejectedError):
        await filled(config_of(), experiment, wanted="this is no filter")


async def test_a_backend_that_is_down_ends_it(b: Workspace, old: Client, config_of: Any) -> None:
    """At once when it never answered; else after its patience, and what was queued is delivered by the next one."""
    experiment = await old.create_experiment()
    await old.log_run(experiment)
    with pytest.raises(UnreachableError):
        await filled(config_of(backends={"b": {"url": "http://127.0.0.1:9"}}), experiment)
    await b.control.set_faults(Rule(action=Refuse(status=503), path="runs/create"))
    with pytest.raises(UnreachableError):
        await bring(config_of(), ["b"], Selection(experiments=(experiment,)), patience=0.0)
    await b.control.clear_faults()

    found = await filled(config_of(), experiment)

    assert (found["brought"], found["complete"]) == (1, True)
    assert not any((await b.control.duplicates()).values())


async def test_histories_that_cannot_be_read_at_once_are_read_one_by_one(
    a: Workspace, b: Workspace, old: Client, config_of: Any
) -> None:
    """Not a number is no JSON, so the route for many runs cannot say it; repeated points stay repeated."""
    experiment = await old.create_experiment()
    for _ in range(3):
        run_id = await old.create_run(experiment)
        for step, value in enumerate(("NaN", "Infinity", "-Infinity", 0.1)):
            await old.log_metric(run_id, "strange", value, step)  # type: ignore[arg-type]  # JSON's words for them
        for value in (0.1, 0.2, 0.1):
            await old.log_metric(run_id, "plain", value, 7)

    found = await filled(config_of(), experiment)

    assert (found["brought"], found["complete"]) == (3, True)
    assert await differences(a, b, experiment) == []


async def test_a_running_proxy_does_it_when_asked(launch: Launcher, a: Workspace, b: Workspace, old: Client) -> None:
    """Clients go on meanwhile; what they write arrives, too, and only once."""
    proxy = await launch(a, b)
    experiment = await old.create_experiment()
    old_runs = [await old.log_run(experiment) for _ in range(3)]
    client = AdminClient(proxy.admin.url, SECRETS["TOKEN_ADMIN"])

    asking = asyncio.to_thread(ask, client, ["b"], Selection(experiments=(experiment,)), 60.0)
    (found,), *_ = await asyncio.gather(asking, proxy.log_run(experiment), proxy.set_tag(old_runs[0], "k", "v"))

    assert found["complete"]
    assert await proxy.differences(experiment, b) == []
    assert not any((await b.control.duplicates()).values())


async def test_the_bar_knows_its_end(old: Client, config_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal the runs are counted ahead."""
    experiment = await old.create_experiment()
    for _ in range(3):
        await old.log_run(experiment)
    bar, command = Bar(), sys.modules["dualtrack.cli.backfill"]
    monkeypatch.setattr(command, "_bar", lambda _: bar)
    monkeypatch.setattr(command, "_SHOWN_SECONDS", 0.0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    found = await filled(config_of(), experiment)

    assert found["brought"] == 3
    assert bar.told[0] == (0, None)
    assert {total for _, total in bar.told} == {None, 3}


async def over(proxy: Running, **ordered: Any) -> Json:
    """Order a backfill, and give how it ended."""
    begun = await proxy.admin.call("POST", "/api/v1/backfill", ordered)
    assert begun.status == 202, begun.body

    async def is_over() -> bool:
        return bool((await proxy.admin.call("GET", "/api/v1/backfill")).json["state"] != "running")

    await proxy.until(is_over)
    ended: Json = (await proxy.admin.call("GET", "/api/v1/backfill")).json
    return ended


async def test_a_running_proxy_is_as_patient_as_asked_and_counts_ahead(
    launch: Launcher, a: Workspace, b: Workspace, old: Client
) -> None:
    """Each order says both anew."""
    proxy = await launch(a, b)
    experiment = await old.create_experiment()
    for _ in range(3):
        await old.log_run(experiment)
    await b.control.set_faults(Rule(action=Refuse(status=503), path="runs/create"))
    hasty = await over(proxy, experiments=[experiment], patience=0)
    await b.control.clear_faults()
    patient = await over(proxy, experiments=[experiment], patience=60, counts=True)

    assert (hasty["state"], "nothing could be delivered for 0 s" in hasty["error"]) == ("failed", True)
    assert (hasty["total"], patient["total"]) == (None, 3)
    assert (patient["state"], patient["tally"]["found"]) == ("done", 3)


@pytest.mark.parametrize("brings", [False, True])
async def test_what_is_queued_of_a_deleted_experiment_arrives_as_well(
    launch: Launcher, a: Workspace, b: Workspace, old: Client, monkeypatch: pytest.MonkeyPatch, brings: bool
) -> None:
    """P1: a backfill's deletion, or restoration, is queued behind its other writes, and not in their place."""
    proxy = await launch(a, b)
    name = unique()
    experiment = await proxy.create_experiment(name)
    await proxy.drained()
    if brings:
        await old.log_run(experiment)
    await b.control.set_faults(Rule(path="experiments/set-experiment-tag", action=Refuse(status=503)))
    await proxy.post("experiments/set-experiment-tag", experiment_id=experiment, key="k", value="v")
    await proxy.post("experiments/delete", experiment_id=experiment)
    awaited = Arrivals.of

    async def of(arrivals: Arrivals, key: str) -> bool:
        await b.control.clear_faults()  # whatever it queues in the place of others, it has queued by now
        return await awaited(arrivals, key)

    monkeypatch.setattr(Arrivals, "of", of)
    ended = await over(proxy, experiments=[experiment])
    await proxy.drained()

    mirror = call_by_name(b, name)
    assert (ended["tally"]["brought"], mirror["lifecycle_stage"]) == (int(brings), "deleted")
    assert {"key": "k", "value": "v"} in mirror["tags"]


async def test_an_experiment_that_a_client_restores_meanwhile_is_not_deleted(
    launch: Launcher, a: Workspace, b: Workspace, old: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is acknowledged after the looks at both sides is newer than they are."""
    proxy = await launch(a, b)
    name = unique()
    experiment = await old.create_experiment(name)
    await old.log_run(experiment)
    await old.post("experiments/delete", experiment_id=experiment)
    looked = Backfill._is_deleted_here

    async def look(backfill: Backfill, home: Any) -> bool:
        found = await looked(backfill, home)
        if found:
            await proxy.post("experiments/restore", experiment_id=experiment)
        return found

    monkeypatch.setattr(Backfill, "_is_deleted_here", look)
    ended = await over(proxy, experiments=[experiment])
    await proxy.drained()

    assert ended["state"] == "done"
    assert call_by_name(b, name)["lifecycle_stage"] == "active"


async def test_a_run_that_arrives_while_it_is_looked_for_is_not_brought_as_well(
    launch: Launcher, a: Workspace, b: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P2: when the map is asked it is queued, and a moment later it is there."""
    proxy = await launch(a, b)
    experiment = await proxy.create_experiment()
    await proxy.drained()
    await b.control.set_faults(Rule(path="runs/create", action=Refuse(status=503)))
    run_id = await proxy.create_run(experiment)
    journal, adopter, asking = proxy.app.journal, proxy.app.adopter, asyncio.current_task()
    assert journal is not None
    assert adopter is not None
    twin = journal.twin

    async def slow(ref: Ref, backend: str) -> Twin | None:
        found = await twin(ref, backend)
        if asyncio.current_task() is asking:
            await b.control.clear_faults()
            await proxy.drained()
        return found

    monkeypatch.setattr(journal, "twin", slow)
    await adopter.bring(Ref(EntityKind.RUN, ClientId(run_id)), "b", terms=Terms(marks=False))
    await b.control.clear_faults()
    await proxy.drained()

    assert await proxy.metric("adoptions_total", backend="b", kind="run") == 0
    assert len(await b.writes("runs/create", accepted=True)) == 1


async def test_a_deletion_that_is_being_acknowledged_is_not_taken_for_brought(
    launch: Launcher, a: Workspace, b: Workspace, old: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The experiment was listed before it; it has its number and is read of the primary, but is no entry yet."""
    proxy = await launch(a, b)
    name = unique()
    experiment = await old.create_experiment(name)
    journal = proxy.app.journal
    assert journal is not None
    twin, queue, replace, may_commit = journal.twin, journal._queue, journal.replace, asyncio.Event()
    deleting: list[asyncio.Task[Any]] = []
    key = f"experiment:{experiment}"

    async def queued(settlement: Settlement, row: Any) -> None:
        if settlement.key == key:
            await may_commit.wait()
        await queue(settlement, row)

    async def asked(ref: Ref, backend: str) -> Twin | None:
        if ref.key == key and not deleting:
            upto = journal.last_seq()
            request = proxy.post("experiments/delete", experiment_id=experiment)
            deleting.append(asyncio.get_running_loop().create_task(request))
            await proxy.until(lambda: answered(journal.has_grown(key, upto)))
        return await twin(ref, backend)

    async def replaced(*args: Any) -> None:
        may_commit.set()
        await asyncio.sleep(0)  # both are in one group then
        await replace(*args)

    monkeypatch.setattr(journal, "_queue", queued)
    monkeypatch.setattr(journal, "twin", asked)
    monkeypatch.setattr(journal, "replace", replaced)
    await over(proxy, experiments=[experiment])
    await asyncio.gather(*deleting)
    await proxy.drained()

    assert call_by_name(b, name)["lifecycle_stage"] == "deleted"


async def answered(found: bool) -> bool:
    return found


async def test_what_a_running_proxy_cannot_do_it_says(launch: Launcher, a: Workspace, b: Workspace) -> None:
    proxy = await launch(a, b)
    idle = (await proxy.admin.call("GET", "/api/v1/backfill")).json
    unknown = await proxy.admin.call("POST", "/api/v1/backfill", {"to": "nobody"})
    nonsense = await proxy.admin.call("POST", "/api/v1/backfill", {"experiments": "all"})
    hurried = await proxy.admin.call("POST", "/api/v1/backfill", {"patience": -1})
    ended = await over(proxy, experiments=["nobody"])

    assert (idle["state"], unknown.status, nonsense.status, hurried.status) == ("none", 400, 400, 400)
    assert (ended["state"], "no experiment 'nobody'" in ended["error"]) == ("failed", True)
    client = AdminClient(proxy.admin.url, SECRETS["TOKEN_ADMIN"])
    with pytest.raises(UnreachableProxyError, match="no experiment 'nobody'"):
        await asyncio.to_thread(ask, client, ["b"], Selection(experiments=("nobody",)), 60.0)
