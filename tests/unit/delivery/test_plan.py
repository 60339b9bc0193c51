"""The head of a lane as steps: what can share a call does, what cannot keeps its place, nothing is lost."""

from collections.abc import Iterator
from dataclasses import replace

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualtrack.core.coalesce import Batch
from dualtrack.core.entry import Entry
from dualtrack.core.exchange import Document, Exchange
from dualtrack.core.ids import Ref
from dualtrack.core.limits import MLFLOW, BatchLimits
from dualtrack.delivery.plan import SIDE_BY_SIDE, BatchStep, FilesStep, SingleStep, Step, UnreadableStep, plan
from dualtrack.translate.files import DELETE, UPLOAD, tell
from dualtrack.translate.operations import OPERATIONS, Shape
from tests.support.exchanges import EXCHANGES, MODEL, PARENT, RUN, pair, post

SHARED = {name for name, operation in OPERATIONS.items() if operation.shape is not Shape.NONE}
TORN = Exchange(operation="setTag", method="POST", path="/api/2.0/mlflow/runs/set-tag", body=b'{"run_id":')


def metric(step: int, run_id: str = RUN.client_id) -> Exchange:
    point: Document = {"run_id": run_id, "key": "loss", "value": step / 2, "timestamp": step, "step": step}
    return post("logMetric", "runs/log-metric", point)


def entries(*exchanges: Exchange) -> list[Entry]:
    return [Entry(seq=seq, exchange=exchange, settled_at=seq / 10) for seq, exchange in enumerate(exchanges, start=1)]


def planned(*exchanges: Exchange, limits: BatchLimits = MLFLOW) -> list[Step]:
    return list(plan(RUN.key, entries(*exchanges), limits))


def done(steps: list[Step]) -> list[tuple[int, ...]]:
    return [step.done for step in steps]


def test_adjacent_writes_share_a_call() -> None:
    """As old as the oldest of them: it decides when to give up."""
    steps = planned(metric(1), EXCHANGES["logParam"], EXCHANGES["setTag"], metric(2))

    assert done(steps) == [(1, 2, 3, 4)]
    (step,) = steps
    assert isinstance(step, BatchStep)
    assert step.run == RUN
    assert step.settled_at == 0.1
    assert len(step.batch) == 4


def upload(path: str, ref: Ref = RUN) -> Exchange:
    return tell(UPLOAD, ref, path)


def test_a_call_says_whether_anything_in_it_is_a_retry() -> None:
    listed = entries(*(metric(step) for step in range(1, 5)))
    listed[1] = replace(listed[1], attempted=True)
    steps = plan(RUN.key, listed, replace(MLFLOW, metrics=2))

    assert [step.batch.attempted for step in steps if isinstance(step, BatchStep)] == [True, False]


def test_files_that_follow_one_another_go_side_by_side() -> None:
    """Until one comes again, something else comes, or there are many."""
    gone = tell(DELETE, RUN, "a")
    steps = planned(upload("a"), upload("b"), upload("a"), gone, upload("a"), metric(1), upload("b"), upload("c"))

    assert done(steps) == [(1, 2), (3,), (4,), (5,), (6,), (7, 8)]
    assert [type(step) for step in steps] == [FilesStep, *[SingleStep] * 3, BatchStep, FilesStep]
    many = planned(*(upload(str(number)) for number in range(SIDE_BY_SIDE + 5)))
    assert [len(step) for step in done(many)] == [SIDE_BY_SIDE, 5]


def test_files_of_two_owners_do_not_mix() -> None:
    assert done(planned(upload("a"), upload("b", MODEL), upload("c", MODEL))) == [(1,), (2, 3)]


def test_what_cannot_share_is_a_barrier() -> None:
    """A tag's deletion comes after its setting, and the end of a run after all of it."""
    steps = planned(metric(1), EXCHANGES["setTag"], EXCHANGES["deleteTag"], EXCHANGES["setTag"], EXCHANGES["updateRun"])

    assert done(steps) == [(1, 2), (3,), (4,), (5,)]
    assert [type(step) for step in steps] == [BatchStep, SingleStep, BatchStep, SingleStep]
    assert [step.settled_at for step in steps if isinstance(step, BatchStep | SingleStep)] == [0.1, 0.3, 0.4, 0.5]


