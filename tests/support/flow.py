"""The real app in this event loop, on loopback ports, between two façades over real MLflow servers.

`tests/flow` and `tests/faults` share it: their `conftest.py` takes the fixtures from here. Waits are for conditions,
woken by the journal's own calls and bounded by a timeout; a test never waits for time.
"""

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias
from uuid import uuid4

import orjson
import pytest
from aiohttp import ClientSession, ClientTimeout, DummyCookieJar, web
from yarl import URL

from dualtrack.app import App
from dualtrack.cli.drain import remains
from dualtrack.clock import SystemClock
from dualtrack.config import Config, parse
from dualtrack.demo.compare import RUN_MARK, Side, compare, read
from dualtrack.demo.servers import MlflowServer, free_port
from dualtrack.emulators.tracking import Dialect, Plain, Settings, Site, make_app
from dualtrack.metrics import Metrics
from tests.support.servers import Control

Json: TypeAlias = dict[str, Any]

PATIENCE = 200.0  # seconds for what must come, however slow the machine; less than a test may take in all
API = "/api/2.0/mlflow/"
SECRETS = {"TOKEN_A": "a-secret-of-a", "TOKEN_B": "a-secret-of-b", "TOKEN_C": "a-secret-of-c", "TOKEN_ADMIN": "admin-s"}
# waits of the real thing, scaled down: nothing in a test is as slow as a network or a person
QUICK: Json = {
    "delivery": {"linger": "5ms", "retry_min": "20ms", "retry_max": "200ms"},
    "breaker": {"pause_min": "50ms", "pause_max": "200ms"},
    "shutdown": {"grace": "1s", "deliveries": "1s"},
    # many tests count calls: comparisons by itself have tests of their own
    "verify": {"on_end": False, "on_start": False, "on_parked": False, "sweep": "never"},
}


# --- upstreams ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """A façade over a real MLflow server: `url` for the proxy, `side` for reading past the façade."""

    name: str
    url: str
    side: Side
    control: Control

    @property
    def backend(self) -> Json:
        """Say how a configuration names this workspace."""
        return {"url": self.url, "auth": {"type": "token", "token": f"${{TOKEN_{self.name.upper()}}}"}}

    async def writes(self, path: str = "", *, accepted: bool = False) -> list[Json]:
        """Give the bodies of the writes that arrived so far, in order; of one path, or only those that were done."""
        log = await self.control.log()
        kept = (entry for entry in log if entry["method"] != "GET" and "search" not in entry["path"])
        done = (entry for entry in kept if not accepted or entry["status"] == 200)
        return [_body(entry) | {"_path": entry["path"]} for entry in done if entry["path"].endswith(path)]

    async def answered(self) -> int:
        """Count the requests that have an answer."""
        return sum(1 for entry in await self.control.log() if entry["status"] is not None)


def _body(entry: Mapping[str, Any]) -> Json:
    document = orjson.loads(entry["body"] or "{}")
    return document if isinstance(document, dict) else {}


