"""Coalesced writes equal the originals: in values, in histories, and in order; and nothing is lost on the way."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import cast

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualtrack.core.coalesce import Batch, Items, coalesce, halve
from dualtrack.core.exchange import JSON, Document
from dualtrack.core.limits import MLFLOW, BatchLimits
from tests.support.model_server import ModelServer, RefusedError


def as_document(fields: Mapping[str, object]) -> Document:
    return cast("Document", dict(fields))


keys = st.sampled_from(["a", "b"])
texts = st.sampled_from(["", "x", "y", 'say "\\"', "ü\n", "long" * 60])
metrics = st.fixed_dictionaries(
    {
        "key": keys,
        "value": st.sampled_from([0, 1, 1.0, "1", "NaN"]),
        "timestamp": st.just(0),
        "step": st.integers(0, 1),
    },
    optional={"run_id": st.just("r"), "model_id": st.just("m-1"), "dataset_name": st.just("d")},
).map(as_document)
pairs = st.fixed_dictionaries({"key": keys, "value": texts}).map(as_document)


def several(items: st.SearchStrategy[Document]) -> st.SearchStrategy[tuple[Document, ...]]:
    return st.lists(items, max_size=6).map(tuple)


@st.composite
def writes(draw: st.DrawFn) -> Items:
    """One log-metric, log-parameter, set-tag or log-batch; its seq comes later."""
    match draw(st.sampled_from(["metric", "param", "tag", "batch"])):
        case "metric":
            return Items(seq=0, metrics=(draw(metrics),))
        case "param":
            return Items(seq=0, params=(draw(pairs),))
        case "tag":
            return Items(seq=0, tags=(draw(pairs),))
        case _:
            return Items(seq=0, metrics=draw(several(metrics)), params=draw(several(pairs)), tags=draw(several(pairs)))


@st.composite
def accepted(draw: st.DrawFn) -> list[Items]:
    """What a journal holds of a run: the writes that the primary took, numbered with gaps."""
    server, taken, seq = ModelServer(), list[Items](), 0
    for write in draw(st.lists(writes(), max_size=25)):
        seq += draw(st.integers(1, 3))
        trial = server.copy()
        try:
            trial.apply(write)
        except RefusedError:
            continue
        server = trial
        taken.append(Items(seq=seq, metrics=write.metrics, params=write.params, tags=write.tags))
    return taken


small = st.integers(1, 5)
limits_of_all_sizes = st.builds(
    BatchLimits,
    metrics=small,
    params=small,
    tags=small,
    total=st.integers(1, 8),
    rows_per_metric=small,
    body_bytes=st.integers(1, 3000),
) | st.just(MLFLOW)


def coalesced(writes: Sequence[Items], limits: BatchLimits) -> list[Batch]:
    return list(coalesce(writes, limits))


def played(batches: Sequence[Items | Batch], limits: BatchLimits = MLFLOW, times: int = 1) -> ModelServer:
    """A server that took each of `batches`, in order, `times` times."""
    server = ModelServer(limits)
    for batch in batches:
        for _ in range(times):
            server.apply(batch)
    return server


@given(accepted(), limits_of_all_sizes)
def test_coalesced_writes_equal_the_originals(originals: list[Items], limits: BatchLimits) -> None:
    """The promise: a server that takes the batches ends where one that takes the originals ends."""
    one_by_one = played(originals)
    in_batches = played(coalesced(originals, limits), limits)

    assert in_batches.state() == one_by_one.state()


@given(accepted(), limits_of_all_sizes)
def test_a_batch_sent_twice_changes_nothing(originals: list[Items], limits: BatchLimits) -> None:
    """A lost answer makes the worker repeat a batch; the sides stay equal (P2)."""
    assert played(coalesced(originals, limits), limits, times=2).state() == played(originals).state()


@given(accepted(), limits_of_all_sizes)
def test_every_batch_is_within_the_limits(originals: list[Items], limits: BatchLimits) -> None:
    """Counts, rows of one metric, and bytes; only a single item may be larger than a body should be."""
    for batch in coalesced(originals, limits):
        names = [metric["key"] for metric in batch.metrics]
        size = sum(len(orjson.dumps(item)) for item in (*batch.metrics, *batch.params, *batch.tags))

        assert len(batch.metrics) <= limits.metrics
        assert len(batch.params) <= limits.params
        assert len(batch.tags) <= limits.tags
        assert len(batch) <= limits.total
        assert all(names.count(name) <= limits.rows_per_metric for name in names)
        assert size <= limits.body_bytes or len(batch) == 1


@given(accepted(), limits_of_all_sizes)
def test_every_entry_is_done_once_and_in_order(originals: list[Items], limits: BatchLimits) -> None:
    done = [seq for batch in coalesced(originals, limits) for seq in batch.done]

    assert done == [write.seq for write in originals]


@given(accepted(), limits_of_all_sizes)
def test_what_is_done_has_arrived(originals: list[Items], limits: BatchLimits) -> None:
    """After each batch the server holds all of the entries done so far, and of later ones at most the next, in part."""
    behind = list(originals)
    before, server = ModelServer(), ModelServer()
    for batch in coalesced(originals, limits):
        server.apply(batch)
        for _ in batch.done:
            before.apply(behind.pop(0))
        upcoming = behind[0] if behind else Items(seq=0)
        after = before.copy()
        after.apply(upcoming)

        assert before.metrics <= server.metrics <= after.metrics
        assert before.model_metrics <= server.model_metrics <= after.model_metrics
        assert before.params.items() <= server.params.items() <= after.params.items()
        assert server.tags in tag_states(before, upcoming)


def tag_states(server: ModelServer, write: Items) -> list[dict[JSON, JSON]]:
    """The tags before, between and after the tags of `write`: what a reader may see, and nothing else."""
    one_by_one: list[dict[JSON, JSON]] = [{tag["key"]: tag["value"]} for tag in write.tags]
    return list(accumulate(one_by_one, lambda tags, tag: tags | tag, initial=dict(server.tags)))


def metric(step: int, key: str = "loss") -> Document:
    return {"key": key, "value": step / 2, "timestamp": 1_700_000_000_000 + step, "step": step}


@pytest.mark.parametrize(
    ("limits", "sizes"),
    [
        (MLFLOW, [1000, 500]),
        (BatchLimits(metrics=400), [400, 400, 400, 300]),
        (BatchLimits(total=700), [700, 700, 100]),
        (BatchLimits(rows_per_metric=600), [600, 600, 300]),
    ],
)
def test_many_metrics_take_few_calls(limits: BatchLimits, sizes: list[int]) -> None:
    """1,500 log-metric calls of one metric, in as few calls as the limits allow."""
    batches = coalesced([Items(seq=step, metrics=(metric(step),)) for step in range(1500)], limits)

    assert [len(batch) for batch in batches] == sizes


def test_a_batch_costs_nothing_before_it_is_asked_for() -> None:
    """A lane that has to wait reads no further than its first call, whatever the backlog."""
    taken = 0

    def writes() -> Iterator[Items]:
        nonlocal taken
        for taken in range(1, 1_000_000):
            yield Items(seq=taken, metrics=(metric(taken),))

    batch = next(coalesce(writes(), BatchLimits(metrics=10)))

    assert batch.done == tuple(range(1, 11))
    assert taken == 11


def test_a_bound_on_bytes_splits_too() -> None:
    tags = tuple[Document, ...]({"key": f"tag{number}", "value": "x" * 5000} for number in range(100))
    batches = coalesced([Items(seq=1, tags=tags)], BatchLimits(body_bytes=100_000))

    assert len(batches) == 6
    assert [batch.done for batch in batches] == [(), (), (), (), (), (1,)]


def test_a_replaced_tag_counts_against_the_bytes_too() -> None:
    """The estimate is from above; a tag that is set again starts a new batch rather than outgrow a body."""
    tags = [Items(seq=seq, tags=({"key": "t", "value": "x" * 500},)) for seq in (1, 2)]

    assert len(coalesced(tags, BatchLimits(body_bytes=1000))) == 2
    assert len(coalesced(tags, MLFLOW)) == 1


def test_a_changed_param_is_for_the_backend_to_judge() -> None:
    """It never shares a body with the first value: duplicate keys would refuse all the rest."""
    first: Document = {"key": "p", "value": "1"}
    other: Document = {"key": "p", "value": "2"}
    batches = coalesced([Items(seq=1, params=(first, first)), Items(seq=2, params=(other,))], MLFLOW)

    assert batches == [Batch(params=(first,), done=(1,)), Batch(params=(other,), done=(2,))]


def test_a_point_is_the_same_whether_or_not_it_names_its_run() -> None:
    """Clients since 3.1 repeat the run in each metric of a batch; a server refuses the two spellings in one body."""
    plain: Document = {**metric(0), "model_id": "m-1"}
    batches = coalesced([Items(seq=1, metrics=(plain,)), Items(seq=2, metrics=({**plain, "run_id": "r"},))], MLFLOW)

    assert batches == [Batch(metrics=(plain,), done=(1, 2))]


def test_writes_that_carry_nothing_are_done_with_the_next_batch() -> None:
    assert coalesced([], MLFLOW) == []
    assert coalesced([Items(seq=1), Items(seq=2)], MLFLOW) == [Batch(done=(1, 2))]
    assert coalesced([Items(seq=1), Items(seq=2, metrics=(metric(0),))], MLFLOW) == [
        Batch(metrics=(metric(0),), done=(1, 2))
    ]


def leaves(batch: Batch) -> list[Batch]:
    """The batch, halved as long as there is more than one item in it."""
    if len(batch) < 2:
        return [batch]
    first, second = halve(batch)
    return leaves(first) + leaves(second)


batches_of_items = st.builds(
    Batch,
    metrics=several(metrics),
    params=several(pairs),
    tags=several(pairs),
    done=st.lists(st.integers(), max_size=3).map(tuple),
)


@given(batches_of_items)
def test_halving_ends_in_single_items_and_loses_none(batch: Batch) -> None:
    """Bisecting finds the refused item; all the others arrive, params first, tags last."""
    single = leaves(batch)

    assert all(len(leaf) == 1 for leaf in single) or len(batch) == 0
    assert tuple(item for leaf in single for item in leaf.params) == batch.params
    assert tuple(item for leaf in single for item in leaf.metrics) == batch.metrics
    assert tuple(item for leaf in single for item in leaf.tags) == batch.tags
    kinds = [(bool(leaf.params), bool(leaf.metrics), bool(leaf.tags)) for leaf in single]
    assert kinds == sorted(kinds, reverse=True)


@given(batches_of_items)
def test_halves_are_done_only_at_the_very_end(batch: Batch) -> None:
    """A crash between two halves leaves the entries queued."""
    *earlier, last = leaves(batch)

    assert last.done == batch.done
    assert all(leaf.done == () for leaf in earlier)


@given(accepted())
def test_halves_equal_the_whole(originals: list[Items]) -> None:
    batches = coalesced(originals, MLFLOW)
    halved = [leaf for batch in batches for leaf in leaves(batch)]

    assert played(halved).state() == played(originals).state()