def test_what_cannot_be_read_is_set_aside_in_its_place() -> None:
    steps = planned(metric(1), TORN, metric(2))

    assert done(steps) == [(1,), (2,), (3,)]
    torn = steps[1]
    assert isinstance(torn, UnreadableStep)
    assert torn.entry.exchange == TORN
    assert "not JSON" in torn.cause


def test_two_runs_in_one_lane_never_share_a_call() -> None:
    """A model's metrics, told again, are points of the runs that logged them."""
    steps = list(plan(MODEL.key, entries(metric(1), metric(2), metric(3, PARENT.client_id), metric(4)), MLFLOW))

    assert done(steps) == [(1, 2), (3,), (4,)]
    assert [step.run for step in steps if isinstance(step, BatchStep)] == [RUN, PARENT, RUN]


@pytest.mark.parametrize(("key", "kind"), [(RUN.key, BatchStep), (MODEL.key, SingleStep)])
def test_a_write_that_names_no_run_belongs_to_its_lane(key: str, kind: type[Step]) -> None:
    nameless = post("setTag", "runs/set-tag", pair("a", "b"))
    (step,) = plan(key, entries(nameless), MLFLOW)

    assert isinstance(step, kind)
    assert step.done == (1,)


def test_limits_make_several_calls() -> None:
    """An entry is done with the last call that carries a part of it."""
    items: Document = {"run_id": RUN.client_id, "tags": [pair(f"t{number}", "x") for number in range(5)]}
    steps = planned(post("logBatch", "runs/log-batch", items), metric(1), limits=BatchLimits(tags=2))

    assert done(steps) == [(), (), (1, 2)]


def test_a_step_costs_nothing_before_it_is_asked_for() -> None:
    """A lane that has to wait at its first step reads no further than that takes."""

    class Head(list[Entry]):
        def __iter__(self) -> Iterator[Entry]:
            yield self[0]
            yield self[1]
            pytest.fail("read beyond the head")

    first = next(iter(plan(RUN.key, Head(entries(EXCHANGES["updateRun"], metric(1), metric(2))), MLFLOW)))

    assert first.done == (1,)


def test_nothing_is_no_step() -> None:
    assert planned() == []


def test_an_empty_batch_is_done_without_a_call() -> None:
    empty = post("logBatch", "runs/log-batch", {"run_id": RUN.client_id})

    assert planned(empty) == [BatchStep(run=RUN, batch=Batch(done=(1,)), settled_at=0.1)]


choices = st.sampled_from([*EXCHANGES.values(), TORN, metric(7, PARENT.client_id)])
limits_of_all_sizes = st.builds(
    BatchLimits, metrics=st.integers(1, 3), params=st.integers(1, 3), tags=st.integers(1, 3), total=st.integers(1, 5)
)


@given(st.lists(choices, max_size=15), limits_of_all_sizes)
def test_every_entry_is_done_once_and_in_order(exchanges: list[Exchange], limits: BatchLimits) -> None:
    """Whatever a lane holds."""
    steps = planned(*exchanges, limits=limits)

    assert [seq for step in steps for seq in step.done] == [entry.seq for entry in entries(*exchanges)]


@given(st.lists(choices, max_size=15))
def test_only_items_of_a_batch_are_batched(exchanges: list[Exchange]) -> None:
    """Everything else is sent as it was, in its place."""
    steps = planned(*exchanges)
    single = [step.entry.exchange for step in steps if isinstance(step, SingleStep)]
    torn = [step.entry.exchange for step in steps if isinstance(step, UnreadableStep)]

    assert single == [exchange for exchange in exchanges if exchange.operation not in SHARED]
    assert torn == [exchange for exchange in exchanges if exchange is TORN]


def test_an_entrys_exchange_is_not_touched() -> None:
    """Translation is at delivery: a plan holds the client's ids."""
    entry = replace(entries(EXCHANGES["updateRun"])[0], attempted=True)
    (step,) = plan(RUN.key, [entry], MLFLOW)

    assert isinstance(step, SingleStep)
    assert step.entry is entry
    assert step.reading.document == orjson.loads(entry.exchange.body)
