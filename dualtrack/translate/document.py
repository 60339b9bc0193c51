"""MLflow's JSON bodies, read leniently and written strictly.

Servers accept camelCase spellings of proto fields, a body that is a JSON string holding JSON, and (through Python's
reader) the bare words NaN and Infinity. After `parse` there is one spelling of each. orjson is the one third-party
package here: it does no I/O, and the standard reader would cost the hot path ten times as much.
"""

import json
import math
import re
from typing import cast

import orjson

from dualtrack.core.exchange import JSON, Document

_NESTED = (dict, list)
_DEPTH_MAX = 100  # as protobuf's own reader; what walks a document afterwards need not fear for the stack
_MAYBE_HUMPED = re.compile(rb'"[a-z0-9_]*[A-Z]\w{0,64}"\s*:|\\')
_CAMEL = re.compile(r"[a-z][a-z0-9_]*(?:[A-Z][a-z0-9_]*)+")  # as protobuf spells its fields in JSON
_CAPITAL = re.compile(r"[A-Z]")


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
    # the expression is a cheap sieve: nearly all bodies hold nothing that even looks like a camelCase key
    if _MAYBE_HUMPED.search(body) and _has_humps(document):
        return cast("Document", _snake(document))
    return document


def parse_answer(body: bytes) -> Document:
    """Read the answer to a write; an empty object for what tells nothing, such as Databricks' `200 OK` (facts B6)."""
    try:
        return parse(body)
    except MalformedError:
        return {}


def parse_inner(value: str) -> JSON:
    """Read JSON that travels inside a string. Its keys are the user's own and stay as they are spelled."""
    return _read(value.encode(errors="surrogatepass"))


def _read(body: bytes) -> JSON:
    node = _decode(body)
    if body.count(b"[") + body.count(b"{") > _DEPTH_MAX and _is_deep(node):
        raise MalformedError(f"nested more than {_DEPTH_MAX} deep")
    return node


def _decode(body: bytes) -> JSON:
    try:
        return cast("JSON", orjson.loads(body))
    except orjson.JSONDecodeError:
        pass
    try:
        # what orjson refuses and a server takes: NaN, Infinity, and numbers too large for a float
        node = json.loads(body, parse_constant=str, parse_float=_float)  # noqa: TID251 - what orjson refuses
        json.dumps(node, ensure_ascii=False).encode()  # a lone surrogate is no text, here or on a server
        return cast("JSON", node)
    except (ValueError, RecursionError) as error:
        raise MalformedError(f"not JSON: {error}") from error


def _float(digits: str) -> JSON:
    number = float(digits)
    return number if math.isfinite(number) else f"{digits[: digits.startswith('-')]}Infinity"


def _is_deep(node: JSON) -> bool:
    level = [node]
    for _ in range(_DEPTH_MAX):
        level = [
            item
            for outer in level
            if isinstance(outer, _NESTED)
            for item in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(item, _NESTED)
        ]
    return bool(level)


def _has_humps(node: JSON) -> bool:
    if isinstance(node, dict):
        humped = any(_CAMEL.fullmatch(key) for key in node)
        return humped or any(_has_humps(value) for value in node.values() if value.__class__ in _NESTED)
    return isinstance(node, list) and any(_has_humps(item) for item in node)


def _spelled(key: str) -> str:
    return _CAPITAL.sub(lambda capital: "_" + capital[0].lower(), key) if _CAMEL.fullmatch(key) else key


def _snake(node: JSON) -> JSON:
    """Spell proto fields one way. Bodies of mirrored writes hold no map with keys of the user's own."""
    if isinstance(node, dict):
        return {_spelled(key): _snake(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_snake(item) for item in node]
    return node


def write(document: JSON) -> bytes:
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
