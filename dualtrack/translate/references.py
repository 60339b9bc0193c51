"""Where ids hide in a body, as one walk that both finds and replaces them (facts section 3).

Fields name the kind of thing by themselves wherever they stand; tags do so by their key. Inside tag values and
`model_json` there is JSON again.
"""

from collections.abc import Callable
from dataclasses import dataclass

from dualtrack.core.exchange import JSON, Document
from dualtrack.core.ids import ClientId, EntityKind, Ref
from dualtrack.translate.document import MalformedError, parse_inner, text, write

FIELDS: dict[str, EntityKind] = {
    "experiment_id": EntityKind.EXPERIMENT,
    "run_id": EntityKind.RUN,
    "run_uuid": EntityKind.RUN,
    "source_run_id": EntityKind.RUN,
    "model_id": EntityKind.MODEL,
}

RUN_TAGS = frozenset({"mlflow.parentRunId", "mlflow.rootRunId", "mlflow.sourceRunId"})
HISTORY_TAG = "mlflow.log-model.history"


@dataclass(frozen=True, slots=True)
class Reference:
    """An id in a body. A soft one is a value that a server does not check: kept as it is when nobody knows it."""

    ref: Ref
    soft: bool


Rename = Callable[[Reference], str]


def walk(node: JSON, rename: Rename) -> JSON:
    """Answer `node` with every id replaced by what `rename` answers for it."""
    if isinstance(node, list):
        return [walk(item, rename) for item in node]
    if not isinstance(node, dict):
        return node
    if "key" in node and isinstance(node.get("value"), str) and "timestamp" not in node:
        return _tag(node, rename)  # or a param; a metric has a time, and may have its value as a string
    return {name: _value(name, value, rename) for name, value in node.items()}


def _value(name: str, value: JSON, rename: Rename) -> JSON:
    kind = FIELDS.get(name)
    if kind is not None and (found := text(value)):
        return rename(Reference(Ref(kind, ClientId(found)), soft=False))
    if name == "model_json" and isinstance(value, str):
        return _inner(value, rename)
    return walk(value, rename)


def _tag(node: Document, rename: Rename) -> JSON:
    key, value = node.get("key"), node.get("value")
    if key in RUN_TAGS and isinstance(value, str) and value:
        value = rename(Reference(Ref(EntityKind.RUN, ClientId(value)), soft=True))
    elif key == HISTORY_TAG and isinstance(value, str):
        value = _inner(value, rename)
    # set-tag and log-parameter are tags themselves, with the run's id beside them
    renamed = {name: _value(name, item, rename) for name, item in node.items() if name not in {"key", "value"}}
    return {"key": key, "value": value, **renamed}


def _inner(value: str, rename: Rename) -> str:
    """Translate JSON inside a string; what is not JSON stays as it is."""

    def softly(reference: Reference) -> str:
        return rename(Reference(reference.ref, soft=True))

    try:
        node = parse_inner(value)
    except MalformedError:
        return value
    before: list[str] = []

    def collect(reference: Reference) -> str:
        before.append(reference.ref.client_id)
        return reference.ref.client_id

    walk(node, collect)
    if not before:
        return value
    translated = walk(node, softly)
    return write({"_": translated})[len(b'{"_":') : -1].strip().decode()


def sorted_history(value: str) -> str:
    """Spell a history of models in one way, whoever wrote it: a server appends, and two models come in either order."""
    try:
        node = parse_inner(value)
    except MalformedError:
        return value
    if not isinstance(node, list):
        return value
    entries = sorted(_plain(entry) for entry in node)
    return f"[{','.join(entries)}]"


def _plain(node: JSON) -> str:
    return write(_ordered(node)).decode()


def _ordered(node: JSON) -> JSON:
    if isinstance(node, dict):
        return {name: _ordered(node[name]) for name in sorted(node)}
    return [_ordered(item) for item in node] if isinstance(node, list) else node


def find(node: JSON) -> list[Reference]:
    found: dict[Reference, None] = {}

    def collect(reference: Reference) -> str:
        found[reference] = None
        return reference.ref.client_id

    walk(node, collect)
    return list(found)
