"""Whether a backend's state shows a write: per operation, with truncation, NaN and infinity."""

from dataclasses import replace

import orjson
import pytest

from dualtrack.core.exchange import JSON, Document, Observed
from dualtrack.translate.document import objects, parse
from dualtrack.translate.evidence import lasting, lasting_tags, metric_keys, pick, remaining, shows
from dualtrack.translate.operations import OPERATIONS, Reading, Shape, read
from tests.support.exchanges import DATASET, EXCHANGES, MODEL, MODEL_INFO, MODEL_JSON, PARENT, RUN_INFO, one, pair, post

LOSS: Document = {"key": "loss", "value": 0.5, "timestamp": 1_700_000_001_000, "step": 3}


def experiment(**fields: JSON) -> Document:
    return {"experiment": {"experiment_id": "7", "lifecycle_stage": "active", **fields}}


def run(info: Document | None = None, data: Document | None = None, **parts: JSON) -> Document:
    return {"run": {"info": {**RUN_INFO, **(info or {})}, "data": data or {}, **parts}}


def model(params: JSON = None, **info: JSON) -> Document:
    return {"model": {"info": {**MODEL_INFO, **info}, "data": {"params": params}}}


def seen(operation: str, entity: Document, histories: dict[str, list[Document]] | None = None) -> bool:
    return shows(read(EXCHANGES[operation]), Observed(entity=entity, histories=histories or {}))


HISTORY = f"[{MODEL_JSON}]"
BATCH_DATA: Document = {
    "params": [pair("depth", "3")],
    "tags": [
        pair("mlflow.rootRunId", PARENT.client_id),
        pair("mlflow.sourceRunId", PARENT.client_id),
        pair("mlflow.log-model.history", HISTORY),
        pair("note", "run_id 0123456789abcdef0123456789abcdef in words stays"),
    ],
}
INPUTS: Document = {"dataset_inputs": [DATASET], "model_inputs": [{"model_id": MODEL.client_id}]}

# operation: states that show it, states that do not
STATES: dict[str, tuple[list[Document], list[Document]]] = {
    "updateExperiment": ([experiment(name="/Users/ann/stay")], [experiment(name="/Users/ann/churn"), {}]),
    "deleteExperiment": ([experiment(lifecycle_stage="deleted")], [experiment(), {}]),
    "restoreExperiment": ([experiment()], [experiment(lifecycle_stage="deleted"), {}]),
    "setExperimentTag": ([experiment(tags=[pair("team", "b")])], [experiment(tags=[pair("team", "a")]), experiment()]),
    "deleteExperimentTag": ([experiment(tags=[pair("x", "y")]), experiment()], [experiment(tags=[pair("team", "a")])]),
    "updateRun": (
        [run({"status": "FINISHED", "end_time": 1_700_000_009_000, "run_name": "new"})],
        [run(), run({"status": "FINISHED"}), run({"status": "FINISHED", "end_time": 1, "run_name": "new"})],
    ),
    "deleteRun": ([run({"lifecycle_stage": "deleted"})], [run()]),
    "restoreRun": ([run()], [run({"lifecycle_stage": "deleted"})]),
    "deleteTag": ([run(), run(data={"tags": [pair("x", "y")]})], [run(data={"tags": [pair("note", "y")]})]),
    "logParam": ([run(data={"params": [pair("depth", "3")]})], [run(), run(data={"params": [pair("depth", "4")]})]),
    "setTag": (
        [run(data={"tags": [pair("mlflow.parentRunId", PARENT.client_id)]})],
        [run(), run(data={"tags": [pair("mlflow.parentRunId", "")]})],
    ),
    "logInputs": (
        [run(inputs=INPUTS)],
        [run(), run(inputs={**INPUTS, "model_inputs": []}), run(inputs={**INPUTS, "dataset_inputs": []})],
    ),
    "logOutputs": ([run(outputs={"model_outputs": [{"model_id": MODEL.client_id, "step": 0}]})], [run()]),
    "logModel": (
        [run(data={"tags": [pair("mlflow.log-model.history", HISTORY)]})],
        [
            run(),
            run(data={"tags": [pair("mlflow.log-model.history", HISTORY.replace("2026-11", "2025-11"))]}),
            run(data={"tags": [pair("mlflow.log-model.history", HISTORY[:99])]}),
        ],
    ),
    "finalizeLoggedModel": ([model(status="LOGGED_MODEL_READY")], [model(), {}]),
    "logLoggedModelParams": ([model([pair("a", "1"), pair("b", "2")])], [model(), model([pair("a", "2")])]),
    "setLoggedModelTags": ([model(tags=[pair("stage", "new")])], [model(tags=[]), model(tags=[pair("stage", "old")])]),
    "deleteLoggedModelTag": ([model(), model(tags=[])], [model(tags=[pair("stage x", "old")])]),
}
BLIND = {"createExperiment", "createRun", "createLoggedModel", "deleteLoggedModel"}  # found, or not found, by reading


