"""Makes a call fit what a backend takes of names and values; what does not fit is told, whole. Pure.

| what is too long            | becomes                                                          |
|-----------------------------|------------------------------------------------------------------|
| a name                      | its beginning and a hash of the whole: the same at every attempt |
| a value                     | the same                                                         |
| a value that is JSON        | nothing: half of a document is of no use to who reads it         |
| anything, by policy `skip`  | nothing                                                          |

Of params and tags a run takes so many. A new run's tags are counted before it is made: ours first, then MLflow's. Later
nothing is counted ahead: a backend that refuses a batch says how many it takes, and from what the run has by then
follows what is left out, all at once (`part`). A single item refused in those words is left out too (`limit_in`).
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from dualtrack.core.coalesce import Batch
from dualtrack.core.exchange import JSON, Call, Document
from dualtrack.core.limits import Lengths
from dualtrack.core.loss import LossKind
from dualtrack.translate.document import MalformedError, field, objects, parse, parse_inner, text, write
from dualtrack.translate.mlflow import OURS

_HASH = 8
# Azure ML: `FieldName=Parameters, Limit=200, Size=210` (facts A7); of a length it is said in the same words, with
# another name of the field (`Parameters.Value`, `Tags/Key`). Databricks: `… exceeded maximum allowed number of logged
# model metrics per logged model: 1000. To raise this quota please contact …` (mlflow#20715), by which its words for
# params and tags of runs are guessed.
_RUN_IS_FULL = re.compile(
    r"\bFieldName=(?:\w+\.)*(Param|Tag)\w*, Limit=(\d+)"
    r"|\bexceeded maximum allowed number of (?:run )?(param|tag)\w* per run: (\d+)"
)
_QUOTA = re.compile(r"\bexceeded maximum allowed number of [^:]{1,200}: (\d+)")
_FIRST = (OURS, "mlflow.")  # of tags that compete for room: what finds a mirror again, then what links runs
_JSON = re.compile(r"\s*[\[{]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfit:
    """What a backend did not take as it is; `reason` counts it (P7)."""

    kind: LossKind
    key: str
    value: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class _Bounds:
    kind: LossKind
    key: int | None
    value: int | None


def _bounds(lengths: Lengths) -> dict[str, dict[str, _Bounds]]:
    """By operation and field, which bounds hold; a field `""` is the body itself."""
    run_tag = _Bounds(LossKind.TAG, lengths.tag_key, lengths.tag_value)
    experiment_tag = _Bounds(LossKind.TAG, lengths.experiment_tag_key, lengths.experiment_tag_value)
    return {
        "logBatch": {
            "tags": run_tag,
            "params": _Bounds(LossKind.PARAM, lengths.param_key, lengths.param_value),
            "metrics": _Bounds(LossKind.METRIC, lengths.metric_key, None),
        },
        "createRun": {"tags": run_tag},
        "deleteTag": {"": run_tag},
        "createExperiment": {"tags": experiment_tag},
        "setExperimentTag": {"": experiment_tag},
        "deleteExperimentTag": {"": experiment_tag},
    }


class Fitter:
    """Fits calls to `lengths`; `skips` leaves out what does not fit instead of shortening it."""

    def __init__(self, lengths: Lengths, *, skips: bool = False, run_tags: int | None = None) -> None:
        self._skips = skips
        self._run_tags = run_tags
        self._bounds = _bounds(lengths) if lengths != Lengths() else {}

    def fit(self, call: Call) -> tuple[Call, tuple[Unfit, ...]]:
        """Answer the call as it may be sent, and what of it is not in it as it was."""
        if call.operation not in self._bounds:
            return call, ()
        try:
            document = parse(call.body)
        except MalformedError:
            return call, ()
        fitted, unfit = self.fit_document(call.operation, document)
        return (replace(call, body=write(fitted)), unfit) if unfit else (call, ())

    def fit_document(self, operation: str, document: Document) -> tuple[Document, tuple[Unfit, ...]]:
        """The same for a body that is not written yet."""
        unfit: list[Unfit] = []
        fitted: Document = {**document}
        for name, bound in self._bounds.get(operation, {}).items():
            if name == "":
                fitted = self._item(document, bound, unfit) or document
            elif isinstance(document.get(name), list):
                fitted[name] = list[JSON](self._items(objects(document[name]), bound, unfit))
        if operation == "createRun" and self._run_tags is not None:
            taken, left = _first(objects(fitted.get("tags")), self._run_tags)
            unfit += [over_count(LossKind.TAG, item, self._run_tags) for item in left]
            fitted["tags"] = list[JSON](taken)
        return (fitted, tuple(unfit)) if unfit else (document, ())

    def part(self, batch: Batch, reason: str, run: Document) -> tuple[Batch, tuple[Unfit, ...]] | None:
        """Part a batch that was refused for `reason` into what `run` has room for, and the rest.

        None if the reason is another one, or if by what the run holds there is room for all of it.
        """
        said = _RUN_IS_FULL.search(reason)
        if said is None:
            return None
        is_params, limit = (said[1] or said[3]).lower() == "param", int(said[2] or said[4])
        name, listed = ("params", batch.params) if is_params else ("tags", batch.tags)
        held = {text(item.get("key")) for item in objects(field(run, "run", "data", name))}
        taken, left = _first(listed, limit, held, lambda item: self._name_there(name, item))
        if not left:
            return None
        kind = LossKind.PARAM if is_params else LossKind.TAG
        rest = replace(batch, params=taken) if is_params else replace(batch, tags=taken)
        return rest, tuple(over_count(kind, item, limit) for item in left)

    def _name_there(self, name: str, item: Document) -> str | None:
        """What an item of a batch is called on that side; None if it does not get there."""
        bound = self._bounds.get("logBatch", {}).get(name)
        fitted = item if bound is None else self._item(item, bound, [])
        return None if fitted is None else text(fitted.get("key"))

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
        reason = "skipped" if is_left_out else "shortened"
        detail = f"{bound.kind} {key[:100]!r}: its {name} has more than {most} characters; {reason}"
        unfit.append(Unfit(kind=bound.kind, key=key, value=str(value), reason=reason, detail=detail))
        if is_left_out:
            return None
        shorter: Document = {**item, "key": _short(key, bound.key)}
        if is_long_value and isinstance(value, str):
            shorter["value"] = _short(value, bound.value)
        return shorter


def _first(
    items: Sequence[Document],
    limit: int,
    held: Iterable[str] = (),
    name: Callable[[Document], str | None] = lambda item: text(item.get("key")),
) -> tuple[tuple[Document, ...], tuple[Document, ...]]:
    """Part items into those for which there is room beside `held`, and the others; each in the order given."""
    names, left = set(held), set[int]()
    for place in sorted(range(len(items)), key=lambda place: _rank(items[place])):
        called = name(items[place])
        if called is None or called in names:
            continue
        if len(names) < limit:
            names.add(called)
        else:
            left.add(place)
    inside = tuple(item for place, item in enumerate(items) if place not in left)
    return inside, tuple(items[place] for place in sorted(left))


def _rank(item: Document) -> int:
    key = text(item.get("key"))
    return next((rank for rank, prefix in enumerate(_FIRST) if key.startswith(prefix)), len(_FIRST))


def is_full(reason: str) -> bool:
    """Say whether a backend refused a batch because the run would have more than it may have of something."""
    return _RUN_IS_FULL.search(reason) is not None


def limit_in(reason: str) -> int | None:
    """The number in a refusal that says how many there may be; None if it says nothing of the kind, or how long."""
    if (full := _RUN_IS_FULL.search(reason)) is not None:
        return int(full[2] or full[4])
    quota = _QUOTA.search(reason)
    return int(quota[1]) if quota is not None else None


def over_count(kind: LossKind, item: Document, limit: int) -> Unfit:
    """Say that an item is one too many, in the same words each time: other words would be another record."""
    key = text(item.get("key"))
    detail = f"{kind} {key[:100]!r}: a run takes {limit} {kind}s"
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
