"""How commands print: one JSON document, or a table that is rich on a terminal and plain text elsewhere.

Names, errors and paths come from clients and backends, so control characters never reach the terminal.
"""

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import zip_longest
from typing import Final

import click
import orjson

_CONTROLS: Final = dict.fromkeys((*range(32), *range(127, 160)), " ")
_BYTE_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB")


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


def size(count: float) -> str:
    """Write bytes for people: 1536 → 1.5 KiB."""
    for unit in _BYTE_UNITS[:-1]:
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} {_BYTE_UNITS[-1]}"


def age(seconds: float | None) -> str:
    """Write a duration for people: 3725 → 1h 2m; nothing to say → -."""
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.0f}s"
    minutes, hours = int(seconds // 60), int(seconds // 3600)
    if hours == 0:
        return f"{minutes}m {int(seconds % 60)}s"
    return f"{hours}h {minutes % 60}m" if hours < 48 else f"{hours // 24}d {hours % 24}h"


def instant(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
