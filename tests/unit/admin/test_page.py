"""What the status page says, from what is known: words, order and tones."""

from dataclasses import replace
from typing import Any

import pytest

from dualtrack.admin.page import Badge, Entity, Facts, make_page
from dualtrack.admin.status import BackendStatus, Status
from dualtrack.core.ids import BackendId, ClientId, EntityKind, Ref, Twin
from dualtrack.core.loss import LossKind
from dualtrack.core.standing import Standing, State
from dualtrack.ports import Loss, Parked, RecordedLoss, Usage

NOW = 1_700_000_000.0
RUN = Ref(EntityKind.RUN, ClientId("0123456789abcdef0123"))
A = BackendStatus(name="a", kind="mlflow", role="primary", url="http://u:hunter2@a.test", is_registry=True, up=True)
B = BackendStatus(name="b", kind="mlflow", role="secondary", url="http://b.test", is_registry=False, up=True)
USAGE = Usage(used_bytes=512, capacity_bytes=1024, entries=0, quarantined=0, is_full=False)
STATUS = Status(
    version="1.2.3",
    started_at=NOW - 60,
    ready=True,
    reason="ok",
    primary="a",
    registry="a",
    backends=(A, B),
    journal=USAGE,
    open_entries=0,
)
FACTS = Facts(now=NOW, status=STATUS, who={"a": "me"}, samples={}, runs=(), parked=(), drifting=(), losses=())
LETTER = Parked(
    parked_id=7,
    backend="b",
    key=RUN.key,
    operation="setTag",
    reason="refused",
    cause="HTTP 400",
    parked_at=NOW - 125,
    holds=True,
    next_step="mend it",
)


def with_backends(*backends: BackendStatus) -> Facts:
    return replace(FACTS, status=replace(STATUS, backends=backends))


def notices(facts: Facts) -> list[tuple[str, str]]:
    return [(notice.tone, notice.words) for notice in make_page(facts).notices]


def entity(standing: Standing | None = None, **fields: Any) -> Entity:
    twins = {"b": Twin(ref=RUN, backend="b", backend_id=BackendId("there"), name="of the map")}
    known = {} if standing is None else {"b": standing}
    return Entity(**{"ref": RUN, "twins": twins, "standings": known, "held": {}, **fields})


def compared(state: State, *, drift: int = 0, changed_at: float | None = None) -> Standing:
    return Standing(
        ref=RUN, backend="b", name="mine", compared_at=NOW - 5, changed_at=changed_at, state=state, drift=drift
    )


def badge(one: Entity) -> Badge | None:
    (row,) = make_page(replace(FACTS, runs=[one])).runs
    assert [side.backend for side in row.sides] == ["a", "b"]
    assert row.sides[0].badge is None
    return row.sides[1].badge


# --- the short answer -----------------------------------------------------------------------------------------------


def test_when_all_is_well_it_says_so() -> None:
    assert notices(FACTS) == [("good", "Nothing waits: all that was written arrived.")]


def test_one_backend_alone_mirrors_nothing() -> None:
    page = make_page(with_backends(A))

    assert [notice.tone for notice in page.notices] == ["quiet"]
    assert len(page.columns) == 1


@pytest.mark.parametrize(
    ("changes", "tone", "words"),
    [
        ({"entries": 1, "lag_seconds": 5.0}, "busy", "1 write on the way to b, the oldest for 5s."),
        ({"entries": 1200}, "busy", "1,200 writes on the way to b."),
        ({"up": False}, "bad", "b does not answer. Nothing waits for it."),
        (
            {"breaker": "open", "entries": 2},
            "bad",
            "b does not answer. 2 writes wait for it here, to go out when it is back.",
        ),
        (
            {"up": False, "entries": 1},
            "bad",
            "b does not answer. 1 write waits for it here, to go out when it is back.",
        ),
        ({"parked": 2}, "warn", "2 parked writes of b: a person has to decide."),
    ],
)
def test_what_is_wrong_with_a_secondary(changes: dict[str, Any], tone: str, words: str) -> None:
    assert notices(with_backends(A, replace(B, **changes))) == [(tone, words)]


def test_a_primary_that_is_away_is_told_first() -> None:
    (primary, secondary) = notices(with_backends(replace(A, up=False), replace(B, entries=1)))

    assert primary == ("bad", "a does not answer, and it is the primary: clients are told so.")
    assert secondary[0] == "busy"


def test_a_process_that_is_not_ready_says_why() -> None:
    facts = replace(FACTS, status=replace(STATUS, ready=False, reason="the journal is full"))

    assert notices(facts) == [("bad", "Not ready: the journal is full.")]


def test_the_journal_s_own_trouble_is_told() -> None:
    journal = replace(USAGE, is_full=True, quarantined=2)

    assert notices(replace(FACTS, status=replace(STATUS, journal=journal))) == [
        ("bad", "The journal is full: new writes reach the primary alone."),
        ("warn", "Set aside as damaged: 2 records. `dualtrack reconcile` mends what they held."),
    ]


def test_drift_is_told() -> None:
    facts = replace(FACTS, drifting=[compared(State.DRIFT, drift=1)])

    assert [tone for tone, _ in notices(facts)] == ["warn"]


