"""Two views in, every difference out: what is drift, and what is known."""

import struct
import sys
from dataclasses import dataclass, replace
from random import Random
from types import FrameType
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualtrack.core.difference import Difference, DriftKind, Explanation
from dualtrack.core.drift import AnyView, compare, metrics_in_doubt
from dualtrack.core.exchange import JSON, Document
from dualtrack.core.explaining import is_shortened, unmatched
from dualtrack.core.ids import ClientId, EntityKind, Ref
from dualtrack.core.limits import Lengths
from dualtrack.core.loss import LossKind
from dualtrack.core.views import (
    LARGEST,
    DatasetView,
    ExperimentView,
    FileView,
    History,
    ModelView,
    Point,
    RunView,
    Series,
    Tally,
    TraceView,
    history,
    point,
)
from dualtrack.translate.document import objects
from dualtrack.translate.fitting import Fitter

RUN = RunView(
    ref=Ref(EntityKind.RUN, ClientId("r1")),
    experiment_id="7",
    name="bold-fox",
    status="FINISHED",
    start_time=1_700_000_000_123,
    end_time=1_700_000_009_456,
    params={"depth": "3"},
    tags={"stage": "done"},
    metrics={"loss": history([Point(0, 1000, 0.5), Point(1, 1001, 0.25)])},
    inputs={DatasetView(name="cancer", digest="d1", tags=(("context", "training"),)): 1},
    outputs=frozenset({("m1", 0)}),
    models=frozenset({"m1"}),
    files={"a.txt": FileView(size=3, sha256="abc")},
)
MODEL = ModelView(
    ref=Ref(EntityKind.MODEL, ClientId("m1")),
    name="model",
    status="READY",
    run_id="r1",
    params={"depth": "3"},
    metrics={Series(key="loss", run_id="r1"): history([Point(0, 1000, 0.5)])},
    files={"MLmodel": FileView(sha256="rest", names={"model_id": "m1", "run_id": "r1"})},
)
EXPERIMENT = ExperimentView(ref=Ref(EntityKind.EXPERIMENT, ClientId("7")), name="/Users/ann/churn", tags={"team": "a"})


@dataclass(frozen=True)
class Lost:
    """A loss as the journal keeps it."""

    kind: LossKind
    item: str
    reason: str


def only(here: AnyView | None, there: AnyView | None, *losses: Lost) -> Difference:
    (found,) = compare(here, there, losses)
    return found


# --- the comparable form ----------------------------------------------------------------------------------------

NUMBERS = st.one_of(st.floats(), st.integers(), st.sampled_from(["NaN", "Infinity", "-Infinity", "1e3", "7"]))
METRICS = st.fixed_dictionaries({"step": st.integers(0, 5), "timestamp": st.integers(0, 5), "value": NUMBERS})


@given(st.lists(METRICS), st.randoms())
def test_a_history_does_not_depend_on_order_or_pages(metrics: list[Document], chance: Random) -> None:
    """A history read in other pages, in another order, is the same one."""
    points = [point(metric) for metric in metrics]
    shuffled = list(points)
    chance.shuffle(shuffled)
    paged = Tally()
    for start in range(0, len(shuffled), 3):
        paged.add(shuffled[start : start + 3])

    assert paged.history() == history(points)


@given(st.lists(METRICS, min_size=1), st.data())
def test_a_history_that_lacks_a_point_is_another(metrics: list[Document], data: st.DataObject) -> None:
    """One point of many is missed, repeats of it included."""
    points = [point(metric) for metric in metrics]
    dropped = data.draw(st.integers(0, len(points) - 1))

    assert history(points[:dropped] + points[dropped + 1 :]) != history(points)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("NaN", float("nan")),
        (float("inf"), "Infinity"),
        (float("inf"), LARGEST),
        ("-Infinity", -LARGEST),
        (1, "1.0"),
        ("not a number", "NaN"),
        (0.0, -0.0),
        (10**400, float("inf")),
    ],
)
def test_spellings_of_one_value(one: JSON, other: JSON) -> None:
    """Servers spell NaN, infinities and whole numbers differently."""
    if one == 10**400:
        assert point({"value": one}).value is None  # as `translate.evidence` reads it: no server takes it
        return
    told = [{"step": 1, "timestamp": 5, "value": one}, {"step": "1", "timestamp": "5", "value": other}]

    assert history([point(told[0])]) == history([point(told[1])])


