"""Real MLflow servers for tests, and a client for the emulators' own control routes."""

import re
import sqlite3
import ssl
import urllib.request
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any, Literal

import orjson
import pytest
from aiohttp import ClientSession, web

from dualtrack.demo.servers import MlflowServer
from dualtrack.emulators.faults import Rule, to_document
from dualtrack.emulators.tracking import Settings, make_app

SERVERS = ("mlflow_primary", "mlflow_secondary")
# By default a server closes what is idle for 5 s. One that stands still for some of them, on a busy machine, may
# find that time over before it reads the POST that came meanwhile, which is lost then.
_LASTING = ("UVICORN_TIMEOUT_KEEP_ALIVE", "120")


class ServerPair:
    """Two servers: launched at the first use, both at once when the tests that share them need both."""

    def __init__(self, root: Path, wanted: set[str]) -> None:
        self._servers = {name: MlflowServer(root / name) for name in SERVERS}
        self._wanted = wanted
        self._launched: set[str] = set()
        self._ready: set[str] = set()

    def get(self, name: str) -> MlflowServer:
        for missing in sorted((self._wanted | {name}) - self._launched):
            with pytest.MonkeyPatch.context() as patched:
                patched.setenv(*_LASTING)
                self._servers[missing].launch()
            self._launched.add(missing)
        server = self._servers[name]
        if name not in self._ready:
            server.wait_ready(timeout=250)  # one that is started on a busy machine took a minute
            self._ready.add(name)
            if name == "mlflow_secondary":
                shift_ids(server)
        return server

    def stop(self) -> None:
        for name in self._launched:
            self._servers[name].stop()


def server_fixtures(scope: Literal["session", "module"]) -> tuple[Any, Any, Any]:
    """Make the fixtures of these names: two servers, and each of them, for the tests of a scope."""

    @pytest.fixture(scope=scope)
    def mlflow_servers(
        request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
    ) -> Iterator[ServerPair]:
        wanted = _wanted_servers(request.session, request.path if scope == "module" else None)
        pair = ServerPair(tmp_path_factory.mktemp("mlflow"), wanted)
        yield pair
        pair.stop()

    @pytest.fixture(scope=scope)
    def mlflow_primary(mlflow_servers: ServerPair) -> MlflowServer:
        return mlflow_servers.get("mlflow_primary")

    @pytest.fixture(scope=scope)
    def mlflow_secondary(mlflow_servers: ServerPair) -> MlflowServer:
        """Its experiment ids differ from the primary's from the start."""
        return mlflow_servers.get("mlflow_secondary")

    return mlflow_servers, mlflow_primary, mlflow_secondary


def _wanted_servers(session: pytest.Session, module: Path | None) -> set[str]:
    """Give the servers that the collected tests of this session, or of one module of it, ask for."""
    items = [item for item in session.items if isinstance(item, pytest.Function) and module in (None, item.path)]
    asked = {name for item in items for name in item.fixturenames}
    return asked & set(SERVERS)


def shift_ids(server: MlflowServer) -> None:
    """Make one experiment with an id far away, so that none is the same on both sides by accident."""
    call(server.url, "experiments/create", {"name": "earlier-work"})
    with closing(sqlite3.connect(server.root / "mlflow.db", timeout=30)) as database, database:
        database.execute("UPDATE experiments SET experiment_id = 1000000 WHERE name = 'earlier-work'")


def call(base: str, path: str, body: dict[str, Any], token: str = "") -> dict[str, Any]:
    """POST to one MLflow endpoint, blocking; raises on an error status."""
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    request = urllib.request.Request(
        f"{base}/api/2.0/mlflow/{path}", data=orjson.dumps(body), headers=headers, method="POST"
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        document: dict[str, Any] = orjson.loads(answer.read() or b"{}")
        return document


@asynccontextmanager
async def emulating(settings: Settings, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Serve an emulator in this event loop, on a free loopback port; give its address."""
    runner = web.AppRunner(make_app(settings), shutdown_timeout=2)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        yield f"{'https://localhost' if tls else 'http://127.0.0.1'}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


class Control:
    """The `/__emulator__` routes of one emulator."""

    def __init__(self, url: str, session: ClientSession) -> None:
        self._url = f"{url}/__emulator__"
        self._session = session

    async def set_faults(self, *rules: Rule) -> None:
        async with self._session.post(f"{self._url}/faults", json=to_document(rules)) as answer:
            assert answer.status == 200, await answer.text()

    async def clear_faults(self) -> None:
        async with self._session.delete(f"{self._url}/faults") as answer:
            assert answer.status == 200

    async def log(self, since: int = 0, wait: float = 0) -> Sequence[dict[str, Any]]:
        params = {"since": str(since), "wait": str(wait)}
        async with self._session.get(f"{self._url}/log", params=params) as answer:
            seen: list[dict[str, Any]] = (await answer.json())["requests"]
            return seen

    async def arrived(self, path: str, *, since: int = 0, wait: float = 120) -> dict[str, Any]:
        """Wait until a request whose path matches has arrived (its answer may still be due); give its log entry."""
        while seen := await self.log(since, wait):
            for entry in seen:
                if re.search(path, entry["path"]):
                    return entry
            since = seen[-1]["number"]
        raise AssertionError(f"no request for {path} arrived within {wait} s")

    async def duplicates(self, examples: int = 20) -> dict[str, Any]:
        async with self._session.get(f"{self._url}/duplicates", params={"examples": examples}) as answer:
            counted: dict[str, Any] = await answer.json()
            return counted