# --- backends ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "tone", "words"),
    [
        ({}, "good", "up"),
        ({"up": False}, "bad", "down"),
        ({"up": None}, "quiet", "not asked yet"),
        ({"up": False, "breaker": "half-open"}, "busy", "trying whether it is back"),
        ({"up": False, "breaker": "open"}, "bad", "paused, asks again now"),
        ({"breaker": "open", "breaker_until": NOW + 90}, "bad", "paused, asks again in 1m 30s"),
        ({"breaker": "open", "breaker_until": NOW - 90}, "bad", "paused, asks again now"),
    ],
)
def test_states_of_a_backend(changes: dict[str, Any], tone: str, words: str) -> None:
    (_, (card,)) = make_page(with_backends(A, replace(B, **changes))).columns

    assert (card.badge.tone, card.badge.words) == (tone, words)


def test_cards_name_who_and_where_without_credentials() -> None:
    ((primary,), (secondary,)) = make_page(FACTS).columns

    assert (primary.roles, primary.home.href, primary.who) == ("primary, registry", "http://a.test", "me")
    assert primary.home.text == "a.test"
    assert (secondary.roles, secondary.who) == ("secondary", "not asked yet")
    assert primary.counts == ()
    assert primary.chart is None
    assert secondary.chart is not None


def test_meters_show_what_has_a_bound() -> None:
    (meter,) = make_page(FACTS).meters

    assert (meter.label, meter.words, meter.percent) == ("Journal", "512 B of 1.0 KiB", 50)


# --- entities ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "tone", "words"),
    [
        (entity(), "quiet", "not compared yet"),
        (entity(Standing(ref=RUN, backend="b", changed_at=NOW)), "quiet", "not compared yet"),
        (entity(compared(State.EQUAL)), "good", "equal"),
        (entity(compared(State.EXPLAINED)), "good", "differs as explained"),
        (entity(compared(State.EXPLAINED), lossy=frozenset({"b"})), "good", "equal but for recorded losses"),
        (entity(compared(State.EXPLAINED), lossy=frozenset({"c"})), "good", "differs as explained"),
        (entity(compared(State.DRIFT, drift=1234)), "warn", "differs (1,234)"),
        (entity(compared(State.DISCARDED)), "quiet", "left out"),
        (entity(compared(State.PENDING)), "busy", "pending"),
        (entity(compared(State.EQUAL, changed_at=NOW)), "quiet", "changed since compared"),
        (entity(compared(State.EQUAL), held={"b": False}), "busy", "pending"),
        (entity(compared(State.EQUAL), held={"b": True}), "warn", "held by a parked write"),
        (
            entity(
                compared(State.EQUAL),
                held={"b": False},
                twins={"b": Twin(ref=RUN, backend="b", backend_id=BackendId(""))},
            ),
            "quiet",
            "left out",
        ),
    ],
)
def test_how_a_run_stands(one: Entity, tone: str, words: str) -> None:
    """What waits goes before what was compared, and an old comparison is not shown as if it were of now."""
    shown = badge(one)

    assert shown is not None
    assert (shown.tone, shown.words) == (tone, words)


def test_both_links_side_by_side() -> None:
    (row,) = make_page(replace(FACTS, runs=[entity(compared(State.EQUAL))])).runs

    assert row.name == "mine"
    links = [side.link for side in row.sides]
    assert [link and (link.text, link.full, link.href) for link in links] == [
        ("0123456789ab…", RUN.client_id, f"http://a.test/#/runs/{RUN.client_id}"),
        ("there", "there", "http://b.test/#/runs/there"),
    ]


def test_what_is_not_there_has_no_link() -> None:
    (row,) = make_page(replace(FACTS, runs=[entity(twins={})])).runs

    assert (row.name, row.sides[1].link) == ("", None)


def test_nothing_found_is_not_the_same_as_nothing_asked() -> None:
    assert make_page(FACTS).found is None
    assert make_page(replace(FACTS, query="x", found=())).found == ()


# --- lists ------------------------------------------------------------------------------------------------------------


def test_a_parked_write() -> None:
    page = make_page(replace(with_backends(A, replace(B, parked=3)), parked=[LETTER]))

    (row,) = page.parked
    assert (row.number, row.reason, row.cause, row.next_step) == (7, "refused", "HTTP 400", "mend it")
    assert (row.waited, row.at, row.holds) == ("2m 5s", "2023-11-14 22:11:15Z", True)
    assert (row.own.full, row.own.href) == (RUN.client_id, f"/?q={RUN.client_id}")
    assert page.parked_more == 2


def test_a_command_is_safe_to_copy() -> None:
    """An id may hold what a shell would run."""
    ref = Ref(EntityKind.MODEL, ClientId("x; rm -rf ~ 'y"))
    standing = replace(compared(State.DRIFT, drift=2), ref=ref)

    (row,) = make_page(replace(FACTS, drifting=[standing])).drifting

    assert row.command == "dualtrack verify --run 'x; rm -rf ~ '\"'\"'y'"
    assert row.own.href == "/?q=x%3B%20rm%20-rf%20~%20%27y"
    assert (row.kind, row.count, row.compared) == ("model", 2, "5s")


def test_losses_name_what_and_why() -> None:
    loss = Loss(kind=LossKind.PARAM, item="depth", reason="too_long", detail="kept 250 characters")
    row = RecordedLoss(loss_id=1, backend="b", key=RUN.key, loss=loss, times=2)
    page = make_page(replace(with_backends(A, replace(B, losses=9)), losses=[row]))

    (shown,) = page.losses
    assert (shown.kind, shown.own.full, shown.item) == ("run", RUN.client_id, "param depth")
    assert (shown.reason, shown.detail, shown.times) == ("too_long", "kept 250 characters", 2)
    assert page.losses_total == 9