@asynccontextmanager
async def workspace(
    name: str,
    server: MlflowServer,
    session: ClientSession,
    port: int = 0,
    dialect: Dialect | None = None,
    site: Site | None = None,
) -> AsyncIterator[Workspace]:
    """Serve a façade here; at `port` if one is given, as after a restart."""
    token = SECRETS[f"TOKEN_{name.upper()}"]
    settings = Settings(upstream=server.url, token=token, dialect=dialect or Plain(), site=site)
    runner = web.AppRunner(make_app(settings), shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield Workspace(name=name, url=url, side=Side(name=name, url=server.url), control=Control(url, session))
    finally:
        await runner.cleanup()


# --- the proxy ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def code(self) -> str:
        """The `error_code`, as MLflow clients read it."""
        return str(self.json["error_code"])


class Client:
    """A plain HTTP client of one address."""

    def __init__(self, url: str, session: ClientSession, **headers: str) -> None:
        self.url = url
        self._session = session
        self._headers = headers

    def authorize(self, value: str) -> None:
        """Send this Authorization from now on."""
        self._headers["Authorization"] = value

    async def call(self, method: str, path: str, body: Any = None, **headers: str) -> Reply:
        """Make one request; `body` is sent as JSON unless it is bytes or a file. `_` in header names is a dash."""
        data = body if isinstance(body, bytes | io.IOBase | None) else orjson.dumps(body)
        given = {"Content-Type": "application/json", **self._headers, **headers}
        named = {name.replace("_", "-"): value for name, value in given.items()}
        url = path if "://" in path else self.url + (path if path.startswith("/") else API + path)
        async with self._session.request(method, URL(url, encoded="%" in url), data=data, headers=named) as answer:
            return Reply(status=answer.status, headers=answer.headers.copy(), body=await answer.read())

    async def post(self, path: str, **body: Any) -> Json:
        """POST; the answer has to be 200."""
        reply = await self.call("POST", path, body)
        assert reply.status == 200, (path, reply.status, reply.body)
        document: Json = reply.json if reply.body else {}
        return document

    async def create_experiment(self, name: str = "") -> str:
        return str((await self.post("experiments/create", name=name or unique()))["experiment_id"])

    async def create_run(self, experiment_id: str, **fields: Any) -> str:
        answer = await self.post("runs/create", **{"experiment_id": experiment_id, "start_time": 1000, **fields})
        return str(answer["run"]["info"]["run_id"])

    async def log_metric(self, run_id: str, key: str = "loss", value: float = 0.5, step: int = 0) -> None:
        await self.post("runs/log-metric", run_id=run_id, key=key, value=value, timestamp=1000 + step, step=step)

    async def set_tag(self, run_id: str, key: str, value: str) -> None:
        await self.post("runs/set-tag", run_id=run_id, key=key, value=value)

    async def finish(self, run_id: str, status: str = "FINISHED") -> None:
        await self.post("runs/update", run_id=run_id, status=status, end_time=9000)

    async def log_run(self, experiment_id: str, points: int = 3) -> str:
        """Log one run of every kind of write that a plain script makes."""
        run_id = await self.create_run(experiment_id, run_name=unique())
        await self.post("runs/log-parameter", run_id=run_id, key="depth", value="3")
        for step in range(points):
            await self.log_metric(run_id, value=1.0 / (step + 1), step=step)
        await self.set_tag(run_id, "stage", "done")
        await self.finish(run_id)
        return run_id


@dataclass(kw_only=True)
class Running(Client):
    """A proxy that runs here. As a client it is what an MLflow client sees; `admin` is its admin listener."""

    app: App
    config: Config
    admin: Client
    primary: Workspace
    task: "asyncio.Task[None]"
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def until(self, holds: Callable[[], Awaitable[bool]], seconds: float = PATIENCE) -> None:
        """Wait until the condition holds; it is asked after each progress of the journal."""
        async with asyncio.timeout(seconds):
            while not await self._holds(holds):
                with contextlib.suppress(TimeoutError):
                    # what changes without the journal, such as a doubt that is refused, is seen a moment later
                    async with asyncio.timeout(0.02):
                        await self.changed.wait()

    async def _holds(self, holds: Callable[[], Awaitable[bool]]) -> bool:
        self.changed.clear()
        return await holds()

    async def status(self) -> Json:
        document: Json = (await self.admin.call("GET", "/api/v1/status")).json
        return document

    async def backend(self, name: str = "b") -> Json:
        """What the status says about one backend."""
        return next(item for item in (await self.status())["backends"] if item["name"] == name)

    async def metric(self, name: str, **labels: str) -> float:
        """Read one metric as a scraper does; 0 when it has not been counted yet."""
        await self.admin.call("GET", "/metrics")
        return self.app.metrics.registry.get_sample_value(f"dualtrack_{name}", labels) or 0.0

    async def drained(self, seconds: float = PATIENCE) -> None:
        """Wait until nothing is left, or all that is left waits for a parked entry."""

        async def is_drained() -> bool:
            left = remains(await self.status())
            return left.is_drained or left.is_stuck

        await self.until(is_drained, seconds)

    async def failing(self, words: str = "") -> None:
        """Wait until the status shows why something was not delivered, in these words."""

        async def is_shown() -> bool:
            shown = (await self.backend())["last_error"]
            return bool(shown) and words in shown

        await self.until(is_shown)

    async def differences(self, experiment_id: str, secondary: Workspace) -> list[str]:
        """Drain, then name what differs between an experiment and its mirror."""
        await self.drained()
        return await differences(self.primary, secondary, experiment_id)

    async def stop(self) -> None:
        self.app.stop()
        await self.task


async def differences(primary: Workspace, secondary: Workspace, experiment_id: str) -> list[str]:
    """Name what differs between an experiment and its mirror, read past the façades."""

    def look() -> list[str]:
        ours = read(primary.side, lambda run: run["experiment_id"] == experiment_id)
        ids = {run.run_id for run in ours.runs if run.experiment_id == experiment_id}
        theirs = read(secondary.side, lambda run: run["tags"].get(RUN_MARK) in ids)
        found = compare(ours, theirs, experiment_id)
        return [] if found.is_equal else str(found).splitlines()

    return await asyncio.to_thread(look)


def configure(folder: Path, *workspaces: Workspace, **changes: Any) -> Config:
    """Make a configuration of workspaces, the first of them the primary; `changes` are merged into its sections."""
    return parse(config_text(folder, *workspaces, **changes), SECRETS, folder)


def config_text(folder: Path, *workspaces: Workspace, **changes: Any) -> str:
    """Write what `configure` makes, for a file."""
    tree: Json = {
        "listen": {"port": free_port()},
        "admin": {"port": free_port(), "token": "${TOKEN_ADMIN}"},
        "primary": workspaces[0].name if workspaces else "",
        "registry": workspaces[0].name if workspaces else "",
        "backends": {each.name: each.backend for each in workspaces},
        "store": {"url": f"sqlite:///{folder / 'journal.db'}"},
        **QUICK,
    }
    return orjson.dumps(_merged(tree, changes)).decode()  # JSON is YAML


def _merged(tree: Json, changes: Mapping[str, Any]) -> Json:
    merged = dict(tree)
    for name, value in changes.items():
        old = merged.get(name)
        merged[name] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


class Launcher:
    """Starts proxies before workspaces: `await launch(a, b, limits={…})`. All of them stop with the test."""

    def __init__(self, folder: Path, session: ClientSession) -> None:
        self.folder = folder
        self.session = session
        self._started: list[Running] = []

    async def __call__(self, *workspaces: Workspace, **changes: Any) -> Running:
        return await self.launch(configure(self.folder, *workspaces, **changes), workspaces[0])

    async def launch(self, config: Config, primary: Workspace) -> Running:
        """Start a proxy and wait until it listens."""
        app = App(config, Metrics(), SystemClock())
        url, admin = (f"http://127.0.0.1:{port}" for port in (config.listen.port, config.admin.port))
        running = Running(
            app=app,
            config=config,
            admin=Client(admin, self.session, Authorization=f"Bearer {SECRETS['TOKEN_ADMIN']}"),
            primary=primary,
            task=asyncio.get_running_loop().create_task(app.serve(), name="serve"),
        )
        Client.__init__(running, url, self.session)
        self._started.append(running)
        if app.journal is not None:
            app.journal.on_due(lambda _: running.changed.set())

        async def is_up() -> bool:
            if running.task.done():
                await running.task
            return app.ready()[0]

        await running.until(is_up)
        return running

    async def close(self) -> None:
        for running in self._started:
            await running.stop()


# --- raw HTTP -------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Open a bare connection, for requests that no client library would send."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def raw(url: str, *parts: bytes) -> Reply:
    """Send bytes as they are and read one answer."""
    async with connected(url) as (reader, writer):
        for part in parts:
            writer.write(part)
        return await read_reply(reader)


async def read_reply(reader: asyncio.StreamReader, seconds: float = PATIENCE) -> Reply:
    async with asyncio.timeout(seconds):
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in head[1:] if line)
        headers = {name.strip().title(): value.strip() for name, _, value in pairs}
        return Reply(
            status=int(head[0].split(" ")[1]),
            headers=headers,
            body=await reader.readexactly(int(headers.get("Content-Length", "0"))),
        )


