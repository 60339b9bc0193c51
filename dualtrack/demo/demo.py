"""The five-minute demo: two emulated workspaces, the proxy, a real training, the comparison.

Starts everything as subprocesses on loopback, with all state in one folder, and stops everything that it started, also
on errors, Ctrl-C and SIGTERM. Decides nothing about mirroring: the proxy runs as a user would run it, from a
configuration file, and `compare` reads both sides without it. Called by the `demo` command.
"""

import secrets
import signal
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import orjson
import yaml
from rich.console import Console

from dualtrack.demo.compare import Side, compare_experiment, find_experiment, read_registry
from dualtrack.demo.losses import read_losses
from dualtrack.demo.report import Report, document, show
from dualtrack.demo.servers import (
    Emulator,
    MlflowServer,
    Process,
    answers,
    clean_environment,
    free_port,
    require_mlflow,
)
from dualtrack.emulators.azureml import DEFAULT_SCOPE
from dualtrack.errors import StartError

EXPERIMENT = "/Shared/dualtrack-demo"
# What each emulated workspace is like: strict is all that the service does and a plain server does not.
WORKSPACES = {"databricks": ("--strict",), "azureml": ("--strict",)}
WORKSPACE = "/mlflow/v2.0" + DEFAULT_SCOPE
TRAIN_SECONDS = 600
DRAIN_SECONDS = 60

EXIT_EQUAL, EXIT_DIFFERENT, EXIT_NOT_STARTED, EXIT_INTERRUPTED = 0, 1, 3, 130


