"""Artifact roots as a client of the proxy sees them, and back. Pure; `proxy/roots.py` looks up what it splits.

With an http tracking URI a client goes around the proxy for every root but a host-less `mlflow-artifacts:/…` (facts
section 7), so each root in each answer becomes one:

    mlflow-artifacts:/7/r/artifacts    of the primary: as it is
    s3://bucket/a/b                    mlflow-artifacts:/_dualtrack/<backend>/s3/bucket/a/b
    /mlruns/1                          mlflow-artifacts:/_dualtrack/<backend>/local/-/mlruns/1
    file:///mlruns/1                   mlflow-artifacts:/_dualtrack/<backend>/file/-/mlruns/1

In place of an authority that is not there stands `-` for the way that the scheme is mostly written (`file:///p`,
`dbfs:/p`, `/p`), `=` for the other one of `s:///p` and `s:/p`, and `=.` before a relative path.

A part is percent-quoted, and `%` then written as `=`: clients do not encode paths again, but they and the servers
between may decode them once too often. They also collapse `//` and cut a trailing `/`, so a slash that has another one
or nothing behind it is `=2F`: then what is appended to a root is appended to its client's form too, and never itself
encoded. There is one spelling of each root; `locate` knows no other, so nobody makes up a second name for a place.
The alternative, an opaque token per root in the database, would make paths unreadable and old ones die with it.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote, unquote_to_bytes

from dualtrack.core.exchange import JSON, Document
from dualtrack.core.ids import EntityKind
from dualtrack.translate.document import text

PREFIX: Final = "_dualtrack"
_OWN = "mlflow-artifacts:/"
_SEGMENTS = 32  # as registry.roots_above: a path of any depth costs a bounded number of looks

_NEVER = re.compile(r"(?:models|runs):")  # the name of something that has a root, and no root
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_HOSTLESS = re.compile(r"mlflow-artifacts:(?!//[^/])/*(.*)", re.DOTALL)
_SERVED = re.compile(r"https?://[^/?#]+(?:/[^?#]*?)?/(?:ajax-)?api/2\.0/mlflow-artifacts/artifacts/([^?#]*)")

_NO_SCHEME, _USUAL, _OTHER, _RELATIVE = "local", "-", "=", "=."
_EMPTY_IS_USUAL = frozenset({"file"})  # file:///p; elsewhere it is dbfs:/p
_LAST_SLASH = re.compile(r"/(?=/|\Z)")
_DOTS = re.compile(r"(?<![^/])\.{1,2}(?=/|\Z)")  # a segment that paths are normalised by
_TAIL = re.compile(r"(?:(-|=\.?)(?=/|=2F|\Z))?((?:[^=]|=[0-9A-F]{2})*)", re.DOTALL)


def client_uri(uri: str, backend: str, primary: str) -> str:
    """Answer what clients see of a root, or of a URI below one. What can be no root stays as it is."""
    if not uri or _NEVER.match(uri):
        return uri
    hostless = _HOSTLESS.fullmatch(uri) if backend == primary else None
    if hostless is not None:
        if hostless[1].partition("/")[0] != PREFIX:
            return _OWN + hostless[1]
        uri = _OWN + hostless[1]
    scheme, tail = _parted(uri)
    return f"{_OWN}{PREFIX}/{_quoted(backend)}/{scheme}/{tail}"


def is_hostless(uri: str) -> bool:
    """Say whether it is `mlflow-artifacts:/…`, which the routes of whoever stated it serve, whatever host that is."""
    return _HOSTLESS.fullmatch(uri) is not None


def _parted(uri: str) -> tuple[str, str]:
    match = _SCHEME.match(uri)
    scheme = match[1] if match else ""
    rest = uri[match.end() :] if match else uri
    named = _NO_SCHEME if not scheme else _quoted(f"{scheme}:" if scheme == _NO_SCHEME else scheme)
    if rest and not rest.startswith("/"):
        return named, _RELATIVE + _path(f"/{rest}")
    if not rest.startswith("//"):
        return named, _nowhere(scheme, is_empty=False) + _path(rest)
    authority, slash, path = rest[2:].partition("/")
    there = "=2D" if authority == _USUAL else _quoted(authority)
    return named, (there or _nowhere(scheme, is_empty=True)) + _path(slash + path)


def _nowhere(scheme: str, *, is_empty: bool) -> str:
    return _USUAL if is_empty == (scheme in _EMPTY_IS_USUAL) else _OTHER


def _quoted(part: str) -> str:
    return _path(part).replace("/", "=2F")


def _path(path: str) -> str:
    escaped = quote(path, safe="/@", errors="surrogatepass").replace("%", "=")
    dotless = _DOTS.sub(lambda dots: "=2E" * len(dots[0]), escaped)
    return _LAST_SLASH.sub("=2F", dotless)


# --- back -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Candidate:
    """A way to split a client's path: `uri` may be a root on `backend`, and `path` is what lies below it."""

    backend: str
    uri: str
    path: str


