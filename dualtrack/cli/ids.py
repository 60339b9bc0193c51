"""`dualtrack ids`: what a run, experiment or model is called on each backend."""

from collections.abc import Iterable, Iterator
from typing import Any

import click
import orjson

from dualtrack.cli.client import AdminClient
from dualtrack.cli.options import example, json_option, proxy_options
from dualtrack.cli.output import clean, say_json, say_table

_COLUMNS = ("kind", "client id", "backend", "id", "name", "web")


@click.command(epilog=example("dualtrack ids 5f3c0a1e9d684f2b8f0e6f6d7c1b2a39", "dualtrack ids export > ids.tsv"))
@click.argument("target", metavar="ID|export")
@json_option
@proxy_options
def ids(proxy: AdminClient, target: str, as_json: bool) -> None:
    """Show the ids, names and web links of ID on every backend.

    ID is what any backend calls a run, an experiment or a logged model. `export` writes the whole map instead: tab
    separated, one row per backend, or one JSON document with --json.
    """
    if target == "export":
        _export(proxy.entities(), as_json=as_json)
        return
    document = proxy.entity(target)
    if as_json:
        say_json(document)
    else:
        say_table(_COLUMNS, [row for entity in document["entities"] for row in _rows(entity)])


def _rows(entity: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for twin in entity["twins"]:
        own_id = "(discarded)" if twin["discarded"] else twin["id"]
        yield entity["kind"], entity["client_id"], twin["backend"], own_id, twin["name"], twin["web"]


def _export(entities: Iterable[dict[str, Any]], *, as_json: bool) -> None:
    """Write page by page: the map may be larger than memory."""
    for line in _json_lines(entities) if as_json else _tab_lines(entities):
        click.echo(line)


def _json_lines(entities: Iterable[dict[str, Any]]) -> Iterator[str]:
    yield '{"entities": ['
    before = ""
    for entity in entities:
        yield before + orjson.dumps(entity).decode()
        before = ","
    yield "]}"


def _tab_lines(entities: Iterable[dict[str, Any]]) -> Iterator[str]:
    yield "\t".join(column.replace(" ", "_") for column in _COLUMNS)
    for entity in entities:
        for row in _rows(entity):
            yield "\t".join(clean(cell) for cell in row)
