"""A run, experiment or model told again as writes: played back, they make what they were told from."""

import orjson
import pytest

from dualtrack.core.coalesce import coalesce
from dualtrack.core.exchange import JSON, Document, Exchange
from dualtrack.core.limits import MLFLOW
from dualtrack.translate.adoption import (
    deletion,
    experiment_exchanges,
    metric_exchanges,
    model_exchanges,
    restoration,
    run_exchanges,
)
from dualtrack.translate.document import field, objects, parse
from dualtrack.translate.mlflow import translate
from dualtrack.translate.operations import FILE_OPERATIONS, OPERATIONS, items, lane_of, read
from dualtrack.translate.references import RUN_TAGS
from tests.support.exchanges import (
    DATASET,
    EXPERIMENT,
    MODEL,
    MODEL_INFO,
    PARENT,
    RUN,
    RUN_INFO,
    TWINS,
    pair,
)
from tests.support.model_server import ModelServer

TAGS: list[JSON] = [
    pair("mlflow.parentRunId", PARENT.client_id),
    *(pair(f"tag{number}", str(number)) for number in range(230)),
    pair("mlflow.runName", "bold-fox-12"),
]
PARAMS: list[JSON] = [pair(f"param{number}", str(number)) for number in range(250)]
ENTITY: Document = {
    "run": {
        "info": {**RUN_INFO, "status": "FINISHED", "end_time": 1_700_000_009_000, "lifecycle_stage": "deleted"},
        "data": {"tags": TAGS, "params": PARAMS},
        "inputs": {"dataset_inputs": [DATASET], "model_inputs": [{"model_id": MODEL.client_id}]},
        "outputs": {"model_outputs": [{"model_id": MODEL.client_id, "step": 4}]},
    }
}


def history(key: str, points: int) -> list[Document]:
    return [
        {"key": key, "value": step / 2, "timestamp": 1_700_000_000_000 + step, "step": step} for step in range(points)
    ]


HISTORIES = [*history("loss", 2500), *history("acc", 3)]
POINTS = metric_exchanges(RUN.client_id, HISTORIES)


def operations(told: list[Exchange]) -> list[str]:
    """The operations told, repetitions once."""
    return list(dict.fromkeys(exchange.operation for exchange in told))


def body(told: list[Exchange], operation: str) -> Document:
    (exchange,) = (exchange for exchange in told if exchange.operation == operation)
    return parse(exchange.body)


def created_tags(told: list[Exchange]) -> list[Document]:
    return objects(field(parse(told[0].answer), "run", "data", "tags"))


def test_a_run_told_again_holds_the_same() -> None:
    """Params, tags and every point of every metric, played into a server within its limits."""
    told = run_exchanges(ENTITY, POINTS)
    server, direct = ModelServer(), ModelServer()
    server.log_batch(tags=created_tags(told))
    for exchange in told:
        if (listed := items(1, read(exchange))) is not None:
            server.apply(listed)
    for name, whole in (("params", PARAMS), ("tags", TAGS), ("metrics", HISTORIES)):
        for some in batched_objects(whole):
            direct.log_batch(**{name: some})

    assert server.state() == direct.state()


def batched_objects(whole: list[JSON] | list[Document]) -> list[list[Document]]:
    listed = [item for item in whole if isinstance(item, dict)]
    return [listed[start : start + 100] for start in range(0, len(listed), 100)]


def test_a_run_is_told_from_its_create_to_its_end() -> None:
    """Created first, ended last, so that nothing is written to a run that is finished or deleted."""
    told = run_exchanges(ENTITY, POINTS)

    assert operations(told) == [
        "createRun",
        "logBatch",
        "logInputs",
        "logOutputs",
        "copyArtifacts",
        "updateRun",
        "deleteRun",
    ]
    assert {read(exchange).subject for exchange in told} == {RUN}
    assert body(told, "updateRun") == {
        "run_id": RUN.client_id,
        "status": "FINISHED",
        "end_time": 1_700_000_009_000,
    }
    assert body(told, "logInputs")["datasets"] == [DATASET]
    assert body(told, "logInputs")["models"] == [{"model_id": MODEL.client_id}]
    assert body(told, "logOutputs")["models"] == [{"model_id": MODEL.client_id, "step": 4}]


def test_an_experiment_that_gets_runs_yet_is_told_alive() -> None:
    """No run can be made in a deleted experiment: the deletion follows by itself."""
    experiment: Document = {"experiment_id": "7", "name": "x", "lifecycle_stage": "deleted"}

    told = experiment_exchanges({"experiment": experiment}, with_deletion=False)

    assert operations(told) == ["createExperiment"]
    assert [each.operation for each in (deletion("7"), restoration("7"))] == ["deleteExperiment", "restoreExperiment"]
    assert {lane_of(each) for each in (deletion("7"), restoration("7"), *told)} == {"experiment:7"}


