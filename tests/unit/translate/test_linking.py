"""A refused link is told from a refused write of a client."""

from typing import Any

import orjson
import pytest

from dualtrack.core.exchange import Exchange
from dualtrack.core.links import SOURCE_URL
from dualtrack.translate.linking import is_link

LINK = {"key": SOURCE_URL, "value": "https://here.example.org"}


@pytest.mark.parametrize(
    ("operation", "document", "expected"),
    [
        ("logBatch", {"tags": [LINK]}, True),
        ("logBatch", {"tags": [LINK, {"key": "stage", "value": "done"}]}, False),
        ("logBatch", {"tags": [LINK], "params": [{"key": "depth", "value": "3"}]}, False),
        ("logBatch", {"metrics": [{"key": "loss", "value": 1}]}, False),
        ("deleteTag", {"key": SOURCE_URL}, False),
    ],
)
def test_only_a_link_alone_is_one(operation: str, document: dict[str, Any], expected: bool) -> None:
    body = orjson.dumps({"run_id": "r1", **document})

    assert is_link(Exchange(operation=operation, method="POST", path="/api/x", body=body)) is expected
