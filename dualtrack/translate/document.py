"""MLflow's JSON bodies, read leniently and written strictly.

Servers accept camelCase spellings of proto fields, a body that is a JSON string holding JSON, and (through Python's
reader) the bare words NaN and Infinity. After `parse` there is one spelling of each. orjson is the one third-party
package here: it does no I/O, and the standard reader would cost the hot path ten times as much.
"""

import json
import re
from typing import cast

import orjson

from dualtrack.core.exchange import JSON, Document

_HUMP = re.compile(r"(?<=[a-z0-9])([A-Z])")


class MalformedError(ValueError):
    """The body is not a JSON object."""


def parse(body: bytes) -> Document:
    """Read a body; an empty one is an empty object. Raise `MalformedError`."""
    if not body:
        return {}
    document = _read(body)
    if isinstance(document, str):
        document = _read(document.encode())
    if not isinstance(document, dict):
        raise MalformedError(f"a JSON object is needed, not {type(document).__name__}")
    return cast("Document", _snake(document)) if _HUMP.search(body.decode(errors="replace")) else document


def _read(body: bytes) -> JSON:
    try:
        return cast("JSON", orjson.loads(body))
    except orjson.JSONDecodeError:
        pass
    try:
        # what orjson refuses and a server takes: NaN, Infinity, and integers beyond 64 bits
        return cast("JSON", json.loads(body, parse_constant=str))  # noqa: TID251 - what orjson refuses
    except (ValueError, RecursionError) as error:
        raise MalformedError(f"not JSON: {error}") from error


def _snake(node: JSON) -> JSON:
    """Spell proto fields one way. Bodies of mirrored writes hold no map with keys of the user's own."""
    if isinstance(node, dict):
        return {_HUMP.sub(r"_\1", key).lower(): _snake(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_snake(item) for item in node]
    return node


def write(document: Document) -> bytes:
    try:
        return orjson.dumps(document)
    except TypeError:  # an integer beyond 64 bits
        return json.dumps(document, allow_nan=False).encode()


def objects(node: JSON) -> list[Document]:
    """The JSON objects in a list; anything else is no list of objects."""
    return [item for item in node if isinstance(item, dict)] if isinstance(node, list) else []


def text(node: JSON) -> str:
    """An id or a name as text: servers take numbers for both."""
    if isinstance(node, str):
        return node
    return str(node) if isinstance(node, int) and not isinstance(node, bool) else ""


def field(document: JSON, *path: str) -> JSON:
    """Walk down `path`; None where anything is missing."""
    for name in path:
        document = document.get(name) if isinstance(document, dict) else None
    return document
