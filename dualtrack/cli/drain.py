"""`dualtrack drain`: wait until every acknowledged write has been delivered."""

import functools
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import click

from dualtrack.cli.client import AdminClient
from dualtrack.cli.exits import Exit, finish
from dualtrack.cli.options import duration, example, json_option, proxy_options
from dualtrack.cli.output import say, say_json

_PAUSE_SECONDS: Final = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Remains:
    """What has not been delivered. `is_stuck` says that waiting changes nothing: all of it waits for a parked entry."""

    backlog: dict[str, int]
    parked: dict[str, int]
    open_entries: int
    is_stuck: bool

    @property
    def is_drained(self) -> bool:
        return not self.open_entries and not any(self.backlog.values())

    @property
    def is_clean(self) -> bool:
        return self.is_drained and not any(self.parked.values())

    def __str__(self) -> str:
        parts = [f"{name}: {count} to deliver" for name, count in self.backlog.items() if count]
        parts += [f"{name}: {count} parked" for name, count in self.parked.items() if count]
        parts += [f"{self.open_entries} open at the primary"] if self.open_entries else []
        return "; ".join(parts) or "nothing is left"


def remains(status: dict[str, Any]) -> Remains:
    """Read from a status what is left."""
    secondaries = [backend for backend in status["backends"] if backend["role"] == "secondary"]
    backlog = {backend["name"]: backend["backlog"] for backend in secondaries}
    # entries that no lane holds were delivered while the lanes were counted, so they wait for nobody
    is_held = all(backend["lanes"] == backend["held_lanes"] > 0 for backend in secondaries if backend["backlog"])
    return Remains(
        backlog=backlog,
        parked={backend["name"]: backend["parked"] for backend in secondaries},
        open_entries=status["open_entries"],
        is_stuck=any(backlog.values()) and not status["open_entries"] and is_held,
    )


def wait_until_drained(
    ask: Callable[[], dict[str, Any]],
    *,
    timeout: float,
    clock: Callable[[], float],
    pause: Callable[[], None],
    show: Callable[[Remains], None],
) -> Remains:
    """Ask until nothing is left, nothing moves any more, or `timeout` seconds are over; answer what is left."""
    deadline = clock() + timeout
    while True:
        left = remains(ask())
        if left.is_drained or left.is_stuck or clock() >= deadline:
            return left
        show(left)
        pause()


@click.command(epilog=example("dualtrack drain --timeout 10m && systemctl stop dualtrack"))
@click.option("--timeout", callback=duration, default="5m", show_default=True, help="Give up after this long.")
@json_option
@proxy_options
def drain(proxy: AdminClient, timeout: float, as_json: bool) -> None:
    """Wait until the backlog is empty: every acknowledged write is on every backend.

    Writes go on meanwhile; stop the clients first if it has to stay empty. Exits 1 with what is left at the timeout,
    when all that is left waits for a parked entry, and when writes are parked.
    """
    left = watch(proxy, timeout)
    if as_json:
        lines = {"backlog": left.backlog, "parked": left.parked, "open_entries": left.open_entries}
        say_json({"drained": left.is_drained, **lines})
    else:
        say(f"drained: {left}" if left.is_drained else f"not drained: {left}")
        if any(left.parked.values()):
            say("next: `dualtrack parked list`")
    finish(Exit.FINE if left.is_clean else Exit.LEFT_OVER)


def _pause() -> None:
    time.sleep(_PAUSE_SECONDS)  # pragma: no cover - tests do not sleep


def watch(proxy: AdminClient, timeout: float, pause: Callable[[], None] = _pause) -> Remains:
    """Wait until the proxy is drained, with a line of progress on a terminal."""
    wait = functools.partial(wait_until_drained, proxy.status, timeout=timeout, clock=time.monotonic, pause=pause)
    if not sys.stderr.isatty():
        return wait(show=lambda _: None)
    from rich.console import Console  # noqa: PLC0415 - only for a terminal

    with Console(stderr=True).status("draining") as line:
        return wait(show=lambda left: line.update(f"draining: {left}"))
