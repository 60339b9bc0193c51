"""Repairs make the sides agree, and no more than that."""

from contextlib import nullcontext, suppress
from dataclasses import replace
from hashlib import sha256
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualtrack.core.difference import Difference, DriftKind, Explanation
from dualtrack.core.drift import compare, metrics_in_doubt
from dualtrack.core.ids import ClientId, EntityKind, Ref
from dualtrack.core.loss import LossKind
from dualtrack.core.views import DatasetView, ExperimentView, FileView, ModelView, Point, RunView, Series, history
from dualtrack.ports import Loss
from dualtrack.translate.operations import lane_of
from dualtrack.translate.repair import Repair, plan
from tests.support.applying import RefusedError, apply

REF = Ref(EntityKind.RUN, ClientId("r1"))
MODEL = Ref(EntityKind.MODEL, ClientId("m1"))
EXPERIMENT = Ref(EntityKind.EXPERIMENT, ClientId("7"))
HISTORY = "mlflow.log-model.history"

# --- two views made different at random -------------------------------------------------------------------------

TEXTS = st.sampled_from(["a", "b", "0.1", "0.10"])
PAIRS = st.dictionaries(st.sampled_from("klm"), TEXTS)
POINTS = st.builds(
    Point,
    st.integers(0, 2),
    st.sampled_from([0, 1, 1500, 2000]),
    st.sampled_from([None, 0.1, 0.10000000149011612, 0.5, 1e300]),
)
HISTORIES = st.builds(history, st.lists(POINTS, min_size=1, max_size=6))
DATASETS = st.lists(
    st.builds(
        DatasetView,
        name=st.sampled_from("uv"),
        digest=st.sampled_from(["d1", "d2"]),
        tags=st.sampled_from([(), (("context", "training"),)]),
        source=TEXTS,
    ),
    unique_by=lambda each: (each.name, each.digest),
    max_size=3,
).map(lambda listed: dict.fromkeys(listed, 1))
SIZES = st.sampled_from([None, 1, 2])
FILES = st.dictionaries(st.sampled_from(["a", "b/c"]), st.builds(FileView, size=SIZES, sha256=st.none()))
STAGES = st.sampled_from(["active", "deleted"])
MODEL_IDS = st.sampled_from(["m1", "m2"])
ENTRIES = st.lists(MODEL_IDS, max_size=2, unique=True).map(
    lambda ids: orjson.dumps([{"model_uuid": each} for each in sorted(ids)]).decode()
)
TAGS = st.builds(lambda plain, written: plain | written, PAIRS, st.just({}) | st.fixed_dictionaries({HISTORY: ENTRIES}))
SERIES = st.builds(
    Series, key=st.sampled_from(["loss", "f1"]), run_id=st.just("r1"), dataset_name=st.sampled_from(["", "u"])
)

RUNS = st.builds(
    RunView,
    ref=st.just(REF),
    name=st.sampled_from(["", "fox", "owl"]),
    status=st.sampled_from(["RUNNING", "FINISHED"]),
    start_time=st.sampled_from([1000, 2000]),
    end_time=st.sampled_from([None, 5000, 7001]),
    lifecycle_stage=STAGES,
    params=PAIRS,
    tags=TAGS,
    metrics=st.dictionaries(st.sampled_from(["loss", "f1"]), HISTORIES),
    inputs=DATASETS,
    model_inputs=st.frozensets(MODEL_IDS),
    outputs=st.dictionaries(MODEL_IDS, st.integers(0, 1)).map(lambda steps: frozenset(steps.items())),
    models=st.none() | st.frozensets(MODEL_IDS),
    files=st.none() | FILES,
)
MODELS = st.builds(
    ModelView,
    ref=st.just(MODEL),
    name=TEXTS,
    status=st.sampled_from(["LOGGED_MODEL_READY", "LOGGED_MODEL_PENDING"]),
    run_id=st.just("r1"),
    params=PAIRS,
    tags=PAIRS,
    metrics=st.dictionaries(SERIES, HISTORIES),
    files=st.none() | FILES,
)
EXPERIMENTS = st.builds(
    ExperimentView,
    ref=st.just(EXPERIMENT),
    name=TEXTS,
    expected_names=st.just(("a",)),
    lifecycle_stage=STAGES,
    tags=PAIRS,
)


def applied(repair: Repair, here: Any, there: Any, *, is_repeat: bool = False) -> Any:
    """All of a plan done; a repeat may be refused, as what it says is so already."""
    for exchange in repair.exchanges:
        with suppress(RefusedError) if is_repeat else nullcontext():
            there = apply(there, exchange, getattr(here, "files", None) or {})
    if repair.adopts:
        there = replace(there, models=there.models | {ref.client_id for ref in repair.adopts})
    return there


