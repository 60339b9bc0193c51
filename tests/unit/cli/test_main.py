"""The command as a whole: help, versions, exit codes, and that it starts fast."""

import subprocess
import sys

import click
import orjson
import pytest

from dualtrack import __version__
from dualtrack.cli import main
from tests.unit.cli.conftest import Shell

HEAVY = ("aiohttp", "azure", "mlflow", "pydantic", "rich", "structlog", "uvloop", "yaml")


def commands(group: click.Group, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for name, command in group.commands.items():
        found += commands(command, (*path, name)) if isinstance(command, click.Group) else [(*path, name)]
    return found


@pytest.mark.parametrize("path", commands(main))
def test_help_teaches_with_an_example(shell: Shell, path: tuple[str, ...]) -> None:
    result = shell(*path, "--help")

    assert result.exit_code == 0
    assert "Example:\n    dualtrack " in result.stdout
    assert "--config FILE" in result.stdout


def test_the_commands_of_the_contract_are_there() -> None:
    assert set(main.commands) == {
        *("serve", "check", "demo", "status", "ids", "parked", "drain"),
        *("verify", "reconcile", "backfill", "version"),
    }


def test_importing_the_command_is_light() -> None:
    code = f"import sys, dualtrack.cli; print([name for name in {HEAVY} if name in sys.modules])"

    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)

    assert result.stdout.strip() == "[]"


def test_version(shell: Shell) -> None:
    assert shell("version").stdout.startswith(f"dualtrack {__version__} ")
    assert orjson.loads(shell("version", "--json").stdout)["version"] == __version__


@pytest.mark.parametrize("arguments", [["nonsense"], ["status", "--nonsense"], ["ids"]])
def test_wrong_usage_is_exit_2(shell: Shell, arguments: list[str]) -> None:
    assert shell(*arguments).exit_code == 2


def test_demo_without_mlflow_says_what_to_install(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["dualtrack.cli.demo"], "_NEEDED", ("no-such-distribution",))

    result = shell("demo")

    assert result.exit_code == 2
    assert "pip install 'dualtrack[demo]'" in result.stderr


def test_demo_passes_its_options_and_its_exit_code_on(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def run_demo(*arguments: object) -> int:
        asked.extend(arguments)
        return 1

    monkeypatch.setattr("dualtrack.demo.demo.run_demo", run_demo)

    assert shell("demo", "--keep", "--json").exit_code == 1
    assert asked == [True, True, None]
