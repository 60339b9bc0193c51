"""`dualtrack version`."""

import platform

import click

from dualtrack import __version__
from dualtrack.cli.options import config_option, example, json_option
from dualtrack.cli.output import say, say_json


@click.command(epilog=example("dualtrack version"))
@config_option
@json_option
def version(config_path: object, as_json: bool) -> None:  # noqa: ARG001 - every command takes --config
    """Print the version."""
    if as_json:
        say_json({"version": __version__, "python": platform.python_version()})
    else:
        say(f"dualtrack {__version__} (Python {platform.python_version()})")
