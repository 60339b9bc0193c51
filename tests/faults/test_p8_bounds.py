"""P8: memory stays flat whatever the backlog; disk use stays under its bound, and the configuration says what then.

`refuse` tells the client, so that it waits; `primary-only` goes on and counts what the secondaries miss. Neither ends
by itself in anything but the normal state, once there is room again.
"""

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiohttp import ClientSession, web

from dualtrack.demo.servers import free_port
from dualtrack.emulators.faults import BlackHole, Rule
from tests.support.files import behind, listing, run_root, target
from tests.support.flow import PATIENCE, Json, Launcher, Reply, Running, Workspace, config_text, differences
from tests.support.served import serving

MIB = 1024**2
VALUE = "x" * 5000  # an MLflow server keeps a tag of this length whole
BACKLOG_MIB = 100
RSS_MIB = 150


def batch(run_id: str, number: int) -> Json:
    """Make a write of 50 kB."""
    return {"run_id": run_id, "tags": [{"key": f"t{number}.{place}", "value": VALUE} for place in range(10)]}


async def fill(proxy: Running, run_id: str, bound: int = 200) -> tuple[Reply, int]:
    """Write until an answer is not `mirrored`; give it, and how many were."""
    for number in range(bound):
        reply = await proxy.call("POST", "runs/log-batch", batch(run_id, number))
        if reply.headers["X-Dualtrack"] != "mirrored":
            return reply, number
    raise AssertionError("the journal is never full")


async def test_a_full_journal_refuses_and_tells_the_client(launch: Launcher, a: Workspace, b: Workspace) -> None:
    """503, so that the client waits and repeats; the primary never sees what could not be kept."""
    proxy = await launch(a, b, store={"max_size": "1MiB"})
    experiment = await proxy.create_experiment()
    run_id = await proxy.create_run(experiment)
    await proxy.drained()
    await b.control.set_faults(Rule(action=BlackHole()))
    reply, kept = await fill(proxy, run_id)
    ready = await proxy.admin.call("GET", "/readyz")
    used = (await proxy.status())["journal"]["used_bytes"]

    assert (reply.status, reply.code) == (503, "TEMPORARILY_UNAVAILABLE")
    assert "journal" in reply.json["message"]
    assert "store.on_full" in reply.json["message"]
    assert int(reply.headers["Retry-After"]) >= 1
    assert len(await a.writes("log-batch")) == kept >= 5
    assert (ready.status, ready.json["reason"]) == (503, "the journal is full")
    assert used <= 1.1 * MIB
    assert (await proxy.call("GET", f"runs/get?run_id={run_id}")).status == 200  # reads go on

    await b.control.clear_faults()
    await proxy.drained()
    assert (await proxy.admin.call("GET", "/readyz")).status == 200
    assert (await proxy.call("POST", "runs/log-batch", batch(run_id, kept))).headers["X-Dualtrack"] == "mirrored"
    assert await proxy.differences(experiment, b) == []


async def test_a_full_journal_passes_to_the_primary_alone_if_told_so(
    launch: Launcher, a: Workspace, b: Workspace
) -> None:
    proxy = await launch(a, b, store={"max_size": "1MiB", "on_full": "primary-only"})
    experiment = await proxy.create_experiment()
    run_id = await proxy.create_run(experiment)
    await proxy.drained()
    await b.control.set_faults(Rule(action=BlackHole()))
    reply, kept = await fill(proxy, run_id)
    missed = await proxy.create_run(experiment)  # made while nothing can be kept
    ready = await proxy.admin.call("GET", "/readyz")

    assert (reply.status, reply.headers["X-Dualtrack"], ready.status) == (200, "primary-only", 200)
    assert len(await a.writes("log-batch")) == kept + 1
    assert await proxy.metric("lossy_total", backend="b", kind="journal_full") == 2

    await b.control.clear_faults()
    await proxy.drained()
    await proxy.log_metric(missed)  # known to nobody there: brought over whole
    fresh = await proxy.log_run(experiment)
    lines = (await proxy.differences(experiment, b))[1:]
    assert len(lines) == 10  # the ten tags of the one write that was counted
    assert all(f"t{kept}." in line and run_id in line for line in lines)
    assert not [line for line in lines if fresh in line or missed in line]


async def test_a_refusal_by_the_primary_gives_its_room_back(launch: Launcher, a: Workspace, b: Workspace) -> None:
    """Writes that the primary refuses do not fill the journal, however many there are."""
    proxy = await launch(a, b, store={"max_size": "1MiB"})
    replies = [await proxy.call("POST", "runs/log-batch", batch("0" * 32, number)) for number in range(60)]

    assert {reply.status for reply in replies} == {404}
    assert (await proxy.status())["journal"]["used_bytes"] < MIB // 2


# --- a real full disk -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Disk:
    """A file system in memory, of a size of its own."""

    folder: Path

    def mount(self, options: str) -> None:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.folder)]
        done = subprocess.run(command, capture_output=True, check=False, text=True)
        if done.returncode:
            pytest.skip(f"no file system of its own here: {done.stderr.strip()}")

    def grow(self) -> None:
        """Make room, as an operator does."""
        self.mount("remount,size=32m")


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Disk]:
    """A disk of 3 MiB."""
    disk = Disk(tmp_path / "tiny")
    disk.folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root may mount a file system")
    disk.mount("size=3m")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk.folder)], check=True)


