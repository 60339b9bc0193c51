"""An entity that one backend holds, told again as the exchanges that would have made it.

This is how a run that began before the proxy is brought over whole: the exchanges go through the journal like any
other write. Nothing refers to another run before its own create is done, so two runs that name each other are no knot.
"""

from collections.abc import Iterable, Sequence

from dualtrack.core.exchange import JSON, Document, Exchange
from dualtrack.core.ids import ClientId, EntityKind, Ref
from dualtrack.core.links import MIRROR_URL
from dualtrack.translate.document import field, objects, text, write
from dualtrack.translate.files import COPY, tell
from dualtrack.translate.mlflow import API
from dualtrack.translate.references import RUN_TAGS

METRICS = 1000  # of one log-batch, which is what MLflow takes
_CHUNK = {"metrics": METRICS, "params": 100, "tags": 100}


def experiment_exchanges(answer: Document, *, with_deletion: bool = True) -> list[Exchange]:
    """Tell an experiment from `experiments/get`; without its deletion if there are runs to follow.

    What a create does not answer, when it was made, tells its mirror from that of an earlier one with its id.
    """
    experiment = field(answer, "experiment")
    experiment_id = text(field(experiment, "experiment_id"))
    made = {"name": field(experiment, "name"), "tags": field(experiment, "tags") or []}
    created: Document = {"experiment_id": experiment_id}
    if created_at := field(experiment, "creation_time"):
        created["creation_time"] = created_at
    told = [_post("createExperiment", "experiments/create", made, created)]
    if with_deletion and field(experiment, "lifecycle_stage") == "deleted":
        told.append(deletion(experiment_id))
    return told


def deletion(experiment_id: str) -> Exchange:
    """Tell that an experiment was deleted."""
    return _post("deleteExperiment", "experiments/delete", {"experiment_id": experiment_id})


def restoration(experiment_id: str) -> Exchange:
    """Tell that an experiment was restored."""
    return _post("restoreExperiment", "experiments/restore", {"experiment_id": experiment_id})


def metric_exchanges(run_id: str, points: Sequence[Document]) -> list[Exchange]:
    """Tell points of a run, of one metric or of several."""
    return _batches(run_id, "metrics", points)


def run_exchanges(answer: Document, points: Iterable[Exchange]) -> list[Exchange]:
    """Tell a run from `runs/get` and its `points`, told already: create, batches, inputs, outputs, files, end."""
    run = field(answer, "run")
    info, data = field(run, "info"), field(run, "data")
    run_id = text(field(info, "run_id"))
    # links to mirrors are the primary's own: on a mirror they would lead to itself
    tags = [tag for tag in objects(field(data, "tags")) if not text(tag.get("key")).startswith(MIRROR_URL)]
    named = [tag for tag in tags if tag.get("key") in RUN_TAGS]
    plain = [tag for tag in tags if tag.get("key") not in RUN_TAGS]
    created: Document = {"run": {"info": info, "data": {"tags": list[JSON](plain[: _CHUNK["tags"]])}}}
    told = [_post("createRun", "runs/create", {"experiment_id": field(info, "experiment_id")}, created)]
    told += _batches(run_id, "tags", [*plain[_CHUNK["tags"] :], *named])
    told += _batches(run_id, "params", objects(field(data, "params")))
    told += points
    told += _inputs_outputs(run_id, run)
    told.append(tell(COPY, Ref(EntityKind.RUN, ClientId(run_id)), ""))
    ending = {name: field(info, name) for name in ("status", "end_time") if field(info, name)}
    told.append(_post("updateRun", "runs/update", {"run_id": run_id, **ending}))
    if field(info, "lifecycle_stage") == "deleted":
        told.append(_post("deleteRun", "runs/delete", {"run_id": run_id}))
    return told


def _inputs_outputs(run_id: str, run: JSON) -> list[Exchange]:
    told: list[Exchange] = []
    datasets = objects(field(run, "inputs", "dataset_inputs"))
    models = objects(field(run, "inputs", "model_inputs"))
    if datasets or models:
        document: Document = {"run_id": run_id, "datasets": list[JSON](datasets), "models": list[JSON](models)}
        told.append(_post("logInputs", "runs/log-inputs", document))
    outputs = objects(field(run, "outputs", "model_outputs"))
    if outputs:
        told.append(_post("logOutputs", "runs/outputs", {"run_id": run_id, "models": list[JSON](outputs)}))
    return told


def model_exchanges(answer: Document) -> list[Exchange]:
    """Tell a logged model from `logged-models/{id}`: create, its metrics, its files, then its final status."""
    info, data = field(answer, "model", "info"), field(answer, "model", "data")
    model_id = text(field(info, "model_id"))
    created: Document = {"model": {"info": info, "data": {"params": field(data, "params") or []}}}
    told = [_post("createLoggedModel", "logged-models", {}, created)]
    by_run: dict[str, list[Document]] = {}
    for metric in objects(field(data, "metrics")):
        by_run.setdefault(text(metric.get("run_id")), []).append({"model_id": model_id, **metric})
    for run_id, metrics in by_run.items():
        told += _batches(run_id, "metrics", metrics)
    told.append(tell(COPY, Ref(EntityKind.MODEL, ClientId(model_id)), ""))
    status = text(field(info, "status"))
    if status and "PENDING" not in status:
        told.append(
            Exchange(
                operation="finalizeLoggedModel",
                method="PATCH",
                path=f"{API}/logged-models/{model_id}",
                body=write({"model_id": model_id, "status": status}),
            )
        )
    return told


def _batches(run_id: str, name: str, listed: Sequence[Document]) -> list[Exchange]:
    size = _CHUNK[name]
    return [
        _post("logBatch", "runs/log-batch", {"run_id": run_id, name: list[JSON](listed[start : start + size])})
        for start in range(0, len(listed), size)
    ]


def _post(operation: str, path: str, document: Document, answer: Document | None = None) -> Exchange:
    return Exchange(
        operation=operation,
        method="POST",
        path=f"{API}/{path}",
        body=write(document),
        answer=write(answer) if answer is not None else b"",
    )
