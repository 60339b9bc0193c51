"""How commands print: one JSON document, or a table that is rich on a terminal and plain text elsewhere.

Names, errors and paths come from clients and backends, so control characters never reach the terminal.
"""

import sys
from collections.abc import Sequence
from itertools import zip_longest
from typing import Final

import click
import orjson

_CONTROLS: Final = dict.fromkeys((*range(32), *range(127, 160)), " ")


def is_terminal() -> bool:
    return sys.stdout.isatty()


def say_json(document: object, *, is_line: bool = False) -> None:
    """Print a document; `is_line` where many follow, each on a line of its own."""
    click.echo(orjson.dumps(document, option=0 if is_line else orjson.OPT_INDENT_2).decode())


def say(text: str) -> None:
    """Print one line."""
    click.echo(clean(text))


def say_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    cleaned = [[clean(cell) for cell in row] for row in rows]
    if is_terminal():
        _say_rich(columns, cleaned)
        return
    widths = [max(map(len, column)) for column in zip_longest(columns, *cleaned, fillvalue="")]
    for row in (columns, *cleaned):
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _say_rich(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415 - rich takes longer to import than the rest of a command
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=SIMPLE_HEAD)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


def clean(text: str) -> str:
    return text.translate(_CONTROLS)
