"""`dualtrack parked`: list, show, retry, discard, and whose token allows it."""

import sqlite3
from contextlib import closing
from pathlib import Path

import orjson
import pytest

from tests.unit.cli.conftest import RUN, TOKEN, RunningProxy, Shell


def test_nothing_parked_is_exit_0(shell: Shell, proxy: RunningProxy) -> None:
    result = shell("parked", "list", "--admin-url", proxy.url)

    assert (result.exit_code, result.stdout) == (0, "nothing is parked\n")


def test_the_list_names_reason_and_next_step(shell: Shell, proxy: RunningProxy) -> None:
    number = proxy.park()

    people = shell("parked", "list", "--admin-url", proxy.url)
    machine = shell("parked", "list", "--admin-url", proxy.url, "--json")

    assert (people.exit_code, machine.exit_code) == (1, 1)
    assert "refused" in people.stdout
    assert f"dualtrack parked retry {number}" in people.stdout
    assert "(holds the rest back)" in people.stdout
    assert orjson.loads(machine.stdout)["parked"][0]["key"] == RUN.key


def test_show_prints_the_request(shell: Shell, proxy: RunningProxy) -> None:
    number = proxy.park()

    people = shell("parked", "show", str(number), "--admin-url", proxy.url)
    machine = shell("parked", "show", str(number), "--admin-url", proxy.url, "--json")

    assert people.exit_code == machine.exit_code == 0
    assert "POST /api/2.0/mlflow/runs/create?q=1" in people.stdout
    assert people.stdout.endswith('  {"a":\n  1}\n')
    assert orjson.loads(machine.stdout)["exchange"]["body"] == '{"a":\n1}'


def test_a_damaged_record_is_shown_without_its_request(shell: Shell, proxy: RunningProxy) -> None:
    number = str(proxy.park())
    with closing(sqlite3.connect(proxy.journal._path)) as connection, connection:
        connection.execute("UPDATE parked SET record = x'00'")

    people = shell("parked", "show", number, "--admin-url", proxy.url)
    machine = shell("parked", "show", number, "--admin-url", proxy.url, "--json")

    assert "the record is damaged" in people.stdout
    assert orjson.loads(machine.stdout)["exchange"] is None


def test_retry_with_the_token_of_the_configuration(shell: Shell, proxy: RunningProxy, config: Path) -> None:
    numbers = [str(proxy.park(holds=False)), str(proxy.park(holds=False))]

    result = shell("parked", "retry", *numbers, "--config", str(config), "--json")

    assert result.exit_code == 0, result.output
    assert orjson.loads(result.stdout) == {"retried": [int(number) for number in numbers]}
    assert proxy.call(proxy.journal.parked()) == []


@pytest.mark.parametrize(
    ("chosen", "left"),
    [(["--all"], 0), (["--backend", "b"], 0), (["--backend", "other"], 2), (["--reason", "no such thing"], 2)],
)
def test_retry_by_what_parked_writes_have_in_common(
    shell: Shell, proxy: RunningProxy, config: Path, chosen: list[str], left: int
) -> None:
    for _ in range(2):
        proxy.park(holds=False)

    result = shell("parked", "retry", *chosen, "--config", str(config))

    assert result.exit_code == 0, result.output
    assert len(proxy.call(proxy.journal.parked())) == left
    assert ("nothing parked is like that" in result.output) is (left > 0)


def test_a_reason_is_looked_for_in_the_backend_s_words(shell: Shell, proxy: RunningProxy, config: Path) -> None:
    proxy.park(holds=False)
    (letter,) = proxy.call(proxy.journal.parked())
    words = letter.cause[:8].upper()

    result = shell("parked", "discard", "--reason", words, "--note", "n", "--config", str(config), "--json")

    assert orjson.loads(result.stdout)["discarded"] == [letter.parked_id]


@pytest.mark.parametrize("chosen", [[], ["1", "--all"]])
def test_what_is_meant_has_to_be_said_in_one_way(shell: Shell, proxy: RunningProxy, chosen: list[str]) -> None:
    result = shell("parked", "retry", *chosen, "--admin-url", proxy.url)

    assert result.exit_code == 2
    assert "--all" in result.output


def test_discard_with_the_token_of_the_environment(shell: Shell, proxy: RunningProxy) -> None:
    number = str(proxy.park())
    arguments = ("parked", "discard", number, "--note", "by hand", "--admin-url", proxy.url)

    result = shell(*arguments, DUALTRACK_ADMIN_TOKEN=TOKEN)

    assert (result.exit_code, result.stdout) == (0, f"discarded: {number}\n")
    (kept,) = proxy.call(proxy.journal.losses())
    assert kept.loss.detail == "createRun: by hand"


def test_an_address_and_a_file_that_has_the_token(shell: Shell, proxy: RunningProxy, config: Path) -> None:
    number = str(proxy.park())

    result = shell("parked", "retry", number, "--admin-url", proxy.url, "--config", str(config))

    assert result.exit_code == 0, result.output


def test_discard_as_json(shell: Shell, proxy: RunningProxy, config: Path) -> None:
    number = proxy.park()

    result = shell("parked", "discard", str(number), "--note", "n", "--config", str(config), "--json")

    assert orjson.loads(result.stdout) == {"discarded": [number], "note": "n"}


@pytest.mark.parametrize("environment", [{}, {"DUALTRACK_ADMIN_TOKEN": "wrong-token"}])
def test_without_the_right_token_nothing_changes(
    shell: Shell, proxy: RunningProxy, environment: dict[str, str]
) -> None:
    number = str(proxy.park())

    result = shell("parked", "retry", number, "--admin-url", proxy.url, **environment)

    assert result.exit_code == 2
    assert "DUALTRACK_ADMIN_TOKEN" in result.stderr
    assert "wrong-token" not in result.output
    assert len(proxy.call(proxy.journal.parked())) == 1


@pytest.mark.parametrize("arguments", [("show", "99"), ("retry", "99"), ("discard", "99", "--note", "n")])
def test_an_unknown_number_is_exit_2(
    shell: Shell, proxy: RunningProxy, config: Path, arguments: tuple[str, ...]
) -> None:
    result = shell("parked", *arguments, "--config", str(config))

    assert result.exit_code == 2
    assert "nothing is parked under 99" in result.stderr


@pytest.mark.parametrize(
    "arguments", [("retry",), ("show", "x"), ("discard", "1"), ("retry", "-1"), ("show", str(10**20))]
)
def test_wrong_usage_is_exit_2(shell: Shell, arguments: tuple[str, ...]) -> None:
    assert shell("parked", *arguments).exit_code == 2
