"""Why two backends may differ although nothing is wrong: the table of explanations. Pure; `drift.compare` asks it.

Every explanation is a row of `_EXPLANATIONS`, asked in that order; what no row explains is drift. A new reason for
which sides may differ is a new row. What explains too much hides drift, so each row asks for as much as can be known.
"""

import hashlib
import struct
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from operator import itemgetter
from typing import TypeAlias

from dualtrack.core.difference import Difference, DriftKind, Explanation, Recorded
from dualtrack.core.links import MIRROR_URL
from dualtrack.core.loss import LossKind
from dualtrack.core.views import ExperimentView, History, ModelView, Point, RunView, View

OVERFLOW = "dualtrack/overflow.json"  # the file of a run with what the run could not hold
MARKS = "dualtrack."
NO_MODELS = "no_logged_models"
MLMODEL = "MLmodel"


@dataclass(frozen=True, slots=True)
class Pair:
    """What is compared: the primary's view, the secondary's, and the losses on record for it there."""

    here: View | None
    there: View | None
    losses: tuple[Recorded, ...]

    def has_loss(self, kind: LossKind, item: str, reason: str) -> bool:
        return any((loss.kind, loss.reason) == (kind, reason) and loss.item in {"", item} for loss in self.losses)


_Why: TypeAlias = Callable[[Difference, Pair], str | None]  # a detail, "" included; None: it does not explain


def explained(found: Difference, pair: Pair) -> Difference:
    """Answer the difference with its explanation, if there is one."""
    if not found.is_drift:
        return found
    for explanation, why in _EXPLANATIONS:
        detail = why(found, pair)
        if detail is not None:
            return replace(found, explanation=explanation, detail=detail or found.detail)
    return found


def _mark(found: Difference, _pair: Pair) -> str | None:
    # those that a mirror is found by are in the primary's view too (`verifier`): they have to be there, and right
    is_tag = found.kind is DriftKind.TAG and found.item.startswith(MARKS if found.is_extra else MIRROR_URL)
    is_file = found.kind is DriftKind.FILE and found.item == OVERFLOW
    return "" if is_tag or is_file else None


def _no_models(found: Difference, pair: Pair) -> str | None:
    if isinstance(pair.there, ModelView) and pair.there.stands_in:
        return "" if found.kind is not DriftKind.FILE else None
    is_model = found.kind in {DriftKind.MODEL, DriftKind.INPUT, DriftKind.OUTPUT} and found.there is None
    return "" if is_model and pair.has_loss(LossKind.MODEL, found.item, NO_MODELS) else None


def _not_mirrored(found: Difference, _pair: Pair) -> str | None:
    return "" if found.kind is DriftKind.TRACE and found.there is None else None


# what a lost write may have said, where only its operation is on record
_SAID: Mapping[str, frozenset[DriftKind]] = {
    "logMetric": frozenset({DriftKind.METRIC}),
    "logParam": frozenset({DriftKind.PARAM}),
    "setTag": frozenset({DriftKind.TAG}),
    "deleteTag": frozenset({DriftKind.TAG}),
    "logBatch": frozenset({DriftKind.METRIC, DriftKind.PARAM, DriftKind.TAG}),
    "updateRun": frozenset({DriftKind.FIELD}),
    "deleteRun": frozenset({DriftKind.FIELD}),
    "restoreRun": frozenset({DriftKind.FIELD}),
    "logInputs": frozenset({DriftKind.INPUT}),
    "logOutputs": frozenset({DriftKind.OUTPUT}),
    "logModel": frozenset({DriftKind.TAG}),
    "updateExperiment": frozenset({DriftKind.FIELD}),
    "deleteExperiment": frozenset({DriftKind.FIELD}),
    "restoreExperiment": frozenset({DriftKind.FIELD}),
    "setExperimentTag": frozenset({DriftKind.TAG}),
    "deleteExperimentTag": frozenset({DriftKind.TAG}),
    "finalizeLoggedModel": frozenset({DriftKind.FIELD}),
    "logLoggedModelParams": frozenset({DriftKind.PARAM}),
    "setLoggedModelTags": frozenset({DriftKind.TAG}),
    "deleteLoggedModelTag": frozenset({DriftKind.TAG}),
    "deleteLoggedModel": frozenset({DriftKind.MODEL}),
    "uploadArtifact": frozenset({DriftKind.FILE}),
    "deleteArtifact": frozenset({DriftKind.FILE}),
    "copyArtifacts": frozenset({DriftKind.FILE}),
}