def request(method: str, path: str, *lines: str, body: bytes = b"") -> bytes:
    """Write a request by hand. Its length is added unless a header line says how the body travels."""
    text = "\n".join(lines).lower()
    framed = body and "content-length" not in text and "transfer-encoding" not in text
    host = () if "host:" in text else ("Host: 127.0.0.1",)
    length = (f"Content-Length: {len(body)}",) if framed else ()
    head = "\r\n".join([f"{method} {path} HTTP/1.1", *host, "Content-Type: application/json", *lines, *length, "", ""])
    return head.encode("latin-1") + body


def unique(prefix: str = "e") -> str:
    return f"{prefix}-{uuid4().hex}"


# --- fixtures -------------------------------------------------------------------------------------------------------


@pytest.fixture
async def session() -> AsyncIterator[ClientSession]:
    async with ClientSession(timeout=ClientTimeout(total=300), cookie_jar=DummyCookieJar()) as session:
        yield session


@pytest.fixture
async def a(mlflow_primary: MlflowServer, session: ClientSession) -> AsyncIterator[Workspace]:
    """The primary."""
    async with workspace("a", mlflow_primary, session) as made:
        yield made


@pytest.fixture
async def b(mlflow_secondary: MlflowServer, session: ClientSession) -> AsyncIterator[Workspace]:
    """The secondary; its ids differ from the primary's."""
    async with workspace("b", mlflow_secondary, session) as made:
        yield made


@pytest.fixture
async def launch(tmp_path: Path, session: ClientSession) -> AsyncIterator[Launcher]:
    launcher = Launcher(tmp_path, session)
    yield launcher
    await launcher.close()


@pytest.fixture
async def proxy(launch: Launcher, a: Workspace, b: Workspace) -> Running:
    """A proxy with everything as it is by default, before `a` and `b`."""
    return await launch(a, b)