def named(differences: Any) -> set[tuple[DriftKind, str]]:
    return {(each.kind, each.item) for each in differences}


def check(here: Any, there: Any) -> None:
    repair = plan(here, there, compare(here, there))
    mended = applied(repair, here, there)
    left = [each for each in compare(here, mended) if each.is_drift]

    assert named(left) == named(each.difference for each in repair.unrepaired)
    assert applied(repair, here, mended, is_repeat=True) == mended
    assert plan(here, mended, left).exchanges == ()
    assert not plan(here, mended, left).adopts
    assert all(each.choice for each in repair.unrepaired)
    assert held(there) <= held(mended)


def held(view: Any) -> set[tuple[str, str]]:
    """All names that a view has: whatever is repaired, none of them may go."""
    names = ("params", "tags", "metrics", "inputs", "model_inputs", "files")
    return {(name, str(item)) for name in names for item in getattr(view, name, None) or ()}


@settings(max_examples=300)
@given(RUNS, RUNS)
def test_a_planned_repair_makes_two_runs_agree(here: RunView, there: RunView) -> None:
    """All that differs is repaired or named; a repeat changes nothing; nothing is taken away."""
    check(here, there)


@given(MODELS, MODELS)
def test_a_planned_repair_makes_two_models_agree(here: ModelView, there: ModelView) -> None:
    """The same for logged models."""
    check(here, there)


@given(EXPERIMENTS, EXPERIMENTS)
def test_a_planned_repair_makes_two_experiments_agree(here: ExperimentView, there: ExperimentView) -> None:
    """The same for experiments, whose names are translated on their way."""
    check(replace(here, name="a"), there)


@given(RUNS)
def test_what_only_lacks_is_repaired_whole(here: RunView) -> None:
    """A mirror that has nothing but its name and start needs no person."""
    there = RunView(ref=REF, start_time=here.start_time, end_time=here.end_time, files={}, models=frozenset())

    repair = plan(here, there, compare(here, there))

    assert repair.unrepaired == ()
    assert not [each for each in compare(here, applied(repair, here, there)) if each.is_drift]


# --- single repairs ---------------------------------------------------------------------------------------------

POINTS_HERE = [Point(0, 1000, 0.5), Point(1, 1001, None)]
RUN = RunView(
    ref=REF,
    name="fox",
    status="FINISHED",
    end_time=9000,
    params={"depth": "3"},
    tags={"stage": "done"},
    metrics={"loss": history(POINTS_HERE)},
    outputs=frozenset({("m1", 0)}),
    models=frozenset({"m1"}),
    files={"a.txt": FileView(size=3)},
)


def told(here: Any, there: Any, *losses: Loss) -> list[tuple[str, Any]]:
    repair = plan(here, there, compare(here, there, losses))
    return [(each.operation, orjson.loads(each.body)) for each in repair.exchanges]


@pytest.mark.parametrize(
    ("changed", "operation", "body"),
    [
        ({"params": {}}, "logBatch", {"params": [{"key": "depth", "value": "3"}]}),
        ({"tags": {"stage": "x"}}, "logBatch", {"tags": [{"key": "stage", "value": "done"}]}),
        (
            {"metrics": {"loss": history([Point(0, 1000, 0.5)])}},
            "logBatch",
            {"metrics": [{"key": "loss", "value": "NaN", "timestamp": 1001, "step": 1}]},
        ),
        ({"status": "RUNNING"}, "updateRun", {"status": "FINISHED", "end_time": 9000}),
        ({"name": "owl"}, "updateRun", {"status": "FINISHED", "end_time": 9000, "run_name": "fox"}),
        ({"outputs": frozenset()}, "logOutputs", {"models": [{"model_id": "m1", "step": 0}]}),
        ({"files": {"a.txt": FileView(size=4)}}, "uploadArtifact", {"path": "a.txt"}),
        ({"lifecycle_stage": "deleted"}, "restoreRun", {}),
    ],
)
def test_the_exchange_that_brings_it(changed: dict[str, Any], operation: str, body: dict[str, Any]) -> None:
    """Each is what a client would have sent, in the client's ids."""
    assert told(RUN, replace(RUN, **changed)) == [(operation, {"run_id": "r1", **body})]


def test_a_deleted_mirror_is_restored_for_a_repair_and_deleted_again() -> None:
    """A server changes nothing that is deleted."""
    here = replace(RUN, lifecycle_stage="deleted")

    assert [name for name, _ in told(here, replace(here, params={}))] == ["restoreRun", "logBatch", "deleteRun"]


