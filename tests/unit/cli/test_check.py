"""`dualtrack check`: says what is wrong, all of it, or what it means."""

from pathlib import Path

import orjson
import pytest

from dualtrack.app import OnlineReport
from dualtrack.config import Config
from tests.unit.cli.conftest import TOKEN, Shell, configuration

BROKEN = "primary: a\nbackends: {b: {url: nonsense://x}}\nlisten: {port: many}\n"


@pytest.fixture
def config(shell: Shell) -> Path:
    (shell.folder / "token").write_text(TOKEN)
    path = shell.folder / "some.yaml"
    path.write_text(configuration(5001))
    return path


def online(monkeypatch: pytest.MonkeyPatch, *, ok: bool) -> None:
    async def check_online(config: Config) -> list[OnlineReport]:
        return [
            OnlineReport(name=name, ok=ok, who="me", detail="it speaks", hint="" if ok else "mend it")
            for name in config.backends
        ]

    monkeypatch.setattr("dualtrack.app.check_online", check_online)


def test_a_good_configuration_is_explained(shell: Shell, config: Path) -> None:
    people = shell("check", "--config", str(config))
    machine = shell("check", "--config", str(config), "--json")

    assert people.exit_code == machine.exit_code == 0
    assert "a: MLflow at http://a.test" in people.stdout
    document = orjson.loads(machine.stdout)
    assert (document["ok"], document["config"]["primary"]) == (True, "a")
    assert TOKEN not in people.output + machine.output


def test_every_problem_is_printed(shell: Shell) -> None:
    Path("dualtrack.yaml").write_text(BROKEN)

    people = shell("check")
    machine = shell("check", "--json")

    assert people.exit_code == machine.exit_code == 2
    problems = orjson.loads(machine.stdout)["problems"]
    assert len(problems) >= 3
    assert len(people.stderr.splitlines()) == len(problems)
    assert all(problem["fix"] for problem in problems)


def test_no_file_is_exit_2(shell: Shell) -> None:
    result = shell("check")

    assert result.exit_code == 2
    assert "--config FILE" in result.stderr


def test_online_names_each_backend(shell: Shell, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    online(monkeypatch, ok=True)

    people = shell("check", "--online", "--config", str(config))
    machine = shell("check", "--online", "--json", "--config", str(config))

    assert people.exit_code == machine.exit_code == 0
    assert people.stdout.count("it speaks") == 2
    assert [report["who"] for report in orjson.loads(machine.stdout)["online"]] == ["me", "me"]


def test_a_backend_that_does_not_answer_is_exit_3(shell: Shell, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    online(monkeypatch, ok=False)

    people = shell("check", "--online", "--config", str(config))
    machine = shell("check", "--online", "--json", "--config", str(config))

    assert people.exit_code == machine.exit_code == 3
    assert "mend it" in people.stdout
    assert orjson.loads(machine.stdout)["ok"] is False
