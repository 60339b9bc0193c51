"""Whether a backend's state shows the effect of a write.

Asked of the primary about a write whose answer was lost (then only what took effect is mirrored), and about one that is
delivered long after those that followed it (then only what nothing newer has changed). Asked of a secondary that
refused a repeat, because several 404 and 400 answers mean "already so" (facts section 4).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

from dualtrack.core.exchange import JSON, Document, Observed
from dualtrack.core.ids import EntityKind
from dualtrack.core.routes import classify
from dualtrack.core.views import number
from dualtrack.translate.document import MalformedError, field, objects, parse_inner, text, write
from dualtrack.translate.mlflow import OURS
from dualtrack.translate.operations import Reading, Shape, items, made_id

Check: TypeAlias = Callable[[Document, Document], bool]

_RUN_FIELDS = frozenset({"status", "end_time", "run_name"})
_STATUS_NUMBERS = frozenset("12345")  # protobuf's JSON takes them for the words
# what may undo something newer; so may the tags of a batch. All else only adds
UNDOING = frozenset(
    {
        "updateExperiment",
        "deleteExperiment",
        "restoreExperiment",
        "setExperimentTag",
        "deleteExperimentTag",
        "updateRun",
        "deleteRun",
        "restoreRun",
        "deleteTag",
        "finalizeLoggedModel",
        "setLoggedModelTags",
        "deleteLoggedModelTag",
    }
)
_TRUNCATED = 250  # a stored value this long and a prefix of what was sent was shortened by the server


def metric_keys(reading: Reading) -> list[str]:
    """The metrics whose history has to be read before `remaining` or `shows` can answer."""
    listed = items(0, reading)
    return list(dict.fromkeys(text(metric.get("key")) for metric in listed.metrics)) if listed else []


def shows(reading: Reading, observed: Observed) -> bool:
    """Say whether all of the write's effect is there."""
    if reading.operation.shape is not Shape.NONE:
        left = remaining(reading, observed)
        listed = items(0, reading)
        assert listed is not None
        return left is not None and _count(left) == len(listed.metrics) + len(listed.params) + len(listed.tags)
    check = _CHECKS.get(reading.exchange.operation)
    return check({**_in_path(reading), **reading.document}, observed.entity) if check else False


def _in_path(reading: Reading) -> Document:
    match = classify(reading.exchange.method, reading.exchange.path)
    return dict(match.params) if match else {}


def shows_by_absence(reading: Reading) -> bool:
    """Say whether it is the effect of the write that its entity cannot be read any more."""
    return reading.exchange.operation == "deleteLoggedModel"


def remaining(reading: Reading, observed: Observed) -> Document | None:
    """Reduce a coalescable write to the items that took effect, as a log-batch body; None when none did."""
    listed = items(0, reading)
    if listed is None:
        return None
    data = field(observed.entity, "run", "data")
    points = {key: {point(each) for each in history} for key, history in observed.histories.items()}
    params, tags = _pairs(field(data, "params")), _pairs(field(data, "tags"))
    body: Document = {
        "metrics": [m for m in listed.metrics if point(m) in points.get(text(m.get("key")), ())],
        "params": [p for p in listed.params if _is_stored(params.get(text(p.get("key"))), text(p.get("value")))],
        "tags": [t for t in listed.tags if _is_stored(tags.get(text(t.get("key"))), text(t.get("value")))],
    }
    return body if _count(body) else None


def lasting(reading: Reading, entity: Document) -> Reading | None:
    """Reduce a write to what nothing newer has changed; None when that is nothing. What only adds stays as it is."""
    operation = reading.exchange.operation
    if operation == "updateRun":
        kept = {name: value for name, value in reading.document.items() if _is_current(name, value, entity)}
        return _reduced(reading, kept) if kept.keys() & _RUN_FIELDS else None
    if operation == "setLoggedModelTags":
        stored = _pairs(field(entity, "model", "info", "tags"))
        tags = lasting_tags(objects(reading.document.get("tags")), stored)
        return _reduced(reading, {**reading.document, "tags": list[JSON](tags)}) if tags else None
    return reading if operation not in UNDOING or shows(reading, Observed(entity=entity)) else None


def lasting_tags(tags: Sequence[Document], stored: Mapping[str, str]) -> tuple[Document, ...]:
    """Leave out tags that have other values by now, or none; our own are not the primary's."""
    return tuple(
        tag
        for tag in tags
        if text(tag.get("key")).startswith(OURS) or _is_stored(stored.get(text(tag.get("key"))), text(tag.get("value")))
    )


def run_tags(entity: Document) -> dict[str, str]:
    return _pairs(field(entity, "run", "data", "tags"))


def _is_current(name: str, value: JSON, entity: Document) -> bool:
    if name not in _RUN_FIELDS or value is None or text(value) in _STATUS_NUMBERS:
        return True
    return text(field(entity, "run", "info", name)) == text(value)


def _reduced(reading: Reading, document: Document) -> Reading:
    return replace(reading, document=document, exchange=replace(reading.exchange, body=write(document)))


def _count(body: Document) -> int:
    return sum(len(objects(body.get(name))) for name in ("metrics", "params", "tags"))


def _pairs(listed: JSON) -> dict[str, str]:
    return {text(item.get("key")): text(item.get("value")) for item in objects(listed)}


def _is_stored(stored: str | None, sent: str) -> bool:
    if stored is None:
        return False
    return stored == sent or (len(stored) >= _TRUNCATED and sent.startswith(stored))