def test_large_steps_are_told_apart() -> None:
    """A step is a 64-bit integer, of which a float would lose the end."""
    assert point({"step": 2**60}) != point({"step": str(2**60 + 1)})
    assert point({"step": "3.0"}).step == 3


@pytest.mark.parametrize(("room", "is_kept"), [(3, True), (2, False), (0, False)])
def test_points_are_kept_where_there_is_room(room: int, is_kept: bool) -> None:
    """Without room the history is what it was: its count and its digest."""
    points = [Point(step, 0, 1.0) for step in (0, 1, 1, 2)]
    tally = Tally(room=room)
    tally.add(points[:2])
    tally.add(points[2:])

    assert tally.history() == history(points)
    assert (tally.history().points is not None) == is_kept


def test_points_are_kept_where_asked_for() -> None:
    assert history([Point(0, 0, 1.0)], keeps=False).points is None
    assert history([Point(0, 0, 1.0), Point(0, 0, 1.0)]).points == {Point(0, 0, 1.0): 2}


# --- drift ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("view", [RUN, MODEL, EXPERIMENT])
def test_a_view_equals_itself(view: Any) -> None:
    assert compare(view, view) == ()
    assert compare(replace(view, ref=view.ref), view) == ()


def test_nothing_equals_nothing() -> None:
    assert compare(None, None) == ()


@pytest.mark.parametrize(
    ("view", "changed", "kind", "item"),
    [
        (RUN, {"name": "other"}, DriftKind.FIELD, "name"),
        (RUN, {"status": "RUNNING"}, DriftKind.FIELD, "status"),
        (RUN, {"end_time": None}, DriftKind.FIELD, "end_time"),
        (RUN, {"lifecycle_stage": "deleted"}, DriftKind.FIELD, "lifecycle_stage"),
        (RUN, {"experiment_id": "8"}, DriftKind.FIELD, "experiment_id"),
        (RUN, {"params": {"depth": "4"}}, DriftKind.PARAM, "depth"),
        (RUN, {"params": {}}, DriftKind.PARAM, "depth"),
        (RUN, {"params": {"depth": "3", "more": ""}}, DriftKind.PARAM, "more"),
        (RUN, {"tags": {}}, DriftKind.TAG, "stage"),
        (RUN, {"metrics": {}}, DriftKind.METRIC, "loss"),
        (RUN, {"metrics": {"loss": history([Point(0, 1000, 0.5)])}}, DriftKind.METRIC, "loss"),
        (RUN, {"inputs": {}}, DriftKind.INPUT, "cancer"),
        (RUN, {"model_inputs": frozenset({"m2"})}, DriftKind.INPUT, "m2"),
        (RUN, {"outputs": frozenset()}, DriftKind.OUTPUT, "m1"),
        (RUN, {"models": frozenset()}, DriftKind.MODEL, "m1"),
        (RUN, {"files": {}}, DriftKind.FILE, "a.txt"),
        (RUN, {"files": {"a.txt": FileView(size=4)}}, DriftKind.FILE, "a.txt"),
        (RUN, {"files": {"a.txt": FileView(size=3, sha256="abd")}}, DriftKind.FILE, "a.txt"),
        (MODEL, {"status": "PENDING"}, DriftKind.FIELD, "status"),
        (MODEL, {"params": {}}, DriftKind.PARAM, "depth"),
        (MODEL, {"metrics": {}}, DriftKind.METRIC, "loss"),
        (MODEL, {"files": {"MLmodel": FileView(sha256="rest", names={"model_id": "m1"})}}, DriftKind.FILE, "MLmodel"),
        (MODEL, {"files": {"MLmodel": FileView(sha256="r", names={})}}, DriftKind.FILE, "MLmodel"),
        (EXPERIMENT, {"tags": {"team": "b"}}, DriftKind.TAG, "team"),
        (EXPERIMENT, {"lifecycle_stage": "deleted"}, DriftKind.FIELD, "lifecycle_stage"),
        (EXPERIMENT, {"name": "churn", "expected_names": ("users-churn", "users-churn-1")}, DriftKind.FIELD, "name"),
    ],
)
def test_drift(view: Any, changed: dict[str, Any], kind: DriftKind, item: str) -> None:
    """Whatever is another on the secondary is named by kind and item, with both values."""
    found = only(view, replace(view, **changed))

    assert (found.kind, found.item, found.explanation) == (kind, item, "")
    assert found.is_drift
    assert found.here != found.there


