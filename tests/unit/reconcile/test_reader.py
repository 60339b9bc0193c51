"""What one answer says of a backend, and what it does not."""

import asyncio

import pytest

from dualtrack.core.exchange import Answer, Call
from dualtrack.errors import UnreachableError
from dualtrack.reconcile.reader import Reader

LACKING = Answer(status=404, body=b"")
FOUND = Answer(status=200, body=b"{}")


class Told:
    """A backend that answers the search for models, then the search for experiments, as it is told."""

    name = "b"

    def __init__(self, *answers: Answer) -> None:
        self._answers = list(answers)

    async def send(self, _call: Call) -> Answer:
        return self._answers.pop(0)


def reader(*answers: Answer) -> Reader:
    return Reader(Told(*answers), "a", 10)  # type: ignore[arg-type]  # it sends, and does nothing else


def said(status: int, code: str) -> Answer:
    return Answer(status=status, body=b"", error_code=code, retry_after=7.0)


@pytest.mark.parametrize("status", [401, 403, 407, 408, 425, 429, 500, 503])
@pytest.mark.parametrize("before", [(), (LACKING,)], ids=["models", "experiments"])
def test_a_gateway_that_refuses_says_nothing_of_models(before: tuple[Answer, ...], status: int) -> None:
    """Nothing is kept of it: the next answer counts."""
    reads = reader(*before, said(status, "SOME"), LACKING, FOUND)
    with pytest.raises(UnreachableError) as caught:
        asyncio.run(reads.has_models())

    assert caught.value.retry_after == 7.0
    assert asyncio.run(reads.has_models()) is False


@pytest.mark.parametrize("answer", [FOUND, said(400, "INVALID_PARAMETER_VALUE"), said(404, "RESOURCE_DOES_NOT_EXIST")])
def test_an_endpoint_that_answers_is_there(answer: Answer) -> None:
    reads = reader(answer)

    assert [asyncio.run(reads.has_models()) for _ in range(2)] == [True, True]
