"""The proxy compares by itself: at the end of a run, after parking, after a crash, in a sweep; each can be off."""

import asyncio
import time
from dataclasses import replace
from functools import partial
from typing import Any

import orjson
import pytest

from dualtrack.core.ids import ClientId, EntityKind, Ref
from dualtrack.core.standing import Standing, State
from dualtrack.emulators.faults import BlackHole, Body, Delay, Refuse, Rule, Spoil, Spoilt
from dualtrack.errors import JournalError
from dualtrack.store.sqlite import SqliteJournal
from tests.flow.test_verify import drift, reconciled, verified
from tests.support.files import behind, mirror_of, put, run_root
from tests.support.flow import Json, Launcher, Running, Workspace

SWEEP_SECONDS = 120  # at most
OFF: Json = {"on_end": False, "on_start": False, "on_parked": False, "sweep": "never"}
QUICKLY: Json = {"settle": "20ms", "pause": "5ms"}


def only(**wanted: Any) -> Json:
    return OFF | QUICKLY | wanted


def standing(proxy: Running, run_id: str, backend: str = "b") -> Standing | None:
    return proxy.app.standings.of(Ref(EntityKind.RUN, ClientId(run_id)), backend)


async def compared(proxy: Running, run_id: str, state: State) -> Standing:
    """Wait until a comparison came to `state`."""

    async def came() -> bool:
        found = standing(proxy, run_id)
        return found is not None and found.state is state

    await proxy.until(came, SWEEP_SECONDS)
    found = standing(proxy, run_id)
    assert found is not None
    return found


async def tag_there(proxy: Running, b: Workspace, run_id: str, key: str) -> str:
    tags = (await mirror_of(b, proxy, run_id))["data"]["tags"]
    return next((str(tag["value"]) for tag in tags if tag["key"] == key), "")


async def change_there(proxy: Running, b: Workspace, run_id: str) -> None:
    there = (await mirror_of(b, proxy, run_id))["info"]["run_id"]
    await behind(b, proxy).post("runs/set-tag", run_id=there, key="stage", value="other")


async def test_a_run_that_ended_is_compared(launch: Launcher, a: Workspace, b: Workspace) -> None:
    proxy = await launch(a, b, verify=only(on_end=True))
    run_id = await proxy.log_run(await proxy.create_experiment())

    found = await compared(proxy, run_id, State.EQUAL)

    assert not found.is_stale
    assert await proxy.metric("verify_runs_total", backend="b", outcome="equal") == 1
    assert await proxy.metric("repairs_total", backend="b", operation="setTag") == 0


async def test_what_drifted_is_mended_and_compared_once_more(launch: Launcher, a: Workspace, b: Workspace) -> None:
    proxy = await launch(a, b, verify=only(on_end=True))
    run_id = await proxy.log_run(await proxy.create_experiment())
    await compared(proxy, run_id, State.EQUAL)

    await change_there(proxy, b, run_id)
    await proxy.finish(run_id)

    async def is_mended() -> bool:
        return await tag_there(proxy, b, run_id, "stage") == "done"

    await proxy.until(is_mended)
    await compared(proxy, run_id, State.EQUAL)
    assert await proxy.metric("drifting_entities", backend="b", kind="run") == 0


async def test_without_repair_it_only_says_so(launch: Launcher, a: Workspace, b: Workspace) -> None:
    proxy = await launch(a, b, verify=only(on_end=True, repair=False))
    run_id = await proxy.log_run(await proxy.create_experiment())
    await compared(proxy, run_id, State.EQUAL)
    await change_there(proxy, b, run_id)
    await proxy.finish(run_id)

    found = await compared(proxy, run_id, State.DRIFT)

    assert found.drift == 1
    assert await proxy.metric("drifting_entities", backend="b", kind="run") == 1
    assert await tag_there(proxy, b, run_id, "stage") == "other"


