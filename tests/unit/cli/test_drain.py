"""`dualtrack drain`: when it waits, when it stops, and what it says then."""

import sys
from typing import Any

import orjson
import pytest

from dualtrack.cli.client import AdminClient
from dualtrack.cli.drain import Remains, wait_until_drained, watch
from tests.unit.cli.conftest import RunningProxy, Shell


def status(
    backlog: int = 0, *, parked: int = 0, held: int = 0, lanes: int = 1, open_entries: int = 0
) -> dict[str, Any]:
    secondary = {
        "name": "b",
        "role": "secondary",
        "backlog": backlog,
        "parked": parked,
        "lanes": lanes,
        "held_lanes": held,
    }
    primary = {"name": "a", "role": "primary", "backlog": 0, "parked": 0, "lanes": 0, "held_lanes": 0}
    return {"backends": [primary, secondary], "open_entries": open_entries}


def wait(*statuses: dict[str, Any], timeout: float = 10.0) -> tuple[Remains, list[str]]:
    """Answer what is left after these statuses, one a second, and what was shown on the way."""
    coming, shown, now = iter(statuses), list[str](), [0.0]

    def pause() -> None:
        now[0] += 1.0

    left = wait_until_drained(
        lambda: next(coming),
        timeout=timeout,
        clock=lambda: now[0],
        pause=pause,
        show=lambda remains: shown.append(str(remains)),
    )
    return left, shown


def test_it_waits_until_nothing_is_left() -> None:
    left, shown = wait(status(2), status(1), status(0, open_entries=1), status(0))

    assert left.is_clean
    assert shown == ["b: 2 to deliver", "b: 1 to deliver", "1 open at the primary"]


def test_it_gives_up_at_the_timeout() -> None:
    left, shown = wait(*[status(3)] * 10, timeout=2.0)

    assert (left.is_drained, str(left), len(shown)) == (False, "b: 3 to deliver", 2)


def test_a_timeout_of_nothing_asks_once() -> None:
    assert wait(status(3), timeout=0.0)[0].backlog == {"b": 3}


def test_it_does_not_wait_for_what_only_a_person_can_move() -> None:
    left, shown = wait(status(3, parked=1, held=1))

    assert (left.is_stuck, left.is_drained, shown) == (True, False, [])
    assert str(left) == "b: 3 to deliver; b: 1 parked"


def test_other_lanes_are_waited_for() -> None:
    left, _ = wait(status(3, held=1, lanes=2), status(0, lanes=0))

    assert left.is_drained


def test_what_moves_while_lanes_are_counted_is_waited_for() -> None:
    """Entries that no lane shows are on their way: nobody holds them."""
    left, shown = wait(status(2, lanes=0), status(0, lanes=0))

    assert (left.is_drained, shown) == (True, ["b: 2 to deliver"])


def test_an_empty_queue_is_exit_0(shell: Shell, proxy: RunningProxy) -> None:
    people = shell("drain", "--admin-url", proxy.url)
    machine = shell("drain", "--admin-url", proxy.url, "--json")

    assert (people.exit_code, people.stdout) == (0, "drained: nothing is left\n")
    assert people.stderr == ""
    assert orjson.loads(machine.stdout) == {"drained": True, "backlog": {"b": 0}, "parked": {"b": 0}, "open_entries": 0}


def test_what_is_left_at_the_timeout_is_exit_1(shell: Shell, proxy: RunningProxy) -> None:
    proxy.queue()
    proxy.open_entries = 2

    result = shell("drain", "--timeout", "0s", "--admin-url", proxy.url)

    assert (result.exit_code, result.stdout) == (1, "not drained: b: 1 to deliver; 2 open at the primary\n")


def test_a_terminal_sees_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first answer has a backlog; by the second it is delivered."""
    client = AdminClient("http://127.0.0.1:1", None)
    coming = iter([status(1), status(0)])
    monkeypatch.setattr(client, "status", lambda: next(coming))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)

    left = watch(client, 10.0, pause=lambda: None)

    assert left.is_clean


def test_parked_writes_are_exit_1(shell: Shell, proxy: RunningProxy) -> None:
    """Exit 0 means that every acknowledged write is on every backend."""
    proxy.park(holds=False)

    result = shell("drain", "--admin-url", proxy.url)

    assert result.exit_code == 1
    assert result.stdout == "drained: b: 1 parked\nnext: `dualtrack parked list`\n"


@pytest.mark.parametrize("timeout", ["soon", "-1s", "5 parsecs", ""])
def test_a_bad_timeout_is_wrong_usage(shell: Shell, timeout: str) -> None:
    assert shell("drain", "--timeout", timeout).exit_code == 2


@pytest.mark.parametrize("timeout", ["250ms", "5", "1.5s", "2m", "1h", "1d"])
def test_durations(shell: Shell, proxy: RunningProxy, timeout: str) -> None:
    assert shell("drain", "--timeout", timeout, "--admin-url", proxy.url).exit_code == 0


def test_nobody_there_is_exit_3(shell: Shell) -> None:
    assert shell("drain", "--admin-url", "http://127.0.0.1:1").exit_code == 3
