"""Reads one side into a snapshot: experiments, runs with their metric histories, logged models, and every file's hash.

Files are read as a client of that kind of backend reads them (`files`). Never writes, and decides nothing about what is
equal.
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping

import orjson

from dualtrack.demo.compare.files import READERS, Owner
from dualtrack.demo.compare.rest import HISTORY_PAGE, JSON, Side, call, pages
from dualtrack.demo.compare.snapshot import (
    OVERFLOW,
    Experiment,
    File,
    Model,
    ModelVersion,
    Point,
    Registry,
    Run,
    Snapshot,
)

SEARCH_PAGE = 500
MODELS_PAGE = 50
EXPERIMENTS_MAX = 100  # of one search
INFO = ("run_name", "status", "start_time", "end_time", "lifecycle_stage", "user_id")
MODEL_INFO = ("name", "model_type", "status", "status_message")
DATASET = ("name", "digest", "source_type", "source", "schema", "profile")
MLMODEL = "MLmodel"
NAMES = re.compile(rb"^(run_id|model_id|model_uuid|artifact_path):[ \t]*(.*?)[ \t\r]*(?:\n|\Z)", re.MULTILINE)

Wanted = Callable[[dict[str, JSON]], bool]


def find_experiment(side: Side, name: str) -> str | None:
    """Give the id of the experiment with this name, or None."""
    found = call(side, "GET", "experiments/get-by-name", {"experiment_name": name}, is_optional=True)
    return None if found is None else str(found["experiment"]["experiment_id"])


def read_registry(side: Side) -> Registry:
    """List the registered models and all their versions."""
    models = pages(side, "GET", "registered-models/search", "registered_models", {"max_results": 100})
    versions = pages(side, "GET", "model-versions/search", "model_versions", {"max_results": 100})
    return Registry(
        models=tuple(sorted(item["name"] for item in models)),
        versions=tuple(
            ModelVersion(
                name=item["name"],
                version=str(item["version"]),
                run_id=item.get("run_id", ""),
                source=item.get("source", ""),
            )
            for item in versions
        ),
    )


def read(side: Side, is_wanted: Wanted) -> Snapshot:
    """Read all experiments, runs and models of one side, deleted runs too; histories and files only of what is wanted.

    `is_wanted` is asked with `{"experiment_id": …, "tags": {…}}`; a model is asked about with the tags of its run too.
    """
    experiments = tuple(_experiments(side))
    ids = [item.experiment_id for item in experiments]
    runs = tuple(_run(side, item, is_wanted) for item in _search(side, "runs", SEARCH_PAGE, ids, run_view_type="ALL"))
    tags = {run.run_id: run.tags for run in runs}
    models = _search(side, "logged-models", MODELS_PAGE, ids)
    return Snapshot(
        experiments=experiments, runs=runs, models=tuple(_model(side, item, tags, is_wanted) for item in models)
    )


def _experiments(side: Side) -> Iterator[Experiment]:
    query = {"max_results": SEARCH_PAGE, "view_type": "ALL"}
    for item in pages(side, "POST", "experiments/search", "experiments", query):
        yield Experiment(
            experiment_id=item["experiment_id"],
            name=item["name"],
            lifecycle_stage=item["lifecycle_stage"],
            tags=_pairs(item.get("tags")),
        )


def _search(side: Side, what: str, size: int, experiment_ids: list[str], **body: JSON) -> Iterator[dict[str, JSON]]:
    """List runs or logged models; a backend without logged models answers 404, which means none."""
    key, is_optional = ("runs", False) if what == "runs" else ("models", True)
    for start in range(0, len(experiment_ids), EXPERIMENTS_MAX):
        ids = experiment_ids[start : start + EXPERIMENTS_MAX]
        given = {"experiment_ids": ids, "max_results": size, **body}
        yield from pages(side, "POST", f"{what}/search", key, given, is_optional=is_optional)


# ---- runs and models ---------------------------------------------------------------------------------------------


def _run(side: Side, answer: dict[str, JSON], is_wanted: Wanted) -> Run:
    info, stored, inputs = answer["info"], answer.get("data", {}), answer.get("inputs", {})
    tags = _pairs(stored.get("tags"))
    wanted = is_wanted({"experiment_id": info["experiment_id"], "tags": tags})
    keys = [metric["key"] for metric in stored.get("metrics", ())] if wanted else []
    owner = Owner(name=info["run_id"], experiment_id=info["experiment_id"])
    files = tuple(_files(side, owner)) if wanted else ()
    return Run(
        run_id=info["run_id"],
        experiment_id=info["experiment_id"],
        root=info.get("artifact_uri", ""),
        fields=_texts(info, INFO),
        params=_pairs(stored.get("params")),
        tags=tags,
        points=tuple(point for key in keys for point in _history(side, info["run_id"], key)),
        inputs=tuple(_dataset(item) for item in inputs.get("dataset_inputs", ())),
        outputs=tuple(
            (item["model_id"], str(item.get("step", 0))) for item in answer.get("outputs", {}).get("model_outputs", ())
        ),
        files=files,
        overflow=_overflow(side, owner, files),
    )


def _model(side: Side, answer: dict[str, JSON], runs: Mapping[str, Mapping[str, str]], is_wanted: Wanted) -> Model:
    info, stored = answer["info"], answer.get("data", {})
    tags, run_id = _pairs(info.get("tags")), info.get("source_run_id", "")
    wanted = is_wanted({"experiment_id": info["experiment_id"], "tags": {**runs.get(run_id, {}), **tags}})
    owner = Owner(name=info["model_id"], experiment_id=info["experiment_id"], is_model=True)
    return Model(
        model_id=info["model_id"],
        experiment_id=info["experiment_id"],
        run_id=run_id,
        root=info.get("artifact_uri", ""),
        fields=_texts(info, MODEL_INFO),
        params=_pairs(stored.get("params")),
        tags=tags,
        points=tuple(_point(item, item.get("run_id", "")) for item in stored.get("metrics", ())),
        files=tuple(_files(side, owner)) if wanted else (),
    )


def _dataset(item: dict[str, JSON]) -> str:
    """Write one dataset input as a text that equals its mirror's."""
    known = {name: item.get("dataset", {}).get(name, "") for name in DATASET}
    return orjson.dumps({**known, "tags": _pairs(item.get("tags"))}, option=orjson.OPT_SORT_KEYS).decode()


