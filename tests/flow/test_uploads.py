"""Uploads that go wrong: nothing is left behind, nothing is lost, and both sides agree in the end."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import structlog

from dualtrack.demo.servers import free_port
from dualtrack.emulators.faults import BlackHole, DropAfter, DropBefore, Refuse, Rule
from dualtrack.errors import SpoolError
from tests.support.files import behind, mirrored, put, run_root, target, tree
from tests.support.flow import Launcher, Running, Workspace, connected, read_reply

MIB = 1024**2
PATH = "/api/2.0/mlflow-artifacts/artifacts/*"


def spooled(proxy: Running) -> list[str]:
    """What lies in the spool, finished or on its way."""
    folder = Path(proxy.config.spool_dir)
    return [path.name for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]


async def emptied(proxy: Running) -> None:
    """Drain; nothing of any upload is left here then."""
    await proxy.emptied()
    assert spooled(proxy) == []


async def began(proxy: Running) -> tuple[str, str]:
    run_id = await proxy.create_run(await proxy.create_experiment())
    return run_id, await run_root(proxy, run_id)


async def test_a_client_that_hangs_up_leaves_nothing(proxy: Running, b: Workspace) -> None:
    """In the middle of a body: no file on either side, none here, and the primary is not to blame."""
    run_id, root = await began(proxy)
    head = f"PUT {target(root, 'cut.bin')} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {4 * MIB}\r\n\r\n"
    async with connected(proxy.url) as (_, writer):
        writer.write(head.encode() + b"x" * MIB)
        await writer.drain()

        async def has_begun() -> bool:
            return bool(proxy.app.spool.used_bytes)

        await proxy.until(has_begun)

    async def is_over() -> bool:
        return not spooled(proxy) and (await proxy.status())["open_entries"] == 0

    await proxy.until(is_over)
    await emptied(proxy)

    assert await tree(behind(proxy.primary, proxy), root) == {}
    assert await mirrored(b, proxy, run_id) == {}
    assert (await proxy.backend("a"))["up"]


async def test_a_silent_client_is_told(launch: Launcher, a: Workspace, b: Workspace) -> None:
    proxy = await launch(a, b, limits={"body_timeout": "200ms"})
    _, root = await began(proxy)
    head = f"PUT {target(root, 'slow.bin')} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n"
    async with connected(proxy.url) as (reader, writer):
        writer.write(head.encode() + b"x")
        reply = await read_reply(reader)

    assert (reply.status, reply.code) == (408, "DEADLINE_EXCEEDED")
    assert await tree(behind(a, proxy), root) == {}


@pytest.mark.parametrize("fault", [Refuse(status=500), Refuse(status=503), DropBefore(), DropAfter()], ids=str)
async def test_a_primary_that_fails_is_asked_again(proxy: Running, b: Workspace, fault: Any) -> None:
    """Whether it kept the file or not, the secondary has what the primary has."""
    run_id, root = await began(proxy)
    await proxy.primary.control.set_faults(Rule(action=fault, method="PUT", nth=1))
    reply = await put(proxy, root, "a.txt", b"hello")
    await emptied(proxy)

    assert reply.status >= 500
    assert await mirrored(b, proxy, run_id) == await tree(behind(proxy.primary, proxy), root)

    again = await put(proxy, root, "a.txt", b"hello")
    await proxy.drained()

    assert again.status == 200
    assert await mirrored(b, proxy, run_id) == {"a.txt": b"hello"}


async def test_a_primary_that_refuses_is_quoted(proxy: Running, b: Workspace) -> None:
    run_id, root = await began(proxy)
    await proxy.primary.control.set_faults(Rule(action=Refuse(status=403), method="PUT"))
    reply = await put(proxy, root, "a.txt", b"hello")
    await emptied(proxy)

    assert (reply.status, reply.code) == (403, "PERMISSION_DENIED")
    assert await mirrored(b, proxy, run_id) == {}


@pytest.mark.parametrize("fault", [Refuse(status=503), DropBefore(), DropAfter()], ids=str)
async def test_a_secondary_in_trouble_gets_it_later(proxy: Running, b: Workspace, fault: Any) -> None:
    run_id, root = await began(proxy)
    await b.control.set_faults(Rule(action=fault, method="PUT", first=2))
    await put(proxy, root, "a.txt", b"hello")
    await proxy.finish(run_id)
    await emptied(proxy)

    assert await mirrored(b, proxy, run_id) == {"a.txt": b"hello"}


async def test_files_keep_their_place_in_the_run(proxy: Running, b: Workspace) -> None:
    """P4: the terminal status comes last, after every file."""
    run_id, root = await began(proxy)
    await put(proxy, root, "a.txt")
    await proxy.log_metric(run_id)
    await put(proxy, root, "b.txt")
    await proxy.finish(run_id)
    await proxy.drained()
    paths = [entry["path"].rpartition("/")[2] for entry in await b.control.log() if entry["method"] in {"PUT", "POST"}]

    assert [name for name in paths if name in {"a.txt", "b.txt", "log-batch", "update"}] == [
        "a.txt",
        "log-batch",
        "b.txt",
        "update",
    ]


async def test_what_a_secondary_refuses_is_parked_with_its_file(proxy: Running, b: Workspace) -> None:
    """And retried from the copy that was kept, once the cause is mended."""
    run_id, root = await began(proxy)
    await b.control.set_faults(Rule(action=Refuse(status=403), method="PUT"))
    await put(proxy, root, "a.txt", b"hello")
    await proxy.drained()
    letters = (await proxy.admin.call("GET", "/api/v1/parked")).json["parked"]

    assert [letter["operation"] for letter in letters] == ["uploadArtifact"]
    assert len(spooled(proxy)) == 1

    await b.control.clear_faults()
    await proxy.admin.call("POST", f"/api/v1/parked/{letters[0]['id']}/retry")
    await emptied(proxy)

    assert await mirrored(b, proxy, run_id) == {"a.txt": b"hello"}


async def test_a_lost_copy_is_fetched_from_the_primary(proxy: Running, b: Workspace) -> None:
    run_id, root = await began(proxy)
    await b.control.set_faults(Rule(action=BlackHole()))
    await put(proxy, root, "a.txt", b"hello")
    for name in spooled(proxy):
        await asyncio.to_thread(Path(proxy.app.spool.path(name)).unlink)
    await b.control.clear_faults()
    await proxy.drained()

    assert await mirrored(b, proxy, run_id) == {"a.txt": b"hello"}


async def test_many_at_once(proxy: Running, b: Workspace) -> None:
    run_id, root = await began(proxy)
    files = {f"part/{number}.bin": bytes([number]) * 100_000 for number in range(20)}
    await asyncio.gather(*(put(proxy, root, name, content) for name, content in files.items()))
    await proxy.drained()

    assert await mirrored(b, proxy, run_id) == files


# --- a full spool -----------------------------------------------------------------------------------------------------


async def test_a_full_spool_refuses_by_policy(launch: Launcher, a: Workspace, b: Workspace) -> None:
    """A clear 503 that says what is full; nothing reaches the primary. There is room again once it was delivered."""
    proxy = await launch(a, b, spool={"max_size": "1MiB", "on_full": "refuse"})
    run_id, root = await began(proxy)
    await b.control.set_faults(Rule(action=Refuse(status=503)))
    first = await put(proxy, root, "1.bin", b"1" * 700_000)
    second = await put(proxy, root, "2.bin", b"2" * 700_000)

    assert (first.status, second.status, second.code) == (200, 503, "TEMPORARILY_UNAVAILABLE")
    assert "spool.max_size" in second.json["message"]
    assert second.headers["Retry-After"]
    assert list(await tree(behind(a, proxy), root)) == ["1.bin"]

    await b.control.clear_faults()
    await emptied(proxy)
    third = await put(proxy, root, "2.bin", b"2" * 700_000)
    await proxy.drained()

    assert third.status == 200
    assert sorted(await mirrored(b, proxy, run_id)) == ["1.bin", "2.bin"]


async def test_a_full_spool_is_found_out_on_the_way(launch: Launcher, a: Workspace, b: Workspace) -> None:
    """A body that does not say how long it is: refused in its middle, and the primary keeps nothing of it."""
    proxy = await launch(a, b, spool={"max_size": "1MiB", "on_full": "refuse"})
    _, root = await began(proxy)

    async def body() -> Any:
        for _ in range(40):
            yield b"x" * 65536

    async with proxy._session.put(proxy.url + target(root, "big.bin"), data=body()) as answer:
        status = answer.status
    await emptied(proxy)

    assert status == 503
    assert await tree(behind(a, proxy), root) == {}


async def test_a_full_spool_goes_without_a_copy_by_default(launch: Launcher, a: Workspace, b: Workspace) -> None:
    """P3: a dead mirror holds up nobody; the file is fetched from the primary later."""
    proxy = await launch(a, b, spool={"max_size": "1MiB"})
    run_id, root = await began(proxy)
    await b.control.set_faults(Rule(action=Refuse(status=503)))
    contents = {f"{number}.bin": bytes([number]) * 700_000 for number in range(3)}
    replies = [await put(proxy, root, name, content) for name, content in contents.items()]

    # what a delivery fetches from the primary meanwhile is beyond the bound: copies alone are within it
    assert {reply.status for reply in replies} == {200}
    assert await proxy.metric("uploads_without_copy_total") == 2

    await b.control.clear_faults()
    await proxy.drained()

    assert await mirrored(b, proxy, run_id) == contents


async def test_a_file_that_is_nowhere_any_more_is_recorded(launch: Launcher, a: Workspace, b: Workspace) -> None:
    """P7: it was acknowledged, the spool had no room for a copy, and the primary lost it before it was fetched."""
    proxy = await launch(a, b, spool={"max_size": "1MiB"})
    run_id, root = await began(proxy)
    await b.control.set_faults(Rule(action=Refuse(status=503)))
    for name in ("kept.bin", "lost.bin", "deleted.bin"):
        assert (await put(proxy, root, name, b"x" * 700_000)).status == 200
    await proxy.failing()  # what is read from the primary by then is refused over there
    await proxy.call("DELETE", target(root, "deleted.bin"))
    await behind(a, proxy).call("DELETE", target(root, "lost.bin"))
    await b.control.clear_faults()
    await proxy.drained()

    assert list(await mirrored(b, proxy, run_id)) == ["kept.bin"]
    assert await proxy.metric("uploads_without_copy_total") == 2
    assert await proxy.metric("lossy_total", backend="b", kind="file_gone") == 1


async def test_a_sweep_that_fails_ends_nothing(proxy: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is only a clean-up: a spool that cannot be cleared is said in the log."""

    async def sweep(_: object) -> int:
        raise SpoolError("a file of the spool cannot be removed: read-only file system")

    assert proxy.app.journal is not None
    with structlog.testing.capture_logs() as logged:
        monkeypatch.setattr(proxy.app.spool, "sweep", sweep)
        await proxy.app._sweep_once(proxy.app.journal)

    assert [entry["event"] for entry in logged] == ["app.sweep"]


