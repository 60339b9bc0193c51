"""The table of mirrored writes, and what is read from each of them."""

from dataclasses import replace

import pytest

from dualtrack.core.coalesce import Items
from dualtrack.core.exchange import Document, Exchange
from dualtrack.core.ids import BackendId, ClientId, EntityKind, Ref, Twin
from dualtrack.core.routes import ROUTES, Goes, classify
from dualtrack.translate.document import MalformedError, parse
from dualtrack.translate.operations import OPERATIONS, Shape, items, lane_of, learn, made_by, read
from tests.support.exchanges import EXCHANGES, EXPERIMENT, MODEL, RUN, pair, post

SUBJECTS = {EntityKind.EXPERIMENT: EXPERIMENT, EntityKind.RUN: RUN, EntityKind.MODEL: MODEL}


def test_the_table_covers_what_is_mirrored() -> None:
    """Exactly the routes that go to both sides, and there is an example of each."""
    mirrored = {route.operation for route in ROUTES if route.goes is Goes.MIRROR}

    assert set(OPERATIONS) == mirrored == set(EXCHANGES)


@pytest.mark.parametrize("exchange", EXCHANGES.values(), ids=EXCHANGES)
def test_every_operation_names_its_subject(exchange: Exchange) -> None:
    """From the body, the path, or the primary's answer; so its lane is known."""
    reading = read(exchange)

    assert reading.subject == SUBJECTS[reading.operation.about]
    assert lane_of(exchange) == SUBJECTS[reading.operation.about].key
    match = classify(exchange.method, exchange.path)
    assert match is not None
    assert match.route.operation == exchange.operation


@pytest.mark.parametrize("name", [name for name, operation in OPERATIONS.items() if operation.creates])
def test_a_create_without_an_answer_has_no_lane(name: str) -> None:
    """What it made has no id yet."""
    for answer in (b"", b"{}", b'{"run": 1}'):
        exchange = replace(EXCHANGES[name], answer=answer)

        assert read(exchange).subject is None
        assert lane_of(exchange) is None
        assert made_by(exchange, "primary") is None


@pytest.mark.parametrize(
    ("name", "root", "called"),
    [
        ("createExperiment", "", "/Users/ann/churn"),
        ("createRun", f"mlflow-artifacts:/7/{RUN.client_id}/artifacts", ""),
        ("createLoggedModel", f"mlflow-artifacts:/7/models/{MODEL.client_id}/artifacts", ""),
    ],
)
def test_an_answered_create_is_a_row_of_the_id_map(name: str, root: str, called: str) -> None:
    """The primary has a row too, so that roots and names of every side are found the same way."""
    made = made_by(EXCHANGES[name], "primary")
    ref = SUBJECTS[OPERATIONS[name].about]

    assert made == Twin(ref=ref, backend="primary", backend_id=BackendId(ref.client_id), name=called, root=root)


def test_an_id_is_learnt_from_a_backends_answer() -> None:
    answer: Document = {"run": {"info": {"run_id": "there", "artifact_uri": "dbfs:/x"}}}

    assert learn(EntityKind.RUN, RUN, "b", answer) == Twin(
        ref=RUN, backend="b", backend_id=BackendId("there"), root="dbfs:/x"
    )
    assert learn(EntityKind.MODEL, MODEL, "b", answer) is None
    experiment = learn(EntityKind.EXPERIMENT, EXPERIMENT, "b", {"experiment_id": 12}, "churn")
    assert experiment is not None
    assert (experiment.backend_id, experiment.name) == ("12", "churn")


@pytest.mark.parametrize(
    ("body", "subject"),
    [
        (b'{"run_id": "a", "run_uuid": "b"}', "a"),
        (b'{"run_uuid": "b"}', "b"),
        (b'{"runId": "a"}', "a"),
        (b'{"run_id": ""}', None),
        (b"", None),
    ],
)
def test_run_id_wins_over_run_uuid(body: bytes, subject: str | None) -> None:
    """As on a server (facts section 1)."""
    exchange = replace(EXCHANGES["updateRun"], body=body)
    found = read(exchange).subject

    assert (found.client_id if found else None) == subject


@pytest.mark.parametrize(
    ("path", "body", "model_id"),
    [
        ("logged-models/m-1", b'{"model_id": "m-2"}', "m-2"),  # facts section 3: the body's is the one used
        ("logged-models/m-1", b"", "m-1"),
        ("logged-models/m%2D1", b"", "m-1"),
        ("elsewhere", b"", None),
    ],
)
def test_a_model_is_named_by_the_body_or_else_by_the_path(path: str, body: bytes, model_id: str | None) -> None:
    exchange = Exchange(operation="finalizeLoggedModel", method="PATCH", path=f"/api/2.0/mlflow/{path}", body=body)
    found = read(exchange).subject

    assert (found.client_id if found else None) == model_id


@pytest.mark.parametrize("body", [b"{", b"[]", b"7"])
def test_what_is_no_object_cannot_be_read(body: bytes) -> None:
    exchange = replace(EXCHANGES["setTag"], body=body)

    assert lane_of(exchange) is None
    with pytest.raises(MalformedError):
        read(exchange)


def test_four_operations_become_items_of_a_batch() -> None:
    shapes = {name: operation.shape for name, operation in OPERATIONS.items() if operation.shape is not Shape.NONE}

    assert shapes == {"logMetric": Shape.METRIC, "logParam": Shape.PARAM, "setTag": Shape.TAG, "logBatch": Shape.BATCH}
    assert all((items(1, read(exchange)) is not None) == (name in shapes) for name, exchange in EXCHANGES.items())


@pytest.mark.parametrize(
    ("name", "found"),
    [
        (
            "logMetric",
            Items(
                seq=5,
                metrics=(
                    {
                        "key": "loss",
                        "value": 0.5,
                        "timestamp": 1_700_000_001_000,
                        "step": 3,
                        "model_id": MODEL.client_id,
                    },
                ),
            ),
        ),
        ("logParam", Items(seq=5, params=(pair("depth", "3"),))),
        ("setTag", Items(seq=5, tags=(pair("mlflow.parentRunId", "fedcba9876543210fedcba9876543210"),))),
    ],
)
def test_a_single_write_is_one_item(name: str, found: Items) -> None:
    """Of the body only what a batch item has; the run is named by the batch."""
    assert items(5, read(EXCHANGES[name])) == found


def test_a_batch_keeps_its_items() -> None:
    document = parse(EXCHANGES["logBatch"].body)
    found = items(5, read(EXCHANGES["logBatch"]))

    assert found is not None
    assert [*found.metrics] == document["metrics"]
    assert [*found.params] == document["params"]
    assert [*found.tags] == document["tags"]


def test_a_value_that_was_left_out_is_empty() -> None:
    """As a proto field that is not set."""
    exchange = post("logParam", "runs/log-parameter", {"run_id": "r", "key": "p"})

    assert items(1, read(exchange)) == Items(seq=1, params=(pair("p", ""),))
    assert read(exchange).subject == Ref(EntityKind.RUN, ClientId("r"))