def test_both_values_are_told() -> None:
    found = only(RUN, replace(RUN, params={"depth": "3", "width": "5"}))

    assert (found.here, found.there, found.is_extra) == (None, "5", True)


@pytest.mark.parametrize(("here", "there"), [(RUN, None), (None, RUN)])
def test_an_entity_that_is_not_there(here: Any, there: Any) -> None:
    found = only(here, there)

    assert (found.kind, found.item, found.is_extra) == (DriftKind.RUN, "", here is None)


def test_traces_that_one_side_has_not_are_no_difference() -> None:
    assert compare(replace(RUN, traces={"t1": TRACE}), replace(RUN, traces=None)) == ()


def test_files_and_models_that_were_not_looked_at_do_not_differ() -> None:
    assert compare(RUN, replace(RUN, files=None, models=None)) == ()
    assert compare(RUN, replace(RUN, files={"a.txt": FileView()})) == ()


@pytest.mark.parametrize("mine", [{}, {"run_id": "r1"}])
@pytest.mark.parametrize("theirs", [{}, {"run_id": "r1"}])
def test_an_mlmodel_may_name_no_ids(mine: dict[str, str], theirs: dict[str, str]) -> None:
    """What is in it is compared all the same: a client may write a file of that name with anything in it."""
    here, there = (replace(MODEL, files={"MLmodel": FileView(sha256="rest", names=names)}) for names in (mine, theirs))

    found = [(each.kind, each.item, each.detail) for each in compare(here, there)]
    assert found == ([] if mine == theirs else [(DriftKind.FILE, "MLmodel", "run_id in it")])


def test_metrics_in_doubt_are_those_that_drift() -> None:
    found = compare(RUN, replace(RUN, metrics={}, params={}))

    assert metrics_in_doubt(found) == {"loss"}


# --- explanations -----------------------------------------------------------------------------------------------

TWICE = history([Point(0, 1000, 0.5), Point(0, 1000, 0.5), Point(1, 1001, 0.25)])
FINE = history([Point(0, 1_700_000_000_123, 0.1), Point(1, 1_700_000_001_999, None)])
COARSE = history([Point(0, 1_700_000_000_000, 0.10000000149011612), Point(1, 1_700_000_001_000, None)])
STAND_IN = ModelView(ref=MODEL.ref, stands_in=True, files={"MLmodel": FileView(sha256="rest", names={"run_id": "r1"})})
TRACE = TraceView(name="predict", state="OK")
UNREAD = FileView(size=500, sha256="one"), FileView(size=520)
DATABRICKS_TAGS = {"team": "a", "mlflow.ownerId": "1", "mlflow.experimentType": "MLFLOW_EXPERIMENT"}


