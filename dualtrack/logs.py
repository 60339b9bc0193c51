"""Logging: events with keys, as JSON lines or for a terminal, on standard error.

Redaction is by type, not by pattern: a value whose type says that it is secret never reaches a renderer, wherever in
the event it lies. Tracebacks show no local variables, which may hold a token or a body. What other libraries log goes
the same way, from warnings up. Called once by `serve`; modules take `structlog.get_logger()` and know nothing of this.
"""

import json
import logging
import sys
from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias

import orjson
import structlog
from pydantic import Secret, SecretBytes, SecretStr
from structlog.typing import EventDict, Processor, WrappedLogger

Format: TypeAlias = Literal["auto", "json", "console"]

REDACTED: Final = "**********"
_LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def configure(format: Format = "auto", level: str = "info") -> None:  # noqa: A002 - the configuration's own word
    """Set up structlog and the standard library's logging for this process. `auto` is console on a terminal."""
    is_console = format == "console" or (format == "auto" and sys.stderr.isatty())
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, *_shared(), *_rendering(is_console)],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level.lower()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    _adopt_standard_logging(is_console, _LEVELS[level.lower()])


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Replace secret values anywhere in the event (a structlog processor)."""
    return {key: _redacted(value) for key, value in event.items()}


def _redacted(value: Any) -> Any:
    match value:
        case SecretStr() | SecretBytes() | Secret():
            return REDACTED
        case Mapping():
            return {_redacted(key): _redacted(item) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_redacted(item) for item in value]
        case _:
            return value


def _shared() -> list[Processor]:
    return [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        redact,
    ]


def _rendering(is_console: bool) -> list[Processor]:
    if is_console:
        colors = sys.stderr.isatty()
        return [structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback)]
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(serializer=_json)]


def _json(event: EventDict, **_: Any) -> str:
    try:
        return orjson.dumps(event, default=repr, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:  # a lone surrogate or a huge number, as clients may send: slower, but it never fails
        return json.dumps(event, default=repr, skipkeys=True)


def _adopt_standard_logging(is_console: bool, level: int) -> None:
    remove = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*_shared(), structlog.stdlib.add_logger_name],
            processors=[remove, *_rendering(is_console)],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(level, logging.WARNING))
    logging.captureWarnings(True)
