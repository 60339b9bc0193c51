"""Holds one side against the other: two snapshots in, every difference out. Pure; called by `reading` and by tests.

Only ids and marks may differ, and what the proxy has on record as lost (`explaining`). What names an id of the
secondary is said in the primary's ids first; what still names an id of the primary over there was copied, not mirrored,
and is a difference.
"""

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from dualtrack.demo.compare.explaining import (
    MODEL_HISTORY,
    StandIn,
    expected,
    grouped,
    lacking,
    restored,
    stand_ins,
    unexplained,
    without,
)
from dualtrack.demo.compare.result import FILE, NAMED, Comparison, Difference, ModelComparison, RunComparison
from dualtrack.demo.compare.snapshot import (
    EXPERIMENT_MARK,
    MARKS,
    MODEL_MARK,
    RUN_MARK,
    SOURCE_MARK,
    Experiment,
    File,
    Loss,
    Model,
    Point,
    Run,
    Snapshot,
)
from dualtrack.translate.roots import PREFIX, locate, path_of

RUN_LINKS = frozenset({"mlflow.parentRunId", "mlflow.rootRunId", "mlflow.sourceRunId"})
VERSIONS_TAG = "mlflow.modelVersions"  # the server that has the registry sets it on its own model
DEFAULT_EXPERIMENT = "0"


# ---- an experiment -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ids:
    """Secondary id → primary id, from the marks on the secondary; `originals` are all ids of the primary."""

    runs: Mapping[str, str]
    models: Mapping[str, str]
    originals: frozenset[str]

    def back(self, key: str, value: str) -> str:
        """Say a tag of the secondary in the primary's ids."""
        if key in RUN_LINKS:
            return self.one(value)
        if key == MODEL_HISTORY:
            for theirs, ours in {**self.runs, **self.models}.items():
                value = value.replace(theirs, ours)
        return value

    def one(self, value: str) -> str:
        """Say the id of a run or a model in the primary's ids."""
        if value in self.originals:
            return f"{value}, untranslated"
        return self.runs.get(value) or self.models.get(value, value)


def compare(
    primary: Snapshot, secondary: Snapshot, primary_experiment_id: str, losses: Iterable[Loss] = ()
) -> Comparison:
    """Hold one experiment of the primary against whatever the secondary's marks tie to it.

    `losses` are what the proxy says that the secondary could not hold: nothing else explains a difference.
    """
    recorded = grouped(losses)
    runs = [run for run in primary.runs if run.experiment_id == primary_experiment_id]
    models = [model for model in primary.models if model.experiment_id == primary_experiment_id]
    mirrors, model_mirrors = _grouped(secondary.runs, RUN_MARK), _grouped(secondary.models, MODEL_MARK)
    originals = {run.run_id: run for run in primary.runs}
    standing = stand_ins(models, originals, mirrors, recorded)
    ids = _Ids(
        runs={run.run_id: mark for mark, found in mirrors.items() for run in found},
        models={model.model_id: mark for mark, found in model_mirrors.items() for model in found},
        originals=frozenset([*originals, *(model.model_id for model in primary.models)]) - standing.keys(),
    )
    found = [mirror for run in runs for mirror in mirrors.get(run.run_id, ())]
    original = _experiment(primary, primary_experiment_id)
    mirror_id = _mirror_experiment(original, secondary, found)
    general = recorded.of("experiment", primary_experiment_id)
    return Comparison(
        primary_experiment_id=primary_experiment_id,
        secondary_experiment_id=mirror_id,
        runs=tuple(
            _compare_run(run, mirrors.get(run.run_id, []), ids, recorded.of("run", run.run_id), standing.values())
            for run in runs
        ),
        models=tuple(
            _compare_model(
                model,
                model_mirrors.get(model.model_id, []),
                ids,
                recorded.of("model", model.model_id),
                standing.get(model.model_id),
            )
            for model in models
        ),
        losses=general,
        differences=(
            *unexplained(_compare_experiment(original, secondary, mirror_id), general),
            *_strays(runs, secondary, found, mirror_id),
            *_stray_models(models, secondary, mirror_id),
        ),
    )