@pytest.mark.parametrize(
    ("here", "there", "explanation"),
    [
        (RUN, replace(RUN, tags={"stage": "done", "dualtrack.source": "p"}), Explanation.MARK),
        (
            RUN,
            replace(RUN, files={"a.txt": FileView(size=3), "dualtrack/overflow.json": FileView(size=9)}),
            Explanation.MARK,
        ),
        (EXPERIMENT, replace(EXPERIMENT, name="churn", expected_names=("other", "churn")), Explanation.TRANSLATED),
        (EXPERIMENT, replace(EXPERIMENT, name="churn"), Explanation.TRANSLATED),
        (
            replace(RUN, files={"model/MLmodel": UNREAD[0]}),
            replace(RUN, files={"model/MLmodel": UNREAD[1]}),
            Explanation.TRANSLATED,
        ),
        (EXPERIMENT, replace(EXPERIMENT, tags=DATABRICKS_TAGS), Explanation.SERVER_SET),
        (RUN, replace(RUN, user="service"), Explanation.SERVER_SET),
        (RUN, replace(RUN, tags={**RUN.tags, "mlflow.rootRunId": "r1"}), Explanation.SERVER_SET),
        (MODEL, replace(MODEL, tags={"mlflow.modelVersions": "[]"}), Explanation.SERVER_SET),
        (RUN, replace(RUN, start_time=1_700_000_000_000, end_time=1_700_000_009_000), Explanation.ROUNDED),
        (replace(RUN, params={"lr": "0.10"}), replace(RUN, params={"lr": "0.1"}), Explanation.ROUNDED),
        (replace(RUN, metrics={"loss": FINE}), replace(RUN, metrics={"loss": COARSE}), Explanation.ROUNDED),
        (replace(RUN, metrics={"loss": TWICE}), RUN, Explanation.KEPT_ONCE),
        (RUN, replace(RUN, start_time=5, end_time=6, is_upserted=True), Explanation.HISTORY_UPSERT),
        (MODEL, STAND_IN, Explanation.NO_MODELS),
        (replace(RUN, traces={"t1": TRACE}), replace(RUN, traces={}), Explanation.NOT_MIRRORED),
    ],
)
def test_explained(here: Any, there: Any, explanation: Explanation) -> None:
    """What a backend does by itself, or what we do there, is no drift."""
    found = compare(here, there)

    assert {each.explanation for each in found} == {explanation}


@pytest.mark.parametrize(
    ("here", "there"),
    [
        (RUN, replace(RUN, tags={})),
        (replace(RUN, tags={**RUN.tags, "dualtrack.source": "p"}), RUN),
        (replace(RUN, tags={"dualtrack.source": "p"}), replace(RUN, tags={"dualtrack.source": "o"})),
        (replace(RUN, tags={**RUN.tags, "mlflow.rootRunId": "r0"}), RUN),
        (RUN, replace(RUN, start_time=1_700_000_002_000)),
        (RUN, replace(RUN, start_time=1_700_000_000_000)),  # whose end has its milliseconds
        (RUN, replace(RUN, start_time=None, is_upserted=True)),
        (replace(RUN, params={"lr": "0.1"}), replace(RUN, params={"lr": "0.2"})),
        (replace(RUN, params={"lr": "0.1"}), replace(RUN, params={"lr": "a"})),
        (replace(RUN, params={"lr": "1e300"}), replace(RUN, params={"lr": "2e300"})),
        (RUN, replace(RUN, metrics={"loss": TWICE})),  # a double on the secondary
        (replace(RUN, metrics={"loss": FINE}), replace(RUN, metrics={"loss": TWICE})),
        (RUN, replace(RUN, metrics={"loss": history([Point(0, 1000, 0.5), Point(1, 1001, 0.26)])})),
        (RUN, replace(RUN, metrics={"loss": history([Point(0, 1000, 0.5), Point(1, 1001, None)])})),
        (replace(RUN, metrics={"loss": replace(TWICE, points=None)}), RUN),  # nobody read the points
        (replace(MODEL, files={"MLmodel": FileView()}), replace(STAND_IN, files={})),
        (replace(RUN, traces={}), replace(RUN, traces={"t1": TRACE})),
        (replace(RUN, traces={"t1": TRACE}), replace(RUN, traces={"t1": replace(TRACE, state="ERROR")})),
    ],
)
def test_not_explained(here: Any, there: Any) -> None:
    """An explanation covers no more than it says."""
    assert any(each.is_drift for each in compare(here, there))


