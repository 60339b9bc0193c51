"""What is remembered of comparisons: the latest, bounded, and counted for the alert."""

import pytest

from dualtrack.core.ids import ClientId, EntityKind, Ref
from dualtrack.core.standing import State
from dualtrack.metrics import Metrics
from dualtrack.reconcile.standings import Standings


def run(name: str) -> Ref:
    return Ref(EntityKind.RUN, ClientId(name))


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def standings(metrics: Metrics) -> Standings:
    return Standings(metrics, kept=3)


def drifting(metrics: Metrics) -> float:
    return metrics.registry.get_sample_value("dualtrack_drifting_entities", {"backend": "b", "kind": "run"}) or 0.0


def test_a_comparison_is_stale_once_something_more_arrived(standings: Standings) -> None:
    standings.changed("run:1", "b", 10.0)
    row = standings.of(run("1"), "b")
    assert row is not None
    assert row.is_stale
    standings.compared(run("1"), "b", 11.0, State.EQUAL, name="one")
    row = standings.of(run("1"), "b")
    assert row is not None
    assert (row.state, row.name, row.is_stale) == (State.EQUAL, "one", False)
    standings.changed("run:1", "b", 12.0)
    row = standings.of(run("1"), "b")
    assert row is not None
    assert row.is_stale


def test_a_comparison_that_had_to_wait_says_nothing_new(standings: Standings) -> None:
    standings.compared(run("1"), "b", 11.0, State.DRIFT, drift=2)
    standings.compared(run("1"), "b", 12.0, State.PENDING)
    row = standings.of(run("1"), "b")
    assert row is not None
    assert (row.state, row.drift, row.compared_at) == (State.DRIFT, 2, 11.0)


def test_the_gauge_follows_what_drifts_now(standings: Standings, metrics: Metrics) -> None:
    standings.compared(run("1"), "b", 1.0, State.DRIFT, drift=1)
    standings.compared(run("2"), "b", 1.0, State.DRIFT, drift=1)
    assert drifting(metrics) == 2
    assert [row.ref for row in standings.drifting("b")] == [run("2"), run("1")]
    assert not standings.drifting("c")
    standings.compared(run("1"), "b", 2.0, State.EQUAL)
    assert drifting(metrics) == 1


def test_what_drifts_stays_while_there_is_anything_else_to_forget(standings: Standings, metrics: Metrics) -> None:
    standings.compared(run("1"), "b", 1.0, State.DRIFT, drift=1)
    for name in ("2", "3", "4"):
        standings.changed(f"run:{name}", "b", 2.0)
    assert standings.of(run("1"), "b") is not None
    assert standings.of(run("2"), "b") is None
    assert drifting(metrics) == 1
    for name in ("5", "6", "7"):
        standings.compared(run(name), "b", 3.0, State.DRIFT, drift=1)
    assert standings.of(run("1"), "b") is None
    assert drifting(metrics) == 3


def test_recent_names_each_entity_once_newest_first(standings: Standings) -> None:
    standings.changed("run:1", "b", 1.0)
    standings.changed("run:1", "c", 1.0)
    standings.changed("experiment:1", "b", 1.0)
    assert standings.recent(EntityKind.RUN, 10) == [run("1")]
    standings.changed("run:2", "b", 2.0)
    standings.changed("run:1", "b", 3.0)
    assert standings.recent(EntityKind.RUN, 10) == [run("1"), run("2")]
    assert standings.recent(EntityKind.RUN, 1) == [run("1")]
