"""Starting and stopping subprocesses: a clear error when one does not come up, and nothing left behind."""

import importlib.util
import signal
import socket
import sys
from pathlib import Path

import pytest

from dualtrack.demo.servers import MlflowServer, Process, answers, free_port, require_mlflow, start
from dualtrack.errors import StartError

SERVE = "import sys, http.server as h; h.test(h.SimpleHTTPRequestHandler, port=int(sys.argv[1]), bind='127.0.0.1')"
# A child that ignores SIGTERM: its group must go all the same.
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"


def test_a_process_that_ends_at_once_says_why(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"ended with code 3:\nport taken"):
        start(
            [sys.executable, "-c", "print('port taken'); raise SystemExit(3)"],
            log_path=tmp_path / "log",
            ready=lambda: False,
        )


def test_a_process_that_is_never_ready_is_stopped(tmp_path: Path) -> None:
    process = Process([sys.executable, "-c", "import time; time.sleep(60)"], log_path=tmp_path / "log")

    with pytest.raises(StartError, match=r"not ready after 0 s"):
        process.wait_ready(lambda: False, timeout=0.1)

    assert process.returncode == -signal.SIGTERM


def test_a_process_that_will_not_end_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = start([sys.executable, "-c", STUBBORN], log_path=log, ready=lambda: "up" in log.read_text())

    with pytest.raises(TimeoutError):
        process.wait(0.01)
    process.stop(timeout=0.1)

    assert process.returncode == -signal.SIGKILL


def test_a_free_port_is_another_one_each_time() -> None:
    """Two that are asked for in a row are never the same, though nobody listens on either."""
    ports = [free_port() for _ in range(1000)]

    assert len(set(ports)) == len(ports)


def test_a_paused_process_keeps_its_port_and_answers_after_resume(tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}/"
    process = start([sys.executable, "-c", SERVE, str(port)], log_path=tmp_path / "log", ready=lambda: answers(url))
    try:
        process.pause()
        with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
            process.resume()
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert connection.recv(12) == b"HTTP/1.0 200"
    finally:
        process.stop()

    assert not answers(url)


def test_a_server_that_was_never_started_says_so(tmp_path: Path) -> None:
    server = MlflowServer(tmp_path)
    server.stop()

    with pytest.raises(StartError, match="not been started"):
        server.kill()


def test_a_machine_without_mlflow_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "flask" else name)

    with pytest.raises(StartError, match=r"flask not installed: pip install 'dualtrack\[demo\]'"):
        require_mlflow()