def test_every_operation_can_be_judged() -> None:
    """But for creates, which are looked for, and the deletion of what cannot be read any more."""
    assert set(OPERATIONS) == set(STATES) | BLIND | {"logMetric", "logBatch"}


@pytest.mark.parametrize("operation", STATES)
def test_a_state_shows_its_write(operation: str) -> None:
    showing, others = STATES[operation]

    assert all(seen(operation, state) for state in showing)
    assert not any(seen(operation, state) for state in others)


@pytest.mark.parametrize("operation", sorted(BLIND))
def test_what_cannot_be_judged_is_not_claimed(operation: str) -> None:
    assert not seen(operation, run())


ADDS = {"logParam", "setTag", "logInputs", "logOutputs", "logModel", "logLoggedModelParams"}  # a tag is no call alone
IN_PARTS = {"updateRun", "setLoggedModelTags"}


@pytest.mark.parametrize("operation", sorted(STATES.keys() - ADDS - IN_PARTS))
def test_a_write_lasts_until_something_newer_changes_it(operation: str) -> None:
    reading = read(EXCHANGES[operation])
    showing, others = STATES[operation]

    assert [lasting(reading, state) for state in showing] == [reading] * len(showing)
    assert [lasting(reading, state) for state in others] == [None] * len(others)


@pytest.mark.parametrize("operation", sorted(ADDS))
def test_what_only_adds_lasts(operation: str) -> None:
    reading = read(EXCHANGES[operation])
    assert all(lasting(reading, state) is reading for states in STATES[operation] for state in states)


def test_of_a_run_s_update_those_fields_last_that_are_still_so() -> None:
    reading = read(EXCHANGES["updateRun"])
    renamed = lasting(reading, run({"status": "FINISHED", "end_time": 1_700_000_009_000, "run_name": "newer"}))
    numbered = lasting(replace(reading, document={**reading.document, "status": "3"}), run({"status": "FINISHED"}))

    assert renamed is not None
    assert renamed.document.keys() == reading.document.keys() - {"run_name"}
    assert parse(renamed.exchange.body) == renamed.document
    assert numbered is not None
    assert numbered.document.keys() == reading.document.keys() - {"run_name", "end_time"}
    assert lasting(reading, run({"status": "RUNNING", "end_time": None, "run_name": "newer"})) is None


def test_of_a_model_s_tags_those_last_that_are_still_so() -> None:
    reading = read(EXCHANGES["setLoggedModelTags"])
    two = replace(reading, document={**reading.document, "tags": [pair("stage", "new"), pair("x", "y")]})
    left = lasting(two, model(tags=[pair("stage", "new"), pair("x", "z")]))

    assert left is not None
    assert left.document["tags"] == [pair("stage", "new")]
    assert lasting(two, model(tags=[])) is None


def test_our_own_tags_last_though_the_primary_has_none_of_them() -> None:
    assert lasting_tags([pair("dualtrack.source", "a"), pair("x", "y")], {}) == (pair("dualtrack.source", "a"),)


def test_a_metric_is_a_point_of_its_history() -> None:
    assert seen("logMetric", run(), {"loss": [LOSS]})
    assert not seen("logMetric", run(), {"loss": [{**LOSS, "step": 4}, {**LOSS, "timestamp": 1}, {**LOSS, "value": 1}]})
    assert not seen("logMetric", run(), {"other": [LOSS]})
    assert not seen("logMetric", run())


