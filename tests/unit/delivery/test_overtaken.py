"""Of a retried write what is still so is delivered; whatever the primary cannot say anything about, too."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from dualtrack.core.entry import Entry
from dualtrack.core.exchange import Document, Exchange, Observed
from dualtrack.core.ids import EntityKind, Ref, Twin
from dualtrack.core.limits import MLFLOW
from dualtrack.delivery.overtaken import Overtaken
from dualtrack.delivery.plan import BatchStep, SingleStep, plan
from dualtrack.errors import RejectedError
from tests.support.exchanges import EXCHANGES, RUN, pair


class Primary:
    """Answers all that is asked of it with one entity, or refuses to."""

    def __init__(self, entity: Document | RejectedError | None) -> None:
        self._entity = entity
        self.asked: list[str] = []

    async def get(self, kind: EntityKind, backend_id: str) -> Document | None:  # noqa: ARG002
        self.asked.append(backend_id)
        if isinstance(self._entity, RejectedError):
            raise self._entity
        return self._entity

    async def observe(self, kind: EntityKind, backend_id: str, metric_keys: Sequence[str]) -> Observed | None:
        raise NotImplementedError

    async def histories(self, run_id: str, keys: Sequence[str]) -> dict[str, list[Document]]:
        raise NotImplementedError

    async def find_mirror(self, ref: Ref, experiment_id: str) -> Twin | None:
        raise NotImplementedError

    async def has_models(self) -> bool:
        raise NotImplementedError


def step_of(exchange: Exchange, *, attempted: bool = True) -> BatchStep | SingleStep:
    (step,) = plan(RUN.key, [Entry(seq=1, exchange=exchange, settled_at=0.0, attempted=attempted)], MLFLOW)
    assert isinstance(step, BatchStep | SingleStep)
    return step


def left_of(step: BatchStep | SingleStep, primary: Primary) -> BatchStep | SingleStep | None:
    return asyncio.run(Overtaken(primary).leave_out(step))


def run(*tags: Document) -> Document:
    return {"run": {"info": {"lifecycle_stage": "active"}, "data": {"tags": list(tags)}}}


@pytest.mark.parametrize("operation", ["deleteTag", "setTag", "logBatch", "createRun", "logParam", "updateRun"])
def test_what_is_not_retried_is_not_asked_about(operation: str) -> None:
    primary, step = Primary(run()), step_of(EXCHANGES[operation], attempted=False)

    assert left_of(step, primary) is step
    assert primary.asked == []


@pytest.mark.parametrize("operation", ["createRun", "logParam", "logMetric", "logModel"])
def test_what_cannot_be_overtaken_is_not_asked_about(operation: str) -> None:
    primary, step = Primary(run()), step_of(EXCHANGES[operation])

    assert left_of(step, primary) is step
    assert primary.asked == []


@pytest.mark.parametrize("entity", [None, RejectedError("a", "getRun", "no")], ids=["gone", "refused"])
@pytest.mark.parametrize("operation", ["deleteTag", "setTag"])
def test_what_the_primary_knows_nothing_of_is_sent_as_it_is(
    operation: str, entity: Document | RejectedError | None
) -> None:
    step = step_of(EXCHANGES[operation])
    assert left_of(step, Primary(entity)) == step


def test_of_a_batch_the_tags_that_have_other_values_by_now_are_left_out() -> None:
    step = step_of(EXCHANGES["logBatch"])
    assert isinstance(step, BatchStep)
    stays, changed = step.batch.tags[0], {**step.batch.tags[1], "value": "newer"}

    left = left_of(step, Primary(run(stays, changed)))

    assert left == replace(step, batch=replace(step.batch, tags=(stays,)))


def test_nothing_is_left_of_a_deletion_of_what_was_set_anew() -> None:
    step = step_of(EXCHANGES["deleteTag"])

    assert left_of(step, Primary(run())) == step
    assert left_of(step, Primary(run(pair("note", "newer")))) is None
