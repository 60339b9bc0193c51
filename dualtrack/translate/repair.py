"""What a secondary lacks, told as the journal's exchanges that bring it; and what no write can bring, with the choice.

The exchanges are in the client's ids, as `translate/adoption.py` tells them, and go through the journal like any other
write: the caller appends each to the lane that `operations.lane_of` answers. Nothing is ever deleted on a secondary but
by the lifecycle of the entity itself: what only it has is named in `unrepaired`. Pure.

    restore if deleted there ─▶ tags, params, points, inputs, outputs, files ─▶ name and end ─▶ delete if deleted here
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from dualtrack.core.difference import Difference, DriftKind
from dualtrack.core.drift import MODEL_INPUT, AnyView, input_detail
from dualtrack.core.exchange import JSON, Document, Exchange
from dualtrack.core.explaining import is_shortened, unmatched
from dualtrack.core.ids import ClientId, EntityKind, Ref
from dualtrack.core.views import DatasetView, ExperimentView, History, ModelView, Point, RunView, Series
from dualtrack.translate.document import MalformedError, objects, parse_inner, write
from dualtrack.translate.files import UPLOAD, tell
from dualtrack.translate.mlflow import API, marks
from dualtrack.translate.references import HISTORY_TAG

_CHUNK: Final = {"metrics": 1000, "params": 100, "tags": 100}


@dataclass(frozen=True, slots=True, kw_only=True)
class Unrepaired:
    """A difference that no write mends; `choice` says, in words, what a person can do about it."""

    difference: Difference
    choice: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """What mends an entity: `exchanges`, in order; `adopts` are entities to bring over whole (`ports.Adopter`)."""

    exchanges: tuple[Exchange, ...] = ()
    adopts: tuple[Ref, ...] = ()
    unrepaired: tuple[Unrepaired, ...] = ()


def plan(here: AnyView | None, there: AnyView | None, differences: Iterable[Difference]) -> Repair:
    """Answer what makes `there` say what `here` says, as far as writes can; explained differences are left alone.

    `differences` are what `compare(here, there, …)` answered, or some of them. A repeat of what is planned changes
    nothing. The points of a metric come from the histories of both views.
    """
    drift = tuple(each for each in differences if each.is_drift)
    if here is None or there is None:
        return _of_whole(here, there, drift)
    draft = _Draft(drift)
    match here, there:
        case RunView(), RunView():
            _plan_run(here, there, draft)
        case ModelView(), ModelView():
            _plan_model(here, there, draft)
        case ExperimentView(), ExperimentView():  # pragma: no branch - there is no fourth kind
            _plan_experiment(here, there, draft)
    return draft.repair()


def _of_whole(here: AnyView | None, there: AnyView | None, drift: Sequence[Difference]) -> Repair:
    if here is not None and there is None and drift:
        return Repair(adopts=(here.ref,))
    return Repair(unrepaired=tuple(Unrepaired(difference=each, choice=_GONE) for each in drift))


# --- what cannot be repaired ------------------------------------------------------------------------------------

_GONE: Final = "the primary has it no more: delete it on the secondary by hand, or keep it"
_EXTRA: Final = "only the secondary has it, and nothing is deleted there: delete it by hand, or keep it"
_AGAIN: Final = "keep it, or delete it on the secondary and `backfill` it again"
_CHOICES: Final[Mapping[DriftKind, str]] = {
    DriftKind.PARAM: f"a param never changes: {_AGAIN}",
    DriftKind.METRIC: f"another value of that step and time is there: {_AGAIN}",
    DriftKind.INPUT: f"a server keeps the first tags of an input: {_AGAIN}",
    DriftKind.OUTPUT: f"a server keeps the first step of an output: {_AGAIN}",
    DriftKind.TRACE: "traces are not mirrored by this release: make it right by hand, or keep it",
    DriftKind.FIELD: f"no write changes it: {_AGAIN}",
}
_TOO_MANY: Final = f"too many points to compare one by one: reconcile again, and if it is still named: {_AGAIN}"
_END: Final = "an end cannot be taken back: it is another one when the run ends again"


def _choice(found: Difference) -> str:
    if found.kind is DriftKind.FIELD and found.item == "end_time":
        return _END
    return _EXTRA if found.is_extra else _CHOICES.get(found.kind, _AGAIN)


# --- the plan as it grows ---------------------------------------------------------------------------------------


_Which: TypeAlias = Callable[[Difference], bool]


def _is_absent(found: Difference) -> bool:
    return found.there is None


class _Draft:
    """Collects the plan of one entity; every difference ends as a write or as unrepaired."""

    def __init__(self, drift: Sequence[Difference]) -> None:
        self._left = list(drift)
        self._unread: list[Difference] = []
        self._adopts: list[Ref] = []
        self.exchanges: list[Exchange] = []

    def take(self, kind: DriftKind, is_mended: _Which = lambda _: True) -> list[Difference]:
        """Answer the differences of a kind that the caller mends; the others stay, and end as unrepaired."""
        taken = [each for each in self._left if each.kind is kind and is_mended(each)]
        self._left = [each for each in self._left if each not in taken]
        return taken

    def lacks(self, kind: DriftKind, is_mended: _Which = lambda _: True) -> list[Difference]:
        """The same for what the primary has."""
        return self.take(kind, lambda each: each.here is not None and is_mended(each))

    def adopt(self, ref: Ref) -> None:
        self._adopts.append(ref)

    def leave_unread(self, found: Difference) -> None:
        """Say of a taken difference that the points are not at hand: there were too many (`reconcile/snapshot.py`)."""
        self._unread.append(found)

    def put_back(self, found: Difference) -> None:
        """Say that a taken difference is not mended whole."""
        self._left.append(found)

    def repair(self) -> Repair:
        return Repair(
            exchanges=tuple(self.exchanges),
            adopts=tuple(self._adopts),
            unrepaired=(
                *(Unrepaired(difference=each, choice=_choice(each)) for each in self._left),
                *(Unrepaired(difference=each, choice=_TOO_MANY) for each in self._unread),
            ),
        )


def _post(operation: str, path: str, document: Document, method: str = "POST") -> Exchange:
    return Exchange(operation=operation, method=method, path=f"{API}/{path}", body=write(document))


def _batches(run_id: str, name: str, listed: Sequence[Document]) -> Iterator[Exchange]:
    size = _CHUNK[name]
    for start in range(0, len(listed), size):
        yield _post("logBatch", "runs/log-batch", {"run_id": run_id, name: list[JSON](listed[start : start + size])})


def _pair(key: str, value: str) -> Document:
    return {"key": key, "value": value}


def marking(ref: Ref, source: str) -> Exchange:
    """Tell a run's or a model's mirror its marks."""
    tags = marks(ref, source)
    if ref.kind is EntityKind.MODEL:
        path = f"logged-models/{ref.client_id}/tags"
        return _post("setLoggedModelTags", path, {"model_id": ref.client_id, "tags": list[JSON](tags)}, "PATCH")
    (told,) = _batches(ref.client_id, "tags", tags)
    return told


# --- a run ------------------------------------------------------------------------------------------------------


def _plan_run(here: RunView, there: RunView, draft: _Draft) -> None:
    run_id = here.ref.client_id
    tags = draft.lacks(DriftKind.TAG)
    listed = {each.item: each for each in tags if each.item == HISTORY_TAG and _entries(here.tags[HISTORY_TAG])}
    plain = [_pair(each.item, here.tags[each.item]) for each in tags if each.item not in listed]
    draft.exchanges += _batches(run_id, "tags", plain)
    for found in listed.values():
        _plan_history(here, there, found, draft)
    params = draft.lacks(DriftKind.PARAM, _is_absent)
    draft.exchanges += _batches(run_id, "params", [_pair(each.item, here.params[each.item]) for each in params])
    for found in draft.take(DriftKind.METRIC):
        mine, theirs = here.metrics.get(found.item), _called(found.item, there.metrics)
        points = _points(found, mine, theirs, draft)
        draft.exchanges += _batches(run_id, "metrics", [{"key": found.item, **_told(each)} for each in points])
    _plan_links(here, there, draft)
    _plan_files(here, draft)
    _plan_end(here, draft)
    _plan_lifecycle(here, there, draft, "Run", {"run_id": run_id})


def _called(key: str, metrics: Mapping[str, History]) -> History | None:
    """Find a history under its name, or under that which delivery shortens it to."""
    return metrics.get(key) or next((each for name, each in metrics.items() if is_shortened(name, key)), None)


def _plan_history(here: RunView, there: RunView, found: Difference, draft: _Draft) -> None:
    """Add the models that a history lacks. Not as a tag: entries that only the secondary has would be lost with it."""
    ours, theirs = (_entries(view.tags.get(HISTORY_TAG, "")) for view in (here, there))
    for entry in ours:
        if entry not in theirs:
            body: Document = {"run_id": here.ref.client_id, "model_json": write(entry).decode()}
            draft.exchanges.append(_post("logModel", "runs/log-model", body))
    extra = [entry for entry in theirs if entry not in ours]
    if extra:
        draft.put_back(replace(found, here=None, there=write(list[JSON](extra)).decode()))


def _entries(written: str) -> list[Document]:
    try:
        return objects(parse_inner(written))
    except MalformedError:
        return []


def _points(
    found: Difference, mine: History | None, theirs: History | None, draft: _Draft, *, is_single: bool = False
) -> list[Point]:
    """Answer the points to send; what only the secondary has, or what it has no place for, is put back.

    `is_single`: it takes one point of a step and a time.
    """
    ours = mine.points if mine is not None else {}
    others = theirs.points if theirs is not None and theirs.count else {}
    if ours is None or others is None:
        draft.leave_unread(found)
        return []
    missing, extra = unmatched(ours, others)
    taken = {(each.step, each.timestamp) for each in others} if is_single else set()
    fitting = [each for each in missing if (each.step, each.timestamp) not in taken]
    if extra:
        draft.put_back(replace(found, here=None, there=f"{len(extra)} points"))
    elif len(fitting) < len(missing):
        draft.put_back(found)
    return fitting


def _told(point: Point) -> Document:
    value: JSON = "NaN" if point.value is None else point.value
    return {"value": value, "timestamp": point.timestamp, "step": point.step}


def _plan_links(here: RunView, there: RunView, draft: _Draft) -> None:
    run_id = here.ref.client_id
    inputs = {(each.name, input_detail(each)): each for each in here.inputs}
    held = {(each.name, each.digest) for each in there.inputs}

    def is_new(found: Difference) -> bool:
        dataset = inputs.get((found.item, found.detail))
        return found.there is None and (dataset is None or (dataset.name, dataset.digest) not in held)

    wanted = draft.take(DriftKind.INPUT, is_new)
    if wanted:
        datasets = [_dataset(inputs[each.item, each.detail]) for each in wanted if each.detail != MODEL_INPUT]
        models: list[Document] = [{"model_id": each.item} for each in wanted if each.detail == MODEL_INPUT]
        document: Document = {"run_id": run_id, "datasets": list[JSON](datasets), "models": list[JSON](models)}
        draft.exchanges.append(_post("logInputs", "runs/log-inputs", document))
    known = {model_id for model_id, _ in there.outputs}
    lacking = {each.item for each in draft.lacks(DriftKind.OUTPUT, lambda each: each.item not in known)}
    if lacking:
        listed = sorted(each for each in here.outputs if each[0] in lacking)
        outputs: list[JSON] = [{"model_id": model_id, "step": step} for model_id, step in listed]
        draft.exchanges.append(_post("logOutputs", "runs/outputs", {"run_id": run_id, "models": outputs}))
    for found in draft.lacks(DriftKind.MODEL):
        draft.adopt(Ref(EntityKind.MODEL, ClientId(found.item)))


def _dataset(dataset: DatasetView) -> Document:
    told: Document = {"name": dataset.name, "digest": dataset.digest, "source_type": dataset.source_type}
    told["source"] = dataset.source
    told |= {name: value for name, value in (("schema", dataset.schema), ("profile", dataset.profile)) if value}
    return {"tags": list[JSON](_pair(key, value) for key, value in dataset.tags), "dataset": told}


def _plan_files(here: RunView | ModelView, draft: _Draft) -> None:
    paths = dict.fromkeys(each.item for each in draft.lacks(DriftKind.FILE))
    # no copy is kept of it any more, so that delivery brings it from the primary
    draft.exchanges += [tell(UPLOAD, here.ref, path) for path in paths]


_ENDING: Final = frozenset({"name", "status", "end_time"})


def _plan_end(here: RunView, draft: _Draft) -> None:
    changed = draft.lacks(DriftKind.FIELD, lambda each: each.item in _ENDING)
    if not changed:
        return
    told: Document = {"run_id": here.ref.client_id, "status": here.status, "end_time": here.end_time}
    if any(each.item == "name" for each in changed):
        told["run_name"] = here.name
    body: Document = {name: value for name, value in told.items() if value not in {"", None}}
    draft.exchanges.append(_post("updateRun", "runs/update", body))


def _plan_lifecycle(
    here: RunView | ExperimentView, there: RunView | ExperimentView, draft: _Draft, named: str, body: Document
) -> None:
    """Put a restore before the writes and a delete behind them: a server changes nothing that is deleted."""
    is_drift = bool(draft.lacks(DriftKind.FIELD, lambda each: each.item == "lifecycle_stage"))
    ends_deleted = (here if is_drift else there).lifecycle_stage == "deleted"
    is_deleted = there.lifecycle_stage == "deleted"
    path = f"{named.lower()}s"
    if is_deleted and (is_drift or draft.exchanges):
        draft.exchanges.insert(0, _post(f"restore{named}", f"{path}/restore", body))
        is_deleted = False
    if ends_deleted and not is_deleted:
        draft.exchanges.append(_post(f"delete{named}", f"{path}/delete", body))


# --- a logged model, an experiment ------------------------------------------------------------------------------


def _plan_model(here: ModelView, there: ModelView, draft: _Draft) -> None:
    model_id = here.ref.client_id
    path = f"logged-models/{model_id}"
    if tags := draft.lacks(DriftKind.TAG):
        listed = [_pair(each.item, here.tags[each.item]) for each in tags]
        body: Document = {"model_id": model_id, "tags": list[JSON](listed)}
        draft.exchanges.append(_post("setLoggedModelTags", f"{path}/tags", body, "PATCH"))
    params = [_pair(each.item, here.params[each.item]) for each in draft.lacks(DriftKind.PARAM, _is_absent)]
    for start in range(0, len(params), _CHUNK["params"]):
        chunk = list[JSON](params[start : start + _CHUNK["params"]])
        body = {"model_id": model_id, "params": chunk}
        draft.exchanges.append(_post("logLoggedModelParams", f"{path}/params", body))
    _plan_model_points(here, there, draft)
    _plan_files(here, draft)
    if draft.lacks(DriftKind.FIELD, lambda each: each.item == "status"):
        body = {"model_id": model_id, "status": here.status}
        draft.exchanges.append(_post("finalizeLoggedModel", path, body, "PATCH"))


def _plan_model_points(here: ModelView, there: ModelView, draft: _Draft) -> None:
    series = {str(each): each for each in (*here.metrics, *there.metrics)}
    for found in draft.take(DriftKind.METRIC):
        one = series[found.detail]
        # a model has one value of a step and a time (`logged_model_metrics` of mlflow 3.17.2), a run may have more
        points = _points(found, here.metrics.get(one), there.metrics.get(one), draft, is_single=True)
        about = {**_about(one), "model_id": here.ref.client_id}
        batches = [*_batches(one.run_id, "metrics", [{**about, **_told(each)} for each in points])]
        draft.exchanges += _undeleted(one.run_id, batches, here, there)


def _undeleted(run_id: str, writes: list[Exchange], here: ModelView, there: ModelView) -> Iterator[Exchange]:
    """Restore a run that is deleted there for these writes, and delete it again if it is deleted here."""
    is_deleted = bool(writes) and run_id in there.deleted_runs
    if is_deleted:
        yield _post("restoreRun", "runs/restore", {"run_id": run_id})
    yield from writes
    if is_deleted and run_id in here.deleted_runs:
        yield _post("deleteRun", "runs/delete", {"run_id": run_id})


def _about(series: Series) -> Document:
    told: Document = {"key": series.key, "run_id": series.run_id}
    dataset = {"dataset_name": series.dataset_name, "dataset_digest": series.dataset_digest}
    return {**told, **{name: value for name, value in dataset.items() if value}}


def _plan_experiment(here: ExperimentView, there: ExperimentView, draft: _Draft) -> None:
    experiment: Document = {"experiment_id": here.ref.client_id}
    for found in draft.lacks(DriftKind.TAG):
        body = {**experiment, **_pair(found.item, here.tags[found.item])}
        draft.exchanges.append(_post("setExperimentTag", "experiments/set-experiment-tag", body))
    if draft.lacks(DriftKind.FIELD, lambda each: each.item == "name"):
        # translated on its way, as any new name is
        body = {**experiment, "new_name": here.name}
        draft.exchanges.append(_post("updateExperiment", "experiments/update", body))
    _plan_lifecycle(here, there, draft, "Experiment", experiment)
