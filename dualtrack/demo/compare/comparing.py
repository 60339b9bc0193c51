"""Whether the mirror of an experiment says the same as the original: read both sides, then compare.

Reads the backends directly over plain REST, without any part of the proxy, so that it cannot share its misreadings. The
comparing half (`compare`) is pure: two snapshots in, every difference out. Mirrors are found by the tag
`dualtrack.source_run_id` alone, in whatever experiment of the secondary they stand. Artifacts are not compared.

The reading half blocks; call it from a thread (`asyncio.to_thread`) when the servers live in the same event loop.
"""

import urllib.error
import urllib.parse
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import orjson

JSON: TypeAlias = Any

MARKS = "dualtrack."
RUN_MARK = "dualtrack.source_run_id"
SOURCE_MARK = "dualtrack.source"
EXPERIMENT_MARK = "dualtrack.source_experiment_id"
MODEL_MARK = "dualtrack.source_model_id"
RUN_LINKS = frozenset({"mlflow.parentRunId", "mlflow.rootRunId", "mlflow.sourceRunId"})
MODEL_HISTORY = "mlflow.log-model.history"
DEFAULT_EXPERIMENT = "0"
# Azure ML refuses 1,000 and more rows of history (facts/backends A7); MLflow servers take any page size up to here.
HISTORY_PAGE = 500
SEARCH_PAGE = 500
INFO = ("run_name", "status", "start_time", "end_time", "lifecycle_stage", "user_id")
DATASET = ("name", "digest", "source_type", "source", "schema", "profile")


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One backend: the address under which `/api/2.0/mlflow` begins, and a bearer token if it wants one."""

    name: str
    url: str
    token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One metric value as stored; `value` is text, so that NaN equals NaN."""

    key: str
    step: int
    timestamp: int
    value: str
    model_id: str = ""
    dataset: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run as one side tells it. Values are text throughout: what is compared is what was stored."""

    run_id: str
    experiment_id: str
    fields: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    points: tuple[Point, ...] = ()
    inputs: tuple[str, ...] = ()
    outputs: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        return self.fields.get("run_name", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    experiment_id: str
    name: str
    lifecycle_stage: str = "active"
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What one side holds. `models` are logged models: their id there → the tag that names their source, or ""."""

    experiments: tuple[Experiment, ...]
    runs: tuple[Run, ...]
    models: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    kind: str
    key: str
    primary: str
    secondary: str

    def __str__(self) -> str:
        return f"{self.kind} {self.key}: {self.primary!r} on the primary, {self.secondary!r} on the secondary"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunComparison:
    """One run and its mirror; the counts are the primary's."""

    name: str
    primary_id: str
    secondary_id: str | None
    params: int
    tags: int
    metrics: int
    points: int
    differences: tuple[Difference, ...]

    @property
    def is_equal(self) -> bool:
        return not self.differences


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """An experiment and its mirror: `differences` are those that belong to no single run."""

    primary_experiment_id: str
    secondary_experiment_id: str | None
    runs: tuple[RunComparison, ...]
    differences: tuple[Difference, ...]

    @property
    def is_equal(self) -> bool:
        return not self.all_differences

    @property
    def all_differences(self) -> tuple[Difference, ...]:
        return self.differences + tuple(item for run in self.runs for item in run.differences)

    def __str__(self) -> str:
        """List the differences, for a failing assertion."""
        lines = [f"  {item}" for item in self.differences]
        lines += [f"  run {run.name} {run.primary_id}: {item}" for run in self.runs for item in run.differences]
        return "\n".join([f"{len(self.runs)} runs, {len(lines)} differences", *lines])


# ---- comparing: pure ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ids:
    """Secondary id → primary id, from the marks on the secondary."""

    runs: Mapping[str, str]
    models: Mapping[str, str]
    originals: frozenset[str]

    def back(self, key: str, value: str) -> str:
        """Say a tag of the secondary in the primary's ids."""
        if key in RUN_LINKS:
            return f"{value}, untranslated" if value in self.originals else self.runs.get(value, value)
        if key == MODEL_HISTORY:
            for theirs, ours in {**self.runs, **self.models}.items():
                value = value.replace(theirs, ours)
        return value


