"""`dualtrack backfill`: what it selects, between which backends, and what it says; a running proxy is asked."""

import sys
import time
from pathlib import Path
from typing import Any, cast

import click
import orjson
import pytest

from dualtrack.cli.backfill import ask, outcome
from dualtrack.cli.client import AdminClient
from dualtrack.cli.options import moment
from dualtrack.cli.settings import between
from dualtrack.config import parse
from dualtrack.errors import StoreLockedError, UnreachableError
from dualtrack.reconcile.backfill import Selection
from tests.support.bar import Bar
from tests.unit.cli.conftest import Shell, configuration

NOTHING: dict[str, Any] = {
    **dict.fromkeys(("experiments", "found", "there", "marked", "brought", "stuck", "failed", "models"), 0),
    "problems": (),
}
THREE = """
primary: a
registry: a
backends: {a: {url: "http://a.test"}, b: {url: "http://b.test"}, c: {url: "http://c.test"}}
store: {url: "sqlite:///./journal.db"}
spool: {dir: ./spool}
"""


def read(given: str) -> float | None:
    return moment(click.Context(click.Command("x")), click.Option(["--since"]), given)


def test_when_is_how_long_ago_or_a_time() -> None:
    assert read("2026-05-01") == read("2026-05-01T00:00:00Z") == 1777593600.0
    ago = read("36h")
    assert ago is not None
    assert abs(time.time() - 36 * 3600 - ago) < 60
    for wrong in ("yesterday", "12", "h"):
        with pytest.raises(click.BadParameter):
            read(wrong)


def test_from_the_primary_the_configuration_stays(tmp_path: Path) -> None:
    config = parse(THREE, {}, tmp_path)

    assert between(config, None, None) == (config, ("b", "c"))
    assert between(config, "a", "c") == (config, ("c",))
    assert between(config, None, "b")[0] is config


def test_between_two_others_there_is_a_journal_of_their_own(tmp_path: Path) -> None:
    """Ids in it are those of another primary; so are the copies of files."""
    config = parse(THREE, {}, tmp_path)

    other, targets = between(config, "c", "a")

    assert (other.primary, other.registry, targets, list(other.backends)) == ("c", "c", ("a",), ["c", "a"])
    assert other.store.path == config.store.path.with_name("journal-c-to-a.db")
    assert other.spool_dir == config.spool_dir.with_name("spool-c-to-a")


@pytest.mark.parametrize(("source", "target"), [("x", None), (None, "x"), ("b", None), ("a", "a"), (None, "a")])
def test_what_makes_no_sense_is_wrong_usage(tmp_path: Path, source: str | None, target: str | None) -> None:
    with pytest.raises(click.UsageError):
        between(parse(THREE, {}, tmp_path), source, target)


@pytest.mark.parametrize(
    ("change", "parked"), [({"stuck": 1}, 0), ({"failed": 1}, 0), ({"problems": ("x",)}, 0), ({}, 1)]
)
def test_what_is_left_over_is_not_complete(change: dict[str, Any], parked: int) -> None:
    assert outcome("a", "b", NOTHING, 0, losses=3)["complete"]
    assert not outcome("a", "b", NOTHING | change, parked, losses=0)["complete"]


class Done:
    """Stands in for what the command calls; keeps what it was called with."""

    def __init__(self, result: Any) -> None:
        self.result = result
        self.calls: list[tuple[Any, ...]] = []

    async def __call__(self, *given: Any) -> Any:
        self.calls.append(given)
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


@pytest.fixture
def config_file(shell: Shell) -> str:
    (shell.folder / "token").write_text("t")
    (shell.folder / "x.yaml").write_text(configuration(1))
    return "x.yaml"


def bringing(monkeypatch: pytest.MonkeyPatch, result: Any) -> Done:
    done = Done(result)
    monkeypatch.setattr(sys.modules["dualtrack.cli.backfill"], "bring", done)
    return done