def _history(side: Side, run_id: str, key: str) -> Iterator[Point]:
    query = {"run_id": run_id, "metric_key": key, "max_results": HISTORY_PAGE}
    for item in pages(side, "GET", "metrics/get-history", "metrics", query):
        yield _point(item)


def _point(item: dict[str, JSON], run_id: str = "") -> Point:
    return Point(
        key=item["key"],
        step=int(item.get("step", 0)),
        timestamp=int(item.get("timestamp", 0)),
        value=repr(float(item.get("value", 0))),
        model_id="" if run_id else item.get("model_id", ""),
        run_id=run_id,
        dataset=f"{item.get('dataset_name', '')} {item.get('dataset_digest', '')}".strip(),
    )


def _pairs(items: list[dict[str, JSON]] | None) -> dict[str, str]:
    return {item["key"]: item.get("value", "") for item in items or ()}


def _texts(info: dict[str, JSON], names: tuple[str, ...]) -> dict[str, str]:
    return {name: str(info[name]) for name in names if name in info}


# ---- files -------------------------------------------------------------------------------------------------------


def _files(side: Side, owner: Owner) -> Iterator[File]:
    reader = READERS[side.kind]
    for path in reader.paths(side, owner):
        yield _file(path, reader.chunks(side, owner, path))


def _overflow(side: Side, owner: Owner, files: tuple[File, ...]) -> dict[str, JSON]:
    """Read what a run could not hold from the file that keeps it; what is no such file says nothing."""
    if not any(file.path == OVERFLOW for file in files):
        return {}
    try:
        document = orjson.loads(b"".join(READERS[side.kind].chunks(side, owner, OVERFLOW) or ()))
    except orjson.JSONDecodeError:
        return {}
    kept = document if isinstance(document, dict) else {}
    return {name: group for name, group in kept.items() if isinstance(group, dict)}


def _file(path: str, chunks: Iterator[bytes] | None) -> File:
    if chunks is None:
        return File(path=path, size=0, sha256="registered, without content")
    if path.rpartition("/")[2] == MLMODEL:
        return mlmodel(path, b"".join(chunks))
    size, digest = 0, hashlib.sha256()
    for chunk in chunks:
        size += len(chunk)
        digest.update(chunk)
    return File(path=path, size=size, sha256=digest.hexdigest())


def mlmodel(path: str, written: bytes) -> File:
    """Read an `MLmodel`: which ids it names, and the hash of everything else that it says."""
    names = {key.decode(): value.decode(errors="replace").strip("'\"") for key, value in NAMES.findall(written)}
    rest = NAMES.sub(b"", written)
    return File(path=path, size=len(written), sha256=hashlib.sha256(rest).hexdigest(), names=names)
