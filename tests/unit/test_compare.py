"""Comparing two snapshots: equal when only ids and marks differ, and every other difference is named."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from dualtrack.demo.compare import Difference, Experiment, Point, Run, Snapshot, compare

FIELDS = {"run_name": "train", "status": "FINISHED", "start_time": "1", "end_time": "2", "user_id": "me"}
POINTS = (
    Point(key="loss", step=0, timestamp=10, value="0.5"),
    Point(key="loss", step=1, timestamp=11, value="nan", model_id="m-ours", dataset="d 1"),
)

RUN = Run(
    run_id="r1",
    experiment_id="1",
    fields=FIELDS,
    params={"alpha": "0.1"},
    tags={
        "team": "demo",
        "mlflow.parentRunId": "r0",
        "mlflow.log-model.history": '[{"run_id": "r1", "id": "m-ours"}]',
    },
    points=POINTS,
    inputs=("dataset",),
    outputs=(("m-ours", "0"),),
)
PARENT = Run(run_id="r0", experiment_id="1", fields=FIELDS)
MIRROR = replace(
    RUN,
    run_id="s1",
    experiment_id="7",
    tags={
        "team": "demo",
        "mlflow.parentRunId": "s0",
        "mlflow.log-model.history": '[{"run_id": "s1", "id": "m-theirs"}]',
        "dualtrack.source_run_id": "r1",
        "dualtrack.source": "databricks",
    },
    points=(POINTS[0], replace(POINTS[1], model_id="m-theirs")),
    outputs=(("m-theirs", "0"),),
)
MIRROR_PARENT = replace(
    PARENT,
    run_id="s0",
    experiment_id="7",
    tags={"dualtrack.source_run_id": "r0", "dualtrack.source": "databricks"},
)
EXPERIMENT = Experiment(experiment_id="1", name="/Shared/demo", tags={"owner": "me"})
MIRROR_EXPERIMENT = Experiment(
    experiment_id="7", name="demo", tags={"owner": "me", "dualtrack.source_experiment_id": "1"}
)
PRIMARY = Snapshot(experiments=(EXPERIMENT,), runs=(RUN, PARENT))
SECONDARY = Snapshot(
    experiments=(MIRROR_EXPERIMENT,), runs=(MIRROR_PARENT, MIRROR), models={"m-theirs": "m-ours", "m-x": ""}
)


def differences(*runs: Run, experiment: Experiment = MIRROR_EXPERIMENT) -> list[tuple[str, str]]:
    """Compare with these runs on the secondary; give kind and key of each difference."""
    found = compare(PRIMARY, replace(SECONDARY, runs=runs, experiments=(experiment,)), "1")
    assert found.is_equal == (not found.all_differences)
    return [(item.kind, item.key) for item in found.all_differences]


def test_a_true_mirror_is_equal() -> None:
    found = compare(PRIMARY, SECONDARY, "1")

    assert found.is_equal, str(found)
    assert found.secondary_experiment_id == "7"
    assert [(run.name, run.primary_id, run.secondary_id) for run in found.runs] == [
        ("train", "r1", "s1"),
        ("train", "r0", "s0"),
    ]
    assert (found.runs[0].params, found.runs[0].tags, found.runs[0].metrics, found.runs[0].points) == (1, 3, 1, 2)


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (lambda run: replace(run, fields=FIELDS | {"status": "RUNNING"}), ("field", "status")),
        (lambda run: replace(run, fields=FIELDS | {"end_time": "3"}), ("field", "end_time")),
        (lambda run: replace(run, params={}), ("param", "alpha")),
        (lambda run: replace(run, params={"alpha": "0.2"}), ("param", "alpha")),
        (lambda run: replace(run, tags=run.tags | {"team": "x"}), ("tag", "team")),
        (lambda run: replace(run, tags=run.tags | {"more": "x"}), ("tag", "more")),
        (lambda run: replace(run, tags=run.tags | {"mlflow.parentRunId": "r0"}), ("tag", "mlflow.parentRunId")),
        (lambda run: replace(run, tags=run.tags | {"mlflow.parentRunId": "s1"}), ("tag", "mlflow.parentRunId")),
        (
            lambda run: replace(run, tags=run.tags | {"mlflow.log-model.history": "[]"}),
            ("tag", "mlflow.log-model.history"),
        ),
        (lambda run: replace(run, points=run.points[1:]), ("metric point", str(POINTS[0]))),
        (lambda run: replace(run, points=(*run.points, run.points[0])), ("metric point", str(POINTS[0]))),
        (lambda run: replace(run, inputs=()), ("input", "dataset")),
        (lambda run: replace(run, outputs=()), ("output", "('m-ours', '0')")),
        (
            lambda run: replace(run, tags={key: tag for key, tag in run.tags.items() if key != "dualtrack.source"}),
            ("mark", "dualtrack.source"),
        ),
    ],
)
def test_each_difference_of_a_run_is_named(change: Callable[[Run], Run], difference: tuple[str, str]) -> None:
    assert differences(MIRROR_PARENT, change(MIRROR)) == [difference]


def test_a_missing_mirror_is_a_difference() -> None:
    assert differences(MIRROR_PARENT) == [("run", "r1")]


def test_two_mirrors_of_one_run_are_a_difference() -> None:
    assert differences(MIRROR_PARENT, MIRROR, replace(MIRROR, run_id="s2")) == [("duplicate mirror", "r1")]


def test_runs_that_mirror_nothing_are_differences() -> None:
    stray = Run(run_id="s8", experiment_id="7")
    orphan = Run(run_id="s9", experiment_id="7", tags={"dualtrack.source_run_id": "gone"})

    assert differences(MIRROR_PARENT, MIRROR, stray, orphan) == [
        ("unmarked run", "s8"),
        ("mirror of no run here", "s9"),
    ]


def test_other_experiments_of_the_secondary_do_not_matter() -> None:
    assert differences(MIRROR_PARENT, MIRROR, Run(run_id="s8", experiment_id="8")) == []


def test_a_mirror_in_another_experiment_is_a_difference() -> None:
    assert differences(MIRROR_PARENT, replace(MIRROR, experiment_id="8")) == [("experiment of a run", "s1")]


@pytest.mark.parametrize(
    ("experiment", "difference"),
    [
        (replace(MIRROR_EXPERIMENT, name="other"), ("experiment", "name")),
        (replace(MIRROR_EXPERIMENT, lifecycle_stage="deleted"), ("experiment", "lifecycle_stage")),
        (replace(MIRROR_EXPERIMENT, tags={}), ("experiment tag", "owner")),
    ],
)
def test_each_difference_of_the_experiment_is_named(experiment: Experiment, difference: tuple[str, str]) -> None:
    assert differences(MIRROR_PARENT, MIRROR, experiment=experiment) == [difference]


def test_an_empty_experiment_is_found_by_its_mark_and_an_absent_one_is_named() -> None:
    primary = replace(PRIMARY, runs=())
    marked = replace(SECONDARY, runs=(), experiments=(MIRROR_EXPERIMENT,))

    assert compare(primary, marked, "1").is_equal
    assert compare(primary, Snapshot(experiments=(), runs=()), "1").differences == (
        Difference(kind="experiment", key="/Shared/demo", primary="1", secondary="absent"),
    )


def test_the_default_experiment_may_have_any_name() -> None:
    primary = Snapshot(
        experiments=(Experiment(experiment_id="0", name="Default"),), runs=(replace(PARENT, experiment_id="0"),)
    )
    secondary = Snapshot(experiments=(Experiment(experiment_id="7", name="inbox"),), runs=(MIRROR_PARENT,))

    assert compare(primary, secondary, "0").is_equal


def test_a_comparison_prints_its_differences() -> None:
    found = compare(PRIMARY, replace(SECONDARY, runs=(MIRROR_PARENT,)), "1")

    assert str(found).splitlines() == [
        "2 runs, 1 differences",
        "  run train r1: run r1: 'train' on the primary, 'absent' on the secondary",
    ]