def test_a_stage_that_is_on_record_as_lost_stays() -> None:
    """Whoever gave up a deletion wants the mirror as it is, whatever else is repaired."""
    here = replace(RUN, lifecycle_stage="deleted")
    lost = Loss(kind=LossKind.WRITE, item="deleteRun", reason="discarded", detail="")

    assert [name for name, _ in told(here, replace(RUN, params={}), lost)] == ["logBatch"]


def test_every_exchange_knows_its_lane() -> None:
    """A repair goes through the journal as any other write does."""
    model = ModelView(
        ref=MODEL, status="LOGGED_MODEL_READY", params={"a": "b"}, tags={"a": "b"}, files={"MLmodel": FileView()}
    )
    bare = ModelView(ref=MODEL, status="LOGGED_MODEL_PENDING", files={})
    repairs = (
        plan(RUN, RunView(ref=REF, files={}), compare(RUN, RunView(ref=REF, files={}))),
        plan(model, bare, compare(model, bare)),
    )

    assert {lane_of(each) for each in repairs[0].exchanges} == {"run:r1"}
    assert {lane_of(each) for each in repairs[1].exchanges} == {"model:m1"}


def test_points_of_a_model_go_by_the_lane_of_their_run() -> None:
    series = Series(key="loss", run_id="r1", dataset_name="u", dataset_digest="d")
    here = ModelView(ref=MODEL, metrics={series: history([Point(0, 1000, 0.5)])})

    ((name, body),) = told(here, ModelView(ref=MODEL))

    about = {"key": "loss", "run_id": "r1", "model_id": "m1", "dataset_name": "u", "dataset_digest": "d"}
    assert (name, body["metrics"]) == ("logBatch", [{**about, "value": 0.5, "timestamp": 1000, "step": 0}])


@pytest.mark.parametrize(
    ("here", "there", "names"),
    [
        ((), (), ["logBatch"]),
        (("r1",), (), ["logBatch"]),  # its deletion is on its way, or the repair of the run itself
        ((), ("r1",), ["restoreRun", "logBatch"]),
        (("r1",), ("r1",), ["restoreRun", "logBatch", "deleteRun"]),
        (("r2",), ("r2",), ["logBatch"]),
    ],
)
def test_points_of_a_model_go_to_a_deleted_run_too(
    here: tuple[str, ...], there: tuple[str, ...], names: list[str]
) -> None:
    """The run is restored for them, and is deleted again if the primary's is."""
    points = {Series(key="loss", run_id="r1"): history([Point(0, 1000, 0.5)])}
    mine = ModelView(ref=MODEL, metrics=points, deleted_runs=frozenset(here))
    theirs = ModelView(ref=MODEL, deleted_runs=frozenset(there))

    repair = plan(mine, theirs, compare(mine, theirs))

    assert [each.operation for each in repair.exchanges] == names
    assert {lane_of(each) for each in repair.exchanges} == {"run:r1"}


def test_nothing_is_restored_where_no_points_are_missing() -> None:
    model = ModelView(ref=MODEL, status="LOGGED_MODEL_READY", deleted_runs=frozenset({"r1"}))

    assert [name for name, _ in told(model, replace(model, status="LOGGED_MODEL_PENDING"))] == ["finalizeLoggedModel"]


def test_a_model_has_one_value_of_a_step_and_a_time() -> None:
    """A server refuses a second one, so that nothing is sent; what only the secondary has is named."""
    series = Series(key="loss", run_id="r1")
    here = ModelView(ref=MODEL, metrics={series: history([Point(0, 1000, 0.5)])})
    there = ModelView(ref=MODEL, metrics={series: history([Point(0, 1000, 0.7)])})
    repair = plan(here, there, compare(here, there))

    both = ModelView(ref=MODEL, metrics={series: history([Point(0, 1000, 0.5), Point(0, 1000, 0.7)])})
    other = plan(both, there, compare(both, there))

    assert (repair.exchanges, [each.difference.item for each in repair.unrepaired]) == ((), ["loss"])
    assert (other.exchanges, [each.choice.partition(":")[0] for each in other.unrepaired]) == (
        (),
        ["another value of that step and time is there"],
    )


def test_many_points_are_many_batches() -> None:
    here = replace(RUN, metrics={"loss": history(Point(step, 0, 1.0) for step in range(2500))})

    sizes = [len(body["metrics"]) for _, body in told(here, replace(RUN, metrics={}))]

    assert sizes == [1000, 1000, 500]


def test_a_history_that_is_known_by_its_digest_alone_is_named() -> None:
    """Digests tell that histories differ, not in what; there were too many points to keep."""
    here = replace(RUN, metrics={"loss": history([Point(0, 0, 1.0)], keeps=False)})
    found = compare(here, RUN)

    repair = plan(here, RUN, found)
    assert repair.exchanges == ()
    assert [(each.difference.item, each.choice[:15]) for each in repair.unrepaired] == [("loss", "too many points")]
    assert metrics_in_doubt(found) == {"loss"}