LONG = "x" * 300


def shortened(kind: str, **item: str) -> dict[str, str]:
    """What delivery writes of an item that is too long."""
    lengths = Lengths(tag_key=50, tag_value=50, param_key=50, param_value=50, metric_key=50)
    document, _ = Fitter(lengths).fit_document("logBatch", {kind: [{**item}]})
    (written,) = objects(document[kind])
    return {str(written["key"]): str(written["value"])}


@pytest.mark.parametrize(
    ("here", "there", "loss"),
    [
        ({"tags": {"a": "b"}}, {"tags": {}}, Lost(LossKind.TAG, "a", "over_limit")),
        ({"params": {"a": "b"}}, {"params": {}}, Lost(LossKind.PARAM, "a", "skipped")),
        (
            {"params": {"a": LONG}},
            {"params": shortened("params", key="a", value=LONG)},
            Lost(LossKind.PARAM, "a", "shortened"),
        ),
        (
            {"tags": {LONG: LONG}},
            {"tags": shortened("tags", key=LONG, value=LONG)},
            Lost(LossKind.TAG, LONG, "shortened"),
        ),
        ({"files": {"a": FileView()}}, {"files": {}}, Lost(LossKind.FILE, "a", "no_place")),
        ({"files": {"a": FileView()}}, {"files": {}}, Lost(LossKind.FILE, "", "not_copied")),
        ({"params": {"a": "b"}}, {"params": {}}, Lost(LossKind.WRITE, "logBatch", "discarded")),
        ({"outputs": frozenset({("m", 1)})}, {"outputs": frozenset()}, Lost(LossKind.MODEL, "m", "no_logged_models")),
    ],
)
def test_a_recorded_loss_explains(here: dict[str, Any], there: dict[str, Any], loss: Lost) -> None:
    """What is on record as lost is reported apart from drift."""
    there_view = replace(RUN, **there)
    found = only(replace(RUN, **here), there_view, loss)

    assert found.explanation in {Explanation.LOSS, Explanation.NO_MODELS}
    assert compare(replace(RUN, **here), there_view)[0].is_drift


@pytest.mark.parametrize(
    ("changed", "loss"),
    [
        ({"tags": {}}, Lost(LossKind.TAG, "other", "over_limit")),
        ({"tags": {}}, Lost(LossKind.PARAM, "stage", "over_limit")),
        ({"tags": {"stage": "new"}}, Lost(LossKind.TAG, "stage", "over_limit")),
        ({"tags": {"stage": "new"}}, Lost(LossKind.TAG, "stage", "shortened")),
        ({"tags": {}}, Lost(LossKind.TAG, "stage", "shortened")),
        ({"tags": {}}, Lost(LossKind.WRITE, "logParam", "discarded")),
        ({"tags": {}}, Lost(LossKind.WRITE, "", "damaged_record")),
        ({"files": {"a.txt": FileView(size=3), "b": FileView()}}, Lost(LossKind.FILE, "b", "no_place")),
    ],
)
def test_a_loss_explains_nothing_else(changed: dict[str, Any], loss: Lost) -> None:
    """A loss explains a difference of its own kind and item, in the way its reason says."""
    assert only(RUN, replace(RUN, **changed), loss).is_drift


def test_a_shortened_name_is_read_as_the_whole_one() -> None:
    """A metric under a shortened name is the same metric, and its history is compared."""
    (name,) = shortened("metrics", key=LONG, value="1")
    here = replace(RUN, metrics={LONG: RUN.metrics["loss"]})
    loss = Lost(LossKind.METRIC, LONG, "shortened")

    assert compare(here, replace(RUN, metrics={name: RUN.metrics["loss"]}), [loss]) == ()
    assert only(here, replace(RUN, metrics={name: FINE}), loss).item == LONG


