"""Ids of experiments as Databricks has them: decimal numbers of 15 to 19 digits (facts/backends B2, item 4).

A middleware of `tracking`: calls come in with the workspace's ids and go on with the real server's, answers the other
way round. No table: an id is the real one and a number of eighteen digits that is the same for all. An id that is not
so long is nobody's here, but for the default experiment's. Ids of runs are the real server's, which look alike.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, TypeAlias

from dualtrack.emulators.tracking import Call, Reply, Send

JSON: TypeAlias = Any
Turn: TypeAlias = Callable[[str], str]

BASE: Final = 314_159_265_358_979_323
DEFAULT: Final = "0"
KEYS: Final = frozenset({"experiment_id", "experiment_ids"})
NOBODY: Final = "-1"  # which no real server has


async def long_ids(call: Call, send: Send) -> Reply:
    """Pass a call on under the real server's ids, and its answer back under ours."""
    reply = await send(replace(call, document=_real(call.document), query=_real(dict(call.query))))
    return replace(reply, document=_long(reply.document))


def to_long(real: str) -> str:
    return real if real == DEFAULT or not real.isdecimal() else str(BASE + int(real))


def to_real(given: str) -> str:
    if given == DEFAULT:
        return given
    number = int(given) - BASE if given.isdecimal() else -1
    return str(number) if number > 0 else NOBODY


def _real(document: JSON) -> JSON:
    return _turned(document, to_real)


def _long(document: JSON) -> JSON:
    return _turned(document, to_long)


def _turned(document: JSON, turn: Turn) -> JSON:
    """Turn the ids of a document, wherever they lie in it; values under other names are a client's own."""
    if isinstance(document, list):
        return [_turned(item, turn) for item in document]
    if not isinstance(document, dict):
        return document
    return {key: _ids(value, turn) if key in KEYS else _turned(value, turn) for key, value in document.items()}


def _ids(value: JSON, turn: Turn) -> JSON:
    if isinstance(value, list):
        return [_ids(item, turn) for item in value]
    return turn(str(value)) if isinstance(value, str | int) else value
