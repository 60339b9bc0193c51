"""Every mirrored write: what it is about, what it makes, what of it can be coalesced.

One row per operation of `core.routes` that goes to both sides; a test holds the two tables together. Writes about files
have a table of their own: one of them no client sends (`translate.files`).
"""

from dataclasses import dataclass, replace
from enum import StrEnum

from dualtrack.core.coalesce import Items
from dualtrack.core.exchange import Document, Exchange
from dualtrack.core.ids import BackendId, ClientId, EntityKind, Ref, Twin
from dualtrack.core.routes import classify
from dualtrack.translate.document import MalformedError, field, objects, parse, text
from dualtrack.translate.references import FIELDS


class Shape(StrEnum):
    """How an operation becomes items of a log-batch; NONE stays alone."""

    NONE = "none"
    METRIC = "metric"
    PARAM = "param"
    TAG = "tag"
    BATCH = "batch"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """`about` is the kind of the entity that the write changes or, with `creates`, makes."""

    about: EntityKind
    creates: bool = False
    shape: Shape = Shape.NONE
    fields: tuple[str, ...] = ()  # body fields that name the entity, the one that wins first
    files: bool = False


_EXPERIMENT = Operation(about=EntityKind.EXPERIMENT, fields=("experiment_id",))
_RUN = Operation(about=EntityKind.RUN, fields=("run_id", "run_uuid"))
_MODEL = Operation(about=EntityKind.MODEL, fields=("model_id",))

OPERATIONS: dict[str, Operation] = {
    "createExperiment": replace(_EXPERIMENT, creates=True),
    "updateExperiment": _EXPERIMENT,
    "deleteExperiment": _EXPERIMENT,
    "restoreExperiment": _EXPERIMENT,
    "setExperimentTag": _EXPERIMENT,
    "deleteExperimentTag": _EXPERIMENT,
    "createRun": replace(_RUN, creates=True),
    "updateRun": _RUN,
    "deleteRun": _RUN,
    "restoreRun": _RUN,
    "logMetric": replace(_RUN, shape=Shape.METRIC),
    "logParam": replace(_RUN, shape=Shape.PARAM),
    "setTag": replace(_RUN, shape=Shape.TAG),
    "logBatch": replace(_RUN, shape=Shape.BATCH),
    "deleteTag": _RUN,
    "logInputs": _RUN,
    "logOutputs": _RUN,
    "logModel": _RUN,
    "createLoggedModel": replace(_MODEL, creates=True),
    "finalizeLoggedModel": _MODEL,
    "logLoggedModelParams": _MODEL,
    "setLoggedModelTags": _MODEL,
    "deleteLoggedModelTag": _MODEL,
    "deleteLoggedModel": _MODEL,
}

_FILES = Operation(about=EntityKind.RUN, fields=("run_id", "model_id"), files=True)

FILE_OPERATIONS: dict[str, Operation] = {"uploadArtifact": _FILES, "deleteArtifact": _FILES, "copyArtifacts": _FILES}

_METRIC_FIELDS = ("key", "value", "timestamp", "step", "model_id", "dataset_name", "dataset_digest")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """An exchange, read: `subject` is None only for a create whose answer is not known yet."""

    exchange: Exchange
    operation: Operation
    document: Document
    subject: Ref | None


def read(exchange: Exchange) -> Reading:
    """Read a mirrored write. Raise `MalformedError` for what cannot be read."""
    operation = OPERATIONS.get(exchange.operation) or FILE_OPERATIONS.get(exchange.operation)
    if operation is None:  # from a journal that a newer release wrote
        raise MalformedError(f"unknown operation {exchange.operation!r}")
    document = parse(exchange.body)
    subject = _created(exchange, operation.about) if operation.creates else _named(exchange, operation, document)
    return Reading(exchange=exchange, operation=operation, document=document, subject=subject)


def _named(exchange: Exchange, operation: Operation, document: Document) -> Ref | None:
    for name in operation.fields:
        if named := text(document.get(name)):
            return Ref(FIELDS[name], ClientId(named))
    if operation.about is EntityKind.MODEL:
        match = classify(exchange.method, exchange.path)
        named = match.params.get("model_id", "") if match else ""
        return Ref(EntityKind.MODEL, ClientId(named)) if named else None
    return None


_CREATED = {
    EntityKind.EXPERIMENT: (("experiment_id",), ("artifact_location",)),
    EntityKind.RUN: (("run", "info", "run_id"), ("run", "info", "artifact_uri")),
    EntityKind.MODEL: (("model", "info", "model_id"), ("model", "info", "artifact_uri")),
}


def _created(exchange: Exchange, kind: EntityKind) -> Ref | None:
    if not exchange.answer:
        return None
    created = made_id(kind, parse(exchange.answer))
    return Ref(kind, ClientId(created)) if created else None


def made_id(kind: EntityKind, answer: Document) -> str:
    """The id in a create's answer, or in what has its shape; empty if there is none."""
    return text(field(answer, *_CREATED[kind][0]))


def learn(kind: EntityKind, ref: Ref, backend: str, answer: Document, name: str = "") -> Twin | None:
    """Read a create's answer: what `ref` is called on the backend that gave it, and where its artifacts go."""
    backend_id, root_path = made_id(kind, answer), _CREATED[kind][1]
    if not backend_id:
        return None
    root = text(field(answer, *root_path))
    return Twin(ref=ref, backend=backend, backend_id=BackendId(backend_id), name=name, root=root)


def made_by(exchange: Exchange, primary: str) -> Twin | None:
    """Read an answered create: what it made, as the primary's own row of the id map. None when it names no id."""
    reading = read(exchange)
    if reading.subject is None:
        return None
    name = text(reading.document.get("name")) if reading.subject.kind is EntityKind.EXPERIMENT else ""
    return learn(reading.subject.kind, reading.subject, primary, parse(exchange.answer), name)


def lane_of(exchange: Exchange) -> str | None:
    """The lane that a write belongs to; None for an unanswered create and for what cannot be read."""
    try:
        subject = read(exchange).subject
    except MalformedError:
        return None
    return subject.key if subject is not None else None


def items(seq: int, reading: Reading) -> Items | None:
    """Answer what the write adds to a log-batch, or None when it has to stay a call of its own."""
    document = reading.document
    match reading.operation.shape:
        case Shape.METRIC:
            metric = {name: document[name] for name in _METRIC_FIELDS if document.get(name) is not None}
            return Items(seq=seq, metrics=(metric,))
        case Shape.PARAM:
            return Items(seq=seq, params=(_pair(document),))
        case Shape.TAG:
            return Items(seq=seq, tags=(_pair(document),))
        case Shape.BATCH:
            return Items(
                seq=seq,
                metrics=tuple(objects(document.get("metrics"))),
                params=tuple(objects(document.get("params"))),
                tags=tuple(objects(document.get("tags"))),
            )
        case _:
            return None


def _pair(document: Document) -> Document:
    return {"key": document.get("key"), "value": document.get("value", "")}
