"""Whether a backend's state shows the effect of a write.

Asked twice: of the primary, about a write whose answer was lost (then only what took effect is mirrored), and of a
secondary that refused a repeat, because several 404 and 400 answers mean "already so" (facts section 4).
"""

from collections.abc import Callable
from typing import TypeAlias

from dualtrack.core.exchange import JSON, Document, Observed
from dualtrack.core.ids import EntityKind
from dualtrack.core.routes import classify
from dualtrack.core.views import number
from dualtrack.translate.document import MalformedError, field, objects, parse_inner, text
from dualtrack.translate.operations import Reading, Shape, items

Check: TypeAlias = Callable[[Document, Document], bool]

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
    def key(item: Document) -> tuple[JSON, JSON]:
        return field(item, "dataset", "name"), field(item, "dataset", "digest")

    stored = {key(item) for item in objects(field(entity, "run", "inputs", "dataset_inputs"))}
    models = {item.get("model_id") for item in objects(field(entity, "run", "inputs", "model_inputs"))}
    return all(key(item) in stored for item in objects(document.get("datasets"))) and all(
        item.get("model_id") in models for item in objects(document.get("models"))
    )


def _outputs(document: Document, entity: Document) -> bool:
    stored = {item.get("model_id") for item in objects(field(entity, "run", "outputs", "model_outputs"))}
    return all(item.get("model_id") in stored for item in objects(document.get("models")))


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
    return text(field(entity, "model", "info", "status")).endswith(text(document.get("status")) or "?")


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


def created(reading: Reading, candidates: list[Document], known: frozenset[str]) -> Document | None:
    """Pick what an unanswered create made: alike in all that was sent, and not known from an answer."""
    kind = reading.operation.about
    for candidate in candidates:
        info = field(candidate, "run", "info") if kind is EntityKind.RUN else field(candidate, "model", "info")
        found_id = text(field(info, "run_id" if kind is EntityKind.RUN else "model_id"))
        if found_id and found_id not in known and _alike(reading, info, candidate):
            return candidate
    return None


def _alike(reading: Reading, info: JSON, candidate: Document) -> bool:
    is_run = reading.operation.about is EntityKind.RUN
    names = ("user_id", "run_name", "start_time") if is_run else ("name", "source_run_id", "model_type")
    sent = reading.document
    if any(text(field(info, name)) != text(sent[name]) for name in names if sent.get(name)):
        return False
    stored = _pairs(field(candidate, "run", "data", "tags") if is_run else field(info, "tags"))
    return all(stored.get(key) == value for key, value in _pairs(sent.get("tags")).items())