Marked = TypeVar("Marked", Run, Model)


def _grouped(found: Iterable[Marked], mark: str) -> dict[str, list[Marked]]:
    """Group what the secondary has by the run or model that its mark names."""
    mirrors: dict[str, list[Marked]] = defaultdict(list)
    for item in found:
        if source := item.tags.get(mark):
            mirrors[source].append(item)
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


def _stray_models(models: list[Model], secondary: Snapshot, mirror_id: str | None) -> Iterator[Difference]:
    known = {model.model_id for model in models}
    for model in secondary.models:
        mark = model.tags.get(MODEL_MARK, "")
        if model.experiment_id == mirror_id and mark not in known:
            kind = "mirror of no model here" if mark else "unmarked model"
            yield Difference(kind=kind, key=model.model_id, primary="absent", secondary=mark or model.name)


# ---- a run -------------------------------------------------------------------------------------------------------


def _compare_run(
    run: Run, mirrors: list[Run], ids: _Ids, losses: tuple[Loss, ...], standing: Iterable[StandIn]
) -> RunComparison:
    match mirrors:
        case []:
            differences = [Difference(kind="run", key=run.run_id, primary=run.name, secondary="absent")]
        case [mirror]:
            differences = list(_held(run, mirror, ids, losses, standing))
        case [mirror, *_]:
            several = ", ".join(item.run_id for item in mirrors)
            differences = [Difference(kind="duplicate mirror", key=run.run_id, primary="1", secondary=several)]
            differences += _held(run, mirror, ids, losses, standing)
    return RunComparison(
        name=run.name,
        primary_id=run.run_id,
        secondary_id=mirrors[0].run_id if mirrors else None,
        params=len(run.params),
        tags=len(run.tags),
        metrics=len({point.key for point in run.points}),
        points=len(run.points),
        files=len(run.files),
        file_bytes=sum(file.size for file in run.files),
        differences=tuple(unexplained(differences, losses)),
        losses=losses,
    )


def _held(
    run: Run, mirror: Run, ids: _Ids, losses: tuple[Loss, ...], standing: Iterable[StandIn]
) -> Iterator[Difference]:
    """Compare with what can be there: models as files, shortened names made whole, overflow in its file."""
    mirror, untold = without(restored(mirror, losses), standing)
    yield from untold
    yield from _differences(expected(run, losses), mirror, ids)
    kept = {key: ids.back(key, str(value)) for key, value in mirror.overflow.get("tags", {}).items()}
    yield from lacking(run, mirror, kept, losses)


def _differences(run: Run, mirror: Run, ids: _Ids) -> Iterator[Difference]:
    if SOURCE_MARK not in mirror.tags:
        yield Difference(kind="mark", key=SOURCE_MARK, primary="", secondary="absent")
    yield from _changed("field", run.fields, mirror.fields)
    yield from _changed("param", run.params, mirror.params)
    theirs = {key: ids.back(key, value) for key, value in _unmarked(mirror.tags).items()}
    yield from _changed("tag", run.tags, theirs)
    yield from _points(run, mirror, ids)
    yield from _moved("input", run.inputs, mirror.inputs)
    outputs = ((ids.models.get(model_id, model_id), step) for model_id, step in mirror.outputs)
    yield from _moved("output", run.outputs, outputs)
    yield from _compare_files(run, mirror, ids)


def _points(ours: Run | Model, theirs: Run | Model, ids: _Ids) -> Iterator[Difference]:
    mirrored = [_translate(point, ids) for point in theirs.points]
    names = {str(point): point.key for point in (*ours.points, *mirrored)}
    for difference in _moved("metric point", ours.points, mirrored):
        yield replace(difference, item=names[difference.key])


