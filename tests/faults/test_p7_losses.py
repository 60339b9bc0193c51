"""P7: nothing disappears silently: what a secondary will not take is parked singly, counted, shown, and can be retried.

Everything around it arrives. A parked create holds its own run back and nothing else.
"""

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from dualtrack.demo.servers import clean_environment
from dualtrack.emulators.faults import Refuse, Rule
from tests.support.files import mirrored, put, run_root
from tests.support.flow import SECRETS, Client, Json, Launcher, Running, Workspace, unique
from tests.support.picky import Picky, picky

POISON = "poison"


@pytest.fixture
async def pick(b: Workspace) -> Any:
    """`b` behind somebody who refuses every body with the marker, until told otherwise."""
    async with picky(b.url, POISON.encode()) as made:
        yield made


async def start(launch: Launcher, a: Workspace, pick: Picky) -> Running:
    return await launch(a, backends={"b": {"url": pick.url, "auth": {"type": "token", "token": "${TOKEN_B}"}}})


async def parked(proxy: Running) -> list[Json]:
    listed: list[Json] = (await proxy.admin.call("GET", "/api/v1/parked")).json["parked"]
    return listed


async def log_with_poison(proxy: Running, experiment: str) -> str:
    """Log one run of which one metric, one param and one tag are refused over there."""
    run_id = await proxy.create_run(experiment)
    for step in range(10):
        await proxy.log_metric(run_id, step=step)
    await proxy.log_metric(run_id, f"{POISON}-metric")
    await proxy.post("runs/log-parameter", run_id=run_id, key=f"{POISON}-param", value="1")
    await proxy.set_tag(run_id, f"{POISON}-tag", "1")
    await proxy.set_tag(run_id, "last", "1")
    await proxy.finish(run_id)
    return run_id


async def test_refused_items_are_parked_singly_and_the_rest_arrives(
    launch: Launcher, a: Workspace, b: Workspace, pick: Picky
) -> None:
    proxy = await start(launch, a, pick)
    experiment = await proxy.create_experiment()
    run_id = await log_with_poison(proxy, experiment)
    differences = await proxy.differences(experiment, b)
    letters = await parked(proxy)

    assert len(differences) == 4, differences  # a line that counts them, and the three items
    assert all(POISON in line for line in differences[1:])
    bodies = [(await proxy.admin.call("GET", f"/api/v1/parked/{letter['id']}")).json for letter in letters]
    assert sorted(
        marker
        for body in bodies
        for marker in ("metric", "param", "tag")
        if f"{POISON}-{marker}" in body["exchange"]["body"]
    ) == ["metric", "param", "tag"]
    assert {(letter["key"], letter["holds"]) for letter in letters} == {(f"run:{run_id}", False)}
    assert all("400" in letter["cause"] and "retry" in letter["next_step"] for letter in letters)
    assert (await proxy.backend())["parked"] == 3
    assert await proxy.metric("parked_entries", backend="b") == 3
    assert await proxy.metric("parked_total", backend="b", operation="logBatch") == 3


async def test_a_retry_after_the_cause_is_gone_delivers_all(
    launch: Launcher, a: Workspace, b: Workspace, pick: Picky
) -> None:
    proxy = await start(launch, a, pick)
    experiment = await proxy.create_experiment()
    await log_with_poison(proxy, experiment)
    await proxy.drained()
    pick.is_picky = False
    for letter in await parked(proxy):
        assert (await proxy.admin.call("POST", f"/api/v1/parked/{letter['id']}/retry", {})).status == 200

    assert await proxy.differences(experiment, b) == []
    assert await parked(proxy) == []


