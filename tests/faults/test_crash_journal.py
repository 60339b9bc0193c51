"""The main property: crash at any call of the journal or of the spool, restart, drain: both sides agree.

Each case is a world of its own: two model servers, a client that trains, the real proxy, journal, spool, settler,
adopter and workers in between. The process "dies" at one call (see `tests/support/mortal.py`), once before the call
takes effect and once after. A second process opens the same files; the client repeats what was not answered, as
MLflow's does; then everything is drained and the servers are compared.

Calls are counted by their names, and for each name the number goes up until a world ends without meeting it. A number
among all calls would not do: their order is not the same in every world, so a rare call could be stepped over.
"""

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import quote

import aiohttp
import pytest

from dualtrack.config import Config
from tests.support.files import ROUTE, trickle
from tests.support.model_mlflow import API, ModelMlflow, Run
from tests.support.mortal import JOURNAL_READS, JOURNAL_WRITES, SPOOL, Death, Process, spooled

MARK = "dualtrack.source_run_id"
SOURCE = "dualtrack.source"
AT_ONCE = 8  # worlds side by side: most of their time is waiting for disks and timers
SECONDS = 60.0  # a world that takes longer hangs; it takes a fraction of one


class Client:
    """Repeats what was not answered, byte for byte, against whichever process is up, as MLflow's client does."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session
        self._url: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def found(self, url: str) -> None:
        self._url.set_result(url)

    def lost(self) -> None:
        if self._url.done():
            self._url = asyncio.get_running_loop().create_future()

    async def post(self, path: str, body: dict[str, Any], *, refused: str = "") -> dict[str, Any]:
        """Write until there is an answer; it has to be 200, or the refusal with the code `refused`."""
        status, answer = await self._ask("POST", API + path, lambda: {"json": body})
        if refused:
            assert (status, answer.get("error_code")) == (400, refused), answer
            return {}
        if status == 400 and answer.get("error_code") == "RESOURCE_ALREADY_EXISTS":
            found = await self.get(f"experiments/get-by-name?experiment_name={body['name']}")
            return {"experiment_id": found["experiment"]["experiment_id"]}
        if status == 404 and path == "runs/delete-tag":
            return {}  # the first time it was done and nobody heard
        assert status == 200, (path, status, answer)
        return answer

    async def get(self, path: str) -> dict[str, Any]:
        status, answer = await self._ask("GET", API + path, dict)
        assert status == 200, (path, status, answer)
        return answer

    async def put(self, root: str, path: str, *parts: bytes) -> None:
        """Upload a file; in several parts, it travels without a length."""
        body: Callable[[], Any] = (lambda: trickle(*parts)) if len(parts) > 1 else (lambda: parts[0])
        status, answer = await self._ask("PUT", _place(root, path), lambda: {"data": body()})
        assert status == 200, (path, status, answer)

    async def remove(self, root: str, path: str) -> None:
        status, answer = await self._ask("DELETE", _place(root, path), dict)
        assert status == 200, (path, status, answer)

    async def _ask(self, method: str, target: str, body: Callable[[], dict[str, Any]]) -> tuple[int, dict[str, Any]]:
        while True:
            known = self._url
            url = await asyncio.shield(known)
            try:
                async with self._session.request(method, url + target, **body()) as answer:
                    document: dict[str, Any] = await answer.json(content_type=None) or {}
                    return answer.status, document
            except aiohttp.ClientError:
                if known is self._url:
                    await self._next_process()

    async def _next_process(self) -> None:
        self.lost()
        await asyncio.shield(self._url)


def _place(root: str, path: str) -> str:
    return f"{ROUTE}/{quote(root.removeprefix('mlflow-artifacts:/'))}/{quote(path)}"


# --- what is trained --------------------------------------------------------------------------------------------------

Training: TypeAlias = Callable[[Client, str], Awaitable[None]]


async def train(client: Client, old_run: str) -> None:
    """A nested training with files, a refused write, and a run that began before the proxy."""
    made = await client.post("experiments/create", {"name": "churn", "tags": [{"key": "team", "value": "x"}]})
    experiment_id = made["experiment_id"]
    parent, parent_root = await _start(client, experiment_id, "parent", 1000)
    await client.put(parent_root, "config/params 1.json", b"{}")
    await client.post("runs/log-parameter", {"run_id": parent, "key": "depth", "value": "3"})
    await client.post(
        "runs/log-parameter", {"run_id": parent, "key": "depth", "value": "4"}, refused="INVALID_PARAMETER_VALUE"
    )
    child, child_root = await _start(client, experiment_id, "child", 2000, {"mlflow.parentRunId": parent})
    for step in range(2):
        metric = {"key": "loss", "value": 1.0 / (step + 1), "timestamp": 3000 + step, "step": step}
        await client.post("runs/log-metric", {"run_id": child, "run_uuid": child, **metric})
        await client.put(child_root, "notes.txt", f"after step {step}".encode())
    await client.put(child_root, "tmp/gone.bin", b"soon")
    metrics = [{"key": "auc", "value": 0.5, "timestamp": 4000, "step": step} for step in range(3)]
    tags = [{"key": "note", "value": "first"}, {"key": "gone", "value": "soon"}]
    await client.post(
        "runs/log-batch",
        {"run_id": child, "metrics": metrics, "params": [{"key": "p", "value": "1"}], "tags": tags},
    )
    await client.post("runs/delete-tag", {"run_id": child, "key": "gone"})
    await client.remove(child_root, "tmp")
    await client.post("runs/set-tag", {"run_id": child, "key": "note", "value": "second"})
    dataset = {"name": "d", "digest": "1", "source_type": "local", "source": "{}"}
    await client.post("runs/log-inputs", {"run_id": child, "datasets": [{"tags": [], "dataset": dataset}]})
    await _finish(client, child, 5000)
    await client.post("experiments/set-experiment-tag", {"experiment_id": experiment_id, "key": "k", "value": "v"})
    await client.put(await _root(client, old_run), "late.txt", b"late")
    await client.post("runs/log-metric", {"run_id": old_run, "key": "loss", "value": 9.0, "timestamp": 6000, "step": 9})
    await _finish(client, old_run, 7000)
    await _finish(client, parent, 8000)


async def keep_files(client: Client, old_run: str) -> None:
    """Files of all sorts, and little else: in one part and in several, empty, replaced, deleted, of an old run."""
    made = await client.post("experiments/create", {"name": "files"})
    run_id, root = await _start(client, made["experiment_id"], "files", 1000)
    await client.put(root, "parts.bin", b"1" * 40, b"2" * 40, b"3" * 40)
    await client.put(root, "a/one.txt", b"first")
    await client.put(root, "a/one.txt", b"second, longer than a block of the spool")
    await client.put(root, "empty", b"")
    await client.put(root, "b/two.txt", b"two")
    await client.remove(root, "b/two.txt")
    await _finish(client, run_id, 2000)
    await client.put(await _root(client, old_run), "late.txt", b"late")


async def _start(
    client: Client, experiment_id: str, name: str, at: int, tags: dict[str, str] | None = None
) -> tuple[str, str]:
    """Create a run; give its id and where its files go."""
    given = {"mlflow.runName": name, **(tags or {})}
    body = {
        "experiment_id": experiment_id,
        "user_id": "ann",
        "start_time": at,
        "run_name": name,
        "tags": [{"key": key, "value": value} for key, value in given.items()],
    }
    info = (await client.post("runs/create", body))["run"]["info"]
    return str(info["run_id"]), str(info["artifact_uri"])


async def _root(client: Client, run_id: str) -> str:
    return str((await client.get(f"runs/get?run_id={run_id}"))["run"]["info"]["artifact_uri"])


async def _finish(client: Client, run_id: str, at: int) -> None:
    await client.post("runs/update", {"run_id": run_id, "status": "FINISHED", "end_time": at})


def began_before(primary: ModelMlflow) -> str:
    """A run that no proxy saw, with a history and files, in an experiment that no proxy saw."""
    made = primary._create_experiment({"name": "earlier", "tags": []})
    run = primary._create_run({**made, "user_id": "bob", "start_time": 10, "run_name": "old"})["run"]["info"]["run_id"]
    for step in range(3):
        primary._log(
            {"run_id": run}, "log-metric", metrics=[{"key": "loss", "value": 1, "timestamp": 20, "step": step}]
        )
    primary._log({"run_id": run}, "log-parameter", params=[{"key": "p", "value": "old"}])
    primary.files |= {f"{made['experiment_id']}/{run}/artifacts/{path}": b"old" for path in ("old.txt", "more/old.txt")}
    return str(run)


def agree(primary: ModelMlflow, secondary: ModelMlflow) -> None:
    """Both sides hold the same, each thing once, under the secondary's own ids."""
    names = {experiment.experiment_id: experiment.name for experiment in primary.experiments.values()}
    names_there = {experiment.experiment_id: experiment.name for experiment in secondary.experiments.values()}
    assert sorted(names.values()) == sorted(names_there.values())
    for experiment in primary.experiments.values():
        (mirror,) = [each for each in secondary.experiments.values() if each.name == experiment.name]
        assert {**experiment.tags, "dualtrack.source_experiment_id": experiment.experiment_id, SOURCE: "a"} == (
            mirror.tags
        )
    marked = sorted(run.tags[MARK] for run in secondary.runs.values())
    assert marked == sorted(primary.runs), "each run of the primary has one mirror, and there are no others"
    there = {run.tags[MARK]: run.run_id for run in secondary.runs.values()}
    for run in primary.runs.values():
        mirror_run = secondary.runs[there[run.run_id]]
        assert names[run.experiment_id] == names_there[mirror_run.experiment_id]
        assert mirror_run.tags.pop(MARK) == run.run_id
        assert mirror_run.tags.pop(SOURCE) == "a"
        assert seen(mirror_run, {}) == seen(run, there)
        assert secondary.files_of(mirror_run) == primary.files_of(run)
    assert len(secondary.files) == len(primary.files)