def locate(path: str, primary: str) -> list[Candidate]:
    """Answer all ways to split a client's path, the longest root first; `path` is percent-decoded already."""
    parts = path.split("/")
    if parts[0] != PREFIX:
        return [Candidate(primary, _OWN + root, rest) for root, rest in _splits(parts)]
    if len(parts) < 4:
        return []
    return [
        Candidate(backend, uri, rest)
        for backend in _unquoted(parts[1])
        for root, rest in _splits(parts[3:])
        for uri in _uris(parts[2], root)
        if client_uri(uri, backend, primary) == f"{_OWN}{PREFIX}/{parts[1]}/{parts[2]}/{root}"
    ]


def _splits(parts: list[str]) -> Iterator[tuple[str, str]]:
    for end in range(min(len(parts), _SEGMENTS), 0, -1):
        yield "/".join(parts[:end]), "/".join(parts[end:])


def _uris(named: str, tail: str) -> Iterator[str]:
    """The URI of a scheme and a tail as they were written, if they can be read at all."""
    match = _TAIL.fullmatch(tail)
    if match is None:
        return
    for scheme in _unquoted(named):
        prefix = "" if scheme == _NO_SCHEME else f"{scheme.removesuffix(':')}:"
        for path in _unquoted(match[2]):
            yield prefix + _slashes(match[1], prefix[:-1]) + (path[1:] if match[1] == _RELATIVE else path)


def _slashes(mark: str | None, scheme: str) -> str:
    if mark is None:
        return "//"
    return "//" if mark == _nowhere(scheme, is_empty=True) else ""


def _unquoted(part: str) -> Iterator[str]:
    try:
        yield unquote_to_bytes(part.replace("%", "%25").replace("=", "%")).decode(errors="surrogatepass")
    except (UnicodeDecodeError, UnicodeEncodeError):
        return


def path_of(uri: str) -> str | None:
    """Answer the path of a client's artifact URI or of its URL; None for anything else."""
    hostless = _HOSTLESS.fullmatch(uri)
    if hostless is not None:
        return hostless[1]
    served = _SERVED.match(uri)
    return unquote(served[1]) if served is not None else None


# --- in bodies --------------------------------------------------------------------------------------------------

_HUMPED = {"artifactUri", "artifactLocation", "rootUri", "storageLocation"}  # as GraphQL spells them
_ROOTS = frozenset({"artifact_uri", "artifact_location", "root_uri", "storage_location"} | _HUMPED)
_SOURCE = "source"
_TRACE_TAG = "mlflow.artifactLocation"
_SOURCE_URI = re.compile(r"/|[A-Za-z][A-Za-z0-9+.-]*:")
_DATASET = frozenset({"digest", "source_type", "sourceType", "dataset_id", "datasetId"})
_USERS = frozenset({"value", "dataset"})  # a tag's, a param's or a feedback's own content; a dataset's source
# where keys are the user's own
_METADATA = {"metadata", "trace_metadata", "traceMetadata", "request_metadata", "requestMetadata"}
_MAPS = frozenset({"tags", "params", "metrics", "attributes"} | _METADATA)

_FINE = rb"mlflow-artifacts:/(?![/\\]|" + PREFIX.encode() + rb")"
_FOREIGN = re.compile(
    rb'"(?:'
    + b"|".join(name.encode() for name in sorted(_ROOTS))
    + rb')"\s*:\s*"(?!"|(?:models|runs):|'
    + _FINE
    + rb")"
    rb'|"source"\s*:\s*"(?!(?:models|runs):|' + _FINE + rb")(?:[/\\]|[A-Za-z][A-Za-z0-9+.-]*:)"
    rb'|"mlflow\.artifactLocation"(?!\s*(?:,\s*"value"\s*)?:\s*"' + _FINE + rb")"
    rb"|\\u00[2-7]"  # an ASCII letter written as an escape: it may be any of the above
    rb'|\A\s*"'  # JSON in a JSON string, as `document.parse` reads it
)

