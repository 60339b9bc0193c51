"""A logged model as MLflow answers it, and what each request makes of it. Pure; times are milliseconds.

The shapes and the refusals are those of an MLflow server (facts sections 3 and 4): a param is written once, a tag as
often as one likes, and a tag that is not there cannot be deleted.
"""

import re
from collections.abc import Iterable, Mapping

from dualtrack.core.exchange import JSON, Document
from dualtrack.translate.document import field, objects, text
from dualtrack.translate.evidence import point

_STATUS = (
    "LOGGED_MODEL_STATUS_UNSPECIFIED",
    "LOGGED_MODEL_PENDING",
    "LOGGED_MODEL_READY",
    "LOGGED_MODEL_UPLOAD_FAILED",
)
_NOT_IN_NAMES = re.compile(r"[/:.%\"']")  # mlflow/utils/validation.py, _validate_logged_model_name
_POINT = ("key", "value", "timestamp", "step", "model_id", "run_id", "dataset_name", "dataset_digest")

_INT64 = 2**63 - 1


class RefusedError(Exception):
    """A request that an MLflow server would refuse: the status, the code and the words for its sender."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


def name_of(request: Document) -> str:
    """The name that a create asks for. Raise `RefusedError`."""
    name = text(request.get("name")) or "model"
    if _NOT_IN_NAMES.search(name):
        raise RefusedError(
            400, "INVALID_PARAMETER_VALUE", f"Invalid model name ({name!r}): it cannot contain / : . % \" or '"
        )
    return name


def created(request: Document, model_id: str, root: str, now: int) -> Document:
    """Answer what a create makes. Raise `RefusedError`."""
    params = objects(request.get("params"))
    if len({text(param.get("key")) for param in params}) < len(params):
        raise RefusedError(400, "BAD_REQUEST", "a param comes twice")
    info: Document = {
        "model_id": model_id,
        "experiment_id": text(request.get("experiment_id")),
        "name": name_of(request),
        "creation_timestamp_ms": now,
        "last_updated_timestamp_ms": now,
        "artifact_uri": root,
        "status": _STATUS[1],
        "source_run_id": text(request.get("source_run_id")),
        "tags": list[JSON](_pairs(request.get("tags"))),
    }
    if model_type := text(request.get("model_type")):
        info["model_type"] = model_type
    return {"info": info, "data": {"params": list[JSON](_pairs(request.get("params")))}}


def finalized(document: Document, request: Document, now: int) -> Document:
    status = request.get("status")
    named = _STATUS[status] if isinstance(status, int) and 0 <= status < len(_STATUS) else text(status)
    if named not in _STATUS[2:]:
        raise RefusedError(400, "INVALID_PARAMETER_VALUE", f"a model ends as one of {', '.join(_STATUS[2:])}")
    return _updated(document, {"status": named}, now)


def tagged(document: Document, request: Document, now: int) -> Document:
    given = {text(tag.get("key")): tag for tag in _pairs(request.get("tags"))}
    kept = [tag for tag in _tags(document) if text(tag.get("key")) not in given]
    return _updated(document, {"tags": list[JSON]([*kept, *given.values()])}, now)


def untagged(document: Document, key: str, now: int) -> Document:
    left = [tag for tag in _tags(document) if tag.get("key") != key]
    if len(left) == len(_tags(document)):
        raise RefusedError(404, "RESOURCE_DOES_NOT_EXIST", f"No tag with key {key!r} for this model")
    return _updated(document, {"tags": list[JSON](left)}, now)


def with_params(document: Document, request: Document, now: int) -> Document:
    params, given = objects(field(document, "data", "params")), _pairs(request.get("params"))
    keys = [text(param.get("key")) for param in (*params, *given)]
    if len(set(keys)) < len(keys):
        raise RefusedError(400, "BAD_REQUEST", "a param of a logged model is written once")
    return _updated({**document, "data": {"params": list[JSON]([*params, *given])}}, {}, now)


def shown(document: Document, points: Iterable[Document]) -> Document:
    """The model as an answer has it, with its metrics."""
    data = field(document, "data")
    return {**document, "data": {**(data if isinstance(data, dict) else {}), "metrics": list[JSON](points)}}


def point_of(metric: Document, run_id: str) -> Document:
    """A metric as its model keeps it: spelled one way, so that two that say the same are the same."""
    step, timestamp, value = point(metric)
    named = {**metric, "run_id": run_id, "value": "NaN" if value is None else value}
    named |= {"timestamp": _whole(timestamp), "step": _whole(step)}
    return {name: named[name] for name in _POINT if named.get(name) not in {None, ""}}


def _whole(number: float | None) -> int:
    return max(-_INT64, min(_INT64, int(number or 0)))


def with_links(run: Document, inputs: Iterable[str], outputs: Mapping[str, int]) -> Document:
    """A run as an answer has it, with the models that went into it and came out of it."""
    linked = {**run}
    named: list[JSON] = [{"model_id": model_id} for model_id in inputs]
    if named:
        linked["inputs"] = {**_fields(run.get("inputs")), "model_inputs": named}
    made: list[JSON] = [{"model_id": model_id, "step": step} for model_id, step in outputs.items()]
    if made:
        linked["outputs"] = {**_fields(run.get("outputs")), "model_outputs": made}
    return linked


def _fields(node: JSON) -> Document:
    return node if isinstance(node, dict) else {}


def _updated(document: Document, changes: Document, now: int) -> Document:
    return {**document, "info": {**_fields(document.get("info")), **changes, "last_updated_timestamp_ms": now}}


def _tags(document: Document) -> list[Document]:
    return objects(field(document, "info", "tags"))


def _pairs(listed: JSON) -> list[Document]:
    return [{"key": text(item.get("key")), "value": text(item.get("value"))} for item in objects(listed)]