def compare(primary: Snapshot, secondary: Snapshot, primary_experiment_id: str) -> Comparison:
    """Hold one experiment of the primary against whatever the secondary's marks tie to it."""
    runs = [run for run in primary.runs if run.experiment_id == primary_experiment_id]
    mirrors = _mirrors(secondary)
    ids = _Ids(
        runs={run.run_id: mark for mark, found in mirrors.items() for run in found},
        models={theirs: ours for theirs, ours in secondary.models.items() if ours},
        originals=frozenset(run.run_id for run in primary.runs),
    )
    found = [mirror for run in runs for mirror in mirrors.get(run.run_id, ())]
    original = _experiment(primary, primary_experiment_id)
    mirror_id = _mirror_experiment(original, secondary, found)
    return Comparison(
        primary_experiment_id=primary_experiment_id,
        secondary_experiment_id=mirror_id,
        runs=tuple(_compare_run(run, mirrors.get(run.run_id, []), ids) for run in runs),
        differences=(
            *_compare_experiment(original, secondary, mirror_id),
            *_strays(runs, secondary, found, mirror_id),
        ),
    )


def _mirrors(secondary: Snapshot) -> dict[str, list[Run]]:
    """Group the secondary's runs by the run that their mark names."""
    mirrors: dict[str, list[Run]] = defaultdict(list)
    for run in secondary.runs:
        if mark := run.tags.get(RUN_MARK):
            mirrors[mark].append(run)
    return mirrors


def _experiment(snapshot: Snapshot, experiment_id: str) -> Experiment:
    return next(item for item in snapshot.experiments if item.experiment_id == experiment_id)


def _mirror_experiment(original: Experiment, secondary: Snapshot, found: list[Run]) -> str | None:
    """Find the experiment that mirrors `original`: by its mark, or where its runs are, or by its name."""
    marked = (item for item in secondary.experiments if item.tags.get(EXPERIMENT_MARK) == original.experiment_id)
    named = (item for item in secondary.experiments if item.name in _names(original))
    candidates: Iterable[Experiment | Run] = (*marked, *found, *named)
    return next((item.experiment_id for item in candidates), None)


def _names(original: Experiment) -> tuple[str, str]:
    """Give the names that a mirror may have: the same, or the last segment of a path."""
    return original.name, original.name.rpartition("/")[2]


def _compare_experiment(original: Experiment, secondary: Snapshot, mirror_id: str | None) -> Iterator[Difference]:
    if mirror_id is None:
        yield Difference(kind="experiment", key=original.name, primary=original.experiment_id, secondary="absent")
        return
    mirror = _experiment(secondary, mirror_id)
    if original.experiment_id != DEFAULT_EXPERIMENT and mirror.name not in _names(original):
        yield Difference(kind="experiment", key="name", primary=original.name, secondary=mirror.name)
    yield from _changed(
        "experiment",
        {"lifecycle_stage": original.lifecycle_stage},
        {"lifecycle_stage": mirror.lifecycle_stage},
    )
    yield from _changed("experiment tag", _unmarked(original.tags), _unmarked(mirror.tags))


def _strays(runs: list[Run], secondary: Snapshot, found: list[Run], mirror_id: str | None) -> Iterator[Difference]:
    """Name what should not be there: runs in the mirror experiment that mirror nothing, mirrors outside of it."""
    known = {run.run_id for run in runs}
    for run in secondary.runs:
        mark = run.tags.get(RUN_MARK, "")
        if run.experiment_id == mirror_id and mark not in known:
            kind = "mirror of no run here" if mark else "unmarked run"
            yield Difference(kind=kind, key=run.run_id, primary="absent", secondary=mark or run.name)
    for run in found:
        if run.experiment_id != mirror_id:
            yield Difference(
                kind="experiment of a run", key=run.run_id, primary=str(mirror_id), secondary=run.experiment_id
            )


def _compare_run(run: Run, mirrors: list[Run], ids: _Ids) -> RunComparison:
    match mirrors:
        case []:
            differences = [Difference(kind="run", key=run.run_id, primary=run.name, secondary="absent")]
        case [mirror]:
            differences = list(_differences(run, mirror, ids))
        case [mirror, *_]:
            several = ", ".join(item.run_id for item in mirrors)
            differences = [Difference(kind="duplicate mirror", key=run.run_id, primary="1", secondary=several)]
            differences += _differences(run, mirror, ids)
    return RunComparison(
        name=run.name,
        primary_id=run.run_id,
        secondary_id=mirrors[0].run_id if mirrors else None,
        params=len(run.params),
        tags=len(run.tags),
        metrics=len({point.key for point in run.points}),
        points=len(run.points),
        differences=tuple(differences),
    )