def _loss(found: Difference, pair: Pair) -> str | None:
    return next((loss.reason for loss in pair.losses if _accounts_for(loss, found)), None)


def _accounts_for(loss: Recorded, found: Difference) -> bool:
    if loss.kind is LossKind.WRITE:
        # a record that was damaged is a write that nobody gave up: what it said is brought again
        return found.kind in _SAID.get(loss.item, ())
    if loss.kind.value != found.kind.value or loss.item not in {"", found.item}:
        return False
    match loss.reason:
        case "over_limit":
            return found.there is None
        case "shortened":
            return found.here is not None and found.there is not None and is_shortened(found.there, found.here)
        case "file_gone" | "no_place" | "not_copied":
            return found.here is not None
        case _:
            return True


def _translated(found: Difference, pair: Pair) -> str | None:
    match pair.here, pair.there:
        case ExperimentView(), ExperimentView() as there:
            is_name = found.kind is DriftKind.FIELD and found.item == "name"
            return "" if is_name and (not there.expected_names or there.name in there.expected_names) else None
    # nobody read what is in it, so that only the ids in it may differ
    is_mlmodel = found.kind is DriftKind.FILE and found.item.rpartition("/")[2] == MLMODEL
    is_there = found.here is not None and found.there is not None
    return "" if is_mlmodel and is_there and not found.detail and _is_unread(found.item, pair) else None


def _is_unread(path: str, pair: Pair) -> bool:
    def names(view: View | None) -> bool:
        files = view.files if isinstance(view, (RunView, ModelView)) else None
        return files is not None and path in files and files[path].names is not None

    return not (names(pair.here) and names(pair.there))


_NOBODY_ELSE = "no client of ours writes it there"
_DATABRICKS_EXPERIMENT = (
    "mlflow.ownerId",
    "mlflow.ownerEmail",
    "mlflow.experimentType",
    "mlflow.experiment.sourceName",
    "mlflow.experiment.sourceType",
    "mlflow.experiment.sourceId",
)
# what a server writes by itself: on each side its own, or on that side only
_SERVER_SET: Mapping[tuple[type, DriftKind, str], str] = {
    # Databricks appends them to each experiment (terraform-provider-databricks, the test server of its experiments)
    **{(ExperimentView, DriftKind.TAG, key): _NOBODY_ELSE for key in _DATABRICKS_EXPERIMENT},
    # whoever signed in; exporters leave the tag out, as Databricks does not take it (mlflow-export-import, importing)
    (RunView, DriftKind.FIELD, "user"): "who signed in there",
    (RunView, DriftKind.TAG, "mlflow.user"): "who signed in there",
    # the server that has the registry writes it on its own model (mlflow 3.17.2, `create_model_version`)
    (ModelView, DriftKind.TAG, "mlflow.modelVersions"): "the registry is on one side",
}
# and what is explained only where the primary has none: Azure ML and Databricks name the root of each run
_SERVER_ADDED = frozenset({(RunView, DriftKind.TAG, "mlflow.rootRunId"), (RunView, DriftKind.TAG, "mlflow.runName")})


def _server_set(found: Difference, pair: Pair) -> str | None:
    row = (type(pair.here), found.kind, found.item)
    if row in _SERVER_ADDED and found.is_extra:
        return _NOBODY_ELSE
    return _SERVER_SET.get(row)


def _upserted(found: Difference, pair: Pair) -> str | None:
    is_time = found.kind is DriftKind.FIELD and found.item in _TIMES and found.there is not None
    return "" if is_time and isinstance(pair.there, RunView) and pair.there.is_upserted else None


def _rounded(found: Difference, pair: Pair) -> str | None:
    if found.here is None or found.there is None:
        return None
    if found.kind is DriftKind.FIELD and found.item in _TIMES:
        is_rounded = _is_whole_second(int(found.here), int(found.there)) and _has_whole_seconds(pair.there)
        return "" if is_rounded else None
    if found.kind is DriftKind.PARAM:
        return "" if _is_same_number(found.here, found.there) else None
    return None


# in the order in which they are asked
_EXPLANATIONS: tuple[tuple[Explanation, _Why], ...] = (
    (Explanation.MARK, _mark),
    (Explanation.NO_MODELS, _no_models),
    (Explanation.NOT_MIRRORED, _not_mirrored),
    (Explanation.LOSS, _loss),
    (Explanation.TRANSLATED, _translated),
    (Explanation.SERVER_SET, _server_set),
    (Explanation.HISTORY_UPSERT, _upserted),
    (Explanation.ROUNDED, _rounded),
)

