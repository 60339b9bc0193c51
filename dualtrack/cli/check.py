"""`dualtrack check`: whether the configuration is right, what it means, and whether the backends answer."""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dualtrack.cli.exits import Exit, finish
from dualtrack.cli.options import config_option, example, json_option
from dualtrack.cli.output import say, say_json
from dualtrack.errors import ConfigError

if TYPE_CHECKING:
    from dualtrack.app import OnlineReport
    from dualtrack.config import Config


@click.command(epilog=example("dualtrack check --config dualtrack.yaml", "dualtrack check --online"))
@click.option("--online", is_flag=True, help="Also sign in to each backend and say who it is.")
@config_option
@json_option
def check(config_path: Path | None, online: bool, as_json: bool) -> None:
    """Validate the configuration and print what it means.

    Exits 2 with every problem, and 3 when a backend does not let us in (--online).
    """
    from dualtrack.cli.settings import load_config  # noqa: PLC0415 - `--help` needs none of this

    try:
        config = load_config(config_path)
    except ConfigError as error:
        if not as_json:
            raise
        say_json({"ok": False, "problems": [asdict(problem) for problem in error.problems]})
        finish(Exit.USAGE)
    reports = _ask_backends(config) if online else []
    is_ok = all(report.ok for report in reports)
    if as_json:
        say_json({"ok": is_ok, "config": _document(config), "online": [asdict(report) for report in reports]})
    else:
        _print(config, reports)
    finish(Exit.FINE if is_ok else Exit.UNREACHABLE)


def _ask_backends(config: "Config") -> "Sequence[OnlineReport]":
    from dualtrack.app import check_online  # noqa: PLC0415 - the whole application

    return asyncio.run(check_online(config))


def _document(config: "Config") -> dict[str, Any]:
    """Write the configuration as it stands, defaults included; secrets write themselves as asterisks."""
    return config.model_dump(mode="json")


def _print(config: "Config", reports: "Sequence[OnlineReport]") -> None:
    from dualtrack.config import explain  # noqa: PLC0415

    for line in explain(config).splitlines():
        say(line)
    for report in reports:
        say(f"{report.name:20} {'ok' if report.ok else 'FAILED'}  {report.who}  {report.detail}".rstrip())
        if report.hint:
            say(f"  next               {report.hint}")
    if not reports:
        say("The configuration is valid. `dualtrack check --online` also asks the backends.")
