"""What a record of a loss explains: the difference of its run, kind and item, as its reason has it, and no other."""

import hashlib
from dataclasses import replace

import orjson
import pytest

from dualtrack.demo.compare import Comparison, Experiment, File, Loss, Model, Point, Run, Snapshot, compare
from dualtrack.demo.compare.explaining import is_short

MARKED = {"dualtrack.source_run_id": "r1", "dualtrack.source": "databricks"}
LONG, WHOLE = "k" * 300, "v" * 3000


def shortened(value: str, most: int) -> str:
    return f"{value[: most - 9]}-{hashlib.sha256(value.encode()).hexdigest()[:8]}"


POINTS = (Point(key="loss", step=0, timestamp=1, value="0.5"), Point(key=LONG, step=0, timestamp=1, value="1.0"))
RUN = Run(
    run_id="r1",
    experiment_id="1",
    params={"alpha": "1", "beta": "2"},
    tags={"team": "demo", "note": WHOLE, LONG: "named"},
    points=POINTS,
    files=(File(path="a.png", size=3, sha256="abc"),),
)
OVERFLOW_FILE = File(path="dualtrack/overflow.json", size=9, sha256="def")
# what Azure ML holds of it: one param of two, shortened values and names, and the rest in the overflow
MIRROR = Run(
    run_id="s1",
    experiment_id="7",
    params={"alpha": "1"},
    tags={"team": "demo", "note": shortened(WHOLE, 1000), shortened(LONG, 100): "named", **MARKED},
    points=(POINTS[0], replace(POINTS[1], key=shortened(LONG, 255))),
    files=(*RUN.files, OVERFLOW_FILE),
    overflow={"params": {"beta": "2"}, "tags": {"note": WHOLE, LONG: "named"}},
)
EXPERIMENT = Experiment(experiment_id="1", name="/Shared/demo", tags={"goal": WHOLE})
THERE = Experiment(
    experiment_id="7", name="demo", tags={"goal": shortened(WHOLE, 1000), "dualtrack.source_experiment_id": "1"}
)


def loss(kind: str, item: str, reason: str, key: str = "run:r1") -> Loss:
    return Loss(key=key, kind=kind, item=item, reason=reason)


LOSSES = (
    loss("param", "beta", "over_limit"),
    loss("tag", "note", "shortened"),
    loss("tag", LONG, "shortened"),
    loss("metric", LONG, "shortened"),
    loss("tag", "goal", "shortened", key="experiment:1"),
)


def compared(
    losses: tuple[Loss, ...] = LOSSES, *, mirror: Run = MIRROR, run: Run = RUN, models: tuple[Model, ...] = ()
) -> Comparison:
    ours = Snapshot(experiments=(EXPERIMENT,), runs=(run,), models=models)
    return compare(ours, Snapshot(experiments=(THERE,), runs=(mirror,)), "1", losses)


def differences(losses: tuple[Loss, ...] = LOSSES, *, mirror: Run = MIRROR, run: Run = RUN) -> list[tuple[str, str]]:
    return [(item.kind, item.name) for item in compared(losses, mirror=mirror, run=run).all_differences]


def test_what_is_on_record_is_no_difference_and_is_listed() -> None:
    found = compared()

    assert found.is_equal, str(found)
    assert found.runs[0].losses == LOSSES[:4]
    assert sorted(found.all_losses, key=str) == sorted(LOSSES, key=str)


def test_without_records_all_of_it_is_drift() -> None:
    short_tag, short_metric = shortened(LONG, 100), shortened(LONG, 255)

    assert sorted(differences(())) == sorted(
        [
            ("experiment tag", "goal"),
            ("param", "beta"),
            ("tag", "note"),
            ("tag", LONG),
            ("tag", short_tag),
            ("metric point", LONG),
            ("metric point", short_metric),
            ("file", "dualtrack/overflow.json"),
        ]
    )


@pytest.mark.parametrize(
    ("record", "differs"),
    [
        (replace(LOSSES[0], key="run:other"), ("param", "beta")),
        (replace(LOSSES[0], kind="tag"), ("param", "beta")),
        (replace(LOSSES[0], item="bet"), ("param", "beta")),
        (replace(LOSSES[0], kind="unknown", item=""), ("param", "beta")),
    ],
)
def test_a_record_of_something_else_explains_nothing(record: Loss, differs: tuple[str, str]) -> None:
    assert differences((record, *LOSSES[1:])) == [differs]


