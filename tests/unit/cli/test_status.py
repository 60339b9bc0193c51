"""`dualtrack status`, and how every command finds the running proxy."""

import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import orjson
import pytest

from dualtrack.demo.servers import free_port
from tests.unit.cli.conftest import TOKEN, RunningProxy, Shell, configuration


@contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """Serve one connection with `answer`, whatever was asked."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        thread.join()


def test_a_row_per_backend_and_the_journal(shell: Shell, proxy: RunningProxy, config: Path) -> None:
    proxy.queue()
    proxy.changes = {"lag_seconds": 125.0}

    result = shell("status", "--config", str(config))

    assert result.exit_code == 0, result.output
    header, primary, secondary, journal = result.stdout.splitlines()
    assert header.split()[:7] == ["backend", "role", "url", "up", "breaker", "backlog", "lag"]
    assert primary.split()[:7] == ["a", "primary", "+", "registry", "http://a.test", "yes", "closed"]
    assert "2m 5s" in secondary
    assert "open" in secondary
    assert journal.startswith("journal: ")
    assert "to deliver: 1; open at the primary: 0" in journal


def test_what_a_backend_says_cannot_steer_the_terminal(shell: Shell, proxy: RunningProxy) -> None:
    assert "\x1b" not in shell("status", "--admin-url", proxy.url).stdout


def test_a_terminal_gets_a_drawn_table(shell: Shell, proxy: RunningProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """What backends say is text there too, never markup or control codes."""
    proxy.changes = {"last_error": "[bold]\x1b[31mtry later"}
    monkeypatch.setattr("dualtrack.cli.output.is_terminal", lambda: True)

    result = shell("status", "--admin-url", proxy.url, COLUMNS="200")

    assert "[bold] [31mtry later" in result.stdout
    assert "\u2500" in result.stdout


def test_damaged_records_are_said(shell: Shell, proxy: RunningProxy) -> None:
    proxy.queue()
    with closing(sqlite3.connect(proxy.journal._path)) as connection, connection:
        connection.execute("UPDATE entries SET record = x'00'")
    (lane,) = proxy.call(proxy.journal.claim("b", 1, time.time() + 1))
    assert proxy.call(proxy.journal.read(lane, 1 << 20)) == []

    assert "1 damaged records are set aside" in shell("status", "--admin-url", proxy.url).stdout


def test_parked_writes_are_exit_1(shell: Shell, proxy: RunningProxy) -> None:
    proxy.park()

    people = shell("status", "--admin-url", proxy.url)
    machine = shell("status", "--admin-url", proxy.url, "--json")

    assert (people.exit_code, machine.exit_code) == (1, 1)
    assert "dualtrack parked list" in people.stdout
    assert orjson.loads(machine.stdout)["backends"][1]["parked"] == 1


def test_trouble_of_the_proxy_itself_is_said(shell: Shell, proxy: RunningProxy) -> None:
    proxy.is_ready = False

    assert "not ready: the journal is full" in shell("status", "--admin-url", proxy.url).stdout


def test_json_is_one_document_without_secrets(shell: Shell, proxy: RunningProxy, config: Path) -> None:
    result = shell("status", "--json", DUALTRACK_CONFIG=str(config))

    assert orjson.loads(result.stdout)["primary"] == "a"
    assert TOKEN not in result.output


def test_the_file_in_the_working_directory_is_found(shell: Shell, proxy: RunningProxy, config: Path) -> None:
    config.rename("dualtrack.yaml")

    assert shell("status").exit_code == 0


def test_nobody_there_is_exit_3_and_one_line(shell: Shell) -> None:
    Path("token").write_text(TOKEN)
    Path("dualtrack.yaml").write_text(configuration(free_port()))

    result = shell("status", "--json")

    assert result.exit_code == 3
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert "Is `dualtrack serve` running?" in result.stderr


def test_without_any_file_the_default_address_is_tried(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dualtrack.cli.settings.Admin", _Elsewhere)

    result = shell("status")

    assert result.exit_code == 3
    assert "no configuration file here" in result.stderr


class _Elsewhere:
    """An admin section at an address where nothing listens."""

    host = "::1"
    port = 1


@pytest.mark.parametrize("url", ["127.0.0.1:5001", "ftp://x", "http://", "http://x:0", "http://[", "http://x:99999"])
def test_a_bad_address_is_wrong_usage(shell: Shell, url: str) -> None:
    assert shell("status", "--admin-url", url).exit_code == 2


def test_a_broken_configuration_lists_every_problem(shell: Shell) -> None:
    Path("dualtrack.yaml").write_text("primary: a\nbackends: {b: {url: nonsense://x}}\nlisten: {port: many}\n")

    result = shell("status")

    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) >= 3
    assert "Traceback" not in result.output


ODD_ANSWERS = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
    b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{",
    b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 4\r\n\r\noops",
    b'HTTP/1.1 503 Busy\r\nContent-Length: 14\r\n\r\n{"error": "x"}',
    b"HTTP/1.1 503 Busy\r\nContent-Length: 14\r\n\r\n{",
    b"SSH-2.0-OpenSSH\r\n",
    b"",
]


@pytest.mark.parametrize("answer", ODD_ANSWERS)
def test_whatever_else_listens_there_is_exit_3(shell: Shell, answer: bytes) -> None:
    with answering(answer) as url:
        result = shell("status", "--admin-url", url)

    assert result.exit_code == 3, result.output
    assert len(result.stderr.splitlines()) == 1


def test_a_redirect_is_not_followed(shell: Shell, proxy: RunningProxy) -> None:
    """The token goes to the address given and nowhere else."""
    answer = f"HTTP/1.1 302 Found\r\nLocation: {proxy.url}/api/v1/status\r\nContent-Length: 2\r\n\r\n{{}}"
    with answering(answer.encode()) as url:
        result = shell("status", "--admin-url", url, DUALTRACK_ADMIN_TOKEN=TOKEN)

    assert result.exit_code == 2


def test_an_http_proxy_of_the_environment_is_not_used(shell: Shell, proxy: RunningProxy) -> None:
    assert shell("status", "--admin-url", proxy.url, http_proxy="http://127.0.0.1:1").exit_code == 0
