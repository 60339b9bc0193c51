"""`translate.giving_up`: what was given up is named as closely as it can be."""

from typing import Any

import orjson
import pytest

from dualtrack.core.exchange import Exchange
from dualtrack.core.ids import ClientId, EntityKind, Ref
from dualtrack.core.loss import LossKind
from dualtrack.translate.files import UPLOAD, tell
from dualtrack.translate.giving_up import lost_items

RUN = Ref(EntityKind.RUN, ClientId("r1"))


def exchange(operation: str, body: bytes) -> Exchange:
    return Exchange(operation=operation, method="POST", path="/api/2.0/mlflow/x", body=body)


BATCH = {
    "run_id": "r1",
    "metrics": [{"key": "loss", "value": 1}, {"key": "loss", "value": 2}],
    "params": [{"key": "depth", "value": "3"}],
    "tags": [{"key": "stage", "value": "done"}],
}


@pytest.mark.parametrize(
    ("operation", "document", "items"),
    [
        ("logMetric", {"run_id": "r1", "key": "loss", "value": 1}, [("metric", "loss")]),
        ("logParam", {"run_id": "r1", "key": "depth", "value": "3"}, [("param", "depth")]),
        ("setTag", {"run_id": "r1", "key": "stage", "value": "done"}, [("tag", "stage")]),
        ("deleteTag", {"run_id": "r1", "key": "stage"}, [("tag", "stage")]),
        ("logBatch", BATCH, [("metric", "loss"), ("param", "depth"), ("tag", "stage")]),
        ("setExperimentTag", {"experiment_id": "1", "key": "team", "value": "x"}, [("tag", "team")]),
        ("deleteExperimentTag", {"experiment_id": "1", "key": "team"}, [("tag", "team")]),
        ("logLoggedModelParams", {"params": [{"key": "depth", "value": "3"}]}, [("param", "depth")]),
        ("setLoggedModelTags", {"tags": [{"key": "stage", "value": "x"}]}, [("tag", "stage")]),
    ],
)
def test_each_item_is_named_once(operation: str, document: dict[str, Any], items: list[tuple[str, str]]) -> None:
    found = lost_items(exchange(operation, orjson.dumps(document)))

    assert found == tuple((LossKind(kind), name) for kind, name in items)


def test_a_file_is_named_by_its_path() -> None:
    assert lost_items(tell(UPLOAD, RUN, "d/a.txt")) == ((LossKind.FILE, "d/a.txt"),)


@pytest.mark.parametrize(
    ("operation", "body"),
    [
        ("updateRun", b'{"run_id": "r1", "status": "FINISHED"}'),
        ("deleteArtifact", b'{"run_id": "r1", "path": "d"}'),
        ("logBatch", b'{"run_id": "r1"}'),
        ("logBatch", b'{"tags": [{"key": "stage"}, {"value": "nameless"}]}'),
        ("logParam", b'{"run_id": "r1"}'),
        ("logParam", b"{"),
    ],
)
def test_what_has_no_named_items_is_given_up_as_a_whole(operation: str, body: bytes) -> None:
    """An item without a name would be every one of its kind."""
    assert lost_items(exchange(operation, body)) == ()