async def test_what_is_parked_is_compared_and_left_to_a_person(launch: Launcher, a: Workspace, b: Workspace) -> None:
    """A param that cannot change: repairing it would be parked again, for ever."""
    proxy = await launch(a, b, verify=only(on_parked=True))
    run_id = await proxy.create_run(await proxy.create_experiment())
    await proxy.finish(run_id)
    await proxy.drained()
    there = (await mirror_of(b, proxy, run_id))["info"]["run_id"]
    await behind(b, proxy).post("runs/log-parameter", run_id=there, key="depth", value="other")

    await proxy.post("runs/log-parameter", run_id=run_id, key="depth", value="3")

    await compared(proxy, run_id, State.DRIFT)

    async def looked_again() -> bool:
        return await proxy.metric("verify_runs_total", backend="b", outcome="drift") == 2

    await proxy.until(looked_again)
    assert (await proxy.backend())["parked"] == 1
    assert await proxy.metric("parked_total", backend="b", operation="logBatch") == 1


async def test_an_active_run_is_not_mended(launch: Launcher, a: Workspace, b: Workspace) -> None:
    """Somebody else may be writing to it, such as another proxy."""
    proxy = await launch(a, b, verify=OFF)
    run_id = await proxy.create_run(await proxy.create_experiment(), start_time=int(time.time() * 1000))
    await proxy.drained()
    await behind(a, proxy).log_metric(run_id, key="of another proxy")
    await proxy.stop()
    proxy = await launch(a, b, verify=only(sweep="24h", on_end=True))

    await compared(proxy, run_id, State.DRIFT)

    assert proxy.app.watcher is not None
    assert proxy.app.watcher.waiting == 0
    await proxy.finish(run_id)
    await compared(proxy, run_id, State.EQUAL)


async def test_a_repair_that_does_not_take_is_not_repeated(launch: Launcher, a: Workspace, b: Workspace) -> None:
    proxy = await launch(a, b, verify=only(on_end=True))
    run_id = await proxy.log_run(await proxy.create_experiment())
    await compared(proxy, run_id, State.EQUAL)
    await change_there(proxy, b, run_id)
    # it says yes and does nothing
    await b.control.set_faults(Rule(path="log-batch|set-tag", action=Refuse(status=200, body=Body.EMPTY)))

    for _ in range(3):
        before = await proxy.metric("verify_runs_total", backend="b", outcome="drift")
        await proxy.finish(run_id)
        await proxy.until(partial(drifted_since, proxy, before))

    assert await proxy.metric("repairs_total", backend="b", operation="logBatch") == 1
    assert (await compared(proxy, run_id, State.DRIFT)).drift == 1


async def drifted_since(proxy: Running, before: float) -> bool:
    """Say whether it was looked at again, and nothing more is to come."""
    assert proxy.app.watcher is not None
    now = await proxy.metric("verify_runs_total", backend="b", outcome="drift")
    return now > before and proxy.app.watcher.waiting == 0


async def test_no_file_ends_the_comparing(launch: Launcher, a: Workspace, b: Workspace) -> None:
    """A file called MLmodel that is none, and one that is not even text."""
    proxy = await launch(a, b, verify=only(on_end=True))
    experiment_id = await proxy.create_experiment()
    for content in (b"hello", b"\xff\xfe", b"- a list", b"run_id: elsewhere"):
        run_id = await proxy.create_run(experiment_id)
        await put(proxy, await run_root(proxy, run_id), "MLmodel", content)
        await proxy.finish(run_id)
        await compared(proxy, run_id, State.EQUAL)


class Failing:
    """The journal, whose next read of a kind fails."""

    def __init__(self, journal: Any, *reads: str) -> None:
        self._journal = journal
        self.left = set(reads)

    def __getattr__(self, name: str) -> Any:
        if name not in self.left:
            return getattr(self._journal, name)

        async def fail(*_: Any) -> None:
            self.left.discard(name)
            raise JournalError("the disk is gone for a moment")

        return fail