def test_a_shortened_metric_lacks_only_what_is_missing() -> None:
    """Points under a name that was shortened are not sent again."""
    name = "x" * 300
    points = [Point(0, 0, 1.0), Point(1, 0, 1.0)]
    here = replace(RUN, metrics={name: history(points)})
    lost = Loss(kind=LossKind.METRIC, item=name, reason="shortened", detail="")
    short = f"{name[:50]}-{sha256(name.encode()).hexdigest()[:8]}"

    ((_, body),) = told(here, replace(RUN, metrics={short: history(points[:1])}), lost)

    assert [each["step"] for each in body["metrics"]] == [1]


def test_a_history_of_models_grows_by_what_it_lacks() -> None:
    """As a tag it would lose the entries that stand for models which are only files there."""
    entry = {"model_uuid": "m2"}
    here = replace(RUN, tags={**RUN.tags, HISTORY: orjson.dumps([{"model_uuid": "m1"}, entry]).decode()})
    there = replace(RUN, tags={**RUN.tags, HISTORY: '[{"model_uuid":"m1"}]'})

    assert told(here, there) == [("logModel", {"run_id": "r1", "model_json": orjson.dumps(entry).decode()})]
    assert [name for name, _ in told(replace(here, tags={**RUN.tags, HISTORY: "no JSON"}), there)] == ["logBatch"]


# --- what a person decides --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"params": {"depth": "4"}}, "a param never changes"),
        ({"params": {"depth": "3", "more": "1"}}, "delete it by hand, or keep it"),
        ({"tags": {"stage": "done", "more": "1"}}, "delete it by hand, or keep it"),
        ({"files": {"a.txt": FileView(size=3), "b": FileView(size=1)}}, "delete it by hand, or keep it"),
        ({"metrics": {**RUN.metrics, "f1": history([Point(0, 0, 1.0)])}}, "delete it by hand, or keep it"),
        ({"outputs": frozenset({("m1", 4)})}, "delete it"),
        ({"models": frozenset({"m1", "m2"})}, "delete it by hand, or keep it"),
        ({"start_time": 77}, "delete it by hand, or keep it"),
        ({"experiment_id": "8"}, "delete it by hand, or keep it"),
    ],
)
def test_what_cannot_be_repaired_is_named_with_the_choice(changed: dict[str, Any], words: str) -> None:
    """A person is told what there is to do; nothing is written for it."""
    there = replace(RUN, **changed)
    repair = plan(RUN, there, compare(RUN, there))

    assert all(words in each.choice or "first step" in each.choice for each in repair.unrepaired)
    assert repair.unrepaired
    assert {each.operation for each in repair.exchanges} <= {"logOutputs"}


def test_a_double_on_the_secondary_is_named() -> None:
    """A point that is there twice cannot be taken away, and is told as what it is."""
    there = replace(RUN, metrics={"loss": history([*POINTS_HERE, Point(0, 1000, 0.5)])})
    repair = plan(RUN, there, compare(RUN, there))

    (left,) = repair.unrepaired
    assert (left.difference.there, repair.exchanges) == ("1 points", ())


def test_an_end_that_came_too_early_is_named() -> None:
    here = replace(RUN, end_time=None)
    repair = plan(here, RUN, compare(here, RUN))

    assert "when the run ends" in repair.unrepaired[0].choice


# --- wholes -----------------------------------------------------------------------------------------------------


def test_an_entity_that_is_missing_is_brought_over_whole() -> None:
    assert plan(RUN, None, compare(RUN, None)) == Repair(adopts=(REF,))


def test_a_missing_logged_model_is_brought_over_whole() -> None:
    there = replace(RUN, models=frozenset())

    assert plan(RUN, there, compare(RUN, there)) == Repair(adopts=(MODEL,))


def test_an_entity_that_the_primary_lost_is_named() -> None:
    repair = plan(None, RUN, compare(None, RUN))

    assert "delete it on the secondary by hand" in repair.unrepaired[0].choice


@pytest.mark.parametrize("there", [RUN, None])
def test_what_is_explained_is_left_alone(there: RunView | None) -> None:
    known = [replace(each, explanation=Explanation.LOSS) for each in compare(replace(RUN, name="owl"), there)]

    assert plan(RUN, there, known) == Repair()


def test_differences_may_be_some_of_them() -> None:
    """A caller may repair a part."""
    there = replace(RUN, params={}, tags={})
    some: list[Difference] = [each for each in compare(RUN, there) if each.kind is DriftKind.TAG]

    assert [each.operation for each in plan(RUN, there, some).exchanges] == ["logBatch"]