def test_the_create_refers_to_no_other_run() -> None:
    """Two runs that name each other are no knot: tags that name a run come after the create."""
    told = run_exchanges(ENTITY, POINTS)
    call = translate(read(told[0]), TWINS, "main")
    later = [tag["key"] for exchange in told[1:] for tag in objects(parse(exchange.body).get("tags"))]

    assert not RUN_TAGS & {str(tag["key"]) for tag in created_tags(told)}
    assert "mlflow.parentRunId" in later
    assert parse(call.body)["run_name"] == "bold-fox-12"
    assert parse(call.body)["start_time"] == 1_700_000_000_000


def test_no_body_is_larger_than_a_server_takes() -> None:
    """Creates too: at most 100 tags."""
    told = run_exchanges(ENTITY, POINTS)
    listed = [found for exchange in told if (found := items(1, read(exchange))) is not None]

    assert len(created_tags(told)) == 100
    assert all(max(len(each.tags), len(each.params)) <= 100 and len(each.metrics) <= 1000 for each in listed)
    assert all(len(batch) <= 1000 for batch in coalesce(listed, MLFLOW))


def test_a_run_that_holds_nothing_is_told_too() -> None:
    told = run_exchanges({"run": {"info": {"run_id": RUN.client_id, "experiment_id": "7", "status": "RUNNING"}}}, [])

    assert operations(told) == ["createRun", "copyArtifacts", "updateRun"]
    assert body(told, "updateRun") == {"run_id": RUN.client_id, "status": "RUNNING"}


@pytest.mark.parametrize(
    ("stage", "expected"),
    [("active", ["createExperiment"]), ("deleted", ["createExperiment", "deleteExperiment"])],
)
def test_an_experiment_is_told_with_its_stage(stage: str, expected: list[str]) -> None:
    experiment: Document = {"experiment_id": "7", "name": "/a/b", "tags": [pair("t", "1")], "lifecycle_stage": stage}
    told = experiment_exchanges({"experiment": experiment})

    assert operations(told) == expected
    assert {read(exchange).subject for exchange in told} == {EXPERIMENT}
    assert parse(told[0].body) == {"name": "/a/b", "tags": [pair("t", "1")]}


def test_an_experiment_is_told_with_the_time_it_was_made() -> None:
    """It tells a mirror from that of an earlier experiment with the same id."""
    told = experiment_exchanges({"experiment": {"experiment_id": "7", "name": "x", "creation_time": 1000}})

    assert parse(told[0].answer) == {"experiment_id": "7", "creation_time": 1000}


def test_an_experiment_without_tags_has_none() -> None:
    told = experiment_exchanges({"experiment": {"experiment_id": "7", "name": "x"}})

    assert parse(told[0].body)["tags"] == []


def test_a_model_is_told_with_its_metrics_and_its_status() -> None:
    """Its metrics are points of the runs that logged them."""
    metrics: list[JSON] = [
        {**history("loss", 1)[0], "run_id": run_id, "model_id": MODEL.client_id, "dataset_name": "d"}
        for run_id in (RUN.client_id, PARENT.client_id, RUN.client_id)
    ]
    info: Document = {**MODEL_INFO, "status": "LOGGED_MODEL_READY"}
    told = model_exchanges({"model": {"info": info, "data": {"params": [pair("a", "1")], "metrics": metrics}}})
    create = parse(translate(read(told[0]), TWINS, "main").body)
    batches = [parse(exchange.body) for exchange in told if exchange.operation == "logBatch"]

    assert operations(told) == ["createLoggedModel", "logBatch", "copyArtifacts", "finalizeLoggedModel"]
    assert read(told[0]).subject == read(told[-1]).subject == MODEL
    assert create["params"] == [pair("a", "1")]
    assert create["name"] == "model"
    assert [(each["run_id"], len(objects(each["metrics"]))) for each in batches] == [
        (RUN.client_id, 2),
        (PARENT.client_id, 1),
    ]
    assert all(point["model_id"] == MODEL.client_id for each in batches for point in objects(each["metrics"]))
    assert parse(told[-1].body) == {"model_id": MODEL.client_id, "status": "LOGGED_MODEL_READY"}


@pytest.mark.parametrize("status", ["LOGGED_MODEL_PENDING", None])
def test_a_model_that_is_pending_is_not_finalized(status: str | None) -> None:
    told = model_exchanges({"model": {"info": {**MODEL_INFO, "status": status}}})

    assert operations(told) == ["createLoggedModel", "copyArtifacts"]


def test_all_that_is_told_is_mirrored() -> None:
    told = [*run_exchanges(ENTITY, POINTS), *model_exchanges({"model": {"info": MODEL_INFO}})]

    assert {exchange.operation for exchange in told} <= set(OPERATIONS | FILE_OPERATIONS)
    assert all(orjson.loads(exchange.body) is not None for exchange in told)
