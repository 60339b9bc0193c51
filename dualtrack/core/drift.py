"""Whether two backends say the same of one entity: two views in, every difference out, each explained or drift. Pure.

    RunView here ─┐                   Difference(kind, item, here, there, explanation)
    RunView there ├─▶ compare ─▶      explanation "": drift, which `translate/repair.py` plans to mend
    losses        ┘                   otherwise: known (`explaining.py`), and nothing to do

`here` is the primary, `there` a secondary. `reconcile/verifier.py` reads the views and calls this.
"""

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Final, TypeVar

from dualtrack.core.difference import Difference, DriftKind, Explanation, Recorded
from dualtrack.core.explaining import Pair, explained, is_shortened, of_points
from dualtrack.core.loss import LossKind
from dualtrack.core.views import DatasetView, ExperimentView, FileView, History, ModelView, RunView, TraceView, View

__all__ = ["AnyView", "Difference", "DriftKind", "Explanation", "Recorded", "compare", "metrics_in_doubt"]

AnyView = TypeVar("AnyView", RunView, ModelView, ExperimentView)
_Value = TypeVar("_Value")

MODEL_INPUT: Final = "model"  # the detail of an input that is a logged model


def compare(here: AnyView | None, there: AnyView | None, losses: Iterable[Recorded] = ()) -> tuple[Difference, ...]:
    """Answer every difference of one entity, in a fixed order; None is an entity that is not there.

    `losses` are those on record for this entity on the secondary. Metrics are compared by their digests; where both
    histories hold their points, what a backend rounds or keeps once is told from what is missing. So read digests
    first, and read again with the points of the metrics that `metrics_in_doubt` names.
    """
    recorded = tuple(losses)
    if here is None or there is None:
        found: Iterable[Difference] = _whole(here, there)
    else:
        found = _differences(here, _restored(there, recorded))
    return tuple(explained(each, Pair(here, there, recorded)) for each in found)


def metrics_in_doubt(differences: Iterable[Difference]) -> frozenset[str]:
    """Name the metrics whose points have to be read before drift is certain, and before it can be repaired."""
    return frozenset(each.item for each in differences if each.is_drift and each.kind is DriftKind.METRIC)


# --- what differs -----------------------------------------------------------------------------------------------

# by kind of view, what is one plain value
_FIELDS: Mapping[type, tuple[str, ...]] = {
    RunView: ("name", "status", "start_time", "end_time", "lifecycle_stage", "user", "experiment_id"),
    ModelView: ("name", "model_type", "status", "run_id", "experiment_id"),
    ExperimentView: ("name", "lifecycle_stage"),
}


def _whole(here: View | None, there: View | None) -> Iterator[Difference]:
    one = here or there
    if one is not None:
        names = [view.name if view is not None else None for view in (here, there)]
        yield Difference(kind=DriftKind(one.ref.kind), item="", here=names[0], there=names[1])


def _differences(here: AnyView, there: AnyView) -> Iterator[Difference]:
    fields = ({name: _told(getattr(view, name)) for name in _FIELDS[type(here)]} for view in (here, there))
    yield from _changed(DriftKind.FIELD, *fields)
    yield from _changed(DriftKind.TAG, here.tags, there.tags)
    match here, there:
        case RunView(), RunView():
            yield from _run_differences(here, there)
        case ModelView(), ModelView():
            yield from _model_differences(here, there)


def _told(value: object) -> str | None:
    return None if value in {None, ""} else str(value)


def _changed(kind: DriftKind, here: Mapping[str, str | None], there: Mapping[str, str | None]) -> Iterator[Difference]:
    for item in sorted(here.keys() | there.keys()):
        if here.get(item) != there.get(item):
            yield Difference(kind=kind, item=item, here=here.get(item), there=there.get(item))


def _run_differences(here: RunView, there: RunView) -> Iterator[Difference]:
    yield from _changed(DriftKind.PARAM, here.params, there.params)
    yield from _histories(here.metrics, there.metrics)
    for dataset, mine, theirs in _counted(here.inputs, there.inputs):
        detail = input_detail(dataset)
        yield Difference(kind=DriftKind.INPUT, item=dataset.name, here=mine, there=theirs, detail=detail)
    for model_id, mine, theirs in _counted(Counter(here.model_inputs), Counter(there.model_inputs)):
        yield Difference(kind=DriftKind.INPUT, item=model_id, here=mine, there=theirs, detail=MODEL_INPUT)
    for (model_id, step), mine, theirs in _counted(Counter(here.outputs), Counter(there.outputs)):
        yield Difference(kind=DriftKind.OUTPUT, item=model_id, here=mine, there=theirs, detail=f"step {step}")
    if here.models is not None and there.models is not None:
        for model_id, mine, theirs in _counted(Counter(here.models), Counter(there.models)):
            yield Difference(kind=DriftKind.MODEL, item=model_id, here=mine, there=theirs)
    if here.traces is not None and there.traces is not None:
        yield from _traces(here.traces, there.traces)
    yield from _files(here, there, frozenset())


