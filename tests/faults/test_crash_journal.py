"""The main property: crash at any journal call, restart, drain: both sides agree.

Each case is a world of its own: two model servers, a client that trains, the real proxy, journal, settler, adopter and
workers in between. The process "dies" at the n-th call of the journal, once before the call takes effect and once
after: from then on no journal call of that process ever returns, its connections are cut and its tasks are cancelled.
(Hanging, rather than raising, because a process that is killed runs no `except` and sends nothing more.) A second
process opens the same file; the client repeats what was not answered, as MLflow's does; then everything is drained
and the servers are compared. n goes up until a world ends without meeting its n-th call.
"""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import aiohttp
import pytest
from aiohttp import web

from dualtrack.app import App
from dualtrack.clock import SystemClock
from dualtrack.config import Config
from dualtrack.lifespan import background
from dualtrack.metrics import Metrics
from dualtrack.proxy.server import BoundedServer
from dualtrack.store.sqlite import SqliteJournal
from tests.support.model_mlflow import API, ModelMlflow, Run

WRITES = frozenset({"open", "settle", "refuse", "mark_attempted", "record", "learn", "forget", "replace"})
READS = frozenset(
    {"start", "left_open", "opened", "claim", "next_due", "read", "is_pending", "twin", "client_ref", "named"}
)
MARK = "dualtrack.source_run_id"
SOURCE = "dualtrack.source"
AT_ONCE = 8  # worlds side by side: most of their time is waiting for disks and timers
SECONDS = 20.0  # a world that takes longer hangs; it takes a fraction of one


@dataclass
class Death:
    """When the first process dies: at call number `at` among `calls`, before or after it takes effect."""

    calls: frozenset[str]
    at: int
    is_after: bool
    seen: int = 0
    came: asyncio.Event = field(default_factory=asyncio.Event)
    where: str = ""

    def comes_now(self, name: str) -> bool:
        if name not in self.calls:
            return False
        self.seen += 1
        return self.seen == self.at

    def strike(self, name: str) -> None:
        self.where = name
        self.came.set()


