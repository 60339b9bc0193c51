"""Comparing two snapshots: equal when only ids and marks differ, and every other difference is named."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from dualtrack.demo.compare import Difference, Experiment, File, Model, Point, Run, Snapshot, compare
from dualtrack.demo.compare.reading import mlmodel
from dualtrack.translate.roots import client_uri

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
    files=(File(path="a/b.png", size=3, sha256="abc"),),
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
MODEL = Model(
    model_id="m-ours",
    experiment_id="1",
    run_id="r1",
    root="mlflow-artifacts:/1/models/m-ours/artifacts",
    fields={"name": "classifier", "status": "LOGGED_MODEL_READY"},
    params={"depth": "3"},
    tags={"team": "demo", "mlflow.modelVersions": "[]"},
    points=(Point(key="loss", step=0, timestamp=10, value="0.5", run_id="r1"),),
    files=(
        File(path="model.pkl", size=3, sha256="abc"),
        File(
            path="MLmodel",
            size=90,
            sha256="rest",
            names={
                "run_id": "r1",
                "model_id": "m-ours",
                "model_uuid": "m-ours",
                "artifact_path": "mlflow-artifacts:/1/models/m-ours/artifacts",
            },
        ),
    ),
)
ROOT_THERE = "mlflow-artifacts:/7/models/m-theirs/artifacts"
NAMES_THERE = {"run_id": "s1", "model_id": "m-theirs", "model_uuid": "m-theirs", "artifact_path": ROOT_THERE}
MIRROR_MODEL = replace(
    MODEL,
    model_id="m-theirs",
    experiment_id="7",
    run_id="s1",
    root=ROOT_THERE,
    tags={"team": "demo", "dualtrack.source_model_id": "m-ours", "dualtrack.source": "databricks"},
    points=(replace(MODEL.points[0], run_id="s1"),),
    files=(MODEL.files[0], replace(MODEL.files[1], size=93, names=NAMES_THERE)),
)
EXPERIMENT = Experiment(experiment_id="1", name="/Shared/demo", tags={"owner": "me"})
MIRROR_EXPERIMENT = Experiment(
    experiment_id="7", name="demo", tags={"owner": "me", "dualtrack.source_experiment_id": "1"}
)
PRIMARY = Snapshot(experiments=(EXPERIMENT,), runs=(RUN, PARENT), models=(MODEL,))
SECONDARY = Snapshot(experiments=(MIRROR_EXPERIMENT,), runs=(MIRROR_PARENT, MIRROR), models=(MIRROR_MODEL,))


def differences(
    *runs: Run, experiment: Experiment = MIRROR_EXPERIMENT, models: tuple[Model, ...] = (MIRROR_MODEL,)
) -> list[tuple[str, str]]:
    """Compare with these runs on the secondary; give kind and key of each difference."""
    found = compare(PRIMARY, replace(SECONDARY, runs=runs, experiments=(experiment,), models=models), "1")
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
    (model,) = found.models
    assert (model.name, model.primary_id, model.secondary_id) == ("classifier", "m-ours", "m-theirs")
    assert (model.params, model.tags, model.points, model.files, model.file_bytes) == (1, 2, 1, 2, 93)
    assert (found.runs[0].files, found.runs[0].file_bytes) == (1, 3)
    assert all(owner.has_equal_files for owner in found.owners)
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
        (lambda run: replace(run, files=()), ("file", "a/b.png")),
        (lambda run: replace(run, files=(replace(run.files[0], size=4),)), ("file", "a/b.png")),
        (lambda run: replace(run, files=(replace(run.files[0], sha256="abd"),)), ("file", "a/b.png")),
        (lambda run: replace(run, files=(*run.files, File(path="c", size=0, sha256=""))), ("file", "c")),
        (
            lambda run: replace(run, tags={key: tag for key, tag in run.tags.items() if key != "dualtrack.source"}),
            ("mark", "dualtrack.source"),
        ),
    ],
)
def test_each_difference_of_a_run_is_named(change: Callable[[Run], Run], difference: tuple[str, str]) -> None:
    assert differences(MIRROR_PARENT, change(MIRROR)) == [difference]


def named(key: str, value: str) -> Model:
    """The mirrored model with another value in its MLmodel."""
    changed = replace(MIRROR_MODEL.files[1], names={**NAMES_THERE, key: value})
    return replace(MIRROR_MODEL, files=(MIRROR_MODEL.files[0], changed))


@pytest.mark.parametrize(
    ("mirror", "difference"),
    [
        (replace(MIRROR_MODEL, fields={**MODEL.fields, "name": "x"}), ("field", "name")),
        (replace(MIRROR_MODEL, fields={**MODEL.fields, "status": "PENDING"}), ("field", "status")),
        (replace(MIRROR_MODEL, run_id="s0"), ("field", "source_run_id")),
        (replace(MIRROR_MODEL, run_id="r1"), ("field", "source_run_id")),
        (replace(MIRROR_MODEL, params={"depth": "4"}), ("param", "depth")),
        (replace(MIRROR_MODEL, tags={**MIRROR_MODEL.tags, "team": "x"}), ("tag", "team")),
        (replace(MIRROR_MODEL, points=()), ("metric point", str(MODEL.points[0]))),
        (replace(MIRROR_MODEL, points=MODEL.points * 2), ("metric point", str(MODEL.points[0]))),
        (replace(MIRROR_MODEL, files=MIRROR_MODEL.files[1:]), ("file", "model.pkl")),
        (replace(MIRROR_MODEL, files=MIRROR_MODEL.files[:1]), ("file", "MLmodel")),
        (named("run_id", "r1"), ("id in MLmodel:", "run_id")),
        (named("run_id", "s0"), ("id in MLmodel:", "run_id")),
        (named("model_id", "m-ours"), ("id in MLmodel:", "model_id")),
        (named("model_uuid", "m-ours"), ("id in MLmodel:", "model_uuid")),
        (named("artifact_path", MODEL.root), ("id in MLmodel:", "artifact_path")),
        (named("artifact_path", "elsewhere"), ("id in MLmodel:", "artifact_path")),
        (
            replace(MIRROR_MODEL, files=(MODEL.files[0], replace(MIRROR_MODEL.files[1], sha256="other"))),
            ("file", "MLmodel"),
        ),
    ],
)
def test_each_difference_of_a_model_is_named(mirror: Model, difference: tuple[str, str]) -> None:
    """Above all an MLmodel that was copied: it names what is not there."""
    assert differences(MIRROR_PARENT, MIRROR, models=(mirror,)) == [difference]


def test_a_folder_of_a_run_is_the_same_on_both_sides() -> None:
    """MLflow 2 writes a relative `artifact_path`, and a `model_uuid` that is nobody's id."""
    names = {"run_id": "r1", "model_uuid": "0" * 32, "artifact_path": "model"}
    ours = replace(RUN, files=(File(path="model/MLmodel", size=1, sha256="rest", names=names),))
    theirs = replace(MIRROR, files=(replace(ours.files[0], names={**names, "run_id": "s1"}),))
    primary = replace(PRIMARY, runs=(ours, PARENT))

    assert compare(primary, replace(SECONDARY, runs=(theirs, MIRROR_PARENT)), "1").is_equal


