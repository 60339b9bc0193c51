"""`dualtrack status`: how the running proxy and its backends are."""

from typing import Any

import click

from dualtrack.cli.client import AdminClient
from dualtrack.cli.exits import Exit, finish
from dualtrack.cli.options import example, json_option, proxy_options
from dualtrack.cli.output import age, say, say_json, say_table, size

_COLUMNS = ("backend", "role", "url", "up", "breaker", "backlog", "lag", "parked", "losses", "last error")


@click.command(
    epilog=example("dualtrack status", "dualtrack status --json | jq '.backends[] | {name, backlog, lag_seconds}'")
)
@json_option
@proxy_options
def status(proxy: AdminClient, as_json: bool) -> None:
    """Show backends, backlog, lag and parked writes of the running proxy.

    Exits 1 when writes are parked: they wait for a person. Backlog alone is no trouble; it is delivered by itself.
    """
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
    return lines