async def test_a_retry_of_what_was_changed_since_undoes_nothing(
    launch: Launcher, a: Workspace, b: Workspace, pick: Picky
) -> None:
    """A tag, an end and a file are refused; each is written anew and arrives; then an operator retries the old ones."""
    proxy = await start(launch, a, pick)
    experiment = await proxy.create_experiment()
    run_id = await proxy.create_run(experiment)
    await proxy.set_tag(run_id, "stage", f"{POISON}-old")
    tags = [{"key": "stays", "value": POISON}, {"key": "note", "value": POISON}]
    await proxy.post("runs/log-batch", run_id=run_id, tags=tags)
    await proxy.post("runs/update", run_id=run_id, status="FAILED", end_time=8000, run_name=POISON)
    root = await run_root(proxy, run_id)
    await put(proxy, root, "a.txt", f"{POISON} old".encode())
    await put(proxy, root, "b.txt", f"{POISON} stays".encode())
    await proxy.drained()
    letters = await parked(proxy)
    pick.is_picky = False
    await proxy.set_tag(run_id, "stage", "new")
    await proxy.post("runs/delete-tag", run_id=run_id, key="note")
    await proxy.post("runs/update", run_id=run_id, status="FINISHED", end_time=9000)
    await put(proxy, root, "a.txt", b"new")
    await proxy.drained()
    for letter in letters:
        await proxy.admin.call("POST", f"/api/v1/parked/{letter['id']}/retry", {})

    assert len(letters) == 6
    assert await proxy.differences(experiment, b) == []
    assert await mirrored(b, proxy, run_id) == {"a.txt": b"new", "b.txt": f"{POISON} stays".encode()}
    assert await parked(proxy) == []


async def test_a_retried_file_that_the_primary_lets_nobody_read_comes_from_its_copy(
    launch: Launcher, a: Workspace, b: Workspace, pick: Picky
) -> None:
    """The primary is asked for what the file is by now, once; its refusal is no reason to park what is kept here."""
    proxy = await start(launch, a, pick)
    run_id = await proxy.create_run(await proxy.create_experiment())
    root = await run_root(proxy, run_id)
    content = f"{POISON} file".encode()
    await put(proxy, root, "a.txt", content)
    await proxy.drained()
    (letter,) = await parked(proxy)
    pick.is_picky = False
    await a.control.set_faults(Rule(method="GET", path=r"artifacts/.*a\.txt$", action=Refuse(status=403)))
    before = (await a.control.log())[-1]["number"]
    await proxy.admin.call("POST", f"/api/v1/parked/{letter['id']}/retry", {})
    await proxy.drained()
    asked = [entry["path"] for entry in await a.control.log(before) if entry["path"].endswith("a.txt")]

    assert await parked(proxy) == []
    assert await mirrored(b, proxy, run_id) == {"a.txt": content}
    assert len(asked) == 1


async def test_a_retry_too_early_parks_again(launch: Launcher, a: Workspace, b: Workspace, pick: Picky) -> None:
    proxy = await start(launch, a, pick)
    experiment = await proxy.create_experiment()
    run_id = await proxy.create_run(experiment)
    await proxy.set_tag(run_id, POISON, "1")
    await proxy.drained()
    (letter,) = await parked(proxy)
    await proxy.admin.call("POST", f"/api/v1/parked/{letter['id']}/retry", {})
    await proxy.drained()
    (again,) = await parked(proxy)

    assert again["id"] != letter["id"]
    assert (again["key"], again["cause"]) == (letter["key"], letter["cause"])