def test_the_primary_s_mlmodel_may_name_its_root_as_the_proxy_showed_it() -> None:
    """A server that serves no files names a folder; its client was shown where it is at the proxy, and wrote that."""
    shown = {**MODEL.files[1].names, "artifact_path": client_uri("/data/1/models/m-ours", "databricks", "databricks")}
    ours = replace(MODEL, root="/data/1/models/m-ours", files=(MODEL.files[0], replace(MODEL.files[1], names=shown)))
    primary = replace(PRIMARY, models=(ours,))

    assert shown["artifact_path"].startswith("mlflow-artifacts:/_dualtrack/")
    assert compare(primary, SECONDARY, "1").is_equal


def test_models_without_a_mirror_with_two_and_without_a_source_are_differences() -> None:
    twin = replace(MIRROR_MODEL, model_id="m-twin", files=MODEL.files[:1] + named("model_id", "m-twin").files[1:])
    unmarked = replace(MIRROR_MODEL, model_id="m-own", tags={})
    orphan = replace(MIRROR_MODEL, model_id="m-orphan", tags={"dualtrack.source_model_id": "gone"})
    elsewhere = replace(unmarked, experiment_id="8")

    assert ("model", "m-ours") in differences(MIRROR_PARENT, MIRROR, models=())
    assert differences(MIRROR_PARENT, MIRROR, models=(MIRROR_MODEL, twin)) == [("duplicate mirror", "m-ours")]
    assert differences(MIRROR_PARENT, MIRROR, models=(MIRROR_MODEL, unmarked, orphan, elsewhere)) == [
        ("unmarked model", "m-own"),
        ("mirror of no model here", "m-orphan"),
    ]


@pytest.mark.parametrize(
    ("written", "names"),
    [
        (b"", {}),
        (b"flavors:\n  x:\n    run_id: inner\n", {}),
        (b"run_id: abc\nflavors: {}\n", {"run_id": "abc"}),
        (
            b"model_id: 'm-1'\nrun_id: \"a\"\r\nx: 1\nartifact_path: p",
            {"model_id": "m-1", "run_id": "a", "artifact_path": "p"},
        ),
        (b"model_uuid:\nrun_id: a\n", {"model_uuid": "", "run_id": "a"}),
    ],
)
def test_an_mlmodel_is_read_as_what_it_names_and_the_rest(written: bytes, names: dict[str, str]) -> None:
    read = mlmodel("MLmodel", written)

    assert (read.names, read.size) == (names, len(written))
    same = mlmodel("MLmodel", written.replace(b": abc", b": longer"))
    assert same.sha256 == read.sha256
    assert mlmodel("MLmodel", written + b"more: 1\n").sha256 != read.sha256 or not written.endswith(b"\n")


def test_a_missing_mirror_is_a_difference() -> None:
    """Its model then belongs to no run of the primary."""
    assert differences(MIRROR_PARENT) == [
        ("run", "r1"),
        ("field", "source_run_id"),
        ("metric point", str(MODEL.points[0])),
        ("metric point", str(MIRROR_MODEL.points[0])),
        ("id in MLmodel:", "run_id"),
    ]


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
    primary = replace(PRIMARY, runs=(), models=())
    marked = replace(SECONDARY, runs=(), models=(), experiments=(MIRROR_EXPERIMENT,))

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
    found = compare(PRIMARY, replace(SECONDARY, runs=(MIRROR_PARENT,), models=()), "1")

    assert str(found).splitlines() == [
        "2 runs, 2 differences",
        "  run train r1: run r1: 'train' on the primary, 'absent' on the secondary",
        "  model classifier m-ours: model m-ours: 'classifier' on the primary, 'absent' on the secondary",
    ]
