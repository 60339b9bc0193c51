"""Exit codes (design 2.1) and the exceptions that carry them."""

from enum import IntEnum

import click


class Exit(IntEnum):
    """What the shell learns."""

    FINE = 0
    LEFT_OVER = 1
    USAGE = 2
    UNREACHABLE = 3


class RefusedError(click.ClickException):
    """The proxy answered that it will not: wrong token, unknown id. The message says what to do."""

    exit_code = Exit.USAGE


class UnreachableProxyError(click.ClickException):
    """No usable answer from the proxy's admin listener."""

    exit_code = Exit.UNREACHABLE


def finish(code: Exit) -> None:
    """End the command with `code`."""
    click.get_current_context().exit(int(code))
