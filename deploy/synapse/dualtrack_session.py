"""dualtrack inside a Synapse Spark session: `start()` in the first cell of a notebook, or at the top of a job.

    from dualtrack_session import start
    secret = mssparkutils.credentials.getSecret("vault", "dualtrack")
    session = start("dualtrack.yaml", tokens={"azureml": "AzureManagement"},
                    secret_variables={"DUALTRACK_CLIENT_SECRET": secret}, spark=spark)

    driver   tokens ─▶ files, written again before they end ─▶ dualtrack serve, a child process ─▶ /readyz
             MLFLOW_TRACKING_URI and _TOKEN, here and for Python on the executors
    the end  dualtrack drain, then SIGTERM; by itself when Python ends

A session of Synapse has no identity that azure-identity finds, so its own notebook utilities are asked for tokens. The
journal is on the driver's disk and goes with the session: that is why the end waits for the drain.
"""

import atexit
import contextlib
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlflow

GetToken = Callable[[str], str]
NAMES = ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_TOKEN")
PROGRAM = (sys.executable, "-m", "dualtrack")
TEND_SECONDS = 1.0  # also between two starts of a proxy that ends at once


def notebook_token(audience: str) -> str:
    """Ask Synapse's notebook utilities for a token of this session's identity."""
    from notebookutils import mssparkutils  # noqa: PLC0415 - there is none outside a session

    return str(mssparkutils.credentials.getToken(audience))


def driver_address() -> str:
    """Answer the address of this machine that the others know."""
    return socket.gethostbyname(socket.gethostname())


