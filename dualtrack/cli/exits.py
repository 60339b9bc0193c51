"""Exit codes (design 2.1) and the exceptions that carry them."""

from enum import IntEnum

import click

from dualtrack.cli.output import clean


class Exit(IntEnum):
    """What the shell learns."""

    FINE = 0
    LEFT_OVER = 1
    USAGE = 2
    UNREACHABLE = 3


class _ProxyError(click.ClickException):
    """One line, whatever the other side said."""

    def format_message(self) -> str:
        return clean(self.message)


class RefusedError(_ProxyError):
    """The proxy answered that it will not: wrong token, unknown id. The message says what to do."""

    exit_code = Exit.USAGE


class UnreachableProxyError(_ProxyError):
    """No usable answer from the proxy's admin listener."""

    exit_code = Exit.UNREACHABLE


def finish(code: Exit) -> None:
    """End the command with `code`."""
    click.get_current_context().exit(int(code))
