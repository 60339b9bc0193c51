"""MLflow's own REST dialect: an exchange with the primary → the call that means the same to another MLflow.

Creates are made from the primary's *answer*, so that name, start time, user and server-set tags match, and carry the
marks by which they are found again (design 2.4). Everything else is the request with its ids replaced.
"""

from collections.abc import Mapping, Sequence
from urllib.parse import quote, urlencode

from dualtrack.core.coalesce import Batch
from dualtrack.core.exchange import JSON, Call, Document
from dualtrack.core.ids import EntityKind, Ref, Twin
from dualtrack.core.routes import classify
from dualtrack.core.views import whole
from dualtrack.translate.document import field, objects, parse, text, write
from dualtrack.translate.operations import Reading
from dualtrack.translate.references import Reference, find, walk

OURS = "dualtrack."  # begins the tags that only a secondary has
SOURCE = f"{OURS}source"
MARKS = {
    EntityKind.EXPERIMENT: "dualtrack.source_experiment_id",
    EntityKind.RUN: "dualtrack.source_run_id",
    EntityKind.MODEL: "dualtrack.source_model_id",
}
API = "/api/2.0/mlflow"

Twins = Mapping[Ref, Twin]


def marks(ref: Ref, source: str) -> list[Document]:
    """The tags that lead from a mirror back to what it mirrors."""
    return [{"key": MARKS[ref.kind], "value": ref.client_id}, {"key": SOURCE, "value": source}]


def translate(reading: Reading, twins: Twins, source: str, name: str = "") -> Call:
    """Answer the call that repeats `reading` where `twins` live. `name` is that of an experiment that is made."""
    exchange = reading.exchange
    document = _body(reading, source, name)
    body = write(_renamed(document, twins)) if exchange.body or reading.operation.creates else b""
    return Call(operation=exchange.operation, method=exchange.method, target=_target(reading, twins), body=body)


def _target(reading: Reading, twins: Twins) -> str:
    exchange, subject = reading.exchange, reading.subject
    match = classify(exchange.method, exchange.path)
    path = exchange.path
    if match is not None and "model_id" in match.params and subject is not None:
        params = {**match.params, "model_id": twins[subject].backend_id}
        path = "/api/" + match.route.path.format_map({name: quote(value, safe="") for name, value in params.items()})
    return f"{path}?{exchange.query}" if exchange.query else path


def _body(reading: Reading, source: str, name: str) -> Document:
    if not reading.operation.creates:
        return reading.document
    assert reading.subject is not None, "a create is translated from its answer"
    answer = parse(reading.exchange.answer)
    match reading.subject.kind:
        case EntityKind.EXPERIMENT:
            body: Document = {"name": name}
            tags = objects(reading.document.get("tags"))
        case EntityKind.RUN:
            body = _pick(field(answer, "run", "info"), ("experiment_id", "user_id", "start_time", "run_name"))
            tags = objects(field(answer, "run", "data", "tags"))
        case EntityKind.MODEL:  # pragma: no branch - there is no fourth kind
            body = _pick(field(answer, "model", "info"), ("experiment_id", "name", "model_type", "source_run_id"))
            body["params"] = field(answer, "model", "data", "params") or []
            tags = objects(field(answer, "model", "info", "tags"))
    # a primary that once was a secondary has marks of its own; a key that comes twice would refuse the create
    ours = marks(reading.subject, source)
    keys = {tag["key"] for tag in ours}
    listed: list[JSON] = [*(tag for tag in tags if tag.get("key") not in keys), *ours]
    return {**body, "tags": listed}


def _pick(document: JSON, names: Sequence[str]) -> Document:
    values = document if isinstance(document, dict) else {}
    return {name: values[name] for name in names if values.get(name) is not None}


def _renamed(document: Document, twins: Twins) -> Document:
    def rename(reference: Reference) -> str:
        twin = twins.get(reference.ref)
        return twin.backend_id if twin is not None else reference.ref.client_id

    renamed = walk(document, rename)
    assert isinstance(renamed, dict)
    nameless = frozenset(twin.backend_id for twin in twins.values() if twin.is_stand_in)
    return without_models(renamed, nameless) if nameless else renamed