async def test_what_is_refused_of_a_write_is_parked_once_though_the_rest_of_it_fails_first(
    launch: Launcher, a: Workspace, b: Workspace, pick: Picky, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second of two writes is cut: its param goes with the first batch, most of its points with the second."""
    proxy = await start(launch, a, pick)
    experiment = await proxy.create_experiment()
    run_id = await proxy.create_run(experiment)
    await proxy.drained()
    refuse, failures = pick.refuse, iter([web.Response(status=503) for _ in range(3)])

    def refuse_rest(body: bytes) -> web.Response | None:
        is_rest = b'"step":1899' in body and b"early" not in body
        return (next(failures, None) if is_rest else None) or refuse(body)

    monkeypatch.setattr(pick, "refuse", refuse_rest)
    await b.control.set_faults(Rule(path="log-batch$", action=Refuse(status=503)))
    early, late = (
        [{"key": key, "value": 1.0, "timestamp": at, "step": at} for at in range(first, first + 900)]
        for key, first in (("early", 0), ("late", 1000))
    )
    await proxy.post("runs/log-batch", run_id=run_id, metrics=early)
    await proxy.post("runs/log-batch", run_id=run_id, metrics=late, params=[{"key": POISON, "value": "1"}])
    await b.control.clear_faults()
    await proxy.drained()
    letters = await parked(proxy)
    times = await proxy.metric("parked_total", backend="b", operation="logBatch")
    pick.is_picky = False
    await proxy.admin.call("POST", f"/api/v1/parked/{letters[0]['id']}/retry", {})
    differences = await proxy.differences(experiment, b)

    assert next(failures, None) is None
    assert (len(letters), times) == (1, 1)
    assert differences == []
    assert (await b.control.duplicates())["metric_points"] == 0


async def test_a_parked_create_holds_its_run_and_nothing_else(
    launch: Launcher, a: Workspace, b: Workspace, pick: Picky
) -> None:
    proxy = await start(launch, a, pick)
    experiment = await proxy.create_experiment()
    held = await proxy.create_run(experiment, run_name=POISON)
    await proxy.log_metric(held)
    other = await proxy.log_run(experiment)
    await proxy.drained()

    (letter,) = await parked(proxy)
    assert (letter["key"], letter["operation"], letter["holds"]) == (f"run:{held}", "createRun", True)
    status = await proxy.backend()
    assert (status["backlog"], status["lanes"], status["held_lanes"]) == (1, 1, 1)
    assert [line for line in await proxy.differences(experiment, b) if other in line] == []

    pick.is_picky = False
    await proxy.admin.call("POST", f"/api/v1/parked/{letter['id']}/retry", {})
    assert await proxy.differences(experiment, b) == []


async def test_discarding_a_create_skips_the_run_with_a_record(
    launch: Launcher, a: Workspace, b: Workspace, pick: Picky
) -> None:
    """What is logged to that run later is skipped too, and the record says so."""
    proxy = await start(launch, a, pick)
    experiment = await proxy.create_experiment()
    run_id = await proxy.create_run(experiment, run_name=POISON)
    await proxy.log_metric(run_id)
    await proxy.drained()
    (letter,) = await parked(proxy)
    await proxy.admin.call("POST", f"/api/v1/parked/{letter['id']}/discard", {"note": "made by hand"})
    await proxy.log_metric(run_id, step=1)
    await proxy.drained()

    (difference, *more) = (await proxy.differences(experiment, b))[1:]
    assert (run_id in difference, "absent" in difference, more) == (True, True, [])
    losses = (await proxy.admin.call("GET", f"/api/v1/losses?key=run:{run_id}")).json["losses"]
    assert {"createRun: made by hand"} <= {loss["detail"] for loss in losses}
    assert {loss["reason"] for loss in losses} == {"discarded"}
    assert (await proxy.backend())["losses"] == sum(loss["times"] for loss in losses) >= 2
    assert (await proxy.backend())["backlog"] == 0


async def test_an_unmirrored_write_is_counted(proxy: Running) -> None:
    """A tracking write that this release does not mirror reaches the primary, and is counted as a loss."""
    experiment = await proxy.create_experiment()
    body = {"name": unique("d"), "experiment_ids": [experiment]}
    reply = await proxy.call("POST", "/api/3.0/mlflow/datasets/create", body)

    assert (reply.status, reply.headers["X-Dualtrack"]) == (200, "primary-only")
    assert await proxy.metric("lossy_total", backend="b", kind="unmirrored_route") == 1


async def test_an_unknown_route_is_counted(proxy: Running) -> None:
    reply = await proxy.call("POST", "/api/9.0/mlflow/future/create", {})

    assert (reply.status, reply.headers["X-Dualtrack"]) == (404, "primary-only")
    assert await proxy.metric("unknown_route_total") == 1


# --- by command -----------------------------------------------------------------------------------------------------


async def command(proxy: Running, *arguments: str) -> tuple[int, str]:
    """Run `dualtrack` in a process of its own, as an operator does."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "dualtrack", *arguments, "--admin-url", proxy.admin.url),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=Path(__file__).parents[2],
        env=clean_environment(DUALTRACK_ADMIN_TOKEN=SECRETS["TOKEN_ADMIN"], COLUMNS="200"),
    )
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


