"""`dualtrack status`: how the running proxy and its backends are."""

from typing import Any

import click

from dualtrack.cli import losses
from dualtrack.cli.client import AdminClient
from dualtrack.cli.exits import Exit, finish
from dualtrack.cli.losses import EVERYTHING
from dualtrack.cli.options import example, json_option, proxy_options
from dualtrack.cli.output import say, say_json, say_table
from dualtrack.core.wording import age, size

_COLUMNS = ("backend", "role", "url", "up", "breaker", "backlog", "lag", "parked", "losses", "last error")


@click.command(
    epilog=example(
        "dualtrack status",
        "dualtrack status --json | jq '.backends[] | {name, backlog, lag_seconds}'",
        "dualtrack status --losses 5f3c0a1e9d684f2b8f0e6f6d7c1b2a39",
    )
)
@click.option(
    "--losses",
    "lost_of",
    metavar="[ID]",
    is_flag=False,
    flag_value=EVERYTHING,
    help="List what secondaries could not hold instead: all of it, or of what any backend calls ID.",
)
@json_option
@proxy_options
def status(proxy: AdminClient, as_json: bool, lost_of: str | None) -> None:
    """Show backends, backlog, lag, parked writes and losses of the running proxy.

    Exits 1 when writes are parked: they wait for a person. Backlog alone is no trouble; it is delivered by itself. A
    loss is something that a backend could not hold: nobody has to act, but it is not there as it was logged.
    """
    if lost_of is not None:
        losses.show(proxy, lost_of, as_json=as_json)
        return
    document = proxy.status()
    if as_json:
        say_json(document)
    else:
        _print(document)
    finish(Exit.LEFT_OVER if any(backend["parked"] for backend in document["backends"]) else Exit.FINE)


def _print(document: dict[str, Any]) -> None:
    say_table(_COLUMNS, [_row(backend) for backend in document["backends"]])
    for line in _lines(document):
        say(line)


def _row(backend: dict[str, Any]) -> tuple[str, ...]:
    role = backend["role"] + (" + registry" if backend["is_registry"] else "")
    up = {True: "yes", False: "no", None: "?"}[backend["up"]]
    counts = backend["role"] == "secondary"
    return (
        backend["name"],
        role,
        backend["url"],
        up,
        backend["breaker"],
        str(backend["backlog"]) if counts else "-",
        age(backend["lag_seconds"]),
        str(backend["parked"]) if counts else "-",
        str(backend["losses"]) if counts else "-",
        backend["last_error"],
    )


def _lines(document: dict[str, Any]) -> list[str]:
    journal = document["journal"]
    used, capacity = journal["used_bytes"], journal["capacity_bytes"]
    lines = [
        f"journal: {size(used)} of {size(capacity)}; to deliver: {journal['entries']};"
        f" open at the primary: {document['open_entries']}" + ("; FULL" if journal["is_full"] else ""),
    ]
    if document["spool_capacity_bytes"]:
        lines.append(
            f"files that wait: {size(document['spool_used_bytes'])} of {size(document['spool_capacity_bytes'])}"
        )
    if journal["quarantined"]:
        lines.append(f"{journal['quarantined']} damaged records are set aside; `reconcile` repairs what they held")
    if not document["ready"]:
        lines.append(f"not ready: {document['reason']}")
    if any(backend["parked"] for backend in document["backends"]):
        lines.append("parked writes wait for a person: `dualtrack parked list`")
    if any(backend["losses"] for backend in document["backends"]):
        lines.append("what a backend could not hold: `dualtrack status --losses`, or `--losses ID` of one run")
    return lines