def _translate(point: Point, ids: _Ids) -> Point:
    model_id, run_id = ids.models.get(point.model_id, point.model_id), ids.runs.get(point.run_id, point.run_id)
    return replace(point, model_id=model_id, run_id=run_id)


# ---- a model -----------------------------------------------------------------------------------------------------


def _compare_model(
    model: Model, mirrors: list[Model], ids: _Ids, losses: tuple[Loss, ...], standing: StandIn | None
) -> ModelComparison:
    differences: list[Difference] = []
    if not mirrors and standing is not None:
        differences = list(_compare_files(standing.meant, standing.seen, ids))
    elif not mirrors:
        differences = [Difference(kind="model", key=model.model_id, primary=model.name, secondary="absent")]
    if len(mirrors) > 1:
        several = ", ".join(item.model_id for item in mirrors)
        differences = [Difference(kind="duplicate mirror", key=model.model_id, primary="1", secondary=several)]
    for mirror in mirrors[:1]:
        differences += _model_differences(model, mirror, ids)
    return ModelComparison(
        name=model.name,
        primary_id=model.model_id,
        secondary_id=mirrors[0].model_id if mirrors else (standing.place or None if standing is not None else None),
        params=len(model.params),
        tags=len(model.tags),
        points=len(model.points),
        files=len(model.files),
        file_bytes=sum(file.size for file in model.files),
        differences=tuple(unexplained(differences, losses)),
        losses=losses,
    )


def _model_differences(model: Model, mirror: Model, ids: _Ids) -> Iterator[Difference]:
    yield from _changed("field", model.fields, mirror.fields)
    yield from _changed("field", {"source_run_id": model.run_id}, {"source_run_id": ids.one(mirror.run_id)})
    yield from _changed("param", model.params, mirror.params)
    yield from _changed("tag", _unregistered(model.tags), _unregistered(_unmarked(mirror.tags)))
    yield from _points(model, mirror, ids)
    yield from _compare_files(model, mirror, ids)


def _unregistered(tags: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in tags.items() if key != VERSIONS_TAG}


# ---- files -------------------------------------------------------------------------------------------------------


def _compare_files(ours: Marked, theirs: Marked, ids: _Ids) -> Iterator[Difference]:
    """Compare two trees by path, size and hash; an `MLmodel` by the ids that it names and the hash of the rest."""
    yield from _changed(FILE, _by_path(ours.files), _by_path(theirs.files))
    mirrors = {file.path: file.names for file in theirs.files}
    for file in ours.files:
        if file.path in mirrors:
            names = {key: _meant(value) for key, value in file.names.items()}
            back = {key: _back(key, value, (ours, theirs), ids) for key, value in mirrors[file.path].items()}
            yield from _changed(f"{NAMED} {file.path}:", names, back)


def _by_path(files: Iterable[File]) -> dict[str, str]:
    return {file.path: _told(file) for file in files}


def _told(file: File) -> str:
    """Say what is in a file. The size of an `MLmodel` may differ, as ids do."""
    return f"all but ids {file.sha256}" if file.names else f"{file.size} bytes {file.sha256}"


def _meant(value: str) -> str:
    """Say what the primary calls a root that a client wrote down as the proxy showed it."""
    path = path_of(value)
    if path is None or not path.startswith(PREFIX):
        return value
    return next((item.uri for item in locate(path, "") if not item.path), value)


def _back(key: str, value: str, owners: tuple[Run | Model, Run | Model], ids: _Ids) -> str:
    """Say what an `MLmodel` of the secondary names in the primary's words: ids, and the root below `artifact_path`."""
    if key != "artifact_path":
        return ids.one(value)
    ours, theirs = (owner.root.rstrip("/") for owner in owners)
    if theirs and f"{value}/".startswith(f"{theirs}/"):
        return ours + value[len(theirs) :]
    return f"{value}, untranslated" if ours and f"{value}/".startswith(f"{ours}/") else value


# ---- values ------------------------------------------------------------------------------------------------------


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
