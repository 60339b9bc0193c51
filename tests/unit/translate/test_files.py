"""`translate.files`: what the journal keeps of a write about files, read back as it was told."""

import pytest

from dualtrack.core.exchange import Exchange
from dualtrack.core.ids import BackendId, ClientId, EntityKind, Ref, Twin, run_of, stand_in
from dualtrack.translate.files import COPY, DELETE, UPLOAD, FileWrite, file_write, tell
from dualtrack.translate.mlflow import without_models
from dualtrack.translate.operations import FILE_OPERATIONS, lane_of, read
from dualtrack.translate.registry import Name, by_entity, by_files, named_model
from tests.support.exchanges import EXCHANGES

RUN, MODEL = Ref(EntityKind.RUN, ClientId("r")), Ref(EntityKind.MODEL, ClientId("m-1"))


@pytest.mark.parametrize("in_doubt", [False, True])
@pytest.mark.parametrize("ref", [RUN, MODEL])
@pytest.mark.parametrize("operation", [UPLOAD, DELETE, COPY])
def test_what_is_told_is_read(operation: str, ref: Ref, in_doubt: bool) -> None:
    """In the lane of its run or model, whatever letters its path has."""
    told = tell(operation, ref, 'a b/"ü"/\\.txt', in_doubt=in_doubt)

    assert file_write(read(told)) == FileWrite(operation=operation, ref=ref, path='a b/"ü"/\\.txt', in_doubt=in_doubt)
    assert lane_of(told) == ref.key


def test_these_are_all() -> None:
    assert set(FILE_OPERATIONS) == {UPLOAD, DELETE, COPY}


@pytest.mark.parametrize("exchange", EXCHANGES.values(), ids=EXCHANGES)
def test_nothing_else_is_about_files(exchange: Exchange) -> None:
    assert file_write(read(exchange)) is None


def test_a_file_of_nobody_is_none() -> None:
    assert file_write(read(Exchange(operation=UPLOAD, method="PUT", path="/", body=b'{"path": "a"}'))) is None


# --- where there are no logged models ---------------------------------------------------------------------------------


def test_a_stand_in_is_a_folder_of_its_run() -> None:
    run = Twin(ref=RUN, backend="b", backend_id=BackendId("r2"), root="mlflow-artifacts:/1/r2/artifacts/")
    made = stand_in(MODEL, "b", run, "model")

    assert (made.backend_id, made.root) == ("r2/model", "mlflow-artifacts:/1/r2/artifacts/model")
    assert (made.is_stand_in, made.is_discarded, run.is_stand_in) == (True, False, False)
    assert run_of(made) == "r2"


def test_its_folder_is_one_that_a_root_can_name() -> None:
    run = Twin(ref=RUN, backend="b", backend_id=BackendId("r2"), root="azureml://h/artifacts")
    made = stand_in(MODEL, "b", run, "a?b")

    assert (made.backend_id, made.root) == ("r2/a_b", "azureml://h/artifacts/a_b")


def test_without_a_run_it_has_no_files() -> None:
    made = stand_in(MODEL, "b", None, "model")

    assert (made.is_stand_in, made.root, run_of(made)) == (True, "", "")


def test_what_names_a_missing_model_goes_without() -> None:
    """Only what names that very model; a metric stays, an entry of a list goes."""
    document = without_models(
        {
            "run_id": "r",
            "metrics": [{"key": "k", "model_id": "r2/m"}, {"key": "l", "model_id": "m-2"}],
            "models": [{"model_id": "r2/m", "step": 1}, {"model_id": "m-2"}, "odd"],
            "tags": [{"key": "model_id", "value": "r2/m"}],
        },
        frozenset({"r2/m"}),
    )

    assert document == {
        "run_id": "r",
        "metrics": [{"key": "k"}, {"key": "l", "model_id": "m-2"}],
        "models": [{"model_id": "m-2"}, "odd"],
        "tags": [{"key": "model_id", "value": "r2/m"}],
    }


@pytest.mark.parametrize(
    ("document", "model"),
    [
        ({"source": "models:/m-1"}, "m-1"),
        ({"source": "s3://x", "model_id": "m-1"}, "m-1"),
        ({"source": "models:/name/1"}, None),
        ({"source": "models:/m-1/2"}, None),
        ({"source": "runs:/r/model"}, None),
        ({}, None),
    ],
)
def test_the_model_of_a_version(document: dict[str, str], model: str | None) -> None:
    assert named_model({**document}) == (Name(EntityKind.MODEL, model) if model else None)


def test_a_version_by_its_files() -> None:
    document = {"name": "n", "source": "models:/m-1", "model_id": "m-1"}

    assert by_files({**document}, "r", "root") == {"name": "n", "source": "root", "run_id": "r"}
    assert by_files({**document}, "", "root") == {"name": "n", "source": "root"}


@pytest.mark.parametrize(
    ("uri", "found"),
    [
        ("runs:/r/model/sub", (Name(EntityKind.RUN, "r"), "/model/sub")),
        ("models:/m-1", (Name(EntityKind.MODEL, "m-1"), "")),
        ("models:/name/1", None),
        ("s3://bucket", None),
    ],
)
def test_a_uri_that_names_an_entity(uri: str, found: tuple[Name, str] | None) -> None:
    assert by_entity(uri) == found
