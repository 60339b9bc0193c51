"""P3: no body, however odd, holds the event loop up: what is read before a write is journaled costs linear time."""

import pytest

from dualtrack.translate.document import parse
from dualtrack.translate.registry import roots_above

MIB = 1024**2


@pytest.mark.timeout(20)
@pytest.mark.parametrize("text", ["A" * MIB, "aB" * MIB, 'Ab\\"' * (MIB // 4), "A" * 60 + " " * MIB])
def test_a_long_text_is_read_in_one_go(text: str) -> None:
    """With a quadratic sieve the first of these takes minutes."""
    body = b'{"run_id": "r", "value": "' + text.encode() + b'"}'

    assert parse(body)["run_id"] == "r"


def test_a_deep_path_has_few_roots() -> None:
    assert len(roots_above("mlflow-artifacts:/" + "/b" * 20_000)) <= 32
