"""Options that several commands share, and how their values are read."""

import functools
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import click

F = TypeVar("F", bound=Callable[..., Any])

_DURATION: Final = r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?"
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def duration(_ctx: click.Context, _param: click.Parameter, given: str) -> float:
    """Read `5s`, `2m`, `1h` or plain seconds; answer seconds (a callback of an option)."""
    found = re.fullmatch(_DURATION, given.strip())
    if found is None:
        raise click.BadParameter(f"{given!r} is not a duration such as 30s, 5m or 1h")
    return float(found[1]) * _SECONDS[found[2] or "s"]


def moment(_ctx: click.Context, _param: click.Parameter, given: str | None) -> float | None:
    """Read how long ago (`7d`) or when (`2026-05-01`, `2026-05-01T12:00:00Z`); answer seconds since the epoch."""
    if given is None:
        return None
    found = re.fullmatch(_DURATION, given.strip())
    if found is not None and found[2]:
        return time.time() - float(found[1]) * _SECONDS[found[2]]
    try:
        at = datetime.fromisoformat(given.strip())
    except ValueError:
        raise click.BadParameter(f"{given!r} is neither how long ago (36h, 7d) nor a time (2026-05-01T12:00)") from None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def address(_ctx: click.Context, _param: click.Parameter, given: str | None) -> str | None:
    """Check the http(s) address of an admin listener (a callback of an option)."""
    if given is not None and not _is_address(given):
        raise click.BadParameter(f"{given!r} is not an address such as http://127.0.0.1:5001")
    return given


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def config_option(command: F) -> F:
    return click.option(
        "--config",
        "config_path",
        metavar="FILE",
        envvar="DUALTRACK_CONFIG",
        type=click.Path(path_type=Path),
        help="The configuration.  [default: $DUALTRACK_CONFIG, then ./dualtrack.yaml]",
    )(command)


def json_option(command: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")(command)


def proxy_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --config and --admin-url, and hand the command a client of the running proxy as `proxy`."""

    @config_option
    @click.option(
        "--admin-url",
        metavar="URL",
        callback=address,
        help="The admin listener of the proxy.  [default: admin.host and admin.port of the configuration]",
    )
    @functools.wraps(command)
    def wrapped(*args: Any, config_path: Path | None, admin_url: str | None, **kwargs: Any) -> Any:
        from dualtrack.cli.settings import connect  # noqa: PLC0415 - `--help` needs none of this

        return command(*args, proxy=connect(config_path, admin_url), **kwargs)

    return wrapped


def example(*lines: str, title: str = "Example") -> str:
    """Write what `--help` shows last; the control character keeps click from joining the lines."""
    return "\n".join(["\b", f"{title}:", *(f"  {line}" for line in lines)])