async def test_a_file_larger_than_the_spool_is_mirrored(launch: Launcher, a: Workspace, b: Workspace) -> None:
    proxy = await launch(a, b, spool={"max_size": "1MiB"})
    run_id, root = await began(proxy)
    reply = await put(proxy, root, "huge.bin", b"h" * (3 * MIB))
    await proxy.drained()

    assert reply.status == 200
    assert len((await mirrored(b, proxy, run_id))["huge.bin"]) == 3 * MIB


async def test_files_without_a_copy_come_one_per_worker(
    launch: Launcher, a: Workspace, b: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are sent side by side, and lie here beyond the spool's bound: not all of them at once."""
    proxy = await launch(a, b, spool={"max_size": "1MiB"}, delivery={"workers": 1})
    run_id, root = await began(proxy)
    await proxy.drained()
    spool, beside = proxy.app.spool, list[int]()
    begin = spool.begin

    def counted(size: int | None = None, *, transient: bool = False, is_bounded: bool = True) -> Any:
        file = begin(size, transient=transient, is_bounded=is_bounded)
        beside.append(len(spool._transient))
        return file

    monkeypatch.setattr(spool, "begin", counted)
    await b.control.set_faults(Rule(action=Refuse(status=503)))
    await proxy.log_metric(run_id)  # what is in trouble is this, so that the files behind it go side by side
    await put(proxy, root, "fills.bin", b"h" * 1_000_000)
    contents = {f"{number}/{name}": b"# %s" % (b"x" * 90_000) for number in range(6) for name in ("a.bin", "MLmodel")}
    for path, content in contents.items():
        assert (await put(proxy, root, path, content)).status == 200
    await b.control.clear_faults()
    await proxy.drained()

    assert await proxy.metric("uploads_without_copy_total") == len(contents)
    assert max(beside) == 2  # a file, and, if it is an MLmodel, what is sent in its place
    assert (await mirrored(b, proxy, run_id)).keys() == {"fills.bin", *contents}


async def test_a_restart_goes_on(launch: Launcher, a: Workspace, b: Workspace) -> None:
    """What was acknowledged is in the journal and the spool; what a crash left half written is cleared away."""
    proxy = await launch(a, b)
    run_id, root = await began(proxy)
    await b.control.set_faults(Rule(action=Refuse(status=503)))
    await put(proxy, root, "a.txt", b"hello")
    await proxy.stop()
    orphan, half = (Path(proxy.config.spool_dir) / name for name in ("0" * 32, "incoming/" + "1" * 32))
    for path in (orphan, half):
        path.write_bytes(b"x")
    await b.control.clear_faults()
    again = await launch(a, b, listen={"port": free_port()})
    await emptied(again)

    assert await mirrored(b, again, run_id) == {"a.txt": b"hello"}
    assert not orphan.exists()
    assert not half.exists()