# --- rounding ---------------------------------------------------------------------------------------------------

_TIMES = frozenset({"start_time", "end_time"})
_DIGITS = range(6, 17)  # a float has seven digits, a double seventeen: what is written with fewer is rounded text


def _is_whole_second(here: int, there: int) -> bool:
    return there % 1000 == 0 and abs(here - there) < 1000


def _has_whole_seconds(view: View | None) -> bool:
    """Say whether no time of a run is finer: who rounds one rounds the other."""
    times = (view.start_time, view.end_time) if isinstance(view, RunView) else ()
    return all((at or 0) % 1000 == 0 for at in times)


def _is_same_number(here: str, there: str) -> bool:
    """Say whether two texts are one number, written with fewer digits on the other side."""
    try:
        mine, theirs = float(here), float(there)
    except ValueError:
        return False
    return theirs in _rounded_values(mine)


def _rounded_times(here: int) -> frozenset[int]:
    """A time as it is, and the whole seconds around it."""
    second = here - here % 1000
    return frozenset({here, second, second + 1000} if here % 1000 else {here})


def _rounded_values(here: float | None) -> frozenset[float | None]:
    """A value as it is, as a float of four bytes, and with fewer digits; NaN is only itself."""
    if here is None:
        return frozenset({None})
    (single,) = struct.unpack("f", struct.pack("f", here))
    return frozenset({here, single, *(float(f"{here:.{digits}g}") for digits in _DIGITS)})


def of_points(here: History | None, there: History | None) -> Explanation:
    """Explain a history by its points, where both sides have them at hand."""
    mine, theirs = (each.points if each is not None else {} for each in (here, there))
    if not mine or not theirs:
        return Explanation.NONE
    if any(unmatched(mine, theirs)):
        return Explanation.NONE
    # MLflow's own server, and our batches (`core/coalesce.py`), keep an exact repeat once
    return Explanation.KEPT_ONCE if mine.keys() == theirs.keys() else Explanation.ROUNDED


def unmatched(here: Mapping[Point, int], there: Mapping[Point, int]) -> tuple[list[Point], list[Point]]:
    """Answer the points that `there` lacks, each once, and those that only it has, each as often as it does.

    A point and its rounded form are one; an exact repeat is not lacking where the point is.
    """
    extras = _Extras(_minus(there, here))
    matched = dict[Point, bool]()
    for each in chain.from_iterable([each] * count for each, count in here.items() if each not in there):
        is_there = extras.take(each)
        matched[each] = matched.get(each, False) or is_there
    missing = [each for each, is_there in matched.items() if not is_there]
    return missing, extras.left()


def _minus(some: Mapping[Point, int], others: Mapping[Point, int]) -> Iterator[Point]:
    return chain.from_iterable([each] * (count - others.get(each, 0)) for each, count in some.items())


class _Extras:
    """Points that only the other side has, found by what a point of ours may have become there.

    Looked up, not searched: points without a step all share step 0, and there may be very many of them.
    """

    def __init__(self, points: Iterable[Point]) -> None:
        self._left = dict(enumerate(points))
        self._places: dict[tuple[int, int], dict[float | None, deque[int]]] = {}
        for place, each in self._left.items():
            values = self._places.setdefault((each.step, each.timestamp), {})
            values.setdefault(each.value, deque()).append(place)

    def take(self, ours: Point) -> bool:
        """Take away the first that is `ours`, rounded; say whether there was one."""
        times = (self._places.get((ours.step, at)) for at in _rounded_times(ours.timestamp))
        if not (found := [values for values in times if values]):
            return False
        values = _rounded_values(ours.value)
        queues = [queue for held in found for value in values if (queue := held.get(value))]
        if not queues:
            return False
        del self._left[min(queues, key=itemgetter(0)).popleft()]
        return True

    def left(self) -> list[Point]:
        return list(self._left.values())


# --- shortened names and values ---------------------------------------------------------------------------------

_HASH = 8  # as `translate/fitting.py` shortens: the beginning, a dash, so many digits of the hash of the whole


def is_shortened(written: str, whole: str) -> bool:
    """Say whether `written` is the beginning of `whole` and a hash of all of it."""
    kept = len(written) - _HASH - 1
    if not 0 < kept < len(whole):
        return False
    digest = hashlib.sha256(whole.encode(errors="surrogatepass")).hexdigest()[:_HASH]
    return written == f"{whole[:kept]}-{digest}"
