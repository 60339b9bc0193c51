"""deploy/systemd: the unit is read and judged by systemd's own tool, and its command really runs as the unit says."""

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import ProcessCollector

from dualtrack.config import parse
from dualtrack.config_model import Shutdown
from dualtrack.demo.servers import MlflowServer, Process, answers, free_port
from tests.support.mirrors import mirrors
from tests.support.packages import ROOT
from tests.support.proxy import until
from tests.support.servers import call
from tests.support.tools import tool

SHIPPED = ROOT / "deploy" / "systemd"
UNIT = SHIPPED / "dualtrack.service"
PROGRAM = Path(sys.executable).with_name("dualtrack")
INSTALLED = "/opt/dualtrack/bin/dualtrack"
# What systemd calls the exposure, times ten: 0 is nothing, 20 and less is "OK"
MOST_EXPOSED = "15"
# The kernel's own refusal of memory that is writable and executable, as MemoryDenyWriteExecute= has it
GUARDED = "import ctypes, os, sys; ctypes.CDLL(None).prctl(65, 1, 0, 0, 0); os.execv(sys.argv[1], sys.argv[1:])"


def settings(name: str) -> list[str]:
    """All values of one setting of the unit."""
    return re.findall(rf"^{name}=(.*)$", UNIT.read_text(), re.MULTILINE)


def setting(name: str) -> str:
    [value] = settings(name)
    return value


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit as it is, but for the place of the program: systemd asks whether it is there."""
    place = tmp_path / UNIT.name
    place.write_text(UNIT.read_text().replace(INSTALLED, str(PROGRAM)))
    return place


def test_systemd_finds_nothing_wrong(unit: Path) -> None:
    analyze = tool("systemd-analyze", "systemd")
    done = subprocess.run([analyze, "verify", unit], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_systemd_finds_it_well_locked_up(unit: Path) -> None:
    """Exposed no more than 1.5 of 10; the same unit without its locks is over that."""
    analyze = tool("systemd-analyze", "systemd")
    judge = [str(analyze), "security", "--offline=true", f"--threshold={MOST_EXPOSED}"]
    done = subprocess.run([*judge, str(unit)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout

    open_unit = unit.with_name("open.service")
    open_unit.write_text(re.sub(r"^(Protect|Private|Restrict).*\n", "", unit.read_text(), flags=re.MULTILINE))
    assert subprocess.run([*judge, str(open_unit)], capture_output=True, check=False).returncode != 0


def test_the_process_can_be_measured(tmp_path: Path) -> None:
    """Without /proc/stat the collector of the process's metrics has none, so the unit must not take it away."""
    (tmp_path / "self").symlink_to("/proc/self")  # what ProcSubset=pid leaves
    bare = [*ProcessCollector(proc=str(tmp_path), registry=None).collect()]
    (tmp_path / "stat").symlink_to("/proc/stat")
    whole = [*ProcessCollector(proc=str(tmp_path), registry=None).collect()]

    assert (bool(bare), bool(whole)) == (False, True)
    assert settings("ProcSubset") in ([], ["all"])


def test_stopping_gets_the_time_that_the_proxy_takes() -> None:
    """It kills after TimeoutStopSec: by then requests and attempts under way have had their time."""
    takes = Shutdown()
    assert int(setting("TimeoutStopSec").removesuffix("s")) > (takes.grace + takes.deliveries).total_seconds() + 10


def test_the_unit_gives_what_the_configuration_asks_for(tmp_path: Path) -> None:
    """Variables from dualtrack.env, files from LoadCredential, and nothing literally secret in either."""
    given = environment(tmp_path)
    text = (SHIPPED / "dualtrack.yaml").read_text()
    asked = set(re.findall(r"\$\{CREDENTIALS_DIRECTORY:-/etc/dualtrack/credentials\}/([\w-]+)", text))
    loaded = [value.split(":") for value in settings("LoadCredential")]
    assert {name for name, _ in loaded} == asked
    assert all(place == f"/etc/dualtrack/credentials/{name}" for name, place in loaded)
    for name in asked:
        (tmp_path / name).write_text("a-token")

    config = parse(text, given, Path("/"))

    assert config.store.path == tmp_path / "journal.db"
    assert not [line for line in given if re.search("TOKEN|SECRET|PASSWORD", line)]


