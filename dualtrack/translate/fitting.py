"""Makes a call fit what a backend takes of names and values; what does not fit is told, whole. Pure.

| what is too long            | becomes                                                          |
|-----------------------------|------------------------------------------------------------------|
| a name                      | its beginning and a hash of the whole: the same at every attempt |
| a value                     | the same                                                         |
| a value that is JSON        | nothing: half of a document is of no use to who reads it         |
| anything, by policy `skip`  | nothing                                                          |

How many params or tags a run may have is not counted here: the backend says so, item by item (`is_over_count`).
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from dualtrack.core.exchange import JSON, Call, Document
from dualtrack.core.limits import Lengths
from dualtrack.translate.document import MalformedError, objects, parse, parse_inner, text, write

_HASH = 8
# Azure ML: `FieldName=Parameters, Limit=200, Size=210` (facts A7). Databricks: `… exceeded maximum allowed number of
# logged model metrics per logged model: 1000. To raise this quota please contact …` (mlflow#20715)
_OVER_COUNT = re.compile(r"\bLimit=\d+|\bexceeded maximum allowed number of\b")
_JSON = re.compile(r"\s*[\[{]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfit:
    """What a backend did not take as it is: `kind` is tag, param or metric; `reason` counts it (P7)."""

    kind: str
    key: str
    value: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class _Bounds:
    kind: str
    key: int | None
    value: int | None


def _bounds(lengths: Lengths) -> dict[str, dict[str, _Bounds]]:
    """By operation and field, which bounds hold; a field `""` is the body itself."""
    run_tag = _Bounds("tag", lengths.tag_key, lengths.tag_value)
    experiment_tag = _Bounds("tag", lengths.experiment_tag_key, lengths.experiment_tag_value)
    return {
        "logBatch": {
            "tags": run_tag,
            "params": _Bounds("param", lengths.param_key, lengths.param_value),
            "metrics": _Bounds("metric", lengths.metric_key, None),
        },
        "createRun": {"tags": run_tag},
        "deleteTag": {"": run_tag},
        "createExperiment": {"tags": experiment_tag},
        "setExperimentTag": {"": experiment_tag},
        "deleteExperimentTag": {"": experiment_tag},
    }


class Fitter:
    """Fits calls to `lengths`; `skips` leaves out what does not fit instead of shortening it."""

    def __init__(self, lengths: Lengths, *, skips: bool = False) -> None:
        self._skips = skips
        self._bounds = _bounds(lengths) if lengths != Lengths() else {}

    def fit(self, call: Call) -> tuple[Call, tuple[Unfit, ...]]:
        """Answer the call as it may be sent, and what of it is not in it as it was."""
        bounds = self._bounds.get(call.operation)
        if bounds is None:
            return call, ()
        try:
            document = parse(call.body)
        except MalformedError:
            return call, ()
        unfit: list[Unfit] = []
        fitted: Document = {**document}
        for name, bound in bounds.items():
            if name == "":
                fitted = self._item(document, bound, unfit) or document
            elif isinstance(document.get(name), list):
                fitted[name] = list[JSON](self._items(objects(document[name]), bound, unfit))
        if not unfit:
            return call, ()
        sent = Call(operation=call.operation, method=call.method, target=call.target, body=write(fitted))
        return sent, tuple(unfit)

    def _items(self, items: Iterable[Document], bound: _Bounds, unfit: list[Unfit]) -> list[Document]:
        return [item for item in (self._item(each, bound, unfit) for each in items) if item is not None]

    def _item(self, item: Document, bound: _Bounds, unfit: list[Unfit]) -> Document | None:
        """The item as it fits, None if it is left out."""
        key, value = text(item.get("key")), item.get("value")
        is_long_key = bound.key is not None and len(key) > bound.key
        is_long_value = bound.value is not None and isinstance(value, str) and len(value) > bound.value
        if not is_long_key and not is_long_value:
            return item
        is_left_out = self._skips or (is_long_value and isinstance(value, str) and _is_json(value))
        name, most = ("name", bound.key) if is_long_key else ("value", bound.value)
        length = len(key) if is_long_key else len(str(value))
        reason = "skipped" if is_left_out else "shortened"
        detail = f"{bound.kind} {key[:100]!r}: its {name} has {length} characters, {most} are taken; {reason}"
        unfit.append(Unfit(kind=bound.kind, key=key, value=str(value), reason=reason, detail=detail))
        if is_left_out:
            return None
        shorter: Document = {**item, "key": _short(key, bound.key)}
        if is_long_value and isinstance(value, str):
            shorter["value"] = _short(value, bound.value)
        return shorter


def is_over_count(reason: str) -> bool:
    """Say whether a backend refused an item because the run has as many as it may have."""
    return _OVER_COUNT.search(reason) is not None


def over_count(kind: str, item: Document, reason: str) -> Unfit:
    key = text(item.get("key"))
    detail = f"{kind} {key[:100]!r}: {reason[:200]}"
    return Unfit(kind=kind, key=key, value=str(item.get("value", "")), reason="over_limit", detail=detail)


def _short(value: str, most: int | None) -> str:
    if most is None or len(value) <= most:
        return value
    digest = hashlib.sha256(value.encode(errors="surrogatepass")).hexdigest()[:_HASH]
    return f"{value[: most - _HASH - 1]}-{digest}"


def _is_json(value: str) -> bool:
    if not _JSON.match(value):
        return False
    try:
        parse_inner(value)
    except MalformedError:
        return False
    return True


def merged(stored: bytes, unfit: Iterable[Unfit]) -> bytes:
    """Answer `overflow.json` with more in it: values by name, below `tags`, `params` and `metrics`."""
    try:
        document = parse_inner(stored.decode()) if stored else {}
    except (MalformedError, UnicodeDecodeError):
        document = {}
    kept: Document = document if isinstance(document, dict) else {}
    for item in unfit:
        group = kept.get(f"{item.kind}s")
        named: Document = group if isinstance(group, dict) else {}
        kept[f"{item.kind}s"] = {**named, item.key: item.value}
    return write(kept)