def without_models(document: Document, model_ids: frozenset[str]) -> Document:
    """Leave out what names one of `model_ids`: entries of `models`, and the `model_id` of a metric."""

    def kept(node: JSON) -> JSON:
        if isinstance(node, list):
            return [kept(item) for item in node]
        if not isinstance(node, dict):
            return node
        left: Document = {}
        for name, value in node.items():
            if name == "model_id" and value in model_ids:
                continue
            if name == "models" and isinstance(value, list):
                left[name] = [item for item in value if not _is_of(item, model_ids)]
            else:
                left[name] = kept(value)
        return left

    cleaned = kept(document)
    assert isinstance(cleaned, dict)
    return cleaned


def _is_of(item: JSON, model_ids: frozenset[str]) -> bool:
    return isinstance(item, dict) and item.get("model_id") in model_ids


def references(reading: Reading) -> list[Reference]:
    """All that has to be known on the other side before the write can go there; the subject first, if it exists."""
    subject = reading.subject
    found = [Reference(subject, soft=False)] if subject is not None and not reading.operation.creates else []
    where: Document = reading.document
    if reading.operation.creates and reading.exchange.answer:
        where = _body(reading, "", "")
    found += [reference for reference in find(where) if reference.ref != subject]
    return found


def batch_document(batch: Batch, run: Ref, twins: Twins) -> Document:
    """The body of a log-batch that says the same where `twins` live."""
    document: Document = {"run_id": run.client_id}
    for name, listed in (("metrics", batch.metrics), ("params", batch.params), ("tags", batch.tags)):
        if listed:
            document[name] = list(listed)
    return _renamed(document, twins)


def batch_call(document: Document) -> Call:
    return Call(operation="logBatch", method="POST", target=f"{API}/runs/log-batch", body=write(document))


def batch_references(batch: Batch, run: Ref) -> list[Reference]:
    found = find([*batch.metrics, *batch.tags])
    return [Reference(run, soft=False), *(reference for reference in found if reference.ref != run)]


def split_tags(call: Call, most: int | None) -> tuple[Call, list[Document]]:
    """Leave a create as many tags as it may have, our marks first of all; answer the others, for calls of their own."""
    document = parse(call.body)
    tags = objects(document.get("tags"))
    if most is None or len(tags) <= most:
        return call, []
    tags.sort(key=lambda tag: not text(tag.get("key")).startswith(OURS))
    body = write({**document, "tags": list[JSON](tags[:most])})
    return Call(operation=call.operation, method=call.method, target=call.target, body=body), tags[most:]


# --- reading an entity, and finding it again --------------------------------------------------------------------


def get_call(kind: EntityKind, backend_id: str) -> Call:
    match kind:
        case EntityKind.EXPERIMENT:
            target = f"{API}/experiments/get?{urlencode({'experiment_id': backend_id})}"
            return Call(operation="getExperiment", method="GET", target=target)
        case EntityKind.RUN:
            target = f"{API}/runs/get?{urlencode({'run_id': backend_id})}"
            return Call(operation="getRun", method="GET", target=target)
        case EntityKind.MODEL:  # pragma: no branch - there is no fourth kind
            target = f"{API}/logged-models/{quote(backend_id, safe='')}"
            return Call(operation="getLoggedModel", method="GET", target=target)


def experiment_by_name(name: str) -> Call:
    target = f"{API}/experiments/get-by-name?{urlencode({'experiment_name': name})}"
    return Call(operation="getExperimentByName", method="GET", target=target)


def search_experiment(ref: Ref) -> Call:
    """Ask for the mirror of an experiment, whatever its name is, deleted ones too."""
    wanted = f"tags.`{MARKS[ref.kind]}` = '{_quoted(ref.client_id)}'"
    query = urlencode({"filter": wanted, "view_type": "ALL", "max_results": "100"})
    return Call(operation="searchExperiments", method="GET", target=f"{API}/experiments/search?{query}")


def rename_experiment(backend_id: str, name: str) -> Call:
    body = write({"experiment_id": backend_id, "new_name": name})
    return Call(operation="updateExperiment", method="POST", target=f"{API}/experiments/update", body=body)


def set_experiment_tag(backend_id: str, tag: Document) -> Call:
    body = write({"experiment_id": backend_id, **tag})
    target = f"{API}/experiments/set-experiment-tag"
    return Call(operation="setExperimentTag", method="POST", target=target, body=body)


def history_page(run_id: str, key: str, page_token: str, page_size: int) -> Call:
    query = {"run_id": run_id, "metric_key": key, "max_results": str(page_size)}
    if page_token:
        query["page_token"] = page_token
    target = f"{API}/metrics/get-history?{urlencode(query)}"
    return Call(operation="getMetricHistory", method="GET", target=target)