@dataclass(frozen=True, slots=True, kw_only=True)
class Secrets:
    """Made up for one demo; they reach the children through the environment only."""

    databricks: str = field(default_factory=secrets.token_hex, repr=False)
    azureml: str = field(default_factory=secrets.token_hex, repr=False)
    admin: str = field(default_factory=secrets.token_hex, repr=False)

    def environment(self) -> dict[str, str]:
        return clean_environment(
            DEMO_DATABRICKS_TOKEN=self.databricks, DEMO_AZUREML_TOKEN=self.azureml, DEMO_ADMIN_TOKEN=self.admin
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Everything that is up, as addresses; both sides are read from the workspaces, past the proxy.

    `servers` are the MLflow servers behind them, which have pages to look at, but not the workspaces' files.
    """

    proxy: str
    admin: str
    primary: Side
    secondary: Side
    servers: tuple[str, str]
    config: Path
    environment: dict[str, str] = field(repr=False)


class TrainingError(Exception):
    """The training script failed, or logged nothing."""


def run_demo(keep: bool, json: bool, directory: Path | None) -> int:
    """Run the demo and give the exit code: 0 equal, 1 different, 3 something did not start, 130 interrupted."""
    console = Console(stderr=json, highlight=False)
    try:
        with _sigterm_as_interrupt(), _folder(directory, keep=keep) as root, ExitStack() as stack:
            site = _start(root, stack, console, keep=keep)
            report = _train_and_compare(site, root, console)
            if json:
                _print_json(report, site)
            else:
                show(report, EXPERIMENT, console)
            if keep:
                _wait(site, root, console)
            return EXIT_EQUAL if report.is_equal else EXIT_DIFFERENT
    except StartError as exc:
        console.print(f"could not start: {exc}", style="red", markup=False)
        return EXIT_NOT_STARTED
    except TrainingError as exc:
        console.print(str(exc), style="red", markup=False)
        return EXIT_DIFFERENT
    except KeyboardInterrupt:
        console.print("interrupted; everything that was started is stopped")
        return EXIT_INTERRUPTED


# ---- the steps ---------------------------------------------------------------------------------------------------


def _start(root: Path, stack: ExitStack, console: Console, *, keep: bool) -> Site:
    require_mlflow()
    tokens = Secrets()
    with _step(console, "two MLflow servers, each behind an emulated workspace"):
        servers = [MlflowServer(root / kind) for kind in WORKSPACES]
        for server in servers:
            stack.callback(server.stop)
            server.launch()
        emulators = []
        for server, token in zip(servers, (tokens.databricks, tokens.azureml), strict=True):
            kind = server.root.name
            log_path = root / f"{kind}-emulator.log"
            emulators.append(Emulator(kind, *WORKSPACES[kind], upstream=server.url, token=token, log_path=log_path))
            stack.callback(emulators[-1].stop)
        for emulator in emulators:
            emulator.wait_ready()
        for server in servers:
            server.wait_ready()
        _shift_ids(servers[1])
    # what stays up is where every command and example looks for it
    ports = (free_port(5000), free_port(5001)) if keep else (free_port(), free_port())
    site = _site(root, servers, emulators, tokens, ports)
    with _step(console, "the proxy: dualtrack serve"):
        proxy = _launch(["serve"], site, root / "serve.log")
        stack.callback(proxy.stop)
        proxy.wait_ready(lambda: answers(f"{site.admin}/readyz"))
    return site


def _site(
    root: Path, servers: list[MlflowServer], emulators: list[Emulator], tokens: Secrets, ports: tuple[int, int]
) -> Site:
    listen, admin = ports
    site = Site(
        proxy=f"http://127.0.0.1:{listen}",
        admin=f"http://127.0.0.1:{admin}",
        primary=Side(name="databricks", kind="databricks", url=emulators[0].url, token=tokens.databricks),
        secondary=Side(name="azureml", kind="azureml", url=emulators[1].url + WORKSPACE, token=tokens.azureml),
        servers=(servers[0].url, servers[1].url),
        config=root / "dualtrack.yaml",
        environment=tokens.environment(),
    )
    document = {
        "listen": {"host": "127.0.0.1", "port": listen},
        "admin": {"host": "127.0.0.1", "port": admin, "token": "${DEMO_ADMIN_TOKEN}"},
        "primary": "databricks",
        "registry": "databricks",
        "backends": {
            "databricks": {
                "url": emulators[0].url,
                "kind": "databricks",
                "auth": {"type": "token", "token": "${DEMO_DATABRICKS_TOKEN}"},
            },
            "azureml": {
                "url": emulators[1].url + WORKSPACE,
                "kind": "azureml",
                "auth": {"type": "token", "token": "${DEMO_AZUREML_TOKEN}"},
                "experiment_names": {"rule": "last-segment"},
            },
        },
        "store": {"url": f"sqlite:///{root.resolve() / 'journal.db'}"},
    }
    site.config.write_text(yaml.safe_dump(document, sort_keys=False))
    return site


def _shift_ids(server: MlflowServer) -> None:
    """Give the secondary one experiment of its own, so that no id is the same on both sides by accident."""
    request = urllib.request.Request(  # noqa: S310 - our own loopback server
        f"{server.url}/api/2.0/mlflow/experiments/create",
        data=orjson.dumps({"name": "earlier-work"}),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        answer.read()


def _train_and_compare(site: Site, root: Path, console: Console) -> Report:
    with _step(console, f"a training script, unchanged, with MLFLOW_TRACKING_URI={site.proxy}"):
        _train(site, root)
    with _step(console, "dualtrack drain: wait until the backlog is empty"):
        drain = _launch(["drain", "--timeout", f"{DRAIN_SECONDS}s"], site, root / "drain.log")
        is_drained = _finish(drain, DRAIN_SECONDS + 30) == 0
    if not is_drained:
        console.print(drain.tail(), style="yellow", markup=False)
    with _step(console, "read both workspaces and compare every field, metric history and file"):
        experiment_id = find_experiment(site.primary, EXPERIMENT)
        if experiment_id is None:
            raise TrainingError(f"the primary has no experiment {EXPERIMENT}")
        return Report(
            comparison=compare_experiment(
                site.primary, site.secondary, experiment_id, tuple(read_losses(site.admin, site.secondary.name))
            ),
            registry=read_registry(site.primary),
            other_registry=read_registry(site.secondary),
            is_drained=is_drained,
        )


def _train(site: Site, root: Path) -> None:
    """Run the script as its user would: with the tracking URI. What mlflow leaves behind goes with `root`."""
    script, scratch = Path(__file__).with_name("train.py"), root / "tmp"
    scratch.mkdir(exist_ok=True)
    env = clean_environment(MLFLOW_TRACKING_URI=site.proxy, DO_NOT_TRACK="true", TMPDIR=str(scratch))
    process = Process([sys.executable, str(script)], log_path=root / "train.log", env=env)
    if (code := _finish(process, TRAIN_SECONDS)) != 0:
        raise TrainingError(f"the training ended with code {code}:\n{process.tail()}")


def _launch(arguments: list[str], site: Site, log_path: Path) -> Process:
    argv = [sys.executable, "-m", "dualtrack", *arguments, "--config", str(site.config)]
    return Process(argv, log_path=log_path, env=site.environment)


def _finish(process: Process, timeout: float) -> int | None:
    """Wait for the end; whatever happens, the process does not outlive the call."""
    try:
        return process.wait(timeout)
    except TimeoutError:
        return None
    finally:
        process.kill()


def _wait(site: Site, root: Path, console: Console) -> None:
    """Leave everything up until Ctrl-C."""
    for label, url in (
        ("proxy", site.proxy),
        ("status page, metrics", site.admin),
        ("server behind databricks", site.servers[0]),
        ("server behind azureml", site.servers[1]),
    ):
        console.print(f"{label:32} {url}", soft_wrap=True)
    console.print(f"{'files':32} {root}", soft_wrap=True)
    console.print(f"{'token of the status page':32} {site.environment['DEMO_ADMIN_TOKEN']}", soft_wrap=True)
    console.print(f"Train with MLFLOW_TRACKING_URI={site.proxy}; Ctrl-C stops everything.", soft_wrap=True)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        console.print("stopping")


def _print_json(report: Report, site: Site) -> None:
    sides = {side.name: url for side, url in zip((site.primary, site.secondary), site.servers, strict=True)}
    told = document(report, {"proxy": site.proxy, "admin": site.admin, **sides})
    sys.stdout.write(orjson.dumps(told, option=orjson.OPT_INDENT_2).decode() + "\n")
    sys.stdout.flush()


# ---- the frame ---------------------------------------------------------------------------------------------------


@contextmanager
def _step(console: Console, what: str) -> Iterator[None]:
    """Show what is going on, then how long it took."""
    began = time.monotonic()
    with console.status(what):
        yield
    console.print(f"  {time.monotonic() - began:5.1f} s  {what}", soft_wrap=True)


@contextmanager
def _folder(directory: Path | None, *, keep: bool) -> Iterator[Path]:
    """Give the folder for all state; one that we made is removed at the end, unless it is to be kept."""
    if directory is not None:
        directory.mkdir(parents=True, exist_ok=True)
        yield directory.resolve()
    elif keep:
        yield Path(tempfile.mkdtemp(prefix="dualtrack-demo-"))
    else:
        with tempfile.TemporaryDirectory(prefix="dualtrack-demo-", ignore_cleanup_errors=True) as made:
            yield Path(made)


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Treat SIGTERM as Ctrl-C while inside, so that everything is stopped on the way out."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield  # signals belong to the main thread
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