def test_a_batch_is_there_when_all_of_it_is() -> None:
    assert seen("logBatch", run(data=BATCH_DATA), {"loss": [LOSS]})
    assert not seen("logBatch", run(data=BATCH_DATA), {})
    assert not seen("logBatch", run(data={**BATCH_DATA, "params": []}), {"loss": [LOSS]})


@pytest.mark.parametrize(
    ("sent", "stored", "is_there"),
    [
        (0.5, 0.5, True),
        ("0.5", 0.5, True),
        (1, 1.0, True),
        ("NaN", "NaN", True),
        ("NaN", 0, False),
        (0, "NaN", False),
        ("Infinity", 1.7976931348623157e308, True),
        ("Infinity", "Infinity", True),
        ("-Infinity", -1.7976931348623157e308, True),
        ("Infinity", "-Infinity", False),
        (0.1 + 0.2, 0.30000000000000004, True),
        (10**400, 1.0, False),
    ],
)
def test_values_are_compared_as_a_server_stores_them(sent: JSON, stored: JSON, *, is_there: bool) -> None:
    """Numbers may travel as text, NaN equals NaN, and infinities come back as the largest number."""
    reading = metric_reading(value=sent)
    observed = Observed(entity=run(), histories={"loss": [{**LOSS, "value": stored}]})

    assert shows(reading, observed) is is_there


def metric_reading(**fields: JSON) -> Reading:
    reading = read(EXCHANGES["logMetric"])
    return replace(reading, document={**reading.document, **fields})


@pytest.mark.parametrize("value", ["x", None, [], {}])
def test_an_odd_value_is_no_reason_to_fall_over(value: JSON) -> None:
    assert not shows(metric_reading(value=value), Observed(entity=run(), histories={"loss": [LOSS]}))


def test_a_step_that_was_left_out_is_zero() -> None:
    reading = metric_reading(step=None)

    assert shows(reading, Observed(entity=run(), histories={"loss": [{**LOSS, "step": 0}]}))


@pytest.mark.parametrize(
    ("sent", "stored", "is_there"),
    [
        (7000, 6000, True),
        (251, 250, True),
        (250, 249, False),
        (6000, 6000, True),
        (6000, 7000, False),
    ],
)
def test_a_shortened_value_is_there(sent: int, stored: int, *, is_there: bool) -> None:
    """A server cuts long values without a word (facts section 6)."""
    reading = read(post("logParam", "runs/log-parameter", one(key="p", value="x" * sent)))

    assert shows(reading, Observed(entity=run(data={"params": [pair("p", "x" * stored)]}))) is is_there


def test_a_long_value_that_differs_is_another() -> None:
    reading = read(post("setTag", "runs/set-tag", one(key="t", value="x" * 300)))

    assert not shows(reading, Observed(entity=run(data={"tags": [pair("t", "x" * 250 + "y" * 50)]})))


@pytest.mark.parametrize("model_json", ["{", "\ud800", "", "[]"])
def test_a_model_json_that_is_none_was_not_recorded(model_json: str) -> None:
    reading = read(EXCHANGES["logModel"])
    reading = replace(reading, document={**reading.document, "model_json": model_json})

    assert not shows(reading, Observed(entity=run(data={"tags": [pair("mlflow.log-model.history", HISTORY)]})))


@pytest.mark.parametrize(
    ("operation", "keys"), [("logMetric", ["loss"]), ("logBatch", ["loss"]), ("setTag", []), ("updateRun", [])]
)
def test_only_the_metrics_in_question_are_read(operation: str, keys: list[str]) -> None:
    assert metric_keys(read(EXCHANGES[operation])) == keys


def test_what_remains_of_a_write_is_what_took_effect() -> None:
    """A 4xx or a lost answer does not mean that nothing happened: params and metrics may be stored, tags not."""
    left = remaining(
        read(EXCHANGES["logBatch"]),
        Observed(entity=run(data={"params": [pair("depth", "3")]}), histories={"loss": [LOSS]}),
    )

    assert left is not None
    assert [point["key"] for point in objects(left["metrics"])] == ["loss"]
    assert left["params"] == [pair("depth", "3")]
    assert left["tags"] == []


