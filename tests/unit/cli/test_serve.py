"""`dualtrack serve`: which configuration it runs, and how it says that it cannot."""

import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from dualtrack.config import Config
from dualtrack.errors import StartError
from tests.unit.cli.conftest import TOKEN, Shell, configuration

URLS = ("--primary", "http://a.test", "--secondary", "http://b.test", "--registry", "primary")


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    """Leave the process's logging as it was."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    structlog.reset_defaults()
    logging.captureWarnings(False)
    root.handlers[:], root.level = handlers, level


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """The configurations that were run instead of the real thing."""
    configs: list[Config] = []

    async def run(config: Config) -> None:
        configs.append(config)

    monkeypatch.setattr("dualtrack.app.run", run)
    return configs


@pytest.fixture
def config(shell: Shell) -> Path:
    (shell.folder / "token").write_text(TOKEN)
    path = shell.folder / "some.yaml"
    path.write_text(configuration(5001))
    return path


def test_a_file(shell: Shell, config: Path, served: list[Config]) -> None:
    assert shell("serve", "--config", str(config)).exit_code == 0
    assert [run.primary for run in served] == ["a"]


def test_two_addresses_and_a_registry_are_enough(shell: Shell, config: Path, served: list[Config]) -> None:
    """A file named in the environment steps back."""
    result = shell("serve", *URLS, "--port", "7000", "--admin-port", "7001", DUALTRACK_CONFIG=str(config))

    assert result.exit_code == 0, result.output
    (run,) = served
    assert (run.primary, run.registry, run.listen.port, run.admin.port) == ("primary", "primary", 7000, 7001)


def test_options_win_over_the_file(shell: Shell, config: Path, served: list[Config]) -> None:
    options = ("--port", "7000", "--admin-port", "7001", "--store", "sqlite:///./other.db")

    result = shell("serve", "--config", str(config), *options)

    assert result.exit_code == 0, result.output
    (run,) = served
    assert (run.listen.port, run.admin.port, run.store.path) == (7000, 7001, shell.folder / "other.db")


def test_it_runs_without_uvloop(
    shell: Shell, config: Path, served: list[Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)

    assert shell("serve", "--config", str(config)).exit_code == 0
    assert len(served) == 1


BAD = [
    (*URLS[:4],),
    ("--secondary", "http://b.test"),
    ("--registry", "a"),
    (*URLS, "--config", "some.yaml"),
    ("--config", "some.yaml", "--port", "5001"),
    ("--config", "some.yaml", "--store", "mysql://x"),
    ("--config", "some.yaml", "--port", "70000"),
    ("--config", "none.yaml"),
]


@pytest.mark.parametrize("arguments", BAD)
def test_what_cannot_be_run_is_exit_2(
    shell: Shell, config: Path, served: list[Config], arguments: tuple[str, ...]
) -> None:
    result = shell("serve", *arguments)

    assert result.exit_code == 2, result.output
    assert result.stderr
    assert served == []


def test_a_start_that_fails_is_one_line(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run(_: Config) -> None:
        raise StartError("listen.port: 5000 is taken. Stop what uses it, or choose another port")

    monkeypatch.setattr("dualtrack.app.run", run)

    result = shell("serve", *URLS)

    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        "dualtrack: listen.port: 5000 is taken. Stop what uses it, or choose another port"
    ]
