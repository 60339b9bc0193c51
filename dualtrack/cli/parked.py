"""`dualtrack parked`: dead letters, each with its reason and the next step."""

import time
from typing import Any

import click

from dualtrack.cli.client import AdminClient
from dualtrack.cli.exits import Exit, finish
from dualtrack.cli.options import example, json_option, proxy_options
from dualtrack.cli.output import age, clean, instant, say, say_json, say_table

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


@parked.command(epilog=example("dualtrack parked retry 7 8 9"))
@click.argument("numbers", type=_NUMBER, nargs=-1, required=True)
@json_option
@proxy_options
def retry(proxy: AdminClient, numbers: tuple[int, ...], as_json: bool) -> None:
    """Queue parked writes again, once their cause is mended."""
    done = [proxy.retry(number)["retried"] for number in numbers]
    if as_json:
        say_json({"retried": done})
    else:
        say(f"queued again: {', '.join(map(str, done))}. `dualtrack parked list` shows whether it was refused again")


@parked.command(epilog=example('dualtrack parked discard 7 --note "the run was deleted by hand"'))
@click.argument("numbers", type=_NUMBER, nargs=-1, required=True)
@click.option("--note", required=True, help="Why; it is kept with the record of the loss.")
@json_option
@proxy_options
def discard(proxy: AdminClient, numbers: tuple[int, ...], note: str, as_json: bool) -> None:
    """Give parked writes up; the loss is recorded with your note.

    Discarding the creation of a run, experiment or model leaves all of it out of that backend.
    """
    done = [proxy.discard(number, note)["discarded"] for number in numbers]
    if as_json:
        say_json({"discarded": done, "note": note})
    else:
        say(f"discarded: {', '.join(map(str, done))}")


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