@pytest.mark.parametrize(("policy", "grows"), [("refuse", True), ("primary-only", True), ("refuse", False)])
async def test_a_full_disk_is_met_like_the_bound(
    tmp_path: Path, session: ClientSession, a: Workspace, b: Workspace, tiny_disk: Disk, policy: str, *, grows: bool
) -> None:
    """The bound is higher than the disk allows: what was acknowledged is kept, and delivered all the same.

    Nobody has to make room for that: the journal has kept some.
    """
    await b.control.set_faults(Rule(action=BlackHole()))
    text = config_text(tiny_disk.folder, a, b, store={"on_full": policy})
    async with serving(tmp_path, text, session) as served:
        experiment = await served.create_experiment()
        run_id = await served.create_run(experiment)
        kept = 0
        while (reply := await served.call("POST", "runs/log-batch", batch(run_id, kept))).headers[
            "X-Dualtrack"
        ] == "mirrored":
            kept += 1
        ready = await served.admin.call("GET", "/readyz")
        metrics = (await served.admin.call("GET", "/metrics")).body.decode()
        await b.control.clear_faults()
        if grows:
            tiny_disk.grow()
        await served.drained()
        if grows:
            await served.log_run(experiment)
            await served.drained()
            assert (await served.admin.call("GET", "/readyz")).status == 200

    lines = (await differences(a, b, experiment))[1:]
    assert kept > 10
    if policy == "refuse":
        assert (reply.status, reply.code, ready.status) == (503, "TEMPORARILY_UNAVAILABLE", 503)
        assert "full" in reply.json["message"]
        assert lines == []
    else:
        assert (reply.status, reply.headers["X-Dualtrack"], ready.status) == (200, "primary-only", 200)
        assert 'dualtrack_lossy_total{backend="b",kind="journal_full"} 1.0' in metrics
        assert len(lines) in {0, 10}  # what met the end after it was opened is settled when there is room
        assert all(f"t{kept}." in line for line in lines)


# --- memory ---------------------------------------------------------------------------------------------------------


async def take(request: web.BaseRequest) -> web.Response:
    """Answer like a primary that keeps nothing: fast enough to fill a journal."""
    await request.read()
    return web.json_response({"run": {"info": {"run_id": "r", "experiment_id": "0"}}})


@asynccontextmanager
async def null_server() -> AsyncIterator[str]:
    runner = web.ServerRunner(web.Server(take, access_log=None), shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_memory_stays_flat_with_a_backlog(tmp_path: Path, session: ClientSession) -> None:
    """100 MiB wait for a secondary that refuses; also after a restart, which reads the journal anew."""
    async with null_server() as primary:
        backends = {"a": {"url": primary}, "b": {"url": f"http://127.0.0.1:{free_port()}"}}
        text = config_text(tmp_path, primary="a", registry="a", backends=backends)
        async with serving(tmp_path, text, session) as served:
            idle = served.rss_mib()
            metrics = [{"key": "m" * 200, "value": n, "timestamp": n, "step": n} for n in range(900)]
            for number in range(BACKLOG_MIB * MIB // 220_000):
                run_id = f"{number % 50:032x}"
                await served.post("runs/log-batch", run_id=run_id, metrics=metrics)
            status = await served.status()
            filled = served.rss_mib()
            await served.restart()
            restarted = served.rss_mib()

    stored = status["journal"]["used_bytes"] / MIB
    print(f"idle {idle:.0f}, filled {filled:.0f}, restarted {restarted:.0f} MiB; journal {stored:.0f} MiB")
    assert stored > BACKLOG_MIB * 0.9
    assert max(idle, filled, restarted) < RSS_MIB


FILE_MIB = 24
UPLOADS = 8
SPOOL_MIB = 100


async def test_memory_and_the_spool_stay_under_their_bounds(
    tmp_path: Path, session: ClientSession, a: Workspace, b: Workspace
) -> None:
    """Eight uploads at once, a secondary that takes none: what the spool cannot hold is refused, and passes later."""
    large = tmp_path / "large.bin"
    with large.open("wb") as file:
        file.writelines(os.urandom(MIB) for _ in range(FILE_MIB))
    text = config_text(tmp_path, a, b, spool={"max_size": f"{SPOOL_MIB}MiB", "on_full": "refuse"})
    async with serving(tmp_path, text, session) as served:
        experiment = await served.create_experiment()
        run_id = await served.create_run(experiment)
        root = await run_root(served, run_id)
        await served.drained()
        await b.control.set_faults(Rule(method="PUT", path="/api/2.0/mlflow-artifacts/*", action=BlackHole()))

        async def upload(number: int) -> Reply:
            with large.open("rb") as body:
                return await served.call("PUT", target(root, f"{number}.bin"), body)

        replies = await asyncio.gather(*map(upload, range(UPLOADS)))
        used = (await served.status())["spool_used_bytes"]
        stored = await listing(behind(a, served), root)
        peak = served.peak_mib()
        await b.control.clear_faults()
        await served.drained()
        async with asyncio.timeout(PATIENCE):  # a copy goes right after its last delivery was written down
            while (await served.status())["spool_used_bytes"]:  # noqa: ASYNC110 - another process's state
                await asyncio.sleep(0.02)
        refused = [number for number, reply in enumerate(replies) if reply.status != 200]
        again = [await upload(number) for number in refused]
        await served.drained()

    print(f"peak {peak:.0f} MiB; {len(refused)} of {UPLOADS} refused; {used / MIB:.0f} MiB in the spool")
    assert peak < RSS_MIB
    assert used <= SPOOL_MIB * MIB
    assert 1 <= len(refused) < UPLOADS
    for number in refused:
        assert (replies[number].status, replies[number].code) == (503, "TEMPORARILY_UNAVAILABLE")
        assert "spool.max_size" in replies[number].json["message"]
    assert sorted(item["path"] for item in stored) == [f"{n}.bin" for n in range(UPLOADS) if n not in refused]
    assert {reply.status for reply in again} == {200}
    assert await differences(a, b, experiment) == []
