"""`dualtrack parked`: dead letters, each with its reason and the next step."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import click

from dualtrack.cli.client import AdminClient
from dualtrack.cli.exits import Exit, finish
from dualtrack.cli.options import example, json_option, proxy_options
from dualtrack.cli.output import clean, say, say_json, say_table
from dualtrack.core.wording import age, instant

_NUMBER = click.IntRange(0, 10**18 - 1)
_COLUMNS = ("number", "backend", "what", "operation", "age", "reason", "next step")


@click.group(
    epilog=example(
        "dualtrack parked list",
        "dualtrack parked show 7",
        "dualtrack parked retry 7",
        'dualtrack parked discard 7 --note "the run was deleted by hand"',
    )
)
def parked() -> None:
    """List, show, retry or discard writes that a backend will not take.

    Retrying and discarding need the admin token: `admin.token` of the configuration, or $DUALTRACK_ADMIN_TOKEN.
    """


@parked.command("list", epilog=example("dualtrack parked list --json | jq '.parked[].reason'"))
@json_option
@proxy_options
def list_(proxy: AdminClient, as_json: bool) -> None:
    """List parked writes, the newest first; exits 1 when there are any."""
    document = proxy.parked()
    letters = document["parked"]
    if as_json:
        say_json(document)
    elif letters:
        now = time.time()
        say_table(_COLUMNS, [_row(letter, now) for letter in letters])
    else:
        say("nothing is parked")
    finish(Exit.LEFT_OVER if letters else Exit.FINE)


@parked.command(epilog=example("dualtrack parked show 7"))
@click.argument("number", type=_NUMBER)
@json_option
@proxy_options
def show(proxy: AdminClient, number: int, as_json: bool) -> None:
    """Show one parked write with its request."""
    letter = proxy.letter(number)
    if as_json:
        say_json(letter)
        return
    for name in ("id", "backend", "key", "operation", "reason", "cause"):
        say(f"{name:10} {letter[name]}")
    say(f"{'parked at':10} {instant(letter['parked_at'])}")
    say(f"{'next step':10} {letter['next_step']}")
    _show_exchange(letter["exchange"])


def _selection(command: Callable[..., None]) -> Callable[..., None]:
    """The numbers of parked writes, or what they have in common."""
    for option in (
        click.option("--all", "everything", is_flag=True, help="All of them, or all that the other options choose."),
        click.option("--backend", metavar="NAME", help="Those of one backend."),
        click.option("--reason", metavar="TEXT", help="Those whose reason or cause holds this text."),
        click.argument("numbers", type=_NUMBER, nargs=-1),
    ):
        command = option(command)
    return command


@parked.command(epilog=example("dualtrack parked retry 7 8 9", "dualtrack parked retry --reason RESOURCE_EXHAUSTED"))
@_selection
@json_option
@proxy_options
def retry(
    proxy: AdminClient,
    numbers: tuple[int, ...],
    reason: str | None,
    backend: str | None,
    everything: bool,
    as_json: bool,
) -> None:
    """Queue parked writes again, once their cause is mended: by number, by reason, of a backend, or all."""
    chosen = _Chosen(numbers=numbers, reason=reason, backend=backend, everything=everything)
    done = [proxy.retry(number)["retried"] for number in chosen.among(proxy)]
    if as_json:
        say_json({"retried": done})
    elif done:
        say(f"queued again: {', '.join(map(str, done))}. `dualtrack parked list` shows whether it was refused again")
    else:
        say("nothing parked is like that")


@parked.command(epilog=example('dualtrack parked discard 7 --note "the run was deleted by hand"'))
@_selection
@click.option("--note", required=True, help="Why; it is kept with the record of the loss.")
@json_option
@proxy_options
def discard(
    proxy: AdminClient,
    numbers: tuple[int, ...],
    reason: str | None,
    backend: str | None,
    everything: bool,
    note: str,
    as_json: bool,
) -> None:
    """Give parked writes up; the loss is recorded with your note.

    Discarding the creation of a run, experiment or model leaves all of it out of that backend.
    """
    chosen = _Chosen(numbers=numbers, reason=reason, backend=backend, everything=everything)
    done = [proxy.discard(number, note)["discarded"] for number in chosen.among(proxy)]
    if as_json:
        say_json({"discarded": done, "note": note})
    else:
        say(f"discarded: {', '.join(map(str, done))}" if done else "nothing parked is like that")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chosen:
    """Which parked writes a command is about."""

    numbers: tuple[int, ...]
    reason: str | None
    backend: str | None
    everything: bool

    def among(self, proxy: AdminClient) -> Iterator[int]:
        """Yield their numbers; one that is parked anew meanwhile is not among them. Raise `UsageError` for none."""
        is_by_likeness = self.everything or self.reason is not None or self.backend is not None
        if bool(self.numbers) is is_by_likeness:
            raise click.UsageError("name numbers, or choose with --reason, --backend or --all")
        yield from self.numbers
        before = None
        while is_by_likeness and (letters := proxy.parked(before)["parked"]):
            yield from [letter["id"] for letter in letters if self._is_like(letter)]
            before = min(letter["id"] for letter in letters)

    def _is_like(self, letter: dict[str, Any]) -> bool:
        words = f"{letter['reason']}\n{letter['cause']}"
        return self.backend in {None, letter["backend"]} and (self.reason or "").lower() in words.lower()


def _row(letter: dict[str, Any], now: float) -> tuple[str, ...]:
    waited = age(max(0.0, now - letter["parked_at"]))
    what = letter["key"] + (" (holds the rest back)" if letter["holds"] else "")
    head = (str(letter["id"]), letter["backend"], what, letter["operation"], waited)
    return (*head, letter["reason"], letter["next_step"])


def _show_exchange(exchange: dict[str, Any] | None) -> None:
    if exchange is None:
        say("request    cannot be read: the record is damaged")
        return
    query = f"?{exchange['query']}" if exchange["query"] else ""
    say(f"{'request':10} {exchange['method']} {exchange['path']}{query}")
    cut = ", cut here" if exchange["body_is_cut"] else ""
    say(f"{'body':10} {exchange['body_bytes']} bytes{cut}")
    for line in exchange["body"].splitlines():
        click.echo(f"  {clean(line)}")
