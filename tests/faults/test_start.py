"""P1 and P3 at the edges of a process's life: a start that cannot be says why in one line; a stop finishes its work.

A start fails with exit code 2, each problem with its fix, and never with a traceback. A dead secondary is no reason
not to start. SIGTERM ends in order, within its time, with exit code 0.
"""

import asyncio
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from aiohttp import ClientSession

from dualtrack.demo.servers import free_port
from dualtrack.emulators.faults import BlackHole, Delay, Rule
from tests.support.flow import PATIENCE, Workspace, config_text, differences
from tests.support.served import launch_serve, serving


async def fail(folder: Path, text: str) -> list[str]:
    """Start with this configuration; it has to end with code 2. Give the lines that it said."""
    path = folder / "broken.yaml"
    path.write_text(text)
    log_path = folder / "broken.log"
    process = launch_serve(path, log_path=log_path)
    code = await asyncio.to_thread(process.wait, PATIENCE)
    lines = log_path.read_text().splitlines()
    assert code == 2, lines
    assert not [line for line in lines if "Traceback" in line or "Error:" in line]
    return lines


@contextmanager
def taken() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", free_port()))
        listener.listen()
        yield int(listener.getsockname()[1])


async def test_all_problems_of_a_configuration_are_said_at_once(tmp_path: Path) -> None:
    lines = await fail(
        tmp_path,
        """
        primary: nobody
        backends:
          b: {url: "not a url", read_timeout: soon, colour: red}
        limits: {max_body: 3}
        """,
    )

    for where in ("primary", "registry", "backends.b.url", "backends.b.read_timeout", "backends.b.colour", "limits"):
        assert [line for line in lines if line.startswith(f"dualtrack: {where}")], (where, lines)


@pytest.mark.parametrize("listener", ["listen", "admin"])
async def test_a_port_that_is_taken(tmp_path: Path, a: Workspace, b: Workspace, listener: str) -> None:
    with taken() as port:
        lines = await fail(tmp_path, config_text(tmp_path, a, b, **{listener: {"port": port}}))

    said = [line for line in lines if line.startswith("dualtrack:")]
    assert len(said) == 1
    assert said[0].startswith(f"dualtrack: {listener}.port: cannot listen on 127.0.0.1:{port}")
    assert "choose another port" in said[0]


async def test_a_store_that_another_process_has(
    tmp_path: Path, session: ClientSession, a: Workspace, b: Workspace
) -> None:
    async with serving(tmp_path, config_text(tmp_path, a, b), session) as served:
        (line,) = await fail(tmp_path, config_text(tmp_path, a, b))
        pid = served.process.pid
        assert (await served.call("GET", "/version")).status == 200  # the first is not disturbed

    assert line.startswith("dualtrack: store.url:")
    assert f"in use by process {pid}" in line


@pytest.mark.parametrize("place", ["/proc/dualtrack", "file"])
async def test_a_store_where_nothing_can_be_written(tmp_path: Path, a: Workspace, b: Workspace, place: str) -> None:
    """Root may write nearly anywhere, so: a folder of the kernel's, and a file in the place of a folder."""
    (tmp_path / "file").write_text("")
    store = Path(place) if place.startswith("/") else tmp_path / place
    (line,) = await fail(tmp_path, config_text(tmp_path, a, b, store={"url": f"sqlite:///{store / 'journal.db'}"}))

    assert line.startswith("dualtrack: store.url: cannot write in")
    assert "Make the folder writable" in line


async def test_a_store_that_is_no_journal(tmp_path: Path, a: Workspace, b: Workspace) -> None:
    (tmp_path / "journal.db").write_bytes(b"something else entirely" * 500)
    (line,) = await fail(tmp_path, config_text(tmp_path, a, b))

    assert line.startswith("dualtrack: store.url: the journal")
    assert "move the file away" in line
    assert (tmp_path / "journal.db").read_bytes().startswith(b"something else")  # it may be precious


async def test_with_everything_down_it_is_ready_all_the_same(tmp_path: Path, session: ClientSession) -> None:
    """Neither the primary nor a secondary has to be there for a start."""
    backends = {name: {"url": f"http://127.0.0.1:{free_port()}"} for name in ("a", "b")}
    text = config_text(tmp_path, primary="a", registry="a", backends=backends)
    async with serving(tmp_path, text, session) as served:
        ready = await served.admin.call("GET", "/readyz")
        version = await served.call("GET", "/version")
        refused = await served.call("POST", "runs/create", {"experiment_id": "0"})

    assert (ready.status, version.status) == (200, 200)
    assert (refused.status, refused.code) == (503, "TEMPORARILY_UNAVAILABLE")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_finishes_what_is_under_way(
    tmp_path: Path, session: ClientSession, a: Workspace, b: Workspace, number: signal.Signals
) -> None:
    """A request that was accepted gets its answer, and its delivery is not cut off."""
    text = config_text(tmp_path, a, b, shutdown={"grace": "60s", "deliveries": "60s"})
    async with serving(tmp_path, text, session) as served:
        experiment = await served.create_experiment()
        await served.drained()
        seen = len(await a.control.log())
        await a.control.set_faults(Rule(path="runs/create", action=Delay(seconds=0.5)))
        asking = asyncio.get_running_loop().create_task(
            served.call("POST", "runs/create", {"experiment_id": experiment, "start_time": 5})
        )
        await a.control.arrived("runs/create", since=seen)
        os.kill(served.process.pid, number)
        reply = await asking
        code = await asyncio.to_thread(served.process.wait, PATIENCE)
        log = served.log_path.read_text()
        await served.start()
        await served.drained()

    assert (reply.status, reply.headers["X-Dualtrack"], code) == (200, "mirrored", 0)
    assert "Traceback" not in log
    assert await differences(a, b, experiment) == []


async def test_a_silent_secondary_does_not_hold_up_a_stop(
    tmp_path: Path, session: ClientSession, a: Workspace, b: Workspace
) -> None:
    """What is not delivered by the deadline stays in the journal, for the next start."""
    async with serving(tmp_path, config_text(tmp_path, a, b), session) as served:
        await b.control.set_faults(Rule(action=BlackHole()))
        experiment = await served.create_experiment()
        await served.log_run(experiment)
        await b.control.arrived("get-by-name")
        os.kill(served.process.pid, signal.SIGTERM)
        code = await asyncio.to_thread(served.process.wait, PATIENCE)
        log = served.log_path.read_text()
        await b.control.clear_faults()
        await served.start()
        await served.drained()

    assert (code, "Traceback" in log) == (0, False)
    assert await differences(a, b, experiment) == []
