"""P1 and P2 for backfill: killed at random instants and called again, it ends with both sides equal, nothing twice.

`DUALTRACK_BACKFILL_RUNS=2000` is the size of a real one (half an hour); `make bench` states the speed. Each run has 20
params and 200 points. Memory is no time, so its bound is asserted: of every process that there was, killed or not.
"""

import asyncio
import os
import random
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
import pytest
from aiohttp import ClientSession

from dualtrack.demo.servers import Process, clean_environment
from tests.support.flow import SECRETS, Client, Json, Workspace, config_text, differences
from tests.support.served import ROOT

RUNS = int(os.environ.get("DUALTRACK_BACKFILL_RUNS", "30"))
KILLS = 5
PARAMS, KEYS, STEPS = 20, 4, 50
MEMORY_MIB = 200
SECONDS = 120 + RUNS  # for one pass, and for logging what there is to bring, on a busy machine
PARENT = "mlflow.parentRunId"


class Command:
    """`dualtrack backfill` in processes of its own, one after the other on the same journal."""

    def __init__(self, folder: Path, text: str, experiment: str) -> None:
        self._config = folder / "dualtrack.yaml"
        self._config.write_text(text)
        self._log = folder / "backfill.log"
        self._experiment = experiment
        self.peak_mib = 0.0

    @asynccontextmanager
    async def launched(self) -> AsyncIterator[Process]:
        """Begin; the memory is watched meanwhile, as nobody else tells once it is over."""
        process = self._launch()
        watching = asyncio.get_running_loop().create_task(self._watch(process))
        try:
            yield process
        finally:
            await asyncio.to_thread(process.kill)
            await watching

    def _launch(self) -> Process:
        self._log.unlink(missing_ok=True)
        argv = [sys.executable, "-m", "dualtrack", "backfill", "--experiment", self._experiment, "--json"]
        environment = clean_environment(**SECRETS, PYTHONPATH=str(ROOT))
        return Process([*argv, "--config", str(self._config)], log_path=self._log, env=environment)

    async def finished(self) -> Json:
        """Let it come to its end; give what it printed."""
        async with self.launched() as process:
            code = await asyncio.to_thread(process.wait, SECONDS)
        assert code == 0, self._log.read_text()
        said = self._log.read_bytes()
        document: Json = orjson.loads(said[said.index(b"{\n") :])  # what was logged may precede it
        (outcome,) = document["backfills"]
        return dict(outcome)

    async def _watch(self, process: Process) -> None:
        while process.returncode is None:
            self.peak_mib = max(self.peak_mib, peak_mib(process.pid))
            await asyncio.sleep(0.05)


def peak_mib(pid: int) -> float:
    """The most memory that a process has had so far; nothing when it is over."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


async def log_old_runs(old: Client) -> str:
    """Log the work of a time before dualtrack; give its experiment."""
    experiment = await old.create_experiment()
    earlier = ""
    for number in range(RUNS):
        nested = [{"key": PARENT, "value": earlier}] if number % 4 == 1 else []
        run_id = await old.create_run(experiment, run_name=f"old {number}", start_time=1000 + number, tags=nested)
        params = [{"key": f"p{each}", "value": str(number)} for each in range(PARAMS)]
        points = [
            {"key": f"m{key}", "value": step / 7, "timestamp": 1000 + step, "step": step}
            for key in range(KEYS)
            for step in range(STEPS)
        ]
        await old.post("runs/log-batch", run_id=run_id, params=params, metrics=points)
        if number % 10 == 0:
            files = f"/api/2.0/mlflow-artifacts/artifacts/{experiment}/{run_id}/artifacts"
            assert (await old.call("PUT", f"{files}/model.bin", os.urandom(50_000))).status == 200
        await old.finish(run_id)
        earlier = run_id
    return experiment


@pytest.mark.timeout(6 * SECONDS)
async def test_killed_and_called_again_both_sides_are_equal(
    tmp_path: Path, session: ClientSession, a: Workspace, b: Workspace
) -> None:
    """Each kill comes at some number of requests that the secondary has had; the second pass writes nothing."""
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    chance = random.Random(seed)
    experiment = await log_old_runs(Client(a.side.url, session))
    command = Command(tmp_path, config_text(tmp_path, a, b), experiment)
    for _ in range(KILLS):
        async with command.launched() as process:
            await reach(b, process, chance.randrange(2, 2 * RUNS // KILLS))
            await asyncio.sleep(chance.random() / 100)
            assert process.returncode is None, "over before it was killed"

    last = await command.finished()
    seen = await latest(b)
    again = await command.finished()

    assert await differences(a, b, experiment) == []
    assert (last["found"], last["complete"]) == (RUNS, True)
    assert (again["found"], again["there"], again["complete"]) == (RUNS, RUNS, True)
    assert [entry for entry in await b.control.log(seen) if is_write(entry)] == []
    assert not any((await b.control.duplicates()).values()), await b.control.duplicates()
    print(f"at most {command.peak_mib:.0f} MiB")
    assert 0 < command.peak_mib < MEMORY_MIB


async def reach(b: Workspace, process: Process, requests: int) -> None:
    """Wait until the secondary has had so many more requests, or the command is over."""
    since = await latest(b)
    while process.returncode is None and requests > 0:
        seen = await b.control.log(since, 0.5)
        since, requests = (seen[-1]["number"] if seen else since), requests - len(seen)


async def latest(b: Workspace) -> int:
    """The number of the last request that the secondary has had."""
    seen = await b.control.log()
    return int(seen[-1]["number"]) if seen else 0


def is_write(entry: Json) -> bool:
    return entry["method"] != "GET" and not entry["path"].endswith("/search")
