"""`dualtrack demo`, the first command of the README, from beginning to end."""

import asyncio
import os
import re
import sys
import uuid
from pathlib import Path

import pytest
import yaml
from aiohttp import ClientSession

import dualtrack.demo
from dualtrack.demo.servers import Process, clean_environment
from tests.support.dashboard import shows_all
from tests.support.prometheus import scraping
from tests.support.proxy import until

pytestmark = pytest.mark.acceptance

MARK = "DUALTRACK_TEST_MARK"
# by operation, which nobody can foretell: there is none yet
OF_TROUBLE = {"Parked", "Repairs"}
TRAINING = Path(dualtrack.demo.__file__).with_name("train.py")


def started_by(mark: str) -> list[str]:
    """Command lines of the processes that inherited our mark, however deep below us."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={mark}".encode() in process.joinpath("environ").read_bytes().split(b"\0"):
                found.append(process.joinpath("cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:  # ended while we looked, or somebody else's
            continue
    return found


def leaves_nothing(mark: str) -> bool:
    """Whether all of them end: one that was killed is there until it had a moment to die in."""
    return until("the end of all processes", lambda: not started_by(mark))


def demo(tmp_path: Path, *arguments: str) -> tuple[Process, str]:
    """Start the demo with a folder of its own for everything temporary, and a mark on all its processes."""
    mark = uuid.uuid4().hex
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    env = clean_environment(TMPDIR=str(scratch), COLUMNS="160", **{MARK: mark})
    argv = [sys.executable, "-m", "dualtrack", "demo", *arguments]
    return Process(argv, log_path=tmp_path / "demo.log", env=env), mark


@pytest.mark.timeout(900)
def test_the_demo_ends_equal_and_leaves_nothing(tmp_path: Path) -> None:
    """It says equal but for what is on record and listed, exits 0, and neither a process nor a file of it stays."""
    process, mark = demo(tmp_path)
    try:
        code = process.wait(600)
    finally:
        process.kill()

    text = process.log_path.read_text()
    assert code == 0, text
    end = re.search(
        r"Equal except for (\d+) recorded losses, listed: 6 runs with 10,\d+ metric points,"
        r" 1 logged model and \d+ files ",
        text,
    )
    assert end, text
    groups = re.findall(r"^ (run|model) (\S+): (\w+) (\w+), (\d+)$", text, re.MULTILINE)
    assert {group[1:4] for group in groups} == {
        ("descent", "param", "over_limit"),
        ("descent", "tag", "over_limit"),
        ("descent", "tag", "shortened"),
        ("autologged", "model", "no_logged_models"),
        ("classifier", "model", "no_logged_models"),
    }, text
    assert sum(int(group[4]) for group in groups) == int(end[1])
    assert ("descent", "param", "over_limit", "100") in {group[1:] for group in groups}
    assert re.search(r"descent +\w+ +[\w-]+ +300 +4 +\d+ +10,000 +but \d+ lost", text), text
    assert re.search(r"run search +\w+ +[\w-]+ +3 +[1-9][\d,]* +yes", text), text
    assert re.search(r"model classifier +m-\w+ +files of [\w-]+ +[1-9]\d* +[1-9][\d,]* +but 1 lost", text), text
    assert "differ" not in text
    assert leaves_nothing(mark)
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.timeout(900)
async def test_what_the_demo_keeps_up_is_scraped_and_charted(tmp_path: Path) -> None:
    """The way of the README: the demo stays up, Prometheus scrapes it, the dashboard has something to show."""
    folder = tmp_path / "kept"
    process, mark = demo(tmp_path, "--keep", "--directory", str(folder))
    try:
        await asyncio.to_thread(process.wait_ready, lambda: "Ctrl-C stops" in process.log_path.read_text(), timeout=600)
        config = yaml.safe_load((folder / "dualtrack.yaml").read_text())
        admin = config["admin"]
        async with ClientSession() as session, scraping(f"127.0.0.1:{admin['port']}", tmp_path, session) as prometheus:
            await prometheus.sees("count_over_time(up[5m]) > 2")
            env = clean_environment(MLFLOW_TRACKING_URI=f"http://127.0.0.1:{config['listen']['port']}")
            again = Process([sys.executable, str(TRAINING)], log_path=tmp_path / "train.log", env=env)
            assert await asyncio.to_thread(again.wait, 240) == 0, again.tail()
            (scrapes,) = await prometheus.ask("count_over_time(up[10m])")
            await prometheus.sees(f"count_over_time(up[10m]) > {scrapes + 2}")
            await prometheus.sees('sum(dualtrack_verify_runs_total{outcome="explained"}) > 0')
            await shows_all(prometheus, but=OF_TROUBLE)
            groups = (await prometheus.get("rules"))["groups"]
            async with session.get(f"http://127.0.0.1:{admin['port']}/") as page:
                shown = await page.text()
    finally:
        process.stop(timeout=60)  # five processes, one after the other

    assert all(rule["health"] == "ok" for group in groups for rule in group["rules"])
    assert "azureml" in shown
    assert process.wait(10) == 0  # as it was told
    assert leaves_nothing(mark)


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are found in /proc")
def test_the_mark_finds_processes() -> None:
    """The test above would see what is left over."""
    mark = uuid.uuid4().hex
    argv = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    process = Process(argv, log_path=Path(os.devnull), env={**os.environ, MARK: mark})
    try:
        process.wait_ready(lambda: bool(started_by(mark)))  # it has an environment only once it is being executed
        process.pause()
        assert len(started_by(mark)) == 1
    finally:
        process.kill()
    assert started_by(mark) == []
