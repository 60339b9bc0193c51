"""The servers of the benchmark, each a context manager that yields it once it is ready."""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from bench.null_server import Mode
from bench.processes import SUBJECT_CORE, UPSTREAM_CORE, Process, free_port, refusing_port, running
from bench.settings import Settings
from bench.tracking import call, mirror_mark

MLFLOW_READY_SECONDS = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """A running dualtrack."""

    url: str
    admin: str
    process: Process

    def backlog(self) -> int:
        """How many entries are still to be delivered."""
        return _backlog(call(self.admin, "/api/v1/status"))


def _backlog(status: object) -> int:
    """The sum of every number called `backlog`, at whatever depth the status keeps them."""
    found = list(_numbers(status, "backlog"))
    if not found:
        raise ValueError(f"the status has no backlog: {status}")
    return sum(found)


def _numbers(value: object, name: str) -> Iterator[int]:
    match value:
        case dict():
            for key, inner in value.items():
                if key == name and isinstance(inner, int):
                    yield inner
                else:
                    yield from _numbers(inner, name)
        case list():
            for inner in value:
                yield from _numbers(inner, name)


def _url(port: int) -> str:
    return f"http://127.0.0.1:{port}"


@contextmanager
def null(settings: Settings, mode: Mode = Mode.HEALTHY) -> Iterator[str]:
    """A null upstream beside the load generator."""
    port = free_port()
    command = [sys.executable, "-m", "bench.null_server", "--port", str(port), "--mode", mode]
    log = settings.folder / "null.log"
    with running(command, core=UPSTREAM_CORE, ready=_url(port) + "/_null/stats", log=log):
        yield _url(port)


@contextmanager
def refusing() -> Iterator[str]:
    """The URL of an upstream that refuses every connection."""
    with refusing_port() as port:
        yield _url(port)


@contextmanager
def bare(settings: Settings, upstream: str, *, journal: bool) -> Iterator[str]:
    """A bare pass-through on the core under test, with or without a journal."""
    port = free_port()
    command = [sys.executable, "-m", "bench.bare", "--port", str(port), "--upstream", upstream]
    with tempfile.TemporaryDirectory(dir=settings.folder) as folder:
        if journal:
            command += ["--journal", str(Path(folder) / "journal.db")]
        log = settings.folder / "bare.log"
        with running(command, core=SUBJECT_CORE, ready=_url(port) + "/version", log=log):
            yield _url(port)


@contextmanager
def bare_files(settings: Settings, upstream: str) -> Iterator[str]:
    """A bare pass-through for files on the core under test, with a spool."""
    port = free_port()
    with tempfile.TemporaryDirectory(dir=settings.folder) as folder:
        command = [sys.executable, "-m", "bench.bare_files", "--port", str(port), "--upstream", upstream]
        command += ["--spool", folder]
        log = settings.folder / "bare-files.log"
        with running(command, core=SUBJECT_CORE, ready=_url(port) + "/version", log=log):
            yield _url(port)


@contextmanager
def dualtrack(
    settings: Settings,
    *,
    primary: str,
    mirror: str,
    folder: Path | None = None,
    spool: dict[str, object] | None = None,
    timeout: float = 60.0,
) -> Iterator[Proxy]:
    """The whole proxy on the core under test; its journal is new unless a folder is given."""
    with tempfile.TemporaryDirectory(dir=settings.folder) as fresh:
        where = folder or Path(fresh)
        url, admin = _url(free_port()), _url(free_port())
        config = where / "dualtrack.yaml"
        settled = _config(url, admin, primary, mirror, where) | ({"spool": spool} if spool else {})
        config.write_text(yaml.safe_dump(settled))
        command = [*settings.serve, "serve", "--config", str(config)]
        log = settings.folder / "dualtrack.log"
        ready = admin + "/readyz"
        with running(command, core=SUBJECT_CORE, ready=ready, log=log, timeout=timeout) as process:
            yield Proxy(url=url, admin=admin, process=process)


@contextmanager
def proxied(settings: Settings, primary: str, mirror: str) -> Iterator[str]:
    """The URL of a dualtrack with a new journal, once it was seen to mirror a write."""
    with dualtrack(settings, primary=primary, mirror=mirror) as proxy:
        if (mark := mirror_mark(proxy.url)) != "mirrored":
            raise RuntimeError(f"dualtrack answered a write with X-Dualtrack: {mark}, not mirrored")
        yield proxy.url


def _config(url: str, admin: str, primary: str, mirror: str, folder: Path) -> dict[str, object]:
    return {
        "listen": _address(url),
        "admin": _address(admin),
        "primary": "a",
        "registry": "a",
        "backends": {"a": {"url": primary, "kind": "mlflow"}, "b": {"url": mirror, "kind": "mlflow"}},
        "store": {"url": f"sqlite:///{folder.resolve() / 'journal.db'}"},
        "log": {"level": "warning"},
    }


def _address(url: str) -> dict[str, object]:
    host, _, port = url.removeprefix("http://").partition(":")
    return {"host": host, "port": int(port)}


@contextmanager
def mlflow_server(settings: Settings, *, where: Path | None = None) -> Iterator[str]:
    """A real `mlflow server` beside the load generator: one worker, SQLite, its job runner off.

    Its database and files are below `where`, or on the disk that the journals are on as well.
    """
    port = free_port()
    with tempfile.TemporaryDirectory(dir=where or settings.folder) as folder:
        command = [
            *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)),
            *("--workers", "1", "--backend-store-uri", f"sqlite:///{Path(folder).resolve()}/mlflow.db"),
            *("--artifacts-destination", str(Path(folder).resolve() / "artifacts")),
        ]
        env = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        log = settings.folder / "mlflow.log"
        with running(
            command,
            core=UPSTREAM_CORE,
            ready=_url(port) + "/health",
            log=log,
            timeout=MLFLOW_READY_SECONDS,
            env=env,
        ):
            yield _url(port)