def environment(folder: Path) -> dict[str, str]:
    lines = (SHIPPED / "dualtrack.env").read_text().splitlines()
    pairs = (line.split("=", 1) for line in lines if line and not line.startswith("#"))
    return {**dict(pairs), "CREDENTIALS_DIRECTORY": str(folder), "STATE_DIRECTORY": str(folder)}


@pytest.fixture
def service(mlflow_primary: MlflowServer, mlflow_secondary: MlflowServer, tmp_path: Path) -> Iterator[Process]:
    """What ExecStart says, started as systemd would, as far as that goes without systemd."""
    for name in ("primary-token", "secondary-token", "admin-token"):
        (tmp_path / name).write_text(f"{name}\n")
    ports = {"5000": str(free_port()), "5001": str(free_port())}
    text = re.sub(r"port: (\d+)", lambda found: f"port: {ports[found[1]]}", (SHIPPED / "dualtrack.yaml").read_text())
    (tmp_path / "dualtrack.yaml").write_text(text.replace("/etc/dualtrack/credentials", str(tmp_path)))
    (tmp_path / "ports").write_text(" ".join(ports.values()))
    command = setting("ExecStart").replace(INSTALLED, str(PROGRAM)).replace("/etc/dualtrack/", f"{tmp_path}/")
    urls = {"PRIMARY_URL": mlflow_primary.url, "SECONDARY_URL": mlflow_secondary.url}
    (tmp_path / "dualtrack.env").write_text("".join(f"{name}={url}\n" for name, url in urls.items()))
    process = Process(
        [sys.executable, "-c", GUARDED, *shlex.split(command)],
        log_path=tmp_path / "serve.log",
        env={"PATH": os.environ["PATH"], **environment(tmp_path), **urls},
    )
    process.wait_ready(lambda: answers(f"http://127.0.0.1:{ports['5001']}/readyz"))
    yield process
    process.stop()


@pytest.mark.acceptance
def test_the_command_of_the_unit_serves_and_stops(
    service: Process, mlflow_secondary: MlflowServer, tmp_path: Path
) -> None:
    """A write arrives on both; SIGTERM ends it in order, within the unit's time; no file is anybody else's to read."""
    listen, _ = (tmp_path / "ports").read_text().split()
    run = call(f"http://127.0.0.1:{listen}", "runs/create", {"experiment_id": "0", "start_time": 1})["run"]
    run_id = run["info"]["run_id"]
    roots_commands_work(tmp_path)
    assert until("the mirror", lambda: mirrors(mlflow_secondary.url, run_id))

    os.kill(service.pid, getattr(signal, settings("KillSignal")[0]) if settings("KillSignal") else signal.SIGTERM)

    assert service.wait(int(setting("TimeoutStopSec").removesuffix("s"))) == 0
    assert (tmp_path / "journal.db").stat().st_mode & 0o077 == 0


def roots_commands_work(folder: Path) -> None:
    """Below the README's first line, without a variable of systemd's. Code 1: something is still on its way."""
    [first] = re.findall(r"^set -a; .*$", (SHIPPED / "README.md").read_text(), re.MULTILINE)
    first = first.replace("/etc/dualtrack", str(folder)).replace("/opt/dualtrack/bin", str(PROGRAM.parent))
    for words in ("check --online", "status", "parked retry --all", "reconcile"):
        command = ["bash", "-c", f"{first}\ndualtrack {words}"]
        done = subprocess.run(
            command, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode < 2, f"{words}: {done.stdout}{done.stderr}"