def _traces(here: Mapping[str, TraceView], there: Mapping[str, TraceView]) -> Iterator[Difference]:
    for item in sorted(here.keys() | there.keys()):
        mine, theirs = here.get(item), there.get(item)
        if mine != theirs:
            told = [None if each is None else str(each) for each in (mine, theirs)]
            yield Difference(kind=DriftKind.TRACE, item=item, here=told[0], there=told[1])


def input_detail(dataset: DatasetView) -> str:
    """Tell one input of that name from another."""
    return " ".join((dataset.digest, dataset.source_type, *(f"{key}={value}" for key, value in dataset.tags)))


def _model_differences(here: ModelView, there: ModelView) -> Iterator[Difference]:
    yield from _changed(DriftKind.PARAM, here.params, there.params)
    yield from _histories(here.metrics, there.metrics)
    # an MLmodel among the files of a run names no logged model (`mlmodel.renamed`)
    yield from _files(here, there, frozenset({"model_id"}) if there.stands_in else frozenset())


_Item = TypeVar("_Item", bound=Hashable)


def _counted(here: Mapping[_Item, int], there: Mapping[_Item, int]) -> Iterator[tuple[_Item, str | None, str | None]]:
    """Yield what is there another number of times."""
    for item in sorted(here.keys() | there.keys(), key=str):
        mine, theirs = here.get(item, 0), there.get(item, 0)
        if mine != theirs:
            yield item, _times(mine), _times(theirs)


def _times(count: int) -> str | None:
    return f"{count} times" if count else None


def _histories(here: Mapping[_Item, History], there: Mapping[_Item, History]) -> Iterator[Difference]:
    for item in sorted(here.keys() | there.keys(), key=str):
        mine, theirs = here.get(item), there.get(item)
        if (mine or History()) == (theirs or History()):
            continue
        key = getattr(item, "key", item)
        told = [str(each) if each is not None and each.count else None for each in (mine, theirs)]
        detail = "" if isinstance(item, str) else str(item)
        found = Difference(kind=DriftKind.METRIC, item=str(key), here=told[0], there=told[1], detail=detail)
        yield replace(found, explanation=of_points(mine, theirs))


def _files(here: RunView | ModelView, there: RunView | ModelView, nameless: frozenset[str]) -> Iterator[Difference]:
    if here.files is None or there.files is None:
        return
    for path in sorted(here.files.keys() | there.files.keys()):
        mine, theirs = here.files.get(path), there.files.get(path)
        if mine is None or theirs is None or not _is_same_file(mine, theirs):
            told = [None if each is None else _file_text(each) for each in (mine, theirs)]
            yield Difference(kind=DriftKind.FILE, item=path, here=told[0], there=told[1])
        elif mine.names is not None and theirs.names is not None:
            names = (
                {key: said for key, said in (each.names or {}).items() if key not in nameless}
                for each in (mine, theirs)
            )
            for named in _changed(DriftKind.FILE, *names):
                yield replace(named, item=path, detail=f"{named.item} in it")


def _is_same_file(here: FileView, there: FileView) -> bool:
    """Compare what both sides know."""
    if here.names is not None and there.names is not None:
        return here.sha256 == there.sha256
    sizes, hashes = (here.size, there.size), (here.sha256, there.sha256)
    return all(None in pair or pair[0] == pair[1] for pair in (sizes, hashes))


def _file_text(file: FileView) -> str:
    size = "all but ids" if file.names is not None else "? bytes" if file.size is None else f"{file.size} bytes"
    return f"{size} {file.sha256[:12]}" if file.sha256 else size


# --- names that were shortened ----------------------------------------------------------------------------------


def _restored(there: AnyView, losses: tuple[Recorded, ...]) -> AnyView:
    """Say a mirror with the whole names of what stands there under shortened ones."""
    names = {
        kind: [loss.item for loss in losses if loss.kind == kind and loss.reason == "shortened"]
        for kind in (LossKind.PARAM, LossKind.TAG, LossKind.METRIC)
    }
    if not any(names.values()):
        return there
    tags = _under_whole_names(there.tags, names[LossKind.TAG])
    match there:
        case RunView():
            params = _under_whole_names(there.params, names[LossKind.PARAM])
            metrics = _under_whole_names(there.metrics, names[LossKind.METRIC])
            return replace(there, tags=tags, params=params, metrics=metrics)
        case _:
            return replace(there, tags=tags)


def _under_whole_names(there: Mapping[str, _Value], names: list[str]) -> dict[str, _Value]:
    return {next((name for name in names if is_shortened(key, name)), key): value for key, value in there.items()}