@pytest.mark.parametrize(
    ("mirror", "differs"),
    [
        (replace(MIRROR, params={"alpha": "1", "beta": "3"}), ("param", "beta")),
        (replace(MIRROR, params={}), ("param", "alpha")),
        (replace(MIRROR, tags={**MIRROR.tags, "note": "v" * 991 + "-00000000"}), ("tag", "note")),
        (replace(MIRROR, tags={**MIRROR.tags, shortened(LONG, 100): "other"}), ("tag", LONG)),
        (replace(MIRROR, points=(POINTS[0], replace(MIRROR.points[1], value="2.0"))), ("metric point", LONG)),
        (replace(MIRROR, points=MIRROR.points[1:]), ("metric point", "loss")),
        (replace(MIRROR, files=(OVERFLOW_FILE,)), ("file", "a.png")),
    ],
)
def test_the_mirror_has_to_be_as_the_reason_says(mirror: Run, differs: tuple[str, str]) -> None:
    assert differs in differences(mirror=mirror)


@pytest.mark.parametrize(
    ("overflow", "lacking"),
    [
        ({}, [("overflow param", "beta"), ("overflow tag", "note")]),
        ({"params": {"beta": "20"}, "tags": {"note": WHOLE}}, [("overflow param", "beta")]),
        ({"params": {"beta": "2"}, "tags": {"note": shortened(WHOLE, 1000)}}, [("overflow tag", "note")]),
        ({"params": {"beta": "2"}, "tags": {"note": WHOLE, "stale": "x"}}, []),
    ],
)
def test_the_overflow_has_every_value_whole(
    overflow: dict[str, dict[str, str]], lacking: list[tuple[str, str]]
) -> None:
    """What arrived after all, such as a value under a shortened name, need not be there too."""
    assert differences(mirror=replace(MIRROR, overflow=overflow)) == lacking


def test_a_value_that_was_left_out_may_be_of_any_age_there() -> None:
    run = replace(RUN, tags={**RUN.tags, "history": "[1, 2]"})
    mirror = replace(
        MIRROR,
        tags={**MIRROR.tags, "history": "[1]"},
        overflow={**MIRROR.overflow, "tags": {**MIRROR.overflow["tags"], "history": "[1, 2]"}},
    )

    assert differences((*LOSSES, loss("tag", "history", "skipped")), run=run, mirror=mirror) == []


def test_a_run_and_its_files_may_be_lost_as_a_whole() -> None:
    nothing = replace(MIRROR, files=())
    elsewhere = replace(MIRROR, tags={})

    assert differences((*LOSSES, loss("file", "", "not_copied")), mirror=nothing) == []
    assert differences((*LOSSES, loss("run", "", "discarded")), mirror=elsewhere) == [("unmarked run", "s1")]


@pytest.mark.parametrize(
    ("written", "whole", "is_it"),
    [
        (shortened("a" * 50, 20), "a" * 50, True),
        (shortened("a" * 50, 20), "a" * 51, False),
        ("a" * 11, "a" * 50, False),
        ("", "", False),
        ("absent", "absent", False),
    ],
)
def test_a_shortened_value_is_known_by_its_hash(written: str, whole: str, is_it: bool) -> None:
    assert is_short(written, whole) is is_it


# ---- models where there are none ---------------------------------------------------------------------------------

ROOT = "dbfs:/databricks/mlflow-tracking/1/logged_models/m-1/artifacts"
NAMES = {"run_id": "r1", "model_id": "m-1", "model_uuid": "m-1", "artifact_path": ROOT}
MODEL = Model(
    model_id="m-1",
    experiment_id="1",
    run_id="r1",
    root=ROOT,
    fields={"name": "classifier"},
    params={"depth": "3"},
    files=(
        File(path="MLmodel", size=90, sha256="rest", names=NAMES),
        File(path="data/model.pkl", size=3, sha256="abc"),
    ),
)
LINKED = replace(POINTS[0], model_id="m-1", step=4)
WITH_MODEL = replace(
    RUN, params={}, tags={}, points=(POINTS[0], LINKED, replace(LINKED, model_id="")), outputs=(("m-1", "0"),)
)
NAMES_THERE = {"run_id": "s1", "model_uuid": "m-1", "artifact_path": "azureml://x/s1/artifacts/classifier"}
FILES_THERE = (
    File(path="classifier/MLmodel", size=80, sha256="rest", names=NAMES_THERE),
    File(path="classifier/data/model.pkl", size=3, sha256="abc"),
)
FILE_OF_ANOTHER = (File(path="weights.bin", size=5, sha256="def"),)


def history(**changes: str) -> str:
    return orjson.dumps([{"run_id": "s1", "artifact_path": "classifier", "model_uuid": "m-1", **changes}]).decode()


STANDING = Run(
    run_id="s1",
    experiment_id="7",
    root="azureml://x/s1/artifacts",
    tags={**MARKED, "mlflow.log-model.history": history()},
    points=(POINTS[0], replace(LINKED, model_id="")),
    files=(*RUN.files, *FILES_THERE),
)
NO_MODEL = (
    loss("model", "m-1", "no_logged_models"),
    loss("model", "", "no_logged_models", key="model:m-1"),
    LOSSES[-1],
)