def write_secret(path: Path, text: str) -> None:
    """Replace a file at once, readable by nobody else: who reads it sees the old token or the new one."""
    new = path.with_name(f".{path.name}.new")
    with open(new, "w", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(text)
    new.replace(path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where and how one proxy runs: the same when it is started again."""

    config: Path
    folder: Path
    host: str
    port: int
    admin_port: int
    token: str = field(repr=False)
    secret_variables: Mapping[str, str] = field(repr=False)

    @classmethod
    def choose(
        cls, config: Path, folder: str | Path | None, host: str | None, secret_variables: Mapping[str, str]
    ) -> "Place":
        """Make the folder, and find the address that executors reach, and two free ports."""
        made = Path(folder or tempfile.mkdtemp(prefix="dualtrack-"))
        made.mkdir(mode=0o700, parents=True, exist_ok=True)
        address = host or driver_address()
        return cls(
            config=config,
            folder=made,
            host=address,
            port=_free_port(address),
            admin_port=_free_port("127.0.0.1"),
            token=secrets.token_urlsafe(32),
            secret_variables=secret_variables,
        )

    def environment(self) -> dict[str, str]:
        """Answer what the proxy, and a command about it, is given."""
        given = {
            "DUALTRACK_CONFIG": str(self.config),
            "DUALTRACK_DIR": str(self.folder),
            "DUALTRACK_HOST": self.host,
            "DUALTRACK_PORT": str(self.port),
            "DUALTRACK_ADMIN_PORT": str(self.admin_port),
            "DUALTRACK_TOKEN": self.token,
        }
        kept = {name: value for name, value in os.environ.items() if name not in NAMES}  # they lead to itself
        return {**kept, **self.secret_variables, **given}

    def serve(self) -> "subprocess.Popen[bytes]":
        """Start the proxy in a session of its own: interrupting a cell does not reach it, nor the notebook's input."""
        with (self.folder / "serve.log").open("ab") as output:
            return subprocess.Popen(
                [*PROGRAM, "serve"],
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )


class Tokens:
    """A file per backend, `<backend>.token`, with a token of this session in it."""

    def __init__(self, folder: Path, audiences: Mapping[str, str], get_token: GetToken, refresh_seconds: float) -> None:
        self._folder = folder
        self._audiences = audiences
        self._get_token = get_token
        self._refresh_seconds = refresh_seconds
        self._due_at = 0.0

    def write(self) -> None:
        """Ask for all of them and write them. Raise what the notebook utilities raise."""
        self._due_at = time.monotonic() + self._refresh_seconds
        for backend, audience in self._audiences.items():
            write_secret(self._folder / f"{backend}.token", self._get_token(audience))

    def refresh(self) -> None:
        """Write them again if it is time; what fails is tried again when it is time again."""
        if time.monotonic() < self._due_at:
            return
        try:
            self.write()
        except Exception as error:  # noqa: BLE001 - whatever py4j raises: the token in the file is good for a while
            print(f"dualtrack: no new token: {type(error).__name__}", file=sys.stderr)


class Session:
    """A proxy that runs beside this Python process, and is started again should it end."""

    def __init__(self, place: Place, tokens: Tokens) -> None:
        self.folder = place.folder
        self.uri = f"http://{place.host}:{place.port}"
        self.admin_url = f"http://127.0.0.1:{place.admin_port}"
        self.child = place.serve()
        self._place = place
        self._tokens = tokens
        self._before = {name: os.environ.get(name) for name in NAMES}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._tend, name="dualtrack", daemon=True)

    @property
    def is_running(self) -> bool:
        return not self._ended.is_set()

    def environment(self) -> dict[str, str]:
        """What an MLflow client needs, wherever it runs in this session."""
        return dict(zip(NAMES, (self.uri, self._place.token), strict=True))

    def use(self, spark: Any = None) -> None:
        """Point MLflow at the proxy, in this process and in the Python workers that Spark starts from now on."""
        os.environ.update(self.environment())
        mlflow.set_tracking_uri(self.uri)
        if spark is not None:
            spark.sparkContext.environment.update(self.environment())
        self._thread.start()

    def run(self, *words: str) -> int:
        """Run a command of dualtrack about this proxy, `run("parked", "list")`; print what it says, give its code."""
        done = subprocess.run(
            [*PROGRAM, *words],
            env=self._place.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        print(done.stdout)  # a notebook shows what Python prints, and not what a child does
        return done.returncode

    def drain(self, seconds: float = 600) -> bool:
        """Wait until everything that was logged is on every backend; say whether it is."""
        command = [*PROGRAM, "drain", "--admin-url", self.admin_url, "--timeout", f"{seconds:g}s"]
        return subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=False).returncode == 0

    def stop(self, drain_seconds: float = 120) -> bool:
        """Drain, end the proxy, and put MLflow's settings back; say whether nothing was left."""
        if not self.is_running:
            return True
        is_drained = self.drain(drain_seconds)  # first: it needs tokens, and a proxy
        self._ended.set()
        self._thread.join()
        self.end()
        self._restore()
        if not is_drained:
            print(f"dualtrack: not everything has arrived; {self.folder / 'serve.log'} says why", file=sys.stderr)
        return is_drained

    def end(self) -> None:
        """End the proxy in order, or after a minute at all costs."""
        self.child.terminate()
        try:
            self.child.wait(60)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()

    def wait_ready(self, seconds: float) -> None:
        """Wait until the proxy takes calls. Raise `RuntimeError` with the end of its log if it does not."""
        deadline = time.monotonic() + seconds
        while not _answers(f"{self.admin_url}/readyz"):
            if self.child.poll() is not None or time.monotonic() > deadline:
                lines = (self.folder / "serve.log").read_text(errors="replace").splitlines()
                raise RuntimeError("dualtrack did not become ready:\n" + "\n".join(lines[-20:]))
            time.sleep(0.2)

    def _tend(self) -> None:
        while not self._ended.wait(TEND_SECONDS):
            self._tokens.refresh()
            if self.child.poll() is not None:
                print(f"dualtrack ended with code {self.child.returncode} and is started again", file=sys.stderr)
                self.child = self._place.serve()

    def _restore(self) -> None:
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        mlflow.set_tracking_uri(self._before["MLFLOW_TRACKING_URI"])  # type: ignore[arg-type]  # None unsets it


_started: list[Session] = []


def start(
    config: str | Path,
    *,
    tokens: Mapping[str, str] | None = None,
    secret_variables: Mapping[str, str] | None = None,
    spark: Any = None,
    folder: str | Path | None = None,
    host: str | None = None,
    get_token: GetToken = notebook_token,
    refresh_seconds: float = 60,
    ready_seconds: float = 60,
) -> Session:
    """Start the proxy and point MLflow at it; a cell that runs again gets the one that is there.

    `tokens` names, by backend, the audience that the notebook utilities are asked for; the configuration reads
    `${DUALTRACK_DIR}/<backend>.token`. `secret_variables` are for the proxy's environment alone.
    """
    for session in _started:
        if session.is_running:
            return session
    place = Place.choose(Path(config), folder, host, secret_variables or {})
    handed = Tokens(place.folder, tokens or {}, get_token, refresh_seconds)
    handed.write()
    session = Session(place, handed)
    try:
        session.wait_ready(ready_seconds)
    except BaseException:
        session.end()
        raise
    handed.refresh()  # the start may have taken long, and nobody says how old the first token was
    session.use(spark)
    _started.append(session)
    atexit.register(session.stop)
    return session


def _free_port(host: str) -> int:
    with socket.create_server((host, 0)) as probe:
        return int(probe.getsockname()[1])


def _answers(url: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # not by way of a proxy server
    with contextlib.suppress(OSError), opener.open(url, timeout=5) as answer:
        return bool(answer.status == 200)
    return False
