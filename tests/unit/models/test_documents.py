"""What each request makes of a logged model."""

import pytest

from dualtrack.core.exchange import Document
from dualtrack.models.documents import (
    RefusedError,
    created,
    finalized,
    name_of,
    point_of,
    shown,
    tagged,
    untagged,
    with_links,
    with_params,
)
from dualtrack.translate.document import write

ASKED: Document = {
    "experiment_id": "7",
    "name": "m",
    "source_run_id": "r",
    "params": [{"key": "depth", "value": "3"}],
    "tags": [{"key": "team", "value": "demo"}, {"key": "stage", "value": "new"}],
}


@pytest.fixture
def model() -> Document:
    return created(ASKED, "m-1", "root/m", 5)


def test_a_create_says_all_that_was_asked_for(model: Document) -> None:
    assert model == {
        "info": {
            "model_id": "m-1",
            "experiment_id": "7",
            "name": "m",
            "creation_timestamp_ms": 5,
            "last_updated_timestamp_ms": 5,
            "artifact_uri": "root/m",
            "status": "LOGGED_MODEL_PENDING",
            "source_run_id": "r",
            "tags": ASKED["tags"],
        },
        "data": {"params": ASKED["params"]},
    }
    assert name_of({}) == "model"


@pytest.mark.parametrize("name", ["a/b", "a:b", "a.b", "100%", "it's", 'so "called"'])
def test_a_name_that_a_server_refuses_is_refused(name: str) -> None:
    with pytest.raises(RefusedError, match="Invalid model name"):
        name_of({"name": name})


def test_a_param_comes_once(model: Document) -> None:
    twice: Document = {"params": [{"key": "k", "value": "1"}, {"key": "k", "value": "2"}]}
    with pytest.raises(RefusedError, match="comes twice"):
        created({**ASKED, **twice}, "m-1", "", 5)
    known: Document = {"params": [{"key": "depth", "value": "3"}]}
    for again in (twice, known):
        with pytest.raises(RefusedError, match="written once") as caught:
            with_params(model, again, 6)
        assert (caught.value.status, caught.value.code) == (400, "BAD_REQUEST")


def test_tags_come_as_often_as_one_likes(model: Document) -> None:
    again = tagged(model, {"tags": [{"key": "stage", "value": "old"}]}, 6)

    assert again["info"]["tags"] == [{"key": "team", "value": "demo"}, {"key": "stage", "value": "old"}]  # type: ignore[index,call-overload]
    assert untagged(again, "stage", 7)["info"]["tags"] == [{"key": "team", "value": "demo"}]  # type: ignore[index,call-overload]
    with pytest.raises(RefusedError) as caught:
        untagged(model, "none", 7)
    assert (caught.value.status, caught.value.code) == (404, "RESOURCE_DOES_NOT_EXIST")


@pytest.mark.parametrize(
    ("asked", "becomes"),
    [
        ("LOGGED_MODEL_READY", "LOGGED_MODEL_READY"),
        (2, "LOGGED_MODEL_READY"),
        ("LOGGED_MODEL_UPLOAD_FAILED", "LOGGED_MODEL_UPLOAD_FAILED"),
    ],
)
def test_a_model_ends_as_it_is_said_to(model: Document, asked: str | int, becomes: str) -> None:
    ended = finalized(model, {"status": asked}, 9)["info"]

    assert isinstance(ended, dict)
    assert (ended["status"], ended["last_updated_timestamp_ms"]) == (becomes, 9)


@pytest.mark.parametrize("asked", ["LOGGED_MODEL_PENDING", "done", None, 1, 17])
def test_a_model_ends_in_no_other_way(model: Document, asked: str | int | None) -> None:
    with pytest.raises(RefusedError, match="LOGGED_MODEL_READY"):
        finalized(model, {"status": asked}, 9)


def test_metrics_are_shown_with_their_run(model: Document) -> None:
    point = point_of({"key": "loss", "value": 0.5, "step": 0, "model_id": "m-1", "run_uuid": "r", "x": 1}, "r")

    assert point == {"key": "loss", "value": 0.5, "timestamp": 0, "step": 0, "model_id": "m-1", "run_id": "r"}
    assert shown(model, [point])["data"] == {"params": ASKED["params"], "metrics": [point]}


def test_a_run_without_models_is_told_as_it_is() -> None:
    run: Document = {"inputs": {"dataset_inputs": [{}]}}

    assert with_links(run, [], {}) == run
    assert with_links(run, ["m-1"], {"m-2": 3}) == {
        "inputs": {"dataset_inputs": [{}], "model_inputs": [{"model_id": "m-1"}]},
        "outputs": {"model_outputs": [{"model_id": "m-2", "step": 3}]},
    }


def test_a_metric_is_spelled_one_way() -> None:
    spelled: list[Document] = [
        {"key": "k", "value": 1, "timestamp": 5, "step": 2},
        {"step": "2", "timestamp": "5", "value": "1.0", "key": "k", "model_id": ""},
        {"key": "k", "value": 1.0, "timestamp": 5.0, "step": 2.0, "dataset_name": None},
    ]

    assert len({write(point_of(metric, "r")) for metric in spelled}) == 1
    assert point_of({"key": "k", "value": "nan", "step": 1e300}, "r") == {
        "key": "k",
        "value": "NaN",
        "timestamp": 0,
        "step": 2**63 - 1,
        "run_id": "r",
    }
