"""`dualtrack verify` and `dualtrack reconcile`: do both sides agree, and what makes them."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import click

from dualtrack.cli.client import AdminClient
from dualtrack.cli.exits import Exit, finish
from dualtrack.cli.options import example, json_option, moment, proxy_options
from dualtrack.cli.output import clean, say, say_json

_FINE = {"equal", "explained", "discarded"}
_OWN_MARK = "our own mark"  # every mirror has them: only --json shows them


def _selection(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option(
            "--content", is_flag=True, help="Read all files of the secondary and compare their hashes, not only sizes."
        ),
        click.option("--to", "backend", metavar="NAME", help="Only this secondary.  [default: every one]"),
        click.option("--since", metavar="WHEN", callback=moment, help="Only runs that began since: 7d, 2026-05-01."),
        click.option("--experiment", "experiments", metavar="NAME|ID", multiple=True, help="Only this; repeatable."),
        click.option("--run", "ids", metavar="ID", multiple=True, help="Only this, by any of its ids; repeatable."),
    ):
        command = option(command)
    return command


@click.command(
    epilog=example(
        "dualtrack verify                                  # everything; equal entities are only counted",
        "dualtrack verify --run 5f3c0a1e9d684f2b8f0e6f6d7c1b2a39",
        "dualtrack verify --content --since 1d             # files by their bytes: downloads them from the secondary",
        "dualtrack verify --experiment churn --since 7d --json | jq 'select(.state == \"drift\")'",
    )
)
@_selection
@json_option
@proxy_options
def verify(
    proxy: AdminClient,
    ids: tuple[str, ...],
    experiments: tuple[str, ...],
    since: float | None,
    backend: str | None,
    content: bool,
    as_json: bool,
) -> None:
    """Compare the sides, field by field, point by point, file by file; writes nothing.

    Exits 0 when all is equal, or differs only by what is on record as lost or cannot be otherwise; 1 when something
    drifted or is still on its way; 3 when a backend could not be read. With --json one line per entity, then a sum.
    """
    asked = {"id": ids, "experiment": experiments, "since": since, "backend": backend}
    documents = proxy.verify(asked | ({"content": "true"} if content else {}))
    finish(_show(documents, as_json=as_json))


@click.command(
    epilog=example(
        "dualtrack reconcile --dry-run                     # what would be done",
        "dualtrack reconcile --experiment churn && dualtrack drain --timeout 5m && dualtrack verify --experiment churn",
    )
)
@_selection
@click.option("--dry-run", is_flag=True, help="Say what would be queued, and queue nothing.")
@json_option
@proxy_options
def reconcile(
    proxy: AdminClient,
    ids: tuple[str, ...],
    experiments: tuple[str, ...],
    since: float | None,
    backend: str | None,
    content: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Compare the sides, and queue the writes that make a secondary agree with the primary.

    What no write can mend is named with the choice there is, and exits 1. Needs the admin token. Nothing on a
    secondary is ever deleted.
    """
    asked = {"ids": list(ids), "experiments": list(experiments), "dry_run": dry_run}
    asked |= {"since": since} if since is not None else {}
    asked |= {"backend": backend} if backend is not None else {}
    asked |= {"content": True} if content else {}
    finish(_show(proxy.reconcile(asked), as_json=as_json, is_repair=True))


def _show(documents: Iterable[dict[str, Any]], *, as_json: bool, is_repair: bool = False) -> Exit:
    """Print what comes, as it comes; answer how to exit."""
    is_fine, error = True, "the answer was cut short"
    for document in documents:
        if "summary" in document:
            error = document["error"]
        elif is_repair:
            is_fine &= document["state"] != "pending" and not document["unrepaired"]
        else:
            is_fine &= document["state"] in _FINE
        if as_json:
            say_json(document, is_line=True)
            continue
        for line in _lines(document):
            say(line)
    if error:
        click.echo(f"dualtrack: {clean(error)}", err=True)
        return Exit.UNREACHABLE
    return Exit.FINE if is_fine else Exit.LEFT_OVER


def _lines(document: dict[str, Any]) -> Iterator[str]:
    if "summary" in document:
        counts = ", ".join(f"{count} {state}" for state, count in sorted(document["summary"].items()))
        yield counts or "nothing to compare"
        return
    shown = [each for each in document["differences"] if each["explanation"] != _OWN_MARK]
    if document["state"] in {"equal", "explained"} and not shown:
        return
    yield f"{document['state']:10} {document['kind']} {document['id']} {document['name']}  on {document['backend']}"
    for each in shown:
        why = f"  ({each['explanation']})" if each["explanation"] else ""
        what = f"{each['kind']} {each['item']}" + (f", {each['detail']}" if each["detail"] else "")
        yield f"    {what}: {_said(each['here'])} here, {_said(each['there'])} there{why}"
    writes = document.get("writes", [])
    if writes or document.get("brings"):
        yield f"    queued: {', '.join([*writes, *(f'all of {key}' for key in document['brings'])])}"
    for each in document.get("unrepaired", ()):
        yield f"    not mended: {each['kind']} {each['item']}: {each['choice']}"


def _said(value: str | None) -> str:
    return "absent" if value is None else repr(value)
