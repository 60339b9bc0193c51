"""P5: after any storm of faults on both sides, once both are up, nothing differs between them.

Real clients in processes of their own and plain writers log hundreds of runs while the secondary fails in every way,
the primary in some, and the proxy is killed. Afterwards `dualtrack verify` has to find nothing, and both workspaces,
read without the proxy, have to agree: all that was acknowledged is there, and nothing is there twice.

All is drawn from a seed, which is printed: DUALTRACK_STORM_SEED repeats a storm, DUALTRACK_STORM_RUNS is its size.
"""

import asyncio
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from uuid import UUID

import orjson
import pytest
from aiohttp import ClientSession

from dualtrack.demo.compare import RUN_MARK, Side, Snapshot, compare, read
from dualtrack.demo.losses import read_losses
from dualtrack.demo.servers import MlflowServer
from tests.support.clients import PATIENT, Script
from tests.support.clouds import AZURE, DATABRICKS, SIGN_IN, Cloud, azureml, databricks, signing_in
from tests.support.flow import SECRETS, Json, Workspace, config_text, unique, workspace
from tests.support.ledger import Record, unkept
from tests.support.served import Served, serving
from tests.support.servers import shift_ids
from tests.support.weather import GUSTS, Weather
from tests.support.writer import Writer

SEED = int(os.environ.get("DUALTRACK_STORM_SEED") or random.SystemRandom().randrange(10**6))
RUNS = int(os.environ.get("DUALTRACK_STORM_RUNS") or 200)
SCRIPTS, WRITERS, KILLS = 2, 5, 5
# an attempt in a black hole ends by itself; what a slow server does in as long again is not done twice
QUICK_DEATH = {"delivery": {"attempt_timeout": "8s"}, "log": {"format": "json"}}
# a proxy that compares and repairs by itself all the time, in the middle of it, must double nothing; one that never
# does must need no repair
WATCHES: Json = {
    "clouds": {},
    "servers": {
        "on_end": True,
        "on_start": True,
        "on_parked": True,
        "settle": "100ms",
        "pause": "10ms",
        "sweep": "1s",
        "repair": True,
    },
}


# --- two sides ------------------------------------------------------------------------------------------------------


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[list[MlflowServer]]:
    """Of this storm alone: all that is on the primary is verified."""
    made = [MlflowServer(tmp_path / name).launch() for name in ("primary", "secondary")]
    try:
        for server in made:
            server.wait_ready()
        shift_ids(made[1])
        yield made
    finally:
        for server in made:
            server.stop()


@pytest.fixture(params=list(WATCHES))
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def sides(
    way: str,
    servers: list[MlflowServer],
    session: ClientSession,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> AsyncIterator[tuple[Workspace, Workspace]]:
    """Databricks and Azure ML, whose tokens end; or two plain servers, which both have logged models."""
    async with AsyncExitStack() as stack:
        if way == "servers":
            a, b = [
                await stack.enter_async_context(workspace(n, s, session)) for n, s in zip("ab", servers, strict=True)
            ]
            yield a, b
            return
        one = await stack.enter_async_context(databricks("a", servers[0], session, auth=SIGN_IN[DATABRICKS]))
        two = await stack.enter_async_context(azureml("b", servers[1], session, auth=SIGN_IN[AZURE]))
        signing_in(monkeypatch, tmp_path, two)
        yield one, two


def outside(side: Workspace) -> Side:
    """A side as its users see it, past the proxy."""
    kind = side.kind if isinstance(side, Cloud) else "mlflow"
    return Side(name=side.name, url=side.url, kind=kind, token=SECRETS[f"TOKEN_{side.name.upper()}"])


# --- the storm ------------------------------------------------------------------------------------------------------


class Storm:
    """Everybody at work at once, until so many runs are made and everything has gone wrong."""

    def __init__(self, served: Served, experiment: str, name: str, folder: Path) -> None:
        self._writers = [Writer(served, experiment, f"{SEED}.{number}") for number in range(WRITERS)]
        self._is_over = False
        each = RUNS // 5
        self._scripts = [
            Script("storm", served.url, folder / str(number), name, f"{SEED}-{number}", str(each), env=PATIENT)
            for number in range(SCRIPTS)
        ]
        self._of_scripts = each * SCRIPTS

    async def rage(self, weather: Weather) -> list[Record]:
        """Give all that was acknowledged."""
        try:
            async with asyncio.TaskGroup() as group:
                for writer in self._writers:
                    group.create_task(writer.write(lambda: self._is_over))
                await weather.blow(self._is_written)
                self._is_over = True
            told = [await asyncio.to_thread(script.finish, 300) for script in self._scripts]
        finally:
            for script in self._scripts:
                script.__exit__(None, None, None)
        return [record for each in told for record in each["runs"]] + [
            record for writer in self._writers for record in writer.made
        ]

    def _is_written(self) -> bool:
        return sum(len(writer.made) for writer in self._writers) + self._of_scripts >= RUNS


@pytest.mark.timeout(1200)
async def test_after_a_storm_nothing_differs(
    way: str, sides: tuple[Workspace, Workspace], tmp_path: Path, session: ClientSession
) -> None:
    a, b = sides
    print(f"DUALTRACK_STORM_SEED={SEED} DUALTRACK_STORM_RUNS={RUNS}")
    name = a.name_experiment() if isinstance(a, Cloud) else unique()
    async with serving(tmp_path, config_text(tmp_path, a, b, verify=WATCHES[way], **QUICK_DEATH), session) as served:
        experiment = await served.create_experiment(name)
        weather = Weather(served, a, b, random.Random(SEED), requests=RUNS * 6 // len(GUSTS), kills=KILLS)
        records = await Storm(served, experiment, name, tmp_path).rage(weather)
        print(dict(weather.felt))
        drained = await served.run("drain", "--timeout", "5m")
        assert drained.returncode == 0, drained.stdout + drained.stderr + (await served.run("parked", "list")).stdout
        verified = await served.run("verify", "--json")
        losses = await asyncio.to_thread(lambda: list(read_losses(served.admin.url, b.name)))

    *found, summary = [orjson.loads(line) for line in verified.stdout.splitlines()]
    unexplained = [each for one in found for each in one["differences"] if not each["explanation"]]
    assert (unexplained, summary["error"], verified.returncode) == ([], "", 0), verified.stderr
    assert sum(one["kind"] == "run" for one in found) >= len(records) >= RUNS
    ours, theirs = await asyncio.gather(*(asyncio.to_thread(read, outside(side), lambda _: True) for side in sides))
    assert unkept(records, ours) == []
    assert (str(compare(ours, theirs, experiment, losses)).splitlines()[1:]) == []
    assert await doubles(b, theirs, a) == ({}, Counter())


async def doubles(b: Workspace, theirs: Snapshot, a: Workspace) -> tuple[Json, Counter[tuple[str, ...]]]:
    """What the secondary was given twice: entities, and points that the primary was given fewer times.

    A client that repeats a write of which it has no answer gives the primary a point twice.
    """
    counted, sent = [await side.control.duplicates(examples=10**6) for side in (b, a)]
    of = {UUID(run.run_id).hex: run.tags[RUN_MARK] for run in theirs.runs if RUN_MARK in run.tags}
    points = Counter((of[UUID(run_id).hex], *rest) for run_id, *rest in counted["metric_point_examples"])
    made = {kind: counted[kind] for kind in ("runs", "experiments", "models") if counted[kind]}
    return made, points - Counter(tuple(each) for each in sent["metric_point_examples"])