def test_a_shortened_experiment_tag_is_read_as_the_whole_one() -> None:
    (name,) = shortened("tags", key=LONG, value="1")
    here = replace(EXPERIMENT, tags={LONG: "1"})

    assert compare(here, replace(EXPERIMENT, tags={name: "1"}), [Lost(LossKind.TAG, LONG, "shortened")]) == ()


def test_a_discarded_run_is_no_drift() -> None:
    assert not only(RUN, None, Lost(LossKind.RUN, "", "discarded")).is_drift


def test_a_model_whose_run_has_no_place_is_no_drift() -> None:
    assert not only(MODEL, None, Lost(LossKind.MODEL, "", "no_logged_models")).is_drift


def test_shortening_is_recognised_as_delivery_does_it() -> None:
    (written,) = shortened("params", key="a", value=LONG).values()

    assert is_shortened(written, LONG)
    assert not is_shortened(written, LONG + "x")
    assert not is_shortened("short", "short")


# --- points ------------------------------------------------------------------------------------------------------

SINGLE: Final = struct.unpack("f", struct.pack("f", 0.1))[0]
VALUES: Final = (None, 0.0, -0.0, 0.1, SINGLE, 0.123456789, 0.123457, 1 / 3, 0.333333, 0.3333333, 5e300, LARGEST)
POINTS: Final = st.dictionaries(
    st.builds(
        Point, st.integers(0, 1), st.sampled_from([-1, 0, 1000, 1500, 1999, 2000, 2001]), st.sampled_from(VALUES)
    ),
    st.integers(1, 3),
    max_size=12,
)


@given(here=POINTS, there=POINTS)
def test_points_that_match_are_those_that_a_search_finds(here: dict[Point, int], there: dict[Point, int]) -> None:
    missing, extra = unmatched(here, there)

    assert (missing, sorted(extra, key=str)) == searched(here, there)


def searched(here: dict[Point, int], there: dict[Point, int]) -> tuple[list[Point], list[Point]]:
    """Each point of ours takes the first of theirs that it may have become."""
    extra = [each for each, count in there.items() for _ in range(count - here.get(each, 0))]
    is_there = dict[Point, bool]()
    for each in (each for each, count in here.items() if each not in there for _ in range(count)):
        found = next((place for place, other in enumerate(extra) if may_become(each, other)), None)
        if found is not None:
            del extra[found]
        is_there[each] = is_there.get(each, False) or found is not None
    return [each for each in is_there if not is_there[each]], sorted(extra, key=str)


def may_become(ours: Point, theirs: Point) -> bool:
    is_second = theirs.timestamp % 1000 == 0 and abs(ours.timestamp - theirs.timestamp) < 1000
    if ours.step != theirs.step or not (is_second or ours.timestamp == theirs.timestamp):
        return False
    if ours.value is None or theirs.value is None or ours.value == theirs.value:
        return ours.value == theirs.value
    if struct.unpack("f", struct.pack("f", ours.value))[0] == theirs.value:
        return True
    return any(float(f"{ours.value:.{digits}g}") == theirs.value for digits in range(6, 17))


def calls_to_match(count: int) -> int:
    """Count the calls that it takes to find that no point of a history without steps is on the other side."""
    here, there = ({Point(0, 1000, number + part): 1 for number in range(count)} for part in (0.0, 0.5))
    calls = 0

    def called(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(called)
    try:
        missing, extra = unmatched(here, there)
    finally:
        sys.setprofile(None)
    assert len(missing) == len(extra) == count
    return calls


def test_matching_costs_what_the_points_are_not_their_pairs() -> None:
    assert calls_to_match(800) < 5 * calls_to_match(200)


def test_a_history_prints_briefly() -> None:
    assert str(History()) == "0 points 00000000"