def standing(
    mirror: Run = STANDING, losses: tuple[Loss, ...] = NO_MODEL, run: Run = WITH_MODEL, model: Model = MODEL
) -> list[tuple[str, str]]:
    found = compared(losses, mirror=mirror, run=run, models=(model,))
    return [(item.kind, item.name) for item in found.all_differences]


def test_a_model_that_is_files_of_its_run_is_compared_as_such() -> None:
    """Files by path, size and hash; ids of the MLmodel translated; its run's history; nothing else names it."""
    found = compared(NO_MODEL, mirror=STANDING, run=WITH_MODEL, models=(MODEL,))
    (model,) = found.models

    assert found.is_equal, str(found)
    assert (model.secondary_id, model.files, model.losses) == ("s1/classifier", 2, NO_MODEL[1:2])


@pytest.mark.parametrize(
    ("mirror", "differs"),
    [
        (replace(STANDING, files=(*RUN.files, FILES_THERE[0])), ("file", "data/model.pkl")),
        (replace(STANDING, files=(*STANDING.files, File(path="classifier/x", size=0, sha256=""))), ("file", "x")),
        (replace(STANDING, tags=MARKED), ("model history", "m-1")),
        (
            replace(STANDING, tags={**MARKED, "mlflow.log-model.history": history(run_id="r1")}),
            ("model history", "m-1"),
        ),
        (
            replace(STANDING, tags={**MARKED, "mlflow.log-model.history": history(model_uuid="m-2")}),
            ("tag", "mlflow.log-model.history"),
        ),
        (replace(STANDING, tags={**MARKED, "mlflow.log-model.history": "{"}), ("model history", "m-1")),
        (replace(STANDING, points=STANDING.points[:1]), ("metric point", "loss")),
        (replace(STANDING, points=(POINTS[0], LINKED)), ("metric point", "loss")),
        (replace(STANDING, outputs=(("m-1", "0"),)), ("output", "('m-1', '0')")),
    ],
)
def test_each_difference_of_such_a_model_is_named(mirror: Run, differs: tuple[str, str]) -> None:
    assert differs in standing(mirror)


@pytest.mark.parametrize(
    ("key", "value"),
    [("run_id", "r1"), ("model_id", "m-1"), ("model_uuid", "m-2"), ("artifact_path", ROOT)],
)
def test_its_mlmodel_names_what_is_there(key: str, value: str) -> None:
    """Above all no logged model: MLflow would ask for it."""
    renamed = replace(FILES_THERE[0], names={**NAMES_THERE, key: value})

    assert standing(replace(STANDING, files=(*RUN.files, renamed, FILES_THERE[1]))) == [("id in MLmodel:", key)]


def test_without_a_record_it_is_absent() -> None:
    kinds = {kind for kind, _ in standing(losses=(LOSSES[-1],))}

    assert kinds == {"model", "file", "metric point", "output", "tag"}
    assert ("output", "('m-1', '0')") in standing(losses=NO_MODEL[1:])


def test_a_name_that_the_run_uses_itself_leaves_the_other_folder() -> None:
    run = replace(WITH_MODEL, files=(*RUN.files, File(path="classifier/own.txt", size=1, sha256="1")))
    folder = "classifier-m-1"
    moved = (
        replace(
            FILES_THERE[0],
            path=f"{folder}/MLmodel",
            names={**NAMES_THERE, "artifact_path": f"azureml://x/s1/artifacts/{folder}"},
        ),
        replace(FILES_THERE[1], path=f"{folder}/data/model.pkl"),
    )
    tags = {**MARKED, "mlflow.log-model.history": history(artifact_path=folder)}

    assert standing(replace(STANDING, files=(*run.files, *moved), tags=tags), run=run) == []


@pytest.mark.parametrize("files", [FILE_OF_ANOTHER, ()], ids=["with a file", "without files"])
def test_models_of_one_name_in_one_run_have_a_folder_each(files: tuple[File, ...]) -> None:
    """A client that repeats the create of a model, whose answer was lost, leaves one without files."""
    other = replace(MODEL, model_id="m-2", files=files)
    there = (*STANDING.files, *(replace(file, path=f"classifier-m-2/{file.path}") for file in files))
    losses = (*NO_MODEL, loss("model", "m-2", "no_logged_models"), loss("model", "", "no_logged_models", "model:m-2"))
    found = compared(losses, mirror=replace(STANDING, files=there), run=WITH_MODEL, models=(MODEL, other))

    assert found.is_equal, str(found)


def test_a_model_without_a_run_has_no_files_and_says_so() -> None:
    model = replace(MODEL, run_id="")
    bare = replace(STANDING, files=RUN.files, tags=MARKED)
    placeless = tuple(loss("file", file.path, "no_place", key="model:m-1") for file in MODEL.files)

    assert standing(bare, model=model) == [("file", "MLmodel"), ("file", "data/model.pkl")]
    assert standing(bare, (*NO_MODEL, *placeless), model=model) == []