def seen(run: Run, there: dict[str, str]) -> dict[str, Any]:
    """All that a reader sees of a run, with the primary's ids in the secondary's words."""
    tags = {key: there.get(value, value) for key, value in run.tags.items()}
    return {
        "name": run.name,
        "user": run.user,
        "times": (run.start_time, run.end_time),
        "status": (run.status, run.stage),
        "params": run.params,
        "tags": tags,
        "histories": {key: sorted(points) for key, points in run.metrics.items()},
        "inputs": sorted(run.datasets),
    }


def ends_last(server: ModelMlflow) -> None:
    """P4: the terminal status is the last that a finished run gets."""
    for run in server.runs.values():
        if run.status == "FINISHED":
            assert run.writes[-1] == "update", (run.name, run.writes)


def configuration(path: Path, primary: str, secondary: str) -> Config:
    """A proxy in a hurry: nothing lingers, a repeat waits for milliseconds."""
    return Config.model_validate(
        {
            "primary": "a",
            "registry": "a",
            "backends": {"a": {"url": primary}, "b": {"url": secondary}},
            "store": {"url": f"sqlite://{path}"},
            "delivery": {"linger": "0ms", "retry_min": "5ms", "retry_max": "50ms", "workers": 4},
            "breaker": {"failures": 1000},
            "shutdown": {"grace": "0s", "deliveries": "0s"},
        }
    )


