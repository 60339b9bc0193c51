"""Subprocesses that the demo and the tests start: a real `mlflow server`, an emulator, the proxy.

Starts and stops by process group and waits until a process answers; never looks for processes that it did not start.
Launching and waiting are two steps, so that several slow starts can run side by side.
"""

import contextlib
import importlib.util
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle, islice
from pathlib import Path
from types import TracebackType
from typing import Self

from dualtrack.errors import StartError

POLL_SECONDS = 0.05
TAIL_LINES = 20
PORTS = range(10_000, 32_000)  # below what Linux, macOS and Windows take for outgoing connections
_CHOICES = cycle(secrets.SystemRandom().sample(PORTS, len(PORTS)))  # none comes back before all of them had their turn
# A server of ours is light and quiet: no telemetry, no job runner (mlflow.environment_variables).
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "PYTHONWARNINGS": "ignore",
}


def free_port(preferred: int | None = None) -> int:
    """Find a loopback port that nobody listens on now, the preferred one if it is free; another one each time.

    Not one that the system gives away: those it may use for an outgoing connection before our child listens on it.
    """
    if preferred is not None:
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", preferred))
            return preferred
    for port in islice(_CHOICES, 100):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
    raise StartError(f"no free port in {PORTS.start} to {PORTS.stop}")


def clean_environment(**extra: str) -> dict[str, str]:
    """Take the environment without anybody's MLflow settings, and add to it."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    return kept | extra


def answers(url: str) -> bool:
    """Whether a GET is answered with a 2xx status."""
    try:
        with urllib.request.urlopen(url, timeout=2) as response:  # noqa: S310 - our own loopback URLs
            return bool(200 <= response.status < 300)
    except (OSError, urllib.error.URLError):
        return False


class Process:
    """A child in a process group of its own, with its output in a file."""

    def __init__(self, argv: Sequence[str], *, log_path: Path, env: Mapping[str, str] | None = None) -> None:
        self.log_path = log_path
        with log_path.open("ab") as log:
            self._popen = subprocess.Popen(  # noqa: S603 - the caller's own command line
                argv, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def returncode(self) -> int | None:
        return self._popen.poll()

    def wait_ready(self, ready: Callable[[], bool], *, timeout: float = 60) -> None:
        """Wait until `ready`; raise StartError with the end of the log if that does not happen, and stop the child."""
        deadline = time.monotonic() + timeout
        while not ready():
            if self.returncode is not None:
                raise StartError(f"{self._command()} ended with code {self.returncode}:\n{self.tail()}")
            if time.monotonic() > deadline:
                self.stop()
                raise StartError(f"{self._command()} was not ready after {timeout:.0f} s:\n{self.tail()}")
            time.sleep(POLL_SECONDS)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and give the exit code; raises TimeoutError."""
        try:
            return self._popen.wait(timeout)
        except subprocess.TimeoutExpired as exc:
            raise TimeoutError(f"{self._command()} still runs after {timeout} s") from exc

    def stop(self, timeout: float = 10) -> None:
        """Ask the whole group to end, then make it."""
        self._signal(signal.SIGCONT)
        self._signal(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            self.wait(timeout)
        self.kill()

    def kill(self) -> None:
        """End the whole group at once."""
        self._signal(signal.SIGKILL)
        self._popen.wait()

    def pause(self) -> None:
        """Freeze the group: connections stay open and nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def tail(self) -> str:
        """Give the last lines of the output."""
        lines = self.log_path.read_text(errors="replace").splitlines()
        return "\n".join(lines[-TAIL_LINES:])

    def _command(self) -> str:
        argv = self._popen.args
        return " ".join(str(part) for part in (argv if isinstance(argv, list | tuple) else [argv])[1:4])

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)


def start(
    argv: Sequence[str],
    *,
    log_path: Path,
    ready: Callable[[], bool],
    env: Mapping[str, str] | None = None,
    timeout: float = 60,
) -> Process:
    """Launch a process and wait until it is ready."""
    process = Process(argv, log_path=log_path, env=env)
    process.wait_ready(ready, timeout=timeout)
    return process


class MlflowServer:
    """A real `mlflow server` with its own SQLite store and artifact folder below `root`.

    `launch` returns at once, `wait_ready` when it answers; `start` is both. After `stop` or `kill` it can be started
    again, with the same data on the same port.
    """

    def __init__(self, root: Path, port: int | None = None) -> None:
        self.root = root
        self.port = port or free_port()
        self._process: Process | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def process(self) -> Process:
        if self._process is None:
            raise StartError(f"the mlflow server in {self.root} has not been started")
        return self._process

    def launch(self) -> Self:
        require_mlflow()
        self.root.mkdir(parents=True, exist_ok=True)
        argv = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        argv += ["--backend-store-uri", f"sqlite:///{self.root.resolve() / 'mlflow.db'}", "--workers", "1"]
        argv += ["--artifacts-destination", str(self.root.resolve() / "artifacts")]
        self._process = Process(argv, log_path=self.root / "server.log", env=clean_environment(**QUIET))
        return self

    def wait_ready(self, timeout: float = 120) -> Self:
        self.process.wait_ready(lambda: answers(f"{self.url}/health"), timeout=timeout)
        return self

    def start(self, timeout: float = 120) -> Self:
        return self.launch().wait_ready(timeout)

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()

    def kill(self) -> None:
        self.process.kill()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class Emulator:
    """`python -m dualtrack.emulators` in a process of its own, so that it can be killed or frozen."""

    def __init__(
        self,
        kind: str,
        *options: str,
        upstream: str,
        token: str,
        log_path: Path,
        port: int | None = None,
    ) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        argv = [sys.executable, "-m", "dualtrack.emulators", kind, "--upstream", upstream]
        argv += ["--port", str(self.port), "--token-env", "EMULATOR_TOKEN", *options]
        self.process = Process(argv, log_path=log_path, env=clean_environment(EMULATOR_TOKEN=token))

    def wait_ready(self, timeout: float = 60) -> Self:
        self.process.wait_ready(lambda: answers(f"{self.url}/__emulator__/duplicates"), timeout=timeout)
        return self

    def stop(self) -> None:
        self.process.stop()


def require_mlflow() -> None:
    """Raise StartError on a machine without the full mlflow (the server needs flask and sqlalchemy) or scikit-learn."""
    missing = [name for name in ("mlflow", "flask", "sqlalchemy", "sklearn") if not importlib.util.find_spec(name)]
    if missing:
        raise StartError(f"{', '.join(missing)} not installed: pip install 'dualtrack[demo]'")