async def test_no_failing_read_of_the_journal_ends_the_comparing(launch: Launcher, a: Workspace, b: Workspace) -> None:
    proxy = await launch(a, b, verify=only(on_end=True))
    watcher = proxy.app.watcher
    assert watcher is not None
    watcher._journal = failing = Failing(watcher._journal, "is_pending")
    run_id = await proxy.log_run(await proxy.create_experiment())

    async def has_failed() -> bool:
        return not failing.left

    await proxy.until(has_failed)
    for due in watcher._due:  # no need to wait as long as a backlog is waited for
        watcher._due[due] = replace(watcher._due[due], at=0.0)

    await compared(proxy, run_id, State.EQUAL)
    assert not proxy.task.done()


async def test_no_failing_read_of_the_journal_keeps_it_from_starting(
    launch: Launcher, a: Workspace, b: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be listed is not compared at once; all else goes on."""

    async def fail(*_: Any) -> list[str]:
        raise JournalError("the disk is gone for a moment")

    with monkeypatch.context() as patched:
        patched.setattr(SqliteJournal, "queued", fail)
        proxy = await launch(a, b, verify=only(on_end=True))
    run_id = await proxy.log_run(await proxy.create_experiment())

    await compared(proxy, run_id, State.EQUAL)


async def test_points_of_a_model_on_their_way_are_no_drift(launch: Launcher, a: Workspace, b: Workspace) -> None:
    """They travel in the lane of their run."""
    proxy = await launch(a, b)
    experiment_id = await proxy.create_experiment()
    run_id = await proxy.create_run(experiment_id)
    model = (await proxy.post("logged-models", experiment_id=experiment_id, name="m", source_run_id=run_id))["model"]
    model_id = model["info"]["model_id"]
    await proxy.drained()
    await b.control.set_faults(Rule(path="log-batch|log-metric", action=Refuse(status=503)))
    point = {"key": "auc", "value": 0.5, "timestamp": 1000, "step": 1, "model_id": model_id}
    await proxy.post("runs/log-batch", run_id=run_id, metrics=[point])

    found, _ = await verified(proxy, id=model_id)
    await b.control.clear_faults()
    await proxy.drained()
    after, _ = await verified(proxy, id=model_id)

    assert [one["state"] for one in found] == ["pending"]
    assert [one["state"] for one in after] == ["equal"]


async def test_two_repairs_at_once_are_one(launch: Launcher, a: Workspace, b: Workspace) -> None:
    proxy = await launch(a, b)
    run_id = await proxy.log_run(await proxy.create_experiment())
    await proxy.drained()
    await behind(a, proxy).log_metric(run_id, key="late")

    await asyncio.gather(*(reconciled(proxy, ids=[run_id]) for _ in range(3)))
    await proxy.drained()
    found, _ = await verified(proxy, id=run_id)

    assert [one["state"] for one in found] == ["equal"]
    assert await proxy.metric("repairs_total", backend="b", operation="logBatch") == 1


async def test_what_a_process_left_over_is_compared(launch: Launcher, a: Workspace, b: Workspace) -> None:
    """Queued by one process, delivered and compared by the next one."""
    await b.control.set_faults(Rule(path="mlflow", action=BlackHole()))
    proxy = await launch(a, b, verify=OFF)
    run_id = await proxy.create_run(await proxy.create_experiment())
    await proxy.set_tag(run_id, "stage", "done")
    await proxy.stop()
    await b.control.clear_faults()

    proxy = await launch(a, b, verify=only(on_start=True))

    await compared(proxy, run_id, State.EQUAL)


async def test_an_outage_is_over_when_a_comparison_says_so(launch: Launcher, a: Workspace, b: Workspace) -> None:
    """One refused read, and nothing is left to deliver: nobody but the comparing finds out that all is well again."""
    await b.control.set_faults(Rule(path="logged-models/search", nth=1, action=Refuse(status=503)))
    proxy = await launch(a, b, verify=only(on_end=True))
    run_id = await proxy.log_run(await proxy.create_experiment())

    await compared(proxy, run_id, State.EQUAL)

    assert [entry["status"] for entry in await b.control.log() if entry["fault"]] == [503]
    assert (await proxy.backend())["up"]


async def young_run(proxy: Running, experiment_id: str) -> str:
    """Log a run that begins now: the sweep comes to a day's runs first, whatever else the server holds."""
    run_id = await proxy.create_run(experiment_id, start_time=int(time.time() * 1000))
    await proxy.set_tag(run_id, "stage", "done")
    await proxy.post("runs/update", run_id=run_id, status="FINISHED")
    return run_id


async def test_what_took_effect_too_late_to_be_found_is_mended(launch: Launcher, a: Workspace, b: Workspace) -> None:
    """The primary was still at work on it when it was asked what had become of it."""
    proxy = await launch(a, b)
    run_id = await proxy.log_run(await proxy.create_experiment())
    await proxy.drained()
    await proxy.stop()
    proxy = await launch(a, b, verify=only(on_start=True), backends={"a": {"read_timeout": "3s"}})
    await a.control.set_faults(Rule(path="runs/set-tag$", nth=1, action=Delay(seconds=3.5)))
    lost = await proxy.call("POST", "runs/set-tag", {"run_id": run_id, "key": "stage", "value": "late"})

    async def is_there() -> bool:
        return await tag_there(proxy, b, run_id, "stage") == "late"

    assert lost.status == 503
    await proxy.until(is_there)


async def test_the_sweep_finds_what_nobody_touched(launch: Launcher, a: Workspace, b: Workspace) -> None:
    """It compares what is mirrored; what no proxy ever saw is left to `backfill`, and not even listed."""
    proxy = await launch(a, b, verify=OFF)
    experiment_id = await proxy.create_experiment()
    old, new = [await young_run(proxy, experiment_id) for _ in range(2)]
    unseen = await behind(a, proxy).log_run(experiment_id)
    await behind(a, proxy).log_run(await behind(a, proxy).create_experiment())
    await proxy.drained()
    await change_there(proxy, b, old)
    await proxy.stop()

    proxy = await launch(a, b, verify=only(sweep="10ms"))

    async def is_mended() -> bool:
        return await tag_there(proxy, b, old, "stage") == "done"

    await proxy.until(is_mended, SWEEP_SECONDS)
    await compared(proxy, old, State.EQUAL)
    await compared(proxy, new, State.EQUAL)
    assert standing(proxy, unseen) is None
    listings = [entry["body"] for entry in await a.control.log() if entry["path"].endswith("runs/search")]
    assert {orjson.loads(body)["experiment_ids"][0] for body in listings} == {experiment_id}


async def test_a_write_under_way_is_no_drift(launch: Launcher, a: Workspace, b: Workspace) -> None:
    """The primary has it, its answer is not here yet, so the journal knows nothing: to repair it would double it."""
    proxy = await launch(a, b)
    run_id = await proxy.log_run(await proxy.create_experiment())
    await proxy.drained()
    rule = Rule(path="runs/log-metric$", action=Spoil(body=Spoilt.SLOW, seconds=1.0))
    await a.control.set_faults(rule)

    async def is_there() -> bool:
        run = (await behind(a, proxy).call("GET", f"runs/get?run_id={run_id}")).json["run"]
        return any(metric["key"] == "late" for metric in run["data"]["metrics"])

    async with asyncio.TaskGroup() as group:
        group.create_task(proxy.log_metric(run_id, key="late"))
        await proxy.until(is_there)
        found, _ = await verified(proxy, id=run_id)
    await proxy.drained()
    after, _ = await verified(proxy, id=run_id)

    assert drift(found) == []
    assert [one["state"] for one in after] == ["equal"]


async def test_all_of_it_can_be_switched_off(launch: Launcher, a: Workspace, b: Workspace) -> None:
    proxy = await launch(a, b, verify=OFF)
    run_id = await proxy.log_run(await proxy.create_experiment())
    await proxy.drained()

    found = standing(proxy, run_id)

    assert found is not None
    assert found.compared_at is None
    assert proxy.app.watcher is not None
    assert proxy.app.watcher.waiting == 0