# --- worlds -----------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class World:
    """Two servers, a client that trains, and where the processes keep their files."""

    folder: Path
    training: Training
    primary: ModelMlflow = field(default_factory=lambda: ModelMlflow("a", 0))
    secondary: ModelMlflow = field(default_factory=lambda: ModelMlflow("b", 100))

    async def live(self, death: Death) -> bool:
        """Train, die, restart, drain, compare. Say whether death came."""
        old_run = began_before(self.primary)
        self._leave_behind()
        async with self.primary.serve() as a, self.secondary.serve() as b, aiohttp.ClientSession() as session:
            config = configuration(self.folder / "journal.db", a, b)
            client = Client(session)
            async with asyncio.TaskGroup() as group:
                training = group.create_task(self._train(client, old_run))
                life = group.create_task(_live(Process(config, death), client, training))
                dead = group.create_task(_come(death))
                await asyncio.wait({life, dead}, return_when=asyncio.FIRST_COMPLETED)
                client.lost()
                await _end(dead)
                if not death.came.is_set():
                    await life
                else:
                    await _end(life)
                    await _live(Process(config, None), client, training)
        agree(self.primary, self.secondary)
        ends_last(self.secondary)
        assert spooled(config.spool_dir) == []
        return death.came.is_set()

    async def _train(self, client: Client, old_run: str) -> None:
        await self.training(client, old_run)

    def _leave_behind(self) -> None:
        """What an earlier crash left in the spool: a file that no entry needs, and one on its way."""
        incoming = configuration(self.folder / "journal.db", "http://a", "http://b").spool_dir / "incoming"
        incoming.mkdir(parents=True)
        for path in (incoming / ("0" * 32), incoming.parent / ("1" * 32)):
            path.write_bytes(b"left behind")