def test_nothing_remains_of_what_never_arrived() -> None:
    assert remaining(read(EXCHANGES["logBatch"]), Observed(entity=run())) is None
    assert remaining(read(EXCHANGES["updateRun"]), Observed(entity=run())) is None


@pytest.mark.parametrize("operation", ["logMetric", "logParam", "setTag", "logBatch"])
def test_all_remains_of_what_shows(operation: str) -> None:
    """The two questions agree."""
    tags: list[JSON] = [pair("mlflow.parentRunId", PARENT.client_id), *objects(BATCH_DATA["tags"])]
    observed = Observed(entity=run(data={**BATCH_DATA, "tags": tags}), histories={"loss": [LOSS]})
    reading = read(EXCHANGES[operation])
    left = remaining(reading, observed)

    assert reading.operation.shape is not Shape.NONE
    assert left is not None
    batch = read(post("logBatch", "runs/log-batch", one(**left)))
    assert remaining(batch, observed) == left
    assert shows(reading, observed)
    assert shows(batch, observed)


# --- creates ------------------------------------------------------------------------------------------------------


def candidate(run_id: str, info: Document | None = None, tags: list[JSON] | None = None) -> Document:
    data: Document = {"tags": tags if tags is not None else [pair("mlflow.user", "ann"), pair("more", "x")]}
    return run({"run_id": run_id, **(info or {})}, data)


@pytest.mark.parametrize(
    ("candidates", "found"),
    [
        ([candidate("a")], 0),
        ([], None),
        ([candidate("a", {"user_id": "bob"}), candidate("b")], 1),
        ([candidate("a", {"user_id": "bob"}), candidate("b", {"start_time": 1}), candidate("c", tags=[])], None),
        ([candidate("")], None),
    ],
)
def test_an_unanswered_run_is_the_one_alike(candidates: list[Document], found: int | None) -> None:
    """Alike in all that was sent."""
    assert pick(read(EXCHANGES["createRun"]), candidates, []) == (candidates[found] if found is not None else None)


def test_an_unanswered_model_is_the_one_alike() -> None:
    candidates = [model(name="other"), model(model_id="m-new")]

    assert pick(read(EXCHANGES["createLoggedModel"]), candidates, []) == candidates[1]


def test_what_another_create_asked_for_more_closely_is_its_own() -> None:
    """Two runs, two creates in doubt: the one that named nothing takes the run whose name nobody asked for."""
    vague = read(post("createRun", "runs/create", {"experiment_id": "7", "start_time": 5}))
    named = read(post("createRun", "runs/create", {"experiment_id": "7", "start_time": 5, "run_name": "b"}))
    elsewhere = read(post("createLoggedModel", "logged-models", {"name": "b", "source_run_id": "r"}))
    its, mine = (candidate(name, {"start_time": 5, "run_name": name}) for name in ("b", "swift-owl-7"))

    assert pick(vague, [its, mine], [named, elsewhere]) == mine
    assert pick(vague, [its], [named]) is None
    assert pick(vague, [its, mine], [vague]) == its
    assert pick(named, [mine, its], [vague]) == its
    assert pick(named, [mine, its], [named]) == its


@pytest.mark.parametrize(
    ("operation", "path", "body"),
    [
        ("logInputs", "runs/log-inputs", {"run_id": "r", "datasets": [{"dataset": {"name": ["x"], "digest": {}}}]}),
        ("logInputs", "runs/log-inputs", {"run_id": "r", "models": [{"model_id": ["x"]}]}),
        ("logOutputs", "runs/outputs", {"run_id": "r", "models": [{"model_id": {"x": 1}, "step": 1}]}),
    ],
)
def test_what_a_server_takes_for_an_id_can_be_asked_about(operation: str, path: str, body: Document) -> None:
    """MLflow answers 200 to each of these."""
    assert not shows(read(post(operation, path, body)), Observed(entity=run(), histories={}))


def test_tags_that_were_sent_tell_models_apart() -> None:
    body = {**orjson.loads(EXCHANGES["createLoggedModel"].body), "tags": [pair("mlflow.user", "bob")]}
    reading = read(post("createLoggedModel", "logged-models", body))

    assert pick(reading, [model()], []) is None
    assert pick(reading, [model(tags=[pair("mlflow.user", "bob")])], []) is not None
