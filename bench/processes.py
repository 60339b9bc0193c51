"""Start, pin, await and stop the processes of a benchmark. Only what was started here is ever stopped."""

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

CORES = sorted(os.sched_getaffinity(0))
UPSTREAM_CORE = CORES[0]
"""For the load generator and every upstream."""
SUBJECT_CORE = CORES[-1]
"""For the server under test, alone."""

STOP_SECONDS = 15.0
POLL_SECONDS = 0.005


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A running process and how long it took from its start to its first good answer."""

    pid: int
    ready_seconds: float


@contextmanager
def running(
    command: Sequence[str],
    *,
    core: int,
    ready: str,
    log: Path,
    timeout: float = 30.0,
    env: Mapping[str, str] | None = None,
) -> Iterator[Process]:
    """Run the command on one core from when the URL `ready` answers 200 until the block ends."""
    started_at = time.perf_counter()
    process = _spawn(command, core, log, env)
    try:
        _await(process, ready, timeout, log)
        yield Process(pid=process.pid, ready_seconds=time.perf_counter() - started_at)
    finally:
        _stop(process)


def _spawn(command: Sequence[str], core: int, log: Path, env: Mapping[str, str] | None) -> subprocess.Popen[bytes]:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})  # the child inherits it, and with it all its threads
    try:
        with log.open("ab") as output:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **(env or {})},
                start_new_session=True,
            )
    finally:
        os.sched_setaffinity(0, before)


def _await(process: subprocess.Popen[bytes], url: str, timeout: float, log: Path) -> None:
    deadline = time.perf_counter() + timeout
    while not _answers(url):
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with {process.returncode}:\n{_tail(log)}")
        if time.perf_counter() > deadline:
            raise TimeoutError(f"{url} was not ready within {timeout:.0f} s:\n{_tail(log)}")
        time.sleep(POLL_SECONDS)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2.0) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-20:])


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the process, and the session that it leads, which its own children share."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def free_port() -> int:
    """Answer a loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def refusing_port() -> Iterator[int]:
    """Hold a loopback port that refuses every connection: bound, so that nobody takes it, not listening."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield int(held.getsockname()[1])


def memory(pid: int) -> tuple[float, float]:
    """Answer VmRSS and VmHWM of one process in MiB."""
    found = {}
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in ("VmRSS", "VmHWM"):
            found[name] = int(value.split()[0]) / 1024
    return found["VmRSS"], found["VmHWM"]
