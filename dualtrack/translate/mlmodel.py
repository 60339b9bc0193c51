"""The `MLmodel` file of a model: the ids of the side that it was logged on become those of the side that it lies on.

MLflow writes it with `yaml.safe_dump`: sorted keys at column 0, what belongs to a key indented below it. Only the
entries that name a run, a model or a root are read, and only their values are replaced, in the quotes that they had;
every other byte stays, so that a later MLflow, or a hand, may have written what it likes. `delivery/files.py` calls it.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from itertools import chain, islice
from typing import Final, cast

import orjson
import yaml

from dualtrack.core.exchange import JSON, Document
from dualtrack.core.ids import ClientId, EntityKind, Ref

FILE_NAME: Final = "MLmodel"
MAX_BYTES: Final = 1024 * 1024  # a larger file is no MLmodel; those with long signatures have some 100 KiB
_NAMED = 20  # entries that name something: MLflow writes four, and each is parsed
_PARSED = 1024 * 1024  # of YAML, which is read at some 200 KiB/s; flavors have a few KiB
_VALUE = 16 * 1024  # of one entry that is read: an id or a URI
_NODES, _DEPTH = 100_000, 50  # what aliases may unfold to

_ENTRY = re.compile(r"^(\w+):(?=\s|\Z).*(?:\n(?:[ \t\r].*|(?=\n)))*\n?", re.MULTILINE)
_KINDS = {"run_id": EntityKind.RUN, "model_id": EntityKind.MODEL}
_RENAMED = {**_KINDS, "model_uuid": EntityKind.MODEL}  # the model's id again for MLflow 3, and nobody's for MLflow 2
_ROOT, _MODEL_ID = "artifact_path", "model_id"
_NAMING = frozenset({*_RENAMED, _ROOT})
_URI = re.compile(r"/|[A-Za-z][A-Za-z0-9+.-]*:")  # artifact_path of MLflow 2 is a folder of the run
_NULL = "tag:yaml.org,2002:null"
_STRING = "tag:yaml.org,2002:str"
_UNREADABLE = (yaml.YAMLError, ValueError, ArithmeticError, LookupError, AttributeError, TypeError, RecursionError)

# Model.get_tags_dict of mlflow 2.22.5 and 3.17.2; the server refuses an entry without the first four
_REQUIRED = frozenset({"run_id", "artifact_path", "utc_time_created", "flavors"})
_TAGS = ("utc_time_created", "model_uuid")
_FLAVORS = "flavors"


def is_mlmodel(path: str) -> bool:
    return path.rpartition("/")[2] == FILE_NAME


@dataclass(frozen=True, slots=True)
class _Scalar:
    """A value in the file: what it says, its quotes, and where it stands."""

    value: str
    style: str
    start: int
    end: int


def references(content: bytes) -> list[Ref]:
    """List the run and the model that the file names."""
    named: dict[Ref, None] = {}
    for entry in _entries(_text(content)):
        scalar = _scalar(entry) if entry[1] in _KINDS else None
        if scalar is not None:
            named[Ref(_KINDS[entry[1]], ClientId(scalar.value))] = None
    return list(named)


def renamed(
    content: bytes, ids: Mapping[Ref, str], root: Callable[[str], str], *, drops_model_id: bool = False
) -> bytes:
    """Replace the ids that `ids` knows, and a root by what `root` answers; what cannot be read is left as it is.

    `drops_model_id` is for a backend without logged models: MLflow would ask it for the model.
    """

    def told(name: str, value: str) -> str:
        if name in _RENAMED:
            return ids.get(Ref(_RENAMED[name], ClientId(value)), value)
        return root(value) if _URI.match(value) else value

    def one(entry: re.Match[str]) -> str:
        if drops_model_id and entry[1] == _MODEL_ID:
            return ""
        scalar = _scalar(entry) if entry[1] in _NAMING else None
        value = told(entry[1], scalar.value) if scalar is not None else ""
        if scalar is None or value == scalar.value:
            return entry[0]
        return entry[0][: scalar.start] + _written(value, scalar.style) + entry[0][scalar.end :]

    before = _text(content)
    after = _ENTRY.sub(one, before)
    return content if after == before else after.encode()


def parted(content: bytes) -> tuple[dict[str, str], bytes]:
    """Part a file into the ids and roots that it names, by entry, and all the rest, which no translation touches."""
    names: dict[str, str] = {}

    def one(entry: re.Match[str]) -> str:
        scalar = _scalar(entry) if entry[1] in _NAMING else None
        if scalar is None:
            return entry[0]
        names[entry[1]] = scalar.value
        return ""

    before = _text(content)
    rest = _ENTRY.sub(one, before)
    return names, (rest.encode() if before else content)


def kind_named(entry: str) -> EntityKind | None:
    """Say what an entry of `parted` names: a run, a model, or neither."""
    return _RENAMED.get(entry)


def _text(content: bytes) -> str:
    """The file as text; empty if it is not what MLflow writes, and then nothing in it is touched."""
    if len(content) > MAX_BYTES:
        return ""
    try:
        written = content.decode()
    except UnicodeDecodeError:
        return ""
    naming = (entry for entry in _entries(written) if entry[1] in _NAMING)
    return "" if next(islice(naming, _NAMED, None), None) is not None else written


def _entries(content: str) -> Iterator[re.Match[str]]:
    return _ENTRY.finditer(content)


def _scalar(entry: re.Match[str]) -> _Scalar | None:
    """Read the value of one entry; None if it has none, or one that mlflow would not have written."""
    written = entry[0]
    if len(written) > _VALUE:
        return None
    try:
        node = yaml.compose(written, yaml.SafeLoader)
    except _UNREADABLE:
        return None
    value = node.value[0][1] if isinstance(node, yaml.MappingNode) and len(node.value) == 1 else None
    if not isinstance(value, yaml.ScalarNode) or value.tag == _NULL or not value.value:
        return None
    start, end = value.start_mark.index, value.end_mark.index
    if value.style in {"|", ">"} or written[start] in "&!":
        return None
    return _Scalar(value.value, value.style or "", start, end)


def _written(value: str, style: str) -> str:
    """Write a string as YAML in the quotes that stood there, or in the next ones that can hold it."""
    single, escaped = value.replace("'", "''"), "".join(map(_escaped, value))
    ways = {"": value, "'": f"'{single}'", '"': f'"{escaped}"'}
    order = list(ways)
    return next((ways[way] for way in order[order.index(style) : -1] if _says(ways[way], value)), ways['"'])


def _escaped(letter: str) -> str:
    if letter in '\\"':
        return f"\\{letter}"
    return letter if letter.isprintable() else f"\\U{ord(letter):08X}"


def _says(written: str, value: str) -> bool:
    """Say whether YAML reads the string `value` there, in one line: an id may look like a number."""
    try:
        node = yaml.compose(f"_: {written}\n", yaml.SafeLoader)
    except _UNREADABLE:
        return False
    found = node.value[0][1] if isinstance(node, yaml.MappingNode) and len(node.value) == 1 else None
    return isinstance(found, yaml.ScalarNode) and (found.tag, found.value) == (_STRING, value)


# --- the history of a run ---------------------------------------------------------------------------------------


def history_entry(content: bytes, run_id: str, artifact_path: str) -> Document | None:
    """Answer the `model_json` of the `runs/log-model` that a client of MLflow 2 sends for this file.

    It is what `Model.get_tags_dict` answers: no signature, and flavors without their `config`. None if the file cannot
    be read, or says too little for a server to take it.
    """
    model = _model(_text(content))
    flavors = model.get(_FLAVORS)
    entry: Document = {"run_id": run_id, "artifact_path": artifact_path}
    entry |= {name: model[name] for name in _TAGS if model.get(name) is not None}
    if isinstance(flavors, dict):
        entry[_FLAVORS] = {name: _without_config(flavor) for name, flavor in flavors.items()}
    return entry if entry.keys() >= _REQUIRED else None


def _without_config(flavor: JSON) -> JSON:
    return {name: value for name, value in flavor.items() if name != "config"} if isinstance(flavor, dict) else flavor


def _model(content: str) -> Document:
    """Read what history needs; the rest of the file only if it is referred to from there."""
    needed = "".join(entry[0] for entry in _entries(content) if entry[1] in {_FLAVORS, *_TAGS})
    return _parsed(needed) or _parsed(content)


def _parsed(written: str) -> Document:
    if len(written) > _PARSED:
        return {}
    try:
        node = yaml.safe_load(written)
        plain = orjson.loads(_json(node)) if _is_small(node) else None
    except _UNREADABLE:
        return {}
    return cast("Document", plain) if isinstance(plain, dict) else {}


def _json(node: object) -> bytes:
    return orjson.dumps(node, default=_time, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_PASSTHROUGH_DATETIME)


def _time(value: object) -> str:
    """A time without quotes is one for YAML, and was text for MLflow."""
    if isinstance(value, date):
        return str(value)
    raise TypeError(f"not JSON: {type(value).__name__}")


def _is_small(node: object) -> bool:
    """A few aliases may unfold to more than memory holds, or refer to themselves."""
    level: list[object] = [node]
    seen = 0
    for _ in range(_DEPTH):
        seen += len(level)
        if not level or seen > _NODES:
            break
        level = list(islice(chain.from_iterable(map(_children, level)), _NODES + 1))
    return not level


def _children(node: object) -> list[object]:
    if isinstance(node, dict):
        return list(node.values())
    return node if isinstance(node, list) else []