def point(metric: Document) -> tuple[float | None, ...]:
    """What makes a point of one metric's history the same as another."""
    return tuple(number(metric.get(name, 0)) for name in ("step", "timestamp", "value"))


def _run_update(document: Document, entity: Document) -> bool:
    info = field(entity, "run", "info")
    wanted = ("status", "end_time", "run_name")
    return all(text(field(info, name)) == text(document[name]) for name in wanted if document.get(name) is not None)


def _lifecycle(kind: str, stage: str) -> Check:
    path = ("run", "info", "lifecycle_stage") if kind == "run" else ("experiment", "lifecycle_stage")
    return lambda _, entity: field(entity, *path) == stage


def _without_tag(*path: str) -> Check:
    def check(document: Document, entity: Document) -> bool:
        key = text(document.get("key")) or text(document.get("tag_key"))
        return key not in _pairs(field(entity, *path))

    return check


def _with_tag(document: Document, entity: Document) -> bool:
    tags = _pairs(field(entity, "experiment", "tags"))
    return _is_stored(tags.get(text(document.get("key"))), text(document.get("value")))


def _renamed(document: Document, entity: Document) -> bool:
    return field(entity, "experiment", "name") == document.get("new_name")


def _inputs(document: Document, entity: Document) -> bool:
    def key(item: Document) -> tuple[str, str]:
        return text(field(item, "dataset", "name")), text(field(item, "dataset", "digest"))

    stored = {key(item) for item in objects(field(entity, "run", "inputs", "dataset_inputs"))}
    has_all = all(key(item) in stored for item in objects(document.get("datasets")))
    return has_all and _names_models(document, field(entity, "run", "inputs", "model_inputs"))


def _outputs(document: Document, entity: Document) -> bool:
    return _names_models(document, field(entity, "run", "outputs", "model_outputs"))


def _names_models(document: Document, listed: JSON) -> bool:
    stored = {text(item.get("model_id")) for item in objects(listed)}
    return all(text(item.get("model_id")) in stored for item in objects(document.get("models")))


def _history(document: Document, entity: Document) -> bool:
    tags = _pairs(field(entity, "run", "data", "tags"))
    try:
        sent = parse_inner(text(document.get("model_json")))
        listed = objects(parse_inner(tags.get("mlflow.log-model.history", "[]")))
    except MalformedError:
        return False
    names = ("run_id", "artifact_path", "utc_time_created")
    return any(all(item.get(name) == field(sent, name) for name in names) for item in listed)


def _model_params(document: Document, entity: Document) -> bool:
    stored = _pairs(field(entity, "model", "data", "params"))
    return all(_is_stored(stored.get(key), value) for key, value in _pairs(document.get("params")).items())


def _model_tags(document: Document, entity: Document) -> bool:
    stored = _pairs(field(entity, "model", "info", "tags"))
    return all(stored.get(key) == value for key, value in _pairs(document.get("tags")).items())


def _model_status(document: Document, entity: Document) -> bool:
    status = text(document.get("status"))
    return status in _STATUS_NUMBERS or text(field(entity, "model", "info", "status")).endswith(status or "?")


_CHECKS: dict[str, Check] = {
    "updateExperiment": _renamed,
    "deleteExperiment": _lifecycle("experiment", "deleted"),
    "restoreExperiment": _lifecycle("experiment", "active"),
    "setExperimentTag": _with_tag,
    "deleteExperimentTag": _without_tag("experiment", "tags"),
    "updateRun": _run_update,
    "deleteRun": _lifecycle("run", "deleted"),
    "restoreRun": _lifecycle("run", "active"),
    "deleteTag": _without_tag("run", "data", "tags"),
    "logInputs": _inputs,
    "logOutputs": _outputs,
    "logModel": _history,
    "finalizeLoggedModel": _model_status,
    "logLoggedModelParams": _model_params,
    "setLoggedModelTags": _model_tags,
    "deleteLoggedModelTag": _without_tag("model", "info", "tags"),
}


def likeness(reading: Reading, candidate: Document) -> int | None:
    """Say in how many of the things that a create sent what was found is alike; None when it differs in one."""
    kind = reading.operation.about
    is_run = kind is EntityKind.RUN
    info = field(candidate, "run", "info") if is_run else field(candidate, "model", "info")
    names = ("user_id", "run_name", "start_time") if is_run else ("name", "source_run_id", "model_type")
    sent = {name: text(value) for name in names if (value := reading.document.get(name))}
    tags = _pairs(reading.document.get("tags"))
    stored = _pairs(field(candidate, "run", "data", "tags") if is_run else field(info, "tags"))
    is_alike = all(text(field(info, name)) == value for name, value in sent.items())
    is_alike = is_alike and all(stored.get(key) == value for key, value in tags.items())
    return len(sent) + len(tags) if is_alike and made_id(kind, candidate) else None


def pick(reading: Reading, candidates: Iterable[Document], others: Iterable[Reading]) -> Document | None:
    """Choose what an unanswered create made: alike, and not rather what one of the `others` in doubt made.

    One that sent more, all of which is there, is its maker: what was not sent is the server's own choice.
    """
    alike = [other for other in others if other.exchange.operation == reading.exchange.operation]
    for candidate in candidates:
        own = likeness(reading, candidate)
        if own is not None and all((likeness(other, candidate) or 0) <= own for other in alike):
            return candidate
    return None