def _differences(run: Run, mirror: Run, ids: _Ids) -> Iterator[Difference]:
    if SOURCE_MARK not in mirror.tags:
        yield Difference(kind="mark", key=SOURCE_MARK, primary="", secondary="absent")
    yield from _changed("field", run.fields, mirror.fields)
    yield from _changed("param", run.params, mirror.params)
    theirs = {key: ids.back(key, value) for key, value in _unmarked(mirror.tags).items()}
    yield from _changed("tag", run.tags, theirs)
    yield from _moved("metric point", run.points, (_translate(point, ids) for point in mirror.points))
    yield from _moved("input", run.inputs, mirror.inputs)
    outputs = ((ids.models.get(model_id, model_id), step) for model_id, step in mirror.outputs)
    yield from _moved("output", run.outputs, outputs)


def _translate(point: Point, ids: _Ids) -> Point:
    return Point(
        key=point.key,
        step=point.step,
        timestamp=point.timestamp,
        value=point.value,
        model_id=ids.models.get(point.model_id, point.model_id),
        dataset=point.dataset,
    )


def _unmarked(tags: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in tags.items() if not key.startswith(MARKS)}


def _changed(kind: str, ours: Mapping[str, str], theirs: Mapping[str, str]) -> Iterator[Difference]:
    for key in sorted(ours.keys() | theirs.keys()):
        if ours.get(key) != theirs.get(key):
            yield Difference(kind=kind, key=key, primary=ours.get(key, "absent"), secondary=theirs.get(key, "absent"))


def _moved(kind: str, ours: Iterable[Hashable], theirs: Iterable[Hashable]) -> Iterator[Difference]:
    """Compare as multisets: how often each item is there."""
    mine, other = Counter(ours), Counter(theirs)
    for item in sorted(mine.keys() | other.keys(), key=str):
        if mine[item] != other[item]:
            yield Difference(kind=kind, key=str(item), primary=f"{mine[item]} times", secondary=f"{other[item]} times")


# ---- reading: plain REST -----------------------------------------------------------------------------------------


def compare_experiment(primary: Side, secondary: Side, primary_experiment_id: str) -> Comparison:
    """Read one experiment of the primary and everything that may mirror it, and compare."""
    with ThreadPoolExecutor(max_workers=2) as pool:
        ours = pool.submit(read, primary, lambda run: run["experiment_id"] == primary_experiment_id)
        theirs = pool.submit(read, secondary, lambda run: RUN_MARK in run["tags"])
        return compare(ours.result(), theirs.result(), primary_experiment_id)


def find_experiment(side: Side, name: str) -> str | None:
    """Give the id of the experiment with this name, or None."""
    found = _call(side, "GET", "experiments/get-by-name", {"experiment_name": name}, is_optional=True)
    return None if found is None else str(found["experiment"]["experiment_id"])


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelVersion:
    name: str
    version: str
    run_id: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    models: tuple[str, ...]
    versions: tuple[ModelVersion, ...]

    @property
    def is_empty(self) -> bool:
        return not self.models and not self.versions


def read_registry(side: Side) -> Registry:
    """List the registered models and all their versions."""
    models = _pages(side, "GET", "registered-models/search", "registered_models", {"max_results": 100})
    versions = _pages(side, "GET", "model-versions/search", "model_versions", {"max_results": 100})
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


def read(side: Side, is_wanted: Callable[[dict[str, JSON]], bool]) -> Snapshot:
    """Read all experiments and runs of one side, deleted ones too; histories only of the runs that are wanted.

    `is_wanted` is asked with `{"experiment_id": …, "tags": {…}}`.
    """
    experiments = tuple(_experiments(side))
    ids = [item.experiment_id for item in experiments]
    runs = list(_search(side, "runs/search", "runs", ids, run_view_type="ALL"))
    return Snapshot(
        experiments=experiments,
        runs=tuple(_run(side, run, is_wanted) for run in runs),
        models={model["info"]["model_id"]: _pairs(model["info"]).get(MODEL_MARK, "") for model in _models(side, ids)},
    )


def _experiments(side: Side) -> Iterator[Experiment]:
    query = {"max_results": SEARCH_PAGE, "view_type": "ALL"}
    for item in _pages(side, "POST", "experiments/search", "experiments", query):
        yield Experiment(
            experiment_id=item["experiment_id"],
            name=item["name"],
            lifecycle_stage=item["lifecycle_stage"],
            tags=_pairs(item),
        )