async def test_an_operator_does_all_of_it_by_command(launch: Launcher, a: Workspace, b: Workspace, pick: Picky) -> None:
    proxy = await start(launch, a, pick)
    experiment = await proxy.create_experiment()
    run_id = await proxy.create_run(experiment)
    for name in ("one", "two"):
        await proxy.set_tag(run_id, f"{POISON}-{name}", "1")
    await proxy.drained()
    second, first = [str(letter["id"]) for letter in await parked(proxy)]

    code, listed = await command(proxy, "parked", "list")
    assert (code, POISON in listed or run_id[:8] in listed) == (1, True)
    code, told = await command(proxy, "parked", "show", first)
    assert (code, f"{POISON}-one" in told, "logBatch" in told) == (0, True, True)
    code, drained = await command(proxy, "drain", "--timeout", "2m")
    assert (code, "parked" in drained) == (1, True)
    assert (await command(proxy, "parked", "discard", second, "--note", "not needed"))[0] == 0
    pick.is_picky = False
    assert (await command(proxy, "parked", "retry", first))[0] == 0
    assert await command(proxy, "drain", "--timeout", "2m") == (0, "drained: nothing is left\n")
    assert await command(proxy, "parked", "list") == (0, "nothing is parked\n")
    (difference,) = (await proxy.differences(experiment, b))[1:]
    assert f"{POISON}-two" in difference


async def test_nobody_without_the_admin_token_retries_or_discards(
    launch: Launcher, a: Workspace, b: Workspace, pick: Picky
) -> None:
    proxy = await start(launch, a, pick)
    run_id = await proxy.create_run(await proxy.create_experiment())
    await proxy.set_tag(run_id, POISON, "1")
    await proxy.drained()
    (letter,) = await parked(proxy)
    stranger = Client(proxy.admin.url, launch.session)
    path = f"/api/v1/parked/{letter['id']}"
    replies = [
        await stranger.call("POST", f"{path}/retry", {}),
        await stranger.call("POST", f"{path}/discard", {"note": "x"}, Authorization="Bearer wrong"),
        await proxy.admin.call("POST", f"{path}/retry", {}, Origin="http://evil.example"),
        await proxy.admin.call("POST", f"{path}/retry", {}, Host="evil.example"),
    ]

    assert [reply.status for reply in replies] == [401, 401, 403, 403]
    assert await parked(proxy) == [letter]


async def test_a_403_for_the_whole_backend_is_no_reason_to_drop_anything(proxy: Running, b: Workspace) -> None:
    """Rights that are missing for a while park creates, and a retry brings all of it."""
    await b.control.set_faults(Rule(path="runs/create", action=Refuse(status=403)))
    experiment = await proxy.create_experiment()
    await proxy.log_run(experiment)
    await proxy.drained()
    letters = await parked(proxy)
    await b.control.clear_faults()
    for letter in letters:
        await proxy.admin.call("POST", f"/api/v1/parked/{letter['id']}/retry", {})

    assert [letter["operation"] for letter in letters] == ["createRun"]
    assert await proxy.differences(experiment, b) == []
