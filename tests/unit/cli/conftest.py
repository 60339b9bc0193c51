"""A real admin listener on a real journal, in a thread of its own, for commands that talk to a running proxy."""

import asyncio
import threading
import time
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
from aiohttp import web
from click.testing import CliRunner, Result

from dualtrack.admin.api import make_admin
from dualtrack.admin.status import BackendStatus, Status
from dualtrack.cli import main
from dualtrack.core.exchange import Exchange
from dualtrack.core.ids import ClientId, EntityKind, Ref
from dualtrack.metrics import Metrics
from dualtrack.ports import Parking, Progress, Settlement
from dualtrack.store.sqlite import SqliteJournal, open_journal

T = TypeVar("T")

TOKEN = "the-admin-token"
RUN = Ref(EntityKind.RUN, ClientId("run-of-a"))
CREATE = Exchange(
    operation="createRun", method="POST", path="/api/2.0/mlflow/runs/create", query="q=1", body=b'{"a":\n1}'
)


@dataclass
class RunningProxy:
    """The part of a running proxy that the command line sees. `changes` overrule what the secondary's row says."""

    journal: SqliteJournal
    loop: asyncio.AbstractEventLoop
    url: str = ""
    changes: dict[str, Any] = field(default_factory=dict)
    open_entries: int = 0
    is_ready: bool = True

    def ready(self) -> tuple[bool, str]:
        return self.is_ready, "ok" if self.is_ready else "the journal is full"

    async def status(self) -> Status:
        (backlog,) = await self.journal.backlogs()
        secondary = BackendStatus(
            name="b",
            kind="azureml",
            role="secondary",
            url="http://b.test",
            is_registry=False,
            up=False,
            breaker="open",
            last_error="HTTP 503 \x1b[31mtry later",
            entries=backlog.entries,
            lanes=backlog.lanes,
            held_lanes=backlog.held_lanes,
            parked=backlog.parked,
            losses=backlog.losses,
        )
        primary = BackendStatus(name="a", kind="mlflow", role="primary", url="http://a.test", is_registry=True, up=True)
        return Status(
            version="1.2.3",
            started_at=100.0,
            ready=self.is_ready,
            reason=self.ready()[1],
            primary="a",
            registry="a",
            backends=(primary, replace(secondary, **self.changes)),
            journal=await self.journal.usage(),
            open_entries=self.open_entries,
        )

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` in the proxy's own loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout=30)

    def queue(self, exchange: Exchange = CREATE) -> int:
        """Acknowledge one write; answer its seq."""

        async def work() -> int:
            entry_id = await self.journal.open(exchange)
            await self.journal.settle(Settlement(entry_id=entry_id, key=RUN.key))
            return self.journal.last_seq()

        return self.call(work())

    def park(self, *, holds: bool = True) -> int:
        """Park one write; answer its number."""
        seq = self.queue()
        parking = Parking(seq=seq, exchange=CREATE, reason="refused", cause="HTTP 400 no", holds=holds)
        self.call(self.journal.record(Progress(backend="b", key=RUN.key, done=(seq,), parkings=(parking,))))
        return self.call(self.journal.parked())[0].parked_id


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[RunningProxy]:
    """A running proxy with an admin token, in a thread that ends with the test."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    running, runner = asyncio.run_coroutine_threadsafe(_start(tmp_path), loop).result(timeout=30)
    yield running
    running.call(_stop(running, runner))
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


async def _start(folder: Path) -> tuple[RunningProxy, web.AppRunner]:
    journal = open_journal(folder / "journal.db", secondaries=["b"], max_bytes=1 << 24, linger=0.0, now=time.time)
    await journal.start()
    running = RunningProxy(journal, asyncio.get_running_loop())
    hosts = frozenset({"127.0.0.1"})
    app = make_admin(running, journal, Metrics(), token=TOKEN, allowed_hosts=hosts, now=time.time)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    running.url = "http://{}:{}".format(*runner.addresses[0])
    return running, runner


async def _stop(running: RunningProxy, runner: web.AppRunner) -> None:
    await runner.cleanup()
    await running.journal.close()


@dataclass(frozen=True)
class Shell:
    """Runs the command in `folder`, with the environment that the test gives and no other of ours."""

    folder: Path
    environment: dict[str, str | None]

    def __call__(self, *arguments: str, **environment: str) -> Result:
        return CliRunner().invoke(main, list(arguments), env={**self.environment, **environment})


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    folder = tmp_path / "shell"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return Shell(folder, {"DUALTRACK_CONFIG": None, "DUALTRACK_ADMIN_TOKEN": None})


@pytest.fixture
def config(shell: Shell, proxy: RunningProxy) -> Path:
    """A configuration whose admin listener is the running proxy's."""
    path = shell.folder / "proxy.yaml"
    (shell.folder / "token").write_text(TOKEN)
    path.write_text(configuration(int(proxy.url.rpartition(":")[2])))
    return path


def configuration(admin_port: int) -> str:
    return f"""
primary: a
registry: a
admin: {{port: {admin_port}, token_file: token}}
backends:
  a: {{url: "http://a.test"}}
  b: {{url: "http://b.test"}}
"""
