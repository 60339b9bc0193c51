"""The `dualtrack` command: one file per subcommand, each of which parses, calls one function and prints.

Importing this is cheap: whatever is heavy (aiohttp, pydantic, rich, MLflow) is imported by the subcommand that needs
it. Exit codes are a contract (design 2.1) and live in `cli.exits`.
"""

from collections.abc import Callable
from typing import Any

import click

from dualtrack.cli.backfill import backfill
from dualtrack.cli.check import check
from dualtrack.cli.demo import demo
from dualtrack.cli.drain import drain
from dualtrack.cli.exits import Exit
from dualtrack.cli.ids import ids
from dualtrack.cli.options import example
from dualtrack.cli.parked import parked
from dualtrack.cli.serve import serve
from dualtrack.cli.status import status
from dualtrack.cli.verify import reconcile, verify
from dualtrack.cli.version import version
from dualtrack.errors import ConfigError, StartError


class _Main(click.Group):
    """Turns what a command could not do into lines for people and an exit code, never a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (ConfigError, StartError) as error:
            return self._explain(ctx, error)

    def _explain(self, ctx: click.Context, error: ConfigError | StartError) -> None:
        lines = [str(problem) for problem in error.problems] if isinstance(error, ConfigError) else [str(error)]
        for line in lines:
            click.echo(f"dualtrack: {line}", err=True)
        ctx.exit(Exit.USAGE)


_START = example(
    "dualtrack demo                  # everything once, on this machine",
    "dualtrack check --config FILE   # is the configuration right?",
    "dualtrack serve --config FILE   # run the proxy",
    "dualtrack status                # how it is",
    title="Start here",
)


@click.group(cls=_Main, epilog=_START, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """One MLflow endpoint, two workspaces, nothing lost.

    Exit codes: 0 fine; 1 differences, parked entries or something left over; 2 wrong usage or configuration; 3 a
    backend or the proxy cannot be reached.
    """


_COMMANDS: tuple[Callable[..., Any] | click.Command, ...] = (
    serve,
    check,
    demo,
    status,
    ids,
    parked,
    drain,
    verify,
    reconcile,
    backfill,
    version,
)
for _command in _COMMANDS:
    assert isinstance(_command, click.Command)
    main.add_command(_command)

__all__ = ["main"]
