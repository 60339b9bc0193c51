"""A scenario's outcome as a value, and the value as text or JSON."""

from collections.abc import Sequence
from dataclasses import dataclass

Cell = str | float | int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One target of the issue."""

    what: str
    value: float
    unit: str
    target: str
    met: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    scenario: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    checks: tuple[Check, ...]
    notes: tuple[str, ...] = ()
    errors: int = 0


def at_most(what: str, value: float, bound: float, unit: str = "") -> Check:
    return Check(what=what, value=value, unit=unit, target=f"≤ {bound:g} {unit}".strip(), met=value <= bound)


def at_least(what: str, value: float, bound: float, unit: str = "") -> Check:
    return Check(what=what, value=value, unit=unit, target=f"≥ {bound:g} {unit}".strip(), met=value >= bound)


def render(report: Report) -> str:
    """The report as Markdown: a table of medians, then a table of targets."""
    parts = [f"## {report.scenario}", _table(report.columns, report.rows)]
    if report.checks:
        rows = [
            (
                check.what,
                f"{_text(check.value)} {check.unit}".strip(),
                check.target,
                "met" if check.met else "MISSED",
            )
            for check in report.checks
        ]
        parts.append(_table(("target", "measured", "wanted", ""), rows))
    parts += report.notes
    if report.errors:
        parts.append(f"**{report.errors} requests failed**: the figures above include them.")
    return "\n\n".join(parts)


def _table(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    texts = [list(columns), *([_text(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in texts) for column in range(len(columns))]
    lines = [_line(row, widths) for row in texts]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [cell.ljust(width) for cell, width in zip(cells, widths, strict=True)]
    return "| " + " | ".join(padded) + " |"


def _text(cell: Cell) -> str:
    match cell:
        case None:
            return "-"
        case float():
            return f"{cell:,.0f}" if abs(cell) >= 100 else f"{cell:.2f}"
        case int():
            return f"{cell:,}"
        case str():
            return cell