class MortalJournal:
    """The real journal, until its process dies; then nothing of it answers any more. `moved` is set by every call."""

    def __init__(self, journal: SqliteJournal, death: Death | None) -> None:
        self._journal = journal
        self._death = death
        self.moved = asyncio.Event()
        self._grave: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def is_dead(self) -> bool:
        return self._death is not None and self._death.came.is_set()

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._journal, name)
        if name == "refuse":
            return self._refuse
        return self._mortal(name, real) if name in WRITES | READS else real

    def _mortal(self, name: str, real: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def call(*given: Any, **named: Any) -> Any:
            death = self._death
            if self.is_dead:
                await self._never()
            is_last = death is not None and death.comes_now(name)
            if is_last and death is not None and not death.is_after:
                death.strike(name)
                await self._never()
            result = await real(*given, **named)
            if is_last and death is not None:
                death.strike(name)
            if self.is_dead:  # it struck elsewhere while this call was under way
                await self._never()
            # whoever called goes on first, so who waits for `moved` sees what came of it
            asyncio.get_running_loop().call_soon(self.moved.set)
            return result

        return call

    async def _never(self) -> None:
        await asyncio.shield(self._grave)

    def bury(self) -> None:
        """End those who wait for a dead journal, and who will."""
        self._grave.cancel()

    def _refuse(self, entry_id: int) -> None:
        """Nobody waits for this one, so whoever called goes on; what it sends reaches nobody."""
        death = self._death
        if self.is_dead:
            return
        is_last = death is not None and death.comes_now("refuse")
        if not (is_last and death is not None and not death.is_after):
            self._journal.refuse(entry_id)
        if is_last and death is not None:
            death.strike("refuse")
        asyncio.get_running_loop().call_soon(self.moved.set)


class MortalApp(App):
    """The real composition, with a journal that can die."""

    def __init__(self, config: Config, death: Death | None) -> None:
        self._death = death
        super().__init__(config, Metrics(), SystemClock())

    def _open_journal(self) -> SqliteJournal:
        return cast("SqliteJournal", MortalJournal(super()._open_journal(), self._death))


class Process:
    """One life of dualtrack: the loops and the listener of `App.serve`, and an end without goodbye."""

    def __init__(self, config: Config, death: Death | None) -> None:
        self._app = MortalApp(config, death)
        self._config = config
        assert self._app.journal is not None
        assert self._app.settler is not None
        self._journal = cast("MortalJournal", self._app.journal)
        self._settler = self._app.settler

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        """Recover, deliver and listen; give the address. On leaving, connections are cut and tasks cancelled."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._journal.close)
            for backend in self._app.backends.values():
                stack.push_async_callback(backend.close)
            # listening first, while nothing can die: a cancelled start of a listener would leak its socket
            limits = self._config.limits
            server = BoundedServer(
                self._app.make_proxy(),
                max_connections=limits.max_connections,
                max_headers=limits.max_headers,
                idle_timeout=limits.idle_timeout.total_seconds(),
            )
            runner = web.ServerRunner(server, shutdown_timeout=0.001)  # 0 would be for ever
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            await self._journal.start()
            await self._settler.recover()
            loops = await stack.enter_async_context(background())
            self._app._start_loops(loops)
            stack.callback(self._journal.bury)
            stack.callback(_cut, server)
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"

    async def drained(self) -> None:
        while True:
            self._journal.moved.clear()
            usage = await self._journal.usage()
            if usage.entries == 0 and self._settler.unsettled == 0:
                assert await self._journal.parked() == []
                assert await self._journal.losses() == []
                return
            await self._journal.moved.wait()


def _cut(server: BoundedServer) -> None:
    for connection in server.connections:
        if connection.transport is not None:
            connection.transport.abort()


class Client:
    """Repeats what was not answered, byte for byte, against whichever process is up, as MLflow's client does."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session
        self._url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.acknowledged: list[tuple[str, dict[str, Any]]] = []

    def found(self, url: str) -> None:
        self._url.set_result(url)

    def lost(self) -> None:
        if self._url.done():
            self._url = asyncio.get_running_loop().create_future()

    async def post(self, path: str, body: dict[str, Any], *, refused: str = "") -> dict[str, Any]:
        """Write until there is an answer; it has to be 200, or the refusal with the code `refused`."""
        status, answer = await self._ask("POST", path, body)
        if refused:
            assert (status, answer.get("error_code")) == (400, refused), answer
            return {}
        if status == 400 and answer.get("error_code") == "RESOURCE_ALREADY_EXISTS":
            _, found = await self._ask("GET", f"experiments/get-by-name?experiment_name={body['name']}", None)
            return {"experiment_id": found["experiment"]["experiment_id"]}
        if status == 404 and path == "runs/delete-tag":
            return {}  # the first time it was done and nobody heard
        assert status == 200, (path, status, answer)
        self.acknowledged.append((path, body))
        return answer

    async def _ask(self, method: str, path: str, body: dict[str, Any] | None) -> tuple[int, dict[str, Any]]:
        while True:
            known = self._url
            url = await asyncio.shield(known)
            try:
                async with self._session.request(method, f"{url}{API}{path}", json=body) as answer:
                    document: dict[str, Any] = await answer.json(content_type=None)
                    return answer.status, document
            except aiohttp.ClientError:
                if known is self._url:
                    await self._next_process()

    async def _next_process(self) -> None:
        self.lost()
        await asyncio.shield(self._url)


async def train(client: Client, old_run: str) -> None:
    """A nested training, a refused write, and a run that began before the proxy."""
    made = await client.post("experiments/create", {"name": "churn", "tags": [{"key": "team", "value": "x"}]})
    experiment_id = made["experiment_id"]
    parent = await _start(client, experiment_id, "parent", 1000)
    await client.post("runs/log-parameter", {"run_id": parent, "key": "depth", "value": "3"})
    await client.post(
        "runs/log-parameter", {"run_id": parent, "key": "depth", "value": "4"}, refused="INVALID_PARAMETER_VALUE"
    )
    child = await _start(client, experiment_id, "child", 2000, {"mlflow.parentRunId": parent})
    for step in range(2):
        metric = {"key": "loss", "value": 1.0 / (step + 1), "timestamp": 3000 + step, "step": step}
        await client.post("runs/log-metric", {"run_id": child, "run_uuid": child, **metric})
    metrics = [{"key": "auc", "value": 0.5, "timestamp": 4000, "step": step} for step in range(3)]
    tags = [{"key": "note", "value": "first"}, {"key": "gone", "value": "soon"}]
    await client.post(
        "runs/log-batch",
        {"run_id": child, "metrics": metrics, "params": [{"key": "p", "value": "1"}], "tags": tags},
    )
    await client.post("runs/delete-tag", {"run_id": child, "key": "gone"})
    await client.post("runs/set-tag", {"run_id": child, "key": "note", "value": "second"})
    dataset = {"name": "d", "digest": "1", "source_type": "local", "source": "{}"}
    await client.post("runs/log-inputs", {"run_id": child, "datasets": [{"tags": [], "dataset": dataset}]})
    await _finish(client, child, 5000)
    await client.post("experiments/set-experiment-tag", {"experiment_id": experiment_id, "key": "k", "value": "v"})
    await client.post("runs/log-metric", {"run_id": old_run, "key": "loss", "value": 9.0, "timestamp": 6000, "step": 9})
    await _finish(client, old_run, 7000)
    await _finish(client, parent, 8000)


async def _start(client: Client, experiment_id: str, name: str, at: int, tags: dict[str, str] | None = None) -> str:
    given = {"mlflow.runName": name, **(tags or {})}
    body = {
        "experiment_id": experiment_id,
        "user_id": "ann",
        "start_time": at,
        "run_name": name,
        "tags": [{"key": key, "value": value} for key, value in given.items()],
    }
    answer = await client.post("runs/create", body)
    return str(answer["run"]["info"]["run_id"])


async def _finish(client: Client, run_id: str, at: int) -> None:
    await client.post("runs/update", {"run_id": run_id, "status": "FINISHED", "end_time": at})


def began_before(primary: ModelMlflow) -> str:
    """A run that no proxy saw, with a history, in an experiment that no proxy saw."""
    made = primary._create_experiment({"name": "earlier", "tags": []})
    run = primary._create_run({**made, "user_id": "bob", "start_time": 10, "run_name": "old"})["run"]["info"]["run_id"]
    for step in range(3):
        primary._log(
            {"run_id": run}, "log-metric", metrics=[{"key": "loss", "value": 1, "timestamp": 20, "step": step}]
        )
    primary._log({"run_id": run}, "log-parameter", params=[{"key": "p", "value": "old"}])
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


async def live_and_die(folder: Path, death: Death) -> bool:
    """One world: train, die, restart, drain, compare. Say whether death came."""
    primary, secondary = ModelMlflow("a", 0), ModelMlflow("b", 100)
    old_run = began_before(primary)
    async with primary.serve() as a, secondary.serve() as b, aiohttp.ClientSession() as session:
        config = configuration(folder / "journal.db", a, b)
        client = Client(session)
        async with asyncio.TaskGroup() as group:
            training = group.create_task(train(client, old_run))
            life = group.create_task(_live(Process(config, death), client, training))
            dead = group.create_task(death.came.wait())
            await asyncio.wait({life, dead}, return_when=asyncio.FIRST_COMPLETED)
            has_died = death.came.is_set()
            client.lost()
            await _end(dead)
            if not has_died:
                await life
                return False
            await _end(life)
            await _live(Process(config, None), client, training)
    agree(primary, secondary)
    ends_last(secondary)
    return True


async def _live(process: Process, client: Client, training: asyncio.Task[None]) -> None:
    async with process.running() as url:
        client.found(url)
        await asyncio.shield(training)
        await process.drained()


async def _end(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def deaths(calls: frozenset[str], *, is_after: bool) -> Iterator[Death]:
    return (Death(calls, at, is_after) for at in itertools.count(1))


async def in_every_world(folder: Path, all_deaths: Iterator[Death]) -> list[str]:
    """Live all worlds, some at a time, until death does not come any more; give the calls that it came at."""
    struck: list[str] = []
    while True:
        some = list(itertools.islice(all_deaths, AT_ONCE))
        came = await asyncio.gather(*(_world(folder / f"{death.at}", death) for death in some))
        struck += [death.where for death in some if death.where]
        if not all(came):
            return struck


async def _world(folder: Path, death: Death) -> bool:
    try:
        async with asyncio.timeout(SECONDS):
            return await live_and_die(folder, death)
    except BaseException as error:
        when = "after" if death.is_after else "before"
        error.add_note(f"the process died {when} call {death.at}, which was {death.where or 'never met'}")
        raise


async def test_without_a_crash_both_sides_agree(tmp_path: Path) -> None:
    """The ground that the others stand on: the training itself, and what the comparison sees."""
    primary, secondary = ModelMlflow("a", 0), ModelMlflow("b", 100)
    old_run = began_before(primary)
    async with primary.serve() as a, secondary.serve() as b, aiohttp.ClientSession() as session:
        client = Client(session)
        async with asyncio.TaskGroup() as group:
            training = group.create_task(train(client, old_run))
            await _live(Process(configuration(tmp_path / "journal.db", a, b), None), client, training)

    agree(primary, secondary)
    ends_last(secondary)
    assert len(primary.runs) == 3
    assert {run.status for run in primary.runs.values()} == {"FINISHED"}


@pytest.mark.parametrize("is_after", [False, True], ids=["before", "after"])
async def test_a_crash_at_any_write_of_the_journal_is_made_good(tmp_path: Path, *, is_after: bool) -> None:
    struck = await in_every_world(tmp_path, deaths(WRITES, is_after=is_after))

    assert {"open", "settle", "refuse", "mark_attempted", "record", "replace"} <= set(struck)


async def test_a_crash_at_any_read_of_the_journal_is_made_good(tmp_path: Path) -> None:
    """A read changes nothing, so before and after are one; but between two reads a backend was called."""
    struck = await in_every_world(tmp_path, deaths(READS, is_after=False))

    assert {"start", "left_open", "claim", "next_due", "read", "twin"} <= set(struck)