def _models(side: Side, experiment_ids: list[str]) -> Iterator[dict[str, JSON]]:
    """List logged models; a backend without them answers 404, which means none."""
    for start in range(0, len(experiment_ids), 100):
        body = {"experiment_ids": experiment_ids[start : start + 100], "max_results": 50}
        yield from _pages(side, "POST", "logged-models/search", "models", body, is_optional=True)


def _search(side: Side, path: str, key: str, experiment_ids: list[str], **body: JSON) -> Iterator[dict[str, JSON]]:
    for start in range(0, len(experiment_ids), 100):
        ids = experiment_ids[start : start + 100]
        yield from _pages(side, "POST", path, key, {"experiment_ids": ids, "max_results": SEARCH_PAGE, **body})


def _run(side: Side, answer: dict[str, JSON], is_wanted: Callable[[dict[str, JSON]], bool]) -> Run:
    info, stored, inputs = answer["info"], answer.get("data", {}), answer.get("inputs", {})
    tags = _pairs(stored)
    wanted = is_wanted({"experiment_id": info["experiment_id"], "tags": tags})
    keys = [metric["key"] for metric in stored.get("metrics", ())] if wanted else []
    return Run(
        run_id=info["run_id"],
        experiment_id=info["experiment_id"],
        fields={name: str(info[name]) for name in INFO if name in info},
        params={item["key"]: item.get("value", "") for item in stored.get("params", ())},
        tags=tags,
        points=tuple(point for key in keys for point in _history(side, info["run_id"], key)),
        inputs=tuple(_dataset(item) for item in inputs.get("dataset_inputs", ())),
        outputs=tuple(
            (item["model_id"], str(item.get("step", 0))) for item in answer.get("outputs", {}).get("model_outputs", ())
        ),
    )


def _dataset(item: dict[str, JSON]) -> str:
    """Write one dataset input as a text that equals its mirror's."""
    known = {name: item.get("dataset", {}).get(name, "") for name in DATASET}
    return orjson.dumps({**known, "tags": _pairs(item)}, option=orjson.OPT_SORT_KEYS).decode()


def _history(side: Side, run_id: str, key: str) -> Iterator[Point]:
    query = {"run_id": run_id, "metric_key": key, "max_results": HISTORY_PAGE}
    for item in _pages(side, "GET", "metrics/get-history", "metrics", query):
        yield Point(
            key=key,
            step=int(item.get("step", 0)),
            timestamp=int(item.get("timestamp", 0)),
            value=repr(float(item.get("value", 0))),
            model_id=item.get("model_id", ""),
            dataset=f"{item.get('dataset_name', '')} {item.get('dataset_digest', '')}".strip(),
        )


def _pairs(item: Mapping[str, JSON]) -> dict[str, str]:
    return {tag["key"]: tag.get("value", "") for tag in item.get("tags", ())}


def _pages(
    side: Side, method: str, path: str, key: str, fields: Mapping[str, JSON], *, is_optional: bool = False
) -> Iterator[dict[str, JSON]]:
    token = ""
    while True:
        given = {**fields, **({"page_token": token} if token else {})}
        answer = _call(side, method, path, given, is_optional=is_optional) or {}
        yield from answer.get(key, ())
        token = answer.get("next_page_token", "")
        if not token:
            return


def _call(
    side: Side, method: str, path: str, fields: Mapping[str, JSON], *, is_optional: bool = False
) -> dict[str, JSON] | None:
    """Call one MLflow endpoint; None for a 404 of something that need not be there."""
    url = f"{side.url.rstrip('/')}/api/2.0/mlflow/{path}"
    body = orjson.dumps(fields) if method == "POST" else None
    if body is None:
        url += "?" + urllib.parse.urlencode(fields)
    headers = {"Content-Type": "application/json"}
    if side.token:
        headers["Authorization"] = f"Bearer {side.token}"
    request = urllib.request.Request(url, data=body, headers=headers, method=method)  # noqa: S310 - the caller's
    try:
        with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310 - the caller's
            answer: dict[str, JSON] = orjson.loads(response.read() or b"{}")
            return answer
    except urllib.error.HTTPError as exc:
        with exc:
            if exc.code == 404 and is_optional:
                return None
            raise RuntimeError(f"{side.name}: {method} {path}: {exc.code} {exc.read()[:500]!r}") from exc
