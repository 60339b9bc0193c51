"""Registry calls for a registry on a secondary: the client's ids and artifact roots there, and back.

Requests name runs, models and places (`runs:/…`, `models:/m-…`, a URI below an artifact root); answers name them in
the registry's own ids. Both ways: first list what has to be looked up, then replace it.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from dualtrack.core.exchange import JSON, Document
from dualtrack.core.ids import ClientId, EntityKind, Ref
from dualtrack.translate.document import text

_SEGMENTS = 32
_IDS = {"run_id": EntityKind.RUN, "model_id": EntityKind.MODEL}
_URIS = frozenset({"source", "artifact_uri"})
_EXPERIMENTS_TAG = "_mlflow_experiment_ids"
_FILTER = re.compile(r"(\brun_id\s*=\s*)(['\"])([0-9A-Za-z-]+)\2")
_FILTER_IN = re.compile(r"(\brun_id\s+IN\s*\()([^)]*)(\))", re.IGNORECASE)
_FILTER_PATH = re.compile(r"(\bsource_path\s*=\s*)(['\"])([^'\"]+)\2")
_QUOTED = re.compile(r"(['\"])([^'\"]+)\1")
_SCHEME = re.compile(r"^(runs|models):/+([^/]+)(.*)$", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Name:
    """An id somewhere in a call."""

    kind: EntityKind
    value: str


@dataclass(frozen=True, slots=True)
class Place:
    """A URI somewhere in a call."""

    uri: str


Rename = Callable[[Name | Place], str]


def walk(node: JSON, rename: Rename) -> JSON:
    if isinstance(node, list):
        return [walk(item, rename) for item in node]
    if not isinstance(node, dict):
        return node
    if node.get("key") == _EXPERIMENTS_TAG and isinstance(node.get("value"), str):
        return {**node, "value": _experiments(text(node["value"]), rename)}
    return {name: _field(name, value, rename) for name, value in node.items()}


def _field(name: str, value: JSON, rename: Rename) -> JSON:
    if isinstance(value, str) and value:
        if name in _IDS:
            return rename(Name(_IDS[name], value))
        if name in _URIS:
            return uri(value, rename)
        if name in {"filter", "filter_string"}:
            return filter_text(value, rename)
        return value
    return walk(value, rename)


def uri(value: str, rename: Rename) -> str:
    """Rename the id in `runs:/` and `models:/m-…`, or the root that the URI lies below."""
    match = _SCHEME.match(value)
    if match is None:
        return rename(Place(value))
    scheme, named, rest = match.groups()
    if scheme == "models" and (rest or not named.startswith("m-")):
        return value  # models:/name/version: a name of the registry itself
    kind = EntityKind.RUN if scheme == "runs" else EntityKind.MODEL
    return f"{scheme}:/{rename(Name(kind, named))}{rest}"


def filter_text(value: str, rename: Rename) -> str:
    def run(match: re.Match[str]) -> str:
        return f"{match[1]}{match[2]}{rename(Name(EntityKind.RUN, match[3]))}{match[2]}"

    def runs(match: re.Match[str]) -> str:
        def one(item: re.Match[str]) -> str:
            return f"{item[1]}{rename(Name(EntityKind.RUN, item[2]))}{item[1]}"

        return f"{match[1]}{_QUOTED.sub(one, match[2])}{match[3]}"

    def path(match: re.Match[str]) -> str:
        return f"{match[1]}{match[2]}{uri(match[3], rename)}{match[2]}"

    return _FILTER_PATH.sub(path, _FILTER_IN.sub(runs, _FILTER.sub(run, value)))


def _experiments(value: str, rename: Rename) -> str:
    return ",".join(rename(Name(EntityKind.EXPERIMENT, part)) if part else "" for part in value.split(","))


def names(node: JSON) -> list[Name | Place]:
    """List all that has to be looked up before `walk` can rename it."""
    found: dict[Name | Place, None] = {}

    def collect(item: Name | Place) -> str:
        found[item] = None
        return item.value if isinstance(item, Name) else item.uri

    walk(node, collect)
    return list(found)


def by_entity(uri: str) -> tuple[Name, str] | None:
    """The run or logged model that a URI names, and what lies below its root; None for every other URI."""
    found = _SCHEME.match(uri)
    if found is None or (found[1] == "models" and not found[2].startswith("m-")):
        return None
    kind = EntityKind.RUN if found[1] == "runs" else EntityKind.MODEL
    return Name(kind, found[2]), found[3]


def named_model(document: Document) -> Name | None:
    """The logged model that a new version is made from, if it is made from one."""
    some_id = text(document.get("model_id"))
    found = _SCHEME.match(text(document.get("source")))
    if not some_id and found is not None and found[1] == "models" and found[2].startswith("m-") and not found[3]:
        some_id = found[2]
    return Name(EntityKind.MODEL, some_id) if some_id else None


def by_files(document: Document, run_id: str, root: str) -> Document:
    """The same version, made from files of a run instead of from a logged model; in the client's ids."""
    named = {name: value for name, value in document.items() if name != "model_id"}
    return {**named, "source": root, **({"run_id": run_id} if run_id else {})}


def roots_above(value: str) -> list[str]:
    """The URI and all that it lies below, the longest first: one of them may be an artifact root.

    No root has more segments than `_SEGMENTS`, so a path of any depth costs a bounded number of looks.
    """
    scheme, separator, path = value.partition(":")
    if not separator:
        scheme, path = "", value
    parts = path.rstrip("/").split("/")
    prefix = f"{scheme}{separator}"
    return [prefix + "/".join(parts[:end]) for end in range(min(len(parts), _SEGMENTS), 1, -1)]


def as_ref(name: Name) -> Ref:
    return Ref(name.kind, ClientId(name.value))


def from_query(pairs: list[tuple[str, str]]) -> Document:
    """A query as a document that `walk` takes; repeated fields become lists."""
    document: Document = {}
    for key, value in pairs:
        earlier = document.get(key)
        if earlier is None:
            document[key] = value
        else:
            document[key] = [*(earlier if isinstance(earlier, list) else [earlier]), value]
    return document


def to_query(document: Document) -> list[tuple[str, str]]:
    return [
        (key, text(item)) for key, value in document.items() for item in (value if isinstance(value, list) else [value])
    ]