def test_it_says_what_was_done(shell: Shell, config_file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = outcome("a", "b", NOTHING | {"found": 7, "brought": 5, "marked": 2, "models": 1}, 0, losses=4)
    done = bringing(monkeypatch, [found])

    arguments = (
        "backfill",
        "--config",
        config_file,
        "--experiment",
        "x",
        "--experiment",
        "y",
        "--filter",
        "params.a = '1'",
    )
    text, machine = shell(*arguments), shell(*arguments, "--json")

    assert (text.exit_code, machine.exit_code) == (0, 0)
    assert "a     b   0            7" in text.stdout
    assert "1 logged models" in text.stdout
    assert "--losses" in text.stdout
    document = orjson.loads(machine.stdout)
    assert (document["complete"], document["backfills"][0]["brought"]) == (True, 5)
    (_, targets, selection, patience) = done.calls[0]
    assert (targets, selection.experiments, selection.wanted, patience) == (("b",), ("x", "y"), "params.a = '1'", 300.0)


def test_what_is_left_over_is_exit_1(shell: Shell, config_file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bringing(monkeypatch, [outcome("a", "b", NOTHING | {"stuck": 1, "problems": ("run:1: no",)}, 2, losses=0)])

    result = shell("backfill", "--config", config_file)

    assert result.exit_code == 1
    assert "run:1: no" in result.stdout
    assert "dualtrack parked list" in result.stdout


def test_a_backend_that_is_down_is_exit_3(shell: Shell, config_file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bringing(monkeypatch, UnreachableError("b", "backfill", "nobody there"))

    result = shell("backfill", "--config", config_file)

    assert (result.exit_code, "nobody there" in result.stderr) == (3, True)


class Proxy:
    """Stands in for a running proxy: says, one after the other, how far its backfill is."""

    def __init__(self, *said: dict[str, Any]) -> None:
        self._said = list(said)
        self.ordered: dict[str, Any] = {}

    def start_backfill(self, ordered: dict[str, Any]) -> dict[str, Any]:
        self.ordered = ordered
        return self.backfill()

    def backfill(self) -> dict[str, Any]:
        return {"source": "a", "target": "b", "error": "", **self._said.pop(0)}

    def status(self) -> dict[str, Any]:
        return {"backends": [{"name": "b", "parked": 0, "losses": 0}]}


@pytest.mark.parametrize(("is_shown", "told"), [(True, [(0, None), (3, 7)]), (False, [])])
def test_the_bar_of_a_running_proxys_backfill_knows_its_end(
    monkeypatch: pytest.MonkeyPatch, is_shown: bool, told: list[tuple[int, int | None]]
) -> None:
    """What is settled, of all there is as soon as that is counted; nothing is counted where nobody looks."""
    bar, command = Bar(), sys.modules["dualtrack.cli.backfill"]
    monkeypatch.setattr(command, "_bar", lambda _: bar)
    monkeypatch.setattr(command, "_pause", lambda: None)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_shown, raising=False)
    some = NOTHING | {"found": 5, "there": 1, "brought": 2}
    proxy = Proxy(
        {"state": "running", "tally": NOTHING, "total": None},
        {"state": "running", "tally": some, "total": 7},
        {"state": "done", "tally": some, "total": 7},
    )

    (found,) = ask(cast("AdminClient", proxy), ["b"], Selection(), 90.0)

    assert (found["complete"], bar.told) == (True, told)
    assert (proxy.ordered["to"], proxy.ordered["patience"], proxy.ordered["counts"]) == ("b", 90.0, is_shown)


def test_a_journal_in_use_by_nobody_who_answers_is_exit_3(
    shell: Shell, config_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bringing(monkeypatch, StoreLockedError("store.url: the journal is in use by process 1. Stop that"))

    result = shell("backfill", "--config", config_file)

    assert result.exit_code == 3
    assert "in use by process 1" in result.stderr