Rename = Callable[[str], str]


def holds_foreign(body: bytes) -> bool:
    """Say whether an answer of the primary may hold a root that clients must not see; true when in doubt."""
    return _FOREIGN.search(body) is not None


def walk(node: JSON, rename: Rename) -> JSON:
    """Apply `rename` to every artifact root in an answer or a request; what is the user's own is never touched."""
    if isinstance(node, list):
        return [walk(item, rename) for item in node]
    if not isinstance(node, dict):
        return node
    if _is_pair(node):
        return {**node, "value": _renamed(node["value"], rename)} if node["key"] == _TRACE_TAG else node
    return {name: _field(node, name, value, rename) for name, value in node.items()}


def _is_pair(node: Document) -> bool:
    return "key" in node and "value" in node


def _field(node: Document, name: str, value: JSON, rename: Rename) -> JSON:
    if name in _ROOTS or name == _TRACE_TAG or _is_source(node, name, value):
        return _renamed(value, rename)
    if name in _USERS:
        return value
    if name in _MAPS and isinstance(value, dict):
        return {key: _renamed(item, rename) if key == _TRACE_TAG else item for key, item in value.items()}
    return walk(value, rename)


def _is_source(node: Document, name: str, value: JSON) -> bool:
    """Say whether it is where a model version's files lie: a dataset has a source too, and so has an assessment."""
    is_uri = name == _SOURCE and isinstance(value, str) and _SOURCE_URI.match(value) is not None
    return is_uri and not _DATASET & node.keys()


def _renamed(value: JSON, rename: Rename) -> JSON:
    return rename(value) if isinstance(value, str) and value else value


# where an answer of MLflow's own routes says which root an entity has; nothing elsewhere in it states one, as a user
# may have written it: a run's name, a trace, an alias of GraphQL
_STATED = (
    (EntityKind.RUN, ("run", "info"), ("run_id", "run_uuid"), "artifact_uri"),
    (EntityKind.RUN, ("runs", "info"), ("run_id", "run_uuid"), "artifact_uri"),
    (EntityKind.RUN, ("run_info",), ("run_id", "run_uuid"), "artifact_uri"),
    (EntityKind.MODEL, ("model", "info"), ("model_id",), "artifact_uri"),
    (EntityKind.MODEL, ("models", "info"), ("model_id",), "artifact_uri"),
    (EntityKind.EXPERIMENT, ("experiment",), ("experiment_id",), "artifact_location"),
    (EntityKind.EXPERIMENT, ("experiments",), ("experiment_id",), "artifact_location"),
)


def learned(document: JSON) -> list[tuple[EntityKind, str, str]]:
    """List every entity whose root an answer states, as kind, id and root."""
    found = []
    for kind, place, ids, name in _STATED:
        for info in _at(document, place):
            some_id = next(filter(None, (text(info.get(each)) for each in ids)), "")
            root = info.get(name)
            if some_id and isinstance(root, str) and root and not _NEVER.match(root):
                found.append((kind, some_id, root))
    return found


def _at(node: JSON, place: tuple[str, ...]) -> Iterator[Document]:
    """Yield the objects at a place; a list stands for each of its items."""
    if isinstance(node, list):
        for item in node:
            yield from _at(item, place)
    elif isinstance(node, dict):
        if place:
            yield from _at(node.get(place[0]), place[1:])
        else:
            yield node


# --- in filters -------------------------------------------------------------------------------------------------

_FILTER = re.compile(
    r"(?P<head>(?<![\w.])(?:(?:(?:attributes?|attr|run)\.)?artifact_uri\s*(?:!?=|(?P<like>I?LIKE)\b)|source_path\s*=)\s*)"
    r"(?P<quote>['\"])(?P<uri>.*?)(?P=quote)"
    r"|'[^']*'|\"[^\"]*\"|`[^`]*`",  # a value or a name of something else, whatever it says
    re.IGNORECASE | re.DOTALL,
)


def filter_text(value: str, rename: Rename) -> str:
    """Rename the roots that a search of runs or model versions asks for; a LIKE pattern with wildcards stays."""

    def one(match: re.Match[str]) -> str:
        head, like, mark, uri = match.group("head", "like", "quote", "uri")
        if not uri or (like and "%" in uri):
            return match[0]
        renamed = rename(uri)
        return match[0] if mark in renamed else f"{head}{mark}{renamed}{mark}"

    return _FILTER.sub(one, value)
