"""Calls that page through all that a backend holds: experiments, runs of one, logged models of one."""

from urllib.parse import urlencode

from dualtrack.core.exchange import JSON, Call, Document
from dualtrack.core.ids import EntityKind
from dualtrack.translate.document import field, objects, text, write
from dualtrack.translate.mlflow import API, MARKS, SOURCE

# Azure ML refuses pages of 1000 and more (facts A7); a page of runs is held whole, with all params and latest metrics.
PAGE = 200
MODELS_PAGE = 50
TRACES = "/api/3.0/mlflow/traces/search"
OLDEST_FIRST = "attributes.start_time ASC"
NEWEST_FIRST = "attributes.start_time DESC"

_TAGS = {
    EntityKind.EXPERIMENT: ("tags",),
    EntityKind.RUN: ("data", "tags"),
    EntityKind.MODEL: ("info", "tags"),
}


def search_experiments(page_token: str) -> Call:
    """List experiments, deleted ones too."""
    query = {"max_results": str(PAGE), "view_type": "ALL"} | ({"page_token": page_token} if page_token else {})
    target = f"{API}/experiments/search?{urlencode(query)}"
    return Call(operation="searchExperiments", method="GET", target=target)


def search_runs(experiment_id: str, wanted: str, order: str, page_token: str, size: int = PAGE) -> Call:
    """List runs of an experiment that `wanted` (MLflow's search language) lets through, deleted ones too."""
    body: Document = {
        "experiment_ids": [experiment_id],
        "run_view_type": "ALL",
        "max_results": size,
        "order_by": [order],
    }
    body |= {"filter": wanted} if wanted else {}
    body |= {"page_token": page_token} if page_token else {}
    return Call(operation="searchRuns", method="POST", target=f"{API}/runs/search", body=write(body))


def search_models(experiment_id: str, page_token: str) -> Call:
    """List the logged models of an experiment."""
    body: Document = {"experiment_ids": [experiment_id], "max_results": MODELS_PAGE}
    body |= {"page_token": page_token} if page_token else {}
    target = f"{API}/logged-models/search"
    return Call(operation="searchLoggedModels", method="POST", target=target, body=write(body))


def search_traces(experiment_id: str, run_id: str, page_token: str, size: int) -> Call:
    """List the traces of a run of an experiment, or of all of it if none is named."""
    place: Document = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": experiment_id}}
    body: Document = {"locations": [place], "max_results": size}
    body |= {"filter": f"attributes.run_id = '{run_id.replace(chr(39), '')}'"} if run_id else {}
    body |= {"page_token": page_token} if page_token else {}
    return Call(operation="searchTracesV3", method="POST", target=TRACES, body=write(body))


def from_source(source: str) -> str:
    """The search expression for whatever carries the marks of a mirror of `source`."""
    return f"tags.`{SOURCE}` = '{source.replace(chr(39), '')}'"


def mirrors(kind: EntityKind, listed: JSON, backend: str) -> bool:
    """Say whether a listed entity is itself the mirror of something on `backend`."""
    tags = {text(tag.get("key")): text(tag.get("value")) for tag in objects(field(listed, *_TAGS[kind]))}
    return bool(tags.get(MARKS[kind])) and tags.get(SOURCE) == backend
