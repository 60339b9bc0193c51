"""`dualtrack status --losses`: what a secondary could not hold, of everything or of one run, experiment or model."""

from collections.abc import Iterable, Iterator
from typing import Any

import click
import orjson

from dualtrack.cli.client import AdminClient
from dualtrack.cli.output import clean, say

EVERYTHING = "all"
_COLUMNS = ("backend", "of", "kind", "item", "reason", "times", "detail")


def show(proxy: AdminClient, some_id: str, *, as_json: bool) -> None:
    """Write page by page, the newest first: there may be more than memory holds."""
    found = proxy.losses() if some_id == EVERYTHING else _of(proxy, some_id)
    for line in _json_lines(found) if as_json else _lines(found):
        click.echo(line)


def _of(proxy: AdminClient, some_id: str) -> Iterator[dict[str, Any]]:
    """All losses of what any backend calls `some_id`."""
    for entity in proxy.entity(some_id)["entities"]:
        yield from proxy.losses(f"{entity['kind']}:{entity['client_id']}")


def _json_lines(losses: Iterable[dict[str, Any]]) -> Iterator[str]:
    yield '{"losses": ['
    before = ""
    for loss in losses:
        yield before + orjson.dumps(loss).decode()
        before = ","
    yield "]}"


def _lines(losses: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Tab separated, as `ids export` is: a detail is long, and a table would have to be held whole."""
    is_first = True
    for loss in losses:
        if is_first:
            yield "\t".join(_COLUMNS)
        is_first = False
        cells = (loss["backend"], loss["key"], loss["kind"], loss["item"] or "(whole)", loss["reason"])
        yield "\t".join(clean(cell) for cell in (*cells, str(loss["times"]), loss["detail"]))
    if is_first:
        say("nothing is lost")