async def _live(process: Process, client: Client, training: asyncio.Task[None]) -> None:
    async with process.running() as url:
        client.found(url)
        await asyncio.shield(training)
        await process.drained()


async def _come(death: Death) -> None:
    await death.came.wait()


async def _end(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def in_every_world(folder: Path, training: Training, calls: frozenset[str], *, is_after: bool) -> Counter[str]:
    """Live all worlds, some at a time; give how often death came at which call."""
    numbers = {call: itertools.count(1) for call in sorted(calls)}
    met = Counter[str]()

    async def live_some() -> None:
        while numbers:
            call = next(iter(numbers))
            number = numbers[call] = numbers.pop(call)  # to the end: each has its turn
            death = Death(call, next(number), is_after)
            if await _world(folder / f"{call}-{death.at}", training, death):
                met[call] += 1
            else:
                numbers.pop(call, None)

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(live_some())
    return met


async def _world(folder: Path, training: Training, death: Death) -> bool:
    try:
        async with asyncio.timeout(SECONDS):
            return await World(folder=folder, training=training).live(death)
    except BaseException as error:
        error.add_note(f"the process died {death}; left in the spool: {spooled(folder)}")
        raise


async def test_without_a_crash_both_sides_agree(tmp_path: Path) -> None:
    """The ground that the others stand on: the training itself, and what the comparison sees."""
    world = World(folder=tmp_path, training=train)
    has_died = await world.live(Death("none", 1, is_after=False))

    primary = world.primary
    assert not has_died
    assert len(primary.runs) == 3
    assert {run.status for run in primary.runs.values()} == {"FINISHED"}
    assert {path.split("/artifacts/")[1]: content for path, content in primary.files.items()} == {
        "config/params 1.json": b"{}",
        "notes.txt": b"after step 1",
        "old.txt": b"old",
        "more/old.txt": b"old",
        "late.txt": b"late",
    }


@pytest.mark.parametrize("is_after", [False, True], ids=["before", "after"])
async def test_a_crash_at_any_write_of_the_journal_is_made_good(tmp_path: Path, *, is_after: bool) -> None:
    met = await in_every_world(tmp_path, train, JOURNAL_WRITES, is_after=is_after)

    print(met)
    assert set(met) == JOURNAL_WRITES - {"forget"}  # nothing goes from the secondary here
    assert met["replace"] >= 2, "the old run and its experiment are brought over"


async def test_a_crash_at_any_read_of_the_journal_is_made_good(tmp_path: Path) -> None:
    """A read changes nothing, so before and after are one; but between two reads a backend was called."""
    met = await in_every_world(tmp_path, train, JOURNAL_READS, is_after=False)

    print(met)
    assert {"start", "left_open", "spooled", "claim", "next_due", "read", "twin", "rooted", "is_spooled"} <= set(met)


@pytest.mark.parametrize("is_after", [False, True], ids=["before", "after"])
async def test_a_crash_at_any_call_of_the_spool_is_made_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_after: bool
) -> None:
    """Files are the same on both sides, and nothing is left in the spool, neither finished nor on its way."""
    monkeypatch.setattr("dualtrack.store.spool._BLOCK", 16)  # so that a part of a file reaches the disk
    met = await in_every_world(tmp_path, keep_files, SPOOL, is_after=is_after)

    print(met)
    assert set(met) >= SPOOL - {"spool.abandon"}