# one that every MLflow answers, and one that only those with logged models do
PROBE = Call(operation="searchExperiments", method="GET", target=f"{API}/experiments/search?max_results=1")
PROBE_MODELS = Call(
    operation="searchLoggedModels",
    method="POST",
    target=f"{API}/logged-models/search",
    body=write({"experiment_ids": ["0"], "max_results": 1}),
)


def search_by_mark(ref: Ref, experiment_id: str) -> Call:
    """Ask for the mirror of a run or model in its experiment; a deleted run is found too."""
    wanted = f"tags.`{MARKS[ref.kind]}` = '{_quoted(ref.client_id)}'"
    if ref.kind is EntityKind.RUN:
        body: Document = {
            "experiment_ids": [experiment_id],
            "filter": wanted,
            "run_view_type": "ALL",
            "max_results": 10,
        }
        return Call(operation="searchRuns", method="POST", target=f"{API}/runs/search", body=write(body))
    body = {"experiment_ids": [experiment_id], "filter": wanted, "max_results": 10}
    target = f"{API}/logged-models/search"
    return Call(operation="searchLoggedModels", method="POST", target=target, body=write(body))


def search_models_of(run_id: str, experiment_id: str, page_token: str) -> Call:
    body: Document = {
        "experiment_ids": [experiment_id],
        "filter": f"source_run_id = '{_quoted(run_id)}'",
        "max_results": 50,
    }
    if page_token:
        body["page_token"] = page_token
    target = f"{API}/logged-models/search"
    return Call(operation="searchLoggedModels", method="POST", target=target, body=write(body))


_LONG = 19  # digits: more are no time


def search_created(reading: Reading, token: str = "", *, by_start: bool = True) -> Call:
    """Ask the primary for a page of what an unanswered create may have made: everything young that looks alike.

    Not `by_start`: the newest runs, where a search takes no number: Azure ML wants values quoted (facts A8), and MLflow
    refuses a quoted one.
    """
    experiment = text(reading.document.get("experiment_id"))
    next_page: Document = {"page_token": token} if token else {}
    if reading.operation.about is EntityKind.RUN:
        which: Document = {"filter": f"attributes.start_time = {_started(reading)}"}
        if not by_start:
            which = {"order_by": ["attributes.start_time DESC"]}
        body: Document = {"experiment_ids": [experiment], **which, "run_view_type": "ALL", "max_results": 100}
        body |= next_page
        return Call(operation="searchRuns", method="POST", target=f"{API}/runs/search", body=write(body))
    body = {
        "experiment_ids": [experiment],
        "max_results": 50,
        "order_by": [{"field_name": "creation_time", "ascending": False}],
    }
    target = f"{API}/logged-models/search"
    return Call(operation="searchLoggedModels", method="POST", target=target, body=write(body | next_page))


def started_before(reading: Reading, runs: Sequence[Document]) -> bool:
    """Say whether the last of a page of runs, the newest first, is older than what a create asked for."""
    return bool(runs) and whole(field(runs[-1], "info", "start_time")) < _started(reading)


def _started(reading: Reading) -> int:
    """The start that a create asked for, in milliseconds; 0, as servers take it, for none and for what is no time."""
    started = text(reading.document.get("start_time"))
    return int(started) if started.isdecimal() and len(started) < _LONG else 0


def _quoted(value: str) -> str:
    return value.replace("'", "")


def found_by_mark(kind: EntityKind, answer: Document, ref: Ref, source: str) -> list[Document]:
    """The entities of a search answer that mirror `ref` of `source`, in the shape that a create answers."""
    if kind is EntityKind.RUN:
        found: list[Document] = [{"run": run} for run in objects(answer.get("runs"))]
        return [item for item in found if _is_marked(objects(field(item, "run", "data", "tags")), ref, source)]
    models: list[Document] = [{"model": model} for model in objects(answer.get("models"))]
    return [item for item in models if _is_marked(objects(field(item, "model", "info", "tags")), ref, source)]


def _is_marked(tags: list[Document], ref: Ref, source: str) -> bool:
    values = {text(tag.get("key")): tag.get("value") for tag in tags}
    return values.get(MARKS[ref.kind]) == ref.client_id and values.get(SOURCE, source) == source


def mark_of(experiment: JSON) -> tuple[str, str]:
    """The experiment id and the source that an experiment's marks name; empty where it has none."""
    values = {text(tag.get("key")): text(tag.get("value")) for tag in objects(field(experiment, "tags"))}
    return values.get(MARKS[EntityKind.EXPERIMENT], ""), values.get(SOURCE, "")
