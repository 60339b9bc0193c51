"""P1 for files: an acknowledged upload is on disk twice: `kill -9` at any instant, restart, and both sides agree.

What was in doubt when the process died is settled by asking the primary, and fetched from there if it was stored. What
was never whole is on neither side, and not in the spool either.
"""

import asyncio
import random
from pathlib import Path

import pytest
from aiohttp import ClientConnectionError, ClientSession

from dualtrack.emulators.faults import BlackHole, Refuse, Rule
from tests.support.files import behind, mirrored, put, run_root, target, tree
from tests.support.flow import PATIENCE, Workspace, config_text, connected, differences
from tests.support.picky import holding
from tests.support.served import Served, serving

KILLS = 5
CLIENTS = 3
MIB = 1024**2
ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts/*"


def spooled(folder: Path) -> list[str]:
    """What lies in the spool beside the journal, finished or on its way."""
    return [path.name for spool in folder.glob("*spool*") for path in spool.rglob("*") if path.is_file()]


async def spool_is_empty(served: Served, folder: Path) -> None:
    """Drain. A copy goes right after its last delivery was written down; one of what was in doubt, a sweep later."""
    await served.drained()
    async with asyncio.timeout(PATIENCE):
        while spooled(folder):  # noqa: ASYNC110 - another process's files: there is no event
            await asyncio.sleep(0.02)


async def put_until_taken(served: Served, root: str, path: str, content: bytes) -> None:
    reply = await served.repeated(lambda: put(served, root, path, content))
    assert reply.status == 200, reply.body


async def test_killed_at_random_instants_both_sides_have_all_files(
    tmp_path: Path, session: ClientSession, a: Workspace, b: Workspace
) -> None:
    """Files of all sizes, some of them replaced; a client repeats what was not answered."""
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    chance = random.Random(seed)
    over = asyncio.Event()
    acknowledged: dict[tuple[str, str], bytes] = {}

    async def upload(served: Served, run_id: str, root: str, mine: random.Random) -> None:
        number = 0
        while not over.is_set():
            path = f"{number % 4}/file {number % 7}.bin"
            content = mine.randbytes(mine.choice((0, 10, 50_000, 3 * MIB)))
            await put_until_taken(served, root, path, content)
            acknowledged[run_id, path] = content
            number += 1

    async with serving(tmp_path, config_text(tmp_path, a, b), session) as served:
        experiment = await served.create_experiment()
        runs = [await served.create_run(experiment) for _ in range(CLIENTS)]
        roots = {run_id: await run_root(served, run_id) for run_id in runs}  # asked once, so before the first kill
        async with asyncio.TaskGroup() as group:
            for run_id, root in roots.items():
                group.create_task(upload(served, run_id, root, random.Random(chance.random())))
            for _ in range(KILLS):
                files = len(acknowledged)
                await asyncio.sleep(chance.random())
                await served.restart()
                assert len(acknowledged) >= files
            over.set()
        await spool_is_empty(served, tmp_path)
        ours = {run_id: await tree(behind(a, served), root) for run_id, root in roots.items()}
        theirs = {run_id: await mirrored(b, served, run_id) for run_id in runs}

    assert ours == theirs
    assert {(run_id, path): ours[run_id].get(path) for run_id, path in acknowledged} == acknowledged
    assert await differences(a, b, experiment) == []


async def test_killed_in_the_middle_of_a_body(
    tmp_path: Path, session: ClientSession, a: Workspace, b: Workspace
) -> None:
    """It never was: no side has a file of that name, and the spool is empty again."""
    async with serving(tmp_path, config_text(tmp_path, a, b), session) as served:
        run_id = await served.create_run(await served.create_experiment())
        root = await run_root(served, run_id)
        head = f"PUT {target(root, 'cut.bin')} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {8 * MIB}\r\n\r\n"
        async with connected(served.url) as (_, writer):
            writer.write(head.encode() + b"x" * (4 * MIB))
            await writer.drain()
            async with asyncio.timeout(PATIENCE):
                while not spooled(tmp_path):  # noqa: ASYNC110 - another process's files: there is no event
                    await asyncio.sleep(0.01)
            await served.kill()
        await served.start()
        await put_until_taken(served, root, "next.bin", b"next")
        await spool_is_empty(served, tmp_path)
        status = await served.status()

        assert await tree(behind(a, served), root) == {"next.bin": b"next"}
        assert await mirrored(b, served, run_id) == {"next.bin": b"next"}
        assert status["open_entries"] == 0


@pytest.mark.parametrize("fault", [Refuse(status=503), BlackHole()], ids=["refused", "held"])
async def test_killed_before_and_during_the_delivery(
    tmp_path: Path, session: ClientSession, a: Workspace, b: Workspace, fault: Refuse | BlackHole
) -> None:
    """The copies outlive the process; the next one delivers them, in the run's order."""
    async with serving(tmp_path, config_text(tmp_path, a, b), session) as served:
        run_id = await served.create_run(await served.create_experiment())
        root = await run_root(served, run_id)
        await served.drained()
        await b.control.set_faults(Rule(method="PUT", path=ARTIFACTS, action=fault))
        for number in range(20):
            reply = await put(served, root, f"{number % 10}.bin", bytes([number]) * 100_000)
            assert (reply.status, reply.headers["X-Dualtrack"]) == (200, "mirrored")
        await b.control.arrived("mlflow-artifacts")
        await served.kill()
        assert len(spooled(tmp_path)) == 20
        await b.control.clear_faults()
        await served.start()
        await spool_is_empty(served, tmp_path)

        wanted = {f"{number % 10}.bin": bytes([number]) * 100_000 for number in range(10, 20)}
        assert await mirrored(b, served, run_id) == wanted


async def test_killed_between_the_primary_and_the_answer(
    tmp_path: Path, session: ClientSession, a: Workspace, b: Workspace
) -> None:
    """The primary stored a file, replaced one and deleted one, and nobody heard of it: so does the secondary."""
    async with holding(a.url) as between:
        text = config_text(tmp_path, a, b, backends={"a": {"url": between.url}})
        async with serving(tmp_path, text, session) as served:
            experiment = await served.create_experiment()
            runs = [await served.create_run(experiment) for _ in range(3)]
            roots = [await run_root(served, run_id) for run_id in runs]
            for root in roots:
                assert (await put(served, root, "old.bin", b"old")).status == 200
            await served.drained()
            between.hold("mlflow-artifacts")
            asking = [
                asyncio.get_running_loop().create_task(work)
                for work in (
                    put(served, roots[0], "new.bin", b"new" * 200_000),
                    put(served, roots[1], "old.bin", b"newer"),
                    served.call("DELETE", target(roots[2], "old.bin")),
                )
            ]
            for _ in asking:
                await between.held.get()
            await served.kill()
            between.release()
            for task in asking:
                with pytest.raises((ClientConnectionError, OSError)):
                    await task
            await served.start()
            await spool_is_empty(served, tmp_path)
            found = [await mirrored(b, served, run_id) for run_id in runs]

    assert found == [{"old.bin": b"old", "new.bin": b"new" * 200_000}, {"old.bin": b"newer"}, {}]
