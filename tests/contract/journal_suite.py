"""What every journal keeps to, whichever engine stands behind the port: one suite, one fixture `shelf` per engine.

A test module of an engine defines `shelf` and inherits these classes under names that pytest collects.
"""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from dualtrack.core.entry import FINAL, TRANSITIONS, Entry, Event, OpenEntry, State, advance
from dualtrack.core.exchange import Exchange
from dualtrack.core.ids import BackendId, EntityKind
from dualtrack.core.loss import LossKind
from dualtrack.errors import JournalError, JournalFullError, RegistryEntryError
from dualtrack.ports import ArtifactNote, Journal, Lane, Loss, Parking, Progress, Settlement
from tests.support.journals import Shelf, fill, keep, keep_exchange
from tests.support.writes import create, experiment, note, run, twin

MUCH = 1 << 30


def texts(entries: list[Entry]) -> list[str]:
    return [entry.exchange.body.decode() for entry in entries]


def lane(key: str, backend: str = "b") -> Lane:
    return Lane(backend=backend, key=key, attempts=0)


async def read(journal: Journal, key: str, backend: str = "b") -> list[str]:
    """The texts that a lane would deliver now."""
    return texts(await journal.read(lane(key, backend), MUCH))


async def deliver(journal: Journal, key: str, backend: str = "b", *, next_at: float = 0.0) -> list[str]:
    """Take all that a lane holds as delivered."""
    entries = await journal.read(lane(key, backend), MUCH)
    done = tuple(entry.seq for entry in entries)
    await journal.record(Progress(backend=backend, key=key, done=done, next_at=next_at))
    return texts(entries)


async def claimed(journal: Journal, now: float, *, limit: int = 10, backend: str = "b") -> list[str]:
    return [found.key for found in await journal.claim(backend, limit, now)]


async def park(journal: Journal, key: str, *, holds: bool, reason: str = "refused", cause: str = "no") -> int:
    """Park the head of a lane, with the file that it needs; give the dead letter's id."""
    head = (await journal.read(lane(key), MUCH))[0]
    parking = Parking(seq=head.seq, exchange=head.exchange, reason=reason, cause=cause, holds=holds, spool=head.spool)
    await journal.record(Progress(backend="b", key=key, done=(head.seq,), parkings=(parking,)))
    return (await journal.parked())[0].parked_id


async def upload(journal: Journal, key: str, path: str, *, spool: str = "", sha256: str = "5a", size: int = 1) -> int:
    """Write a file as the hot path does; its copy was promised under the name `promised`."""
    entry_id = await journal.open(note(path), "promised")
    artifact = ArtifactNote(path=path, size=size, sha256=sha256, spool=spool)
    await journal.settle(Settlement(entry_id=entry_id, key=key, artifact=artifact))
    return entry_id


def key_of(exchange: Exchange) -> str | None:
    """Notes belong to lane `run:1`; a create has no lane yet."""
    return "run:1" if exchange.operation == "logMetric" else None


class Intake:
    """Open, settle, refuse: what the hot path does."""

    async def test_a_settled_write_is_read_as_it_happened(self, shelf: Shelf) -> None:
        journal = await shelf.open()
        exchange = Exchange(
            operation="createRun", method="POST", path="/api/x", query="a=%2F&b=", body=b"\x00\n\t", answer=b"\n{}"
        )

        await keep_exchange(journal, "run:1", exchange)

        (entry,) = await journal.read(lane("run:1"), MUCH)
        assert entry.exchange == exchange
        assert entry.settled_at == shelf.now
        assert not entry.attempted

    async def test_an_open_write_is_delivered_to_nobody(self, shelf: Shelf) -> None:
        journal = await shelf.open()

        entry_id = await journal.open(note("open"))

        assert await claimed(journal, shelf.now) == []
        assert await journal.opened(entry_id) == note("open")

    async def test_a_refused_write_leaves_nothing(self, shelf: Shelf) -> None:
        journal = await shelf.open()
        entry_id = await journal.open(note("refused"))

        journal.refuse(entry_id)
        await keep(journal, "run:1", "after")

        assert await journal.opened(entry_id) is None
        assert await read(journal, "run:1") == ["after"]
        assert await journal.left_open(key_of) == []

    async def test_a_settled_write_is_not_open_any_more(self, shelf: Shelf) -> None:
        journal = await shelf.open()

        entry_id = await keep(journal, "run:1", "settled")

        assert await journal.opened(entry_id) is None

    async def test_settling_can_replace_what_was_opened_and_learn_ids_at_once(self, shelf: Shelf) -> None:
        """A create is kept with the primary's answer, and the primary's own row of the map comes with it."""
        journal = await shelf.open()
        entry_id = await journal.open(create("sent"))
        answered, made = create("sent", "answer"), twin(run("1"), "a", "1", root="s3://1")

        await journal.settle(Settlement(entry_id=entry_id, key="run:1", exchange=answered, twins=(made,)))

        assert [entry.exchange for entry in await journal.read(lane("run:1"), MUCH)] == [answered]
        assert await journal.twin(run("1"), "a") == made

    async def test_writes_go_in_the_order_of_their_acknowledgement(self, shelf: Shelf) -> None:
        """P4: settled, not opened, is what counts."""
        journal = await shelf.open()
        first, second = await journal.open(note("opened first")), await journal.open(note("opened second"))

        await journal.settle(Settlement(entry_id=second, key="run:1"))
        await journal.settle(Settlement(entry_id=first, key="run:1"))

        assert await read(journal, "run:1") == ["opened second", "opened first"]

    async def test_many_writes_at_once_keep_their_order_in_each_lane(self, shelf: Shelf) -> None:
        journal = await shelf.open()

        async def writer(key: str) -> None:
            for number in range(40):
                await keep(journal, key, str(number))

        async with asyncio.TaskGroup() as group:
            for key in range(5):
                group.create_task(writer(f"run:{key}"))

        for key in range(5):
            assert await read(journal, f"run:{key}") == [str(number) for number in range(40)]

    async def test_a_place_that_is_taken_already_is_a_journal_error(self, shelf: Shelf) -> None:
        journal = await shelf.open()
        await keep(journal, "run:1", "there")
        (entry,) = await journal.read(lane("run:1"), MUCH)
        entry_id = await journal.open(note("late"))

        with pytest.raises(JournalError):
            await journal.settle(Settlement(entry_id=entry_id, key="run:1", seq=entry.seq))

        assert await read(journal, "run:1") == ["there"]
        assert await journal.opened(entry_id) == note("late")

    async def test_a_registry_call_is_refused(self, shelf: Shelf) -> None:
        """P6: no journal holds a write for a registry."""
        journal = await shelf.open(registry=frozenset({"createModelVersion"}))
        call = Exchange(operation="createModelVersion", method="POST", path="/api/2.0/mlflow/model-versions/create")

        with pytest.raises(RegistryEntryError, match="createModelVersion"):
            await journal.open(call)

        assert await journal.left_open(key_of) == []


class Doubts:
    """Writes whose outcome at the primary is not known keep their place."""

    async def test_nothing_beyond_a_place_is_read_until_it_is_settled(self, shelf: Shelf) -> None:
        journal = await shelf.open()
        await keep(journal, "run:1", "before")
        doubtful = journal.doubt(await journal.open(note("in doubt")), "run:1")
        await keep(journal, "run:1", "after")
        held = await read(journal, "run:1")

        await journal.settle(Settlement(entry_id=doubtful.entry_id, key="run:1", seq=doubtful.seq))

        assert held == ["before"]
        assert await read(journal, "run:1") == ["before", "in doubt", "after"]

    async def test_a_place_given_up_holds_nothing_back(self, shelf: Shelf) -> None:
        journal = await shelf.open()
        doubtful = journal.doubt(await journal.open(note("refused after all")), "run:1")
        await keep(journal, "run:1", "after")
        held = await read(journal, "run:1")

        journal.refuse(doubtful.entry_id)
        journal.give_up_place("run:1", doubtful.seq)

        assert held == []
        assert await read(journal, "run:1") == ["after"]

    async def test_the_first_of_several_places_is_the_one_that_counts(self, shelf: Shelf) -> None:
        journal = await shelf.open()
        first = journal.doubt(await journal.open(note("first")), "run:1")
        await keep(journal, "run:1", "between")
        second = journal.doubt(await journal.open(note("second")), "run:1")
        await keep(journal, "run:1", "last")

        journal.give_up_place("run:1", second.seq)
        held = await read(journal, "run:1")
        journal.give_up_place("run:1", first.seq)

        assert held == []
        assert await read(journal, "run:1") == ["between", "last"]

    async def test_what_is_queued_is_not_refused_any_more(self, shelf: Shelf) -> None:
        journal = await shelf.open()
        doubtful = journal.doubt(await journal.open(note("in doubt")), "run:1")
        await journal.settle(Settlement(entry_id=doubtful.entry_id, key="run:1", seq=doubtful.seq))

        journal.refuse(doubtful.entry_id)
        await journal.set_aside(doubtful.entry_id, "run:1", "too late")

        assert await read(journal, "run:1") == ["in doubt"]
        assert (await journal.usage()).quarantined == 0

    async def test_what_is_set_aside_is_open_no_more(self, shelf: Shelf) -> None:
        journal = await shelf.open()
        doubtful = journal.doubt(await journal.open(note("in doubt")), "run:1")

        await journal.set_aside(doubtful.entry_id, "run:1", "cannot be judged")

        assert await journal.opened(doubtful.entry_id) is None
        assert (await journal.usage()).quarantined == 1

    async def test_a_place_holds_its_own_lane_only(self, shelf: Shelf) -> None:
        journal = await shelf.open()
        journal.doubt(await journal.open(note("in doubt")), "run:1")

        await keep(journal, "run:2", "elsewhere")

        assert await read(journal, "run:2") == ["elsewhere"]

    async def test_a_write_in_doubt_is_older_than_what_came_after_it_in_other_lanes(self, shelf: Shelf) -> None:
        journal = await shelf.open()
        doubtful = journal.doubt(await journal.open(note("in doubt")), "run:1")
        doubted_at, later = shelf.now, shelf.now + 1

        assert await journal.has_older("b", "experiment:1", later)
        assert await journal.has_older("b", "experiment:1", later, EntityKind.RUN)
        assert not await journal.has_older("b", "experiment:1", later, EntityKind.EXPERIMENT)
        assert not await journal.has_older("b", "experiment:1", doubted_at)
        assert not await journal.has_older("b", "run:1", later)
        assert await journal.is_at_rest("b")  # nothing is queued

        journal.refuse(doubtful.entry_id)
        journal.give_up_place("run:1", doubtful.seq)
        assert not await journal.has_older("b", "experiment:1", later)

    async def test_there_is_no_moment_at_which_a_doubt_that_is_settled_is_not_older(self, shelf: Shelf) -> None:
        journal = await shelf.open()
        doubtful = journal.doubt(await journal.open(note("in doubt")), "run:1")
        settlement = Settlement(entry_id=doubtful.entry_id, key="run:1", seq=doubtful.seq)

        async with asyncio.TaskGroup() as group:
            settling = group.create_task(journal.settle(settlement))
            while not settling.done():
                assert await journal.has_older("b", "experiment:1", shelf.now + 1)
                await asyncio.sleep(0)

        assert await journal.has_older("b", "experiment:1", shelf.now + 1)

    @pytest.mark.parametrize("end", ["settle", "refuse", "give up"])
    async def test_a_create_in_doubt_is_older_than_what_came_after_it(self, shelf: Shelf, end: str) -> None:
        """Whatever it made is of no lane that anybody knows: it counts where all lanes do."""
        journal = await shelf.open()
        doubtful = journal.doubt(await journal.open(create("made?")), None)
        doubted_at, later = shelf.now, shelf.now + 1
        shelf.now += 10

        assert await journal.has_older("b", "experiment:1", later)
        assert not await journal.has_older("b", "experiment:1", later, EntityKind.RUN)
        assert not await journal.has_older("b", "experiment:1", doubted_at)

        match end:
            case "settle":
                await journal.settle(
                    Settlement(
                        entry_id=doubtful.entry_id, key="run:1", seq=doubtful.seq, twins=(twin(run("1"), "a", "1"),)
                    )
                )
                assert [entry.settled_at for entry in await journal.read(lane("run:1"), MUCH)] == [doubted_at]
                await deliver(journal, "run:1")
            case "refuse":
                journal.refuse(doubtful.entry_id)
            case _:
                journal.give_up_place("", doubtful.seq)
        assert not await journal.has_older("b", "experiment:1", later)

    async def test_a_doubtful_create_holds_nobody(self, shelf: Shelf) -> None:
        journal = await shelf.open()

        doubtful = journal.doubt(await journal.open(create("made?")), None)
        await keep(journal, "run:1", "another run")

        assert doubtful.key is None
        assert await read(journal, "run:1") == ["another run"]

    async def test_a_part_of_a_doubtful_write_can_be_settled(self, shelf: Shelf) -> None:
        journal = await shelf.open()
        doubtful = journal.doubt(await journal.open(note("all")), "run:1")

        await journal.settle(
            Settlement(entry_id=doubtful.entry_id, key="run:1", exchange=note("half"), seq=doubtful.seq)
        )

        assert await read(journal, "run:1") == ["half"]

    async def test_a_settled_doubt_is_as_old_as_its_place(self, shelf: Shelf) -> None:
        """What waits for older writes of other lanes does not pass those behind it either, whatever is tried first."""
        journal = await shelf.open()
        doubtful = journal.doubt(await journal.open(note("in doubt")), "run:1")
        placed_at = shelf.now
        shelf.now += 10
        await keep(journal, "run:1", "after")
        deleted_at = shelf.now = shelf.now + 10
        shelf.now += 10

        await journal.settle(Settlement(entry_id=doubtful.entry_id, key="run:1", seq=doubtful.seq))
        right_away = await journal.has_older("b", "experiment:1", placed_at + 5)
        await journal.record(Progress(backend="b", key="run:1", next_at=shelf.now, attempts=1, error="HTTP 503"))

        assert right_away
        assert await journal.has_older("b", "experiment:1", placed_at + 5)
        assert not await journal.has_older("b", "experiment:1", placed_at)
        assert [entry.settled_at for entry in await journal.read(lane("run:1"), MUCH)] == [placed_at, placed_at + 10]
        assert await journal.has_older("b", "experiment:1", deleted_at)


class Lanes:
    """Claim, lease, due times: how work is handed out."""

    async def test_lanes_are_claimed_the_longest_due_first(self, shelf: Shelf) -> None:
        journal = await shelf.open()
        for key in ("run:1", "run:2", "run:3"):
            await keep(journal, key, "x")
            shelf.now += 1

        assert await claimed(journal, shelf.now, limit=2) == ["run:1", "run:2"]
        assert await claimed(journal, shelf.now) == ["run:3"]

    async def test_a_leased_lane_is_claimed_by_nobody_until_released(self, shelf: Shelf) -> None:
        journal = await shelf.open()
        await keep(journal, "run:1", "x")
        (leased,) = await journal.claim("b", 1, shelf.now)
        meanwhile = await claimed(journal, shelf.now), await journal.next_due("b")

        journal.release(leased)

        assert meanwhile == ([], None)
        assert await claimed(journal, shelf.now) == ["run:1"]

    async def test_leased_lanes_do_not_hide_those_behind_them(self, shelf: Shelf) -> None:
        journal = await shelf.open()
        for key in range(6):
            await keep(journal, f"run:{key}", "x")

        found = [await claimed(journal, shelf.now, limit=2) for _ in range(4)]

        assert sorted(key for keys in found for key in keys) == [f"run:{key}" for key in range(6)]
        assert found[3] == []

    async def test_nothing_is_claimed_when_nothing_is_asked_for(self, shelf: Shelf) -> None:
        journal = await shelf.open()
        await keep(journal, "run:1", "x")

        assert await claimed(journal, shelf.now, limit=0) == []

    async def test_a_lane_lingers_so_that_writes_gather(self, shelf: Shelf) -> None:
        journal = await shelf.open(linger=0.5)
        calls: list[float] = []
        journal.on_due(calls.append)

        await keep(journal, "run:1", "x")

        assert await claimed(journal, shelf.now) == []
        assert await journal.next_due("b") == shelf.now + 0.5
        assert calls == [shelf.now + 0.5]
        assert await claimed(journal, shelf.now + 0.5) == ["run:1"]

    async def test_a_create_does_not_linger(self, shelf: Shelf) -> None:
        """Others wait for what it makes."""
        journal = await shelf.open(linger=60.0)
        entry_id = await journal.open(create("x"))

        made = twin(run("1"), "a", "1")
        await journal.settle(Settlement(entry_id=entry_id, key="run:1", exchange=create("x", "y"), twins=(made,)))

        assert await claimed(journal, shelf.now) == ["run:1"]

    async def test_a_failed_attempt_puts_the_lane_off_and_is_counted(self, shelf: Shelf) -> None:
        journal = await shelf.open()
        await keep(journal, "run:1", "x")

        await journal.record(Progress(backend="b", key="run:1", next_at=shelf.now + 30, attempts=3, error="down"))

        assert await claimed(journal, shelf.now + 29) == []
        assert await journal.next_due("b") == shelf.now + 30
        assert await journal.claim("b", 1, shelf.now + 30) == [Lane(backend="b", key="run:1", attempts=3)]

    async def test_a_new_write_does_not_shorten_the_wait(self, shelf: Shelf) -> None:
        journal = await shelf.open()
        await keep(journal, "run:1", "x")
        await journal.record(Progress(backend="b", key="run:1", next_at=shelf.now + 30, attempts=1))

        await keep(journal, "run:1", "y")

        assert await journal.next_due("b") == shelf.now + 30

    async def test_what_is_done_is_gone_and_the_rest_stays_in_order(self, shelf: Shelf) -> None:
        journal = await shelf.open()
        for text in ("one", "two", "three"):
            await keep(journal, "run:1", text)
        entries = await journal.read(lane("run:1"), MUCH)

        await journal.record(Progress(backend="b", key="run:1", done=(entries[0].seq, entries[2].seq), next_at=7.0))

        assert await read(journal, "run:1") == ["two"]
        assert await journal.next_due("b") == 7.0

    async def test_a_lane_with_nothing_left_ends(self, shelf: Shelf) -> None:
        journal = await shelf.open()
        await keep(journal, "run:1", "x")
        before = await journal.is_pending("b", "run:1")

        await deliver(journal, "run:1")

        assert before
        assert not await journal.is_pending("b", "run:1")
        assert await journal.next_due("b") is None

    async def test_a_lane_that_waits_for_another_is_due_when_that_moves(self, shelf: Shelf) -> None:
        journal = await shelf.open()
        await keep(journal, "run:parent", "create")
        await keep(journal, "run:child", "create")
        await journal.record(Progress(backend="b", key="run:child", next_at=shelf.now + 60, waiting_for="run:parent"))
        waiting = await claimed(journal, shelf.now)

        await deliver(journal, "run:parent")

        assert waiting == ["run:parent"]
        assert await claimed(journal, shelf.now) == ["run:child"]

    async def test_a_lane_that_waits_for_what_arrived_meanwhile_is_due_at_once(self, shelf: Shelf) -> None:
        journal = await shelf.open()
        await keep(journal, "run:child", "create")

        await journal.record(Progress(backend="b", key="run:child", next_at=shelf.now + 60, waiting_for="run:parent"))

        assert await claimed(journal, shelf.now) == ["run:child"]

    async def test_a_learned_id_wakes_who_waits_for_it(self, shelf: Shelf) -> None:
        journal = await shelf.open()
        await keep(journal, "run:parent", "create")
        await journal.claim("b", 1, shelf.now)
        await keep(journal, "run:child", "create")
        await journal.record(Progress(backend="b", key="run:child", next_at=shelf.now + 60, waiting_for="run:parent"))

        await journal.learn([twin(run("parent"), "b", "p")])

        assert await claimed(journal, shelf.now) == ["run:child"]

    async def test_a_read_is_bounded_and_never_empty(self, shelf: Shelf) -> None:
        """P8: a lane's head fits in memory; one entry larger than the bound is read alone."""
        journal = await shelf.open()
        for letter in "abc":
            await keep(journal, "run:1", letter * 1000)

        assert len(await journal.read(lane("run:1"), 2500)) == 2
        assert len(await journal.read(lane("run:1"), 1)) == 1

    async def test_an_attempt_is_remembered(self, shelf: Shelf) -> None:
        """A create whose answer was lost is looked for before it is sent again, also after a restart."""
        journal = await shelf.open()
        await keep(journal, "run:1", "create")
        (entry,) = await journal.read(lane("run:1"), MUCH)

        await journal.mark_attempted(lane("run:1"), entry.seq)
        journal = await shelf.reopen()

        assert [found.attempted for found in await journal.read(lane("run:1"), MUCH)] == [True]

    async def test_a_lease_ends_with_its_journal(self, shelf: Shelf) -> None:
        journal = await shelf.open()
        await keep(journal, "run:1", "x")
        await journal.claim("b", 1, shelf.now)

        journal = await shelf.reopen()

        assert await claimed(journal, shelf.now) == ["run:1"]


class Secondaries:
    """Several backends get the same writes, each at its own pace."""

    async def test_an_entry_goes_when_all_have_it(self, shelf: Shelf) -> None:
        journal = await shelf.open(secondaries=("b", "c"))
        await keep(journal, "run:1", "x")

        await deliver(journal, "run:1", "b")

        assert await read(journal, "run:1", "b") == []
        assert await deliver(journal, "run:1", "c") == ["x"]
        assert (await journal.usage()).entries == 0

    async def test_a_slow_backend_takes_nothing_from_another(self, shelf: Shelf) -> None:
        journal = await shelf.open(secondaries=("b", "c"))
        await keep(journal, "run:1", "x")

        await journal.record(Progress(backend="b", key="run:1", next_at=shelf.now + 60, attempts=1))

        assert await claimed(journal, shelf.now, backend="b") == []
        assert await claimed(journal, shelf.now, backend="c") == ["run:1"]

    async def test_ids_and_backlogs_are_kept_apart(self, shelf: Shelf) -> None:
        journal = await shelf.open(secondaries=("b", "c"))
        await keep(journal, "run:1", "x")

        seqs = tuple(entry.seq for entry in await journal.read(lane("run:1"), MUCH))
        twins = (twin(run("1"), "b", "on-b"),)
        await journal.record(Progress(backend="b", key="run:1", done=seqs, twins=twins))

        assert [(each.backend, each.entries) for each in await journal.backlogs()] == [("b", 0), ("c", 1)]
        assert await journal.twin(run("1"), "c") is None


class Outcomes:
    """Progress commits with the ids it revealed; what cannot be delivered is parked or recorded as a loss."""

    async def test_ids_come_with_the_outcome(self, shelf: Shelf) -> None:
        journal = await shelf.open()
        await keep(journal, "run:1", "create")
        (entry,) = await journal.read(lane("run:1"), MUCH)
        made = twin(run("1"), "b", "on-b", root="s3://b/1")

        await journal.record(Progress(backend="b", key="run:1", done=(entry.seq,), twins=(made,)))
        journal = await shelf.reopen()

        assert await journal.twin(run("1"), "b") == made
        assert await read(journal, "run:1") == []

    async def test_a_refused_write_holds_back_nothing(self, shelf: Shelf) -> None:
        journal = await shelf.open()
        await keep(journal, "run:1", "bad")
        await keep(journal, "run:1", "good")

        parked_id = await park(journal, "run:1", holds=False, reason="refused", cause="HTTP 400 too long")

        assert await claimed(journal, shelf.now) == ["run:1"]
        assert await read(journal, "run:1") == ["good"]
        (letter,) = await journal.parked(parked_id)
        assert (letter.operation, letter.reason, letter.cause) == ("logMetric", "refused", "HTTP 400 too long")
        assert letter.exchange == note("bad")
        assert f"parked retry {parked_id}" in letter.next_step

    async def test_a_parked_create_holds_its_lane(self, shelf: Shelf) -> None:
        journal = await shelf.open()
        await keep_exchange(journal, "run:1", create("bad"))
        await keep(journal, "run:1", "waits")

        await park(journal, "run:1", holds=True)
        await keep(journal, "run:1", "waits too")

        assert await claimed(journal, shelf.now + 3600) == []
        assert await journal.next_due("b") is None
        assert await journal.is_pending("b", "run:1")
        (backlog,) = await journal.backlogs()
        assert (backlog.held_lanes, backlog.parked, backlog.entries, backlog.oldest_at) == (1, 1, 2, None)

    async def test_who_waits_for_something_held_in_the_end_is_stuck(self, shelf: Shelf) -> None:
        """Whoever waits for lanes to be empty learns which of them never will be without a person."""
        journal = await shelf.open()
        for name in ("held", "child", "grandchild", "free"):
            await keep_exchange(journal, f"run:{name}", create("x"))
        await park(journal, "run:held", holds=True)
        for name, waited_for in (("child", "held"), ("grandchild", "child")):
            key, later = f"run:{name}", shelf.now + 60
            await journal.record(Progress(backend="b", key=key, next_at=later, waiting_for=f"run:{waited_for}"))

        keys = [f"run:{name}" for name in ("held", "child", "grandchild", "free", "empty")]
        found = await journal.waiting("b", keys)
        is_at_rest = await journal.is_at_rest("b")
        await deliver(journal, "run:free")

        assert found == {"run:held": True, "run:child": True, "run:grandchild": True, "run:free": False}
        assert not is_at_rest
        assert await journal.is_at_rest("b")

    async def test_a_retried_create_goes_first_and_is_looked_for(self, shelf: Shelf) -> None:
        journal = await shelf.open()
        await keep_exchange(journal, "run:1", create("create"))
        await keep(journal, "run:1", "follows")
        parked_id = await park(journal, "run:1", holds=True)

        done = await journal.retry_parked(parked_id, shelf.now)

        assert done
        assert await claimed(journal, shelf.now) == ["run:1"]
        entries = await journal.read(lane("run:1"), MUCH)
        assert [(entry.exchange.body, entry.attempted) for entry in entries] == [(b"create", True), (b"follows", False)]
        assert await journal.parked() == []

    async def test_a_retry_of_one_letter_leaves_a_lane_held_by_another(self, shelf: Shelf) -> None:
        journal = await shelf.open()
        await keep_exchange(journal, "run:1", create("one"))
        await keep_exchange(journal, "run:1", create("two"))
        first, second = await park(journal, "run:1", holds=True), await park(journal, "run:1", holds=True)

        await journal.retry_parked(second, shelf.now)
        held = await claimed(journal, shelf.now)
        await journal.retry_parked(first, shelf.now)

        assert held == []
        assert await claimed(journal, shelf.now) == ["run:1"]
        assert await read(journal, "run:1") == ["one", "two"]

    async def test_several_parts_of_one_write_can_be_parked_and_retried(self, shelf: Shelf) -> None:
        """A batch is parked item by item, at one place in its lane."""
        journal = await shelf.open()
        await keep(journal, "run:1", "batch")
        (entry,) = await journal.read(lane("run:1"), MUCH)
        parkings = tuple(
            Parking(seq=entry.seq, exchange=note(text), reason="refused", cause="no") for text in ("item 1", "item 2")
        )
        await journal.record(Progress(backend="b", key="run:1", done=(entry.seq,), parkings=parkings))

        for letter in await journal.parked():
            await journal.retry_parked(letter.parked_id, shelf.now)

        assert sorted(await read(journal, "run:1")) == ["item 1", "item 2"]

    async def test_a_retried_letter_is_no_younger_than_what_follows_it(self, shelf: Shelf) -> None:
        """A lane is as old as its head: what waits for older writes of other lanes waits for those that follow, too."""
        journal = await shelf.open()
        await keep(journal, "run:1", "bad")
        parked_id = await park(journal, "run:1", holds=False)
        shelf.now += 10
        await keep(journal, "run:1", "good")
        followed_at = shelf.now
        shelf.now += 10

        await journal.retry_parked(parked_id, shelf.now)
        await journal.record(Progress(backend="b", key="run:1", next_at=shelf.now, attempts=1, error="HTTP 503"))

        retried, followed = await journal.read(lane("run:1"), MUCH)
        assert (retried.settled_at, followed.settled_at) == (followed_at, followed_at)
        assert (retried.queued_at, followed.queued_at) == (shelf.now, followed_at)
        assert await journal.has_older("b", "experiment:1", followed_at + 5)

    async def test_a_retried_letter_is_no_younger_than_a_doubt_behind_it(self, shelf: Shelf) -> None:
        journal = await shelf.open()
        await keep(journal, "run:1", "bad")
        parked_id = await park(journal, "run:1", holds=False)
        doubtful = journal.doubt(await journal.open(note("in doubt")), "run:1")
        placed_at = shelf.now
        shelf.now += 10

        await journal.retry_parked(parked_id, shelf.now)
        await journal.settle(Settlement(entry_id=doubtful.entry_id, key="run:1", seq=doubtful.seq))

        assert [entry.settled_at for entry in await journal.read(lane("run:1"), MUCH)] == [placed_at, placed_at]

    async def test_a_letter_is_retried_or_discarded_once(self, shelf: Shelf) -> None:
        journal = await shelf.open()
        await keep(journal, "run:1", "bad")
        parked_id = await park(journal, "run:1", holds=False)

        assert await journal.retry_parked(parked_id, shelf.now)
        assert not await journal.retry_parked(parked_id, shelf.now)
        assert not await journal.discard_parked(parked_id, "note")

    async def test_a_discarded_write_is_a_recorded_loss(self, shelf: Shelf) -> None:
        """P7: giving up leaves a trace with who said so and why."""
        journal = await shelf.open()
        await keep(journal, "run:1", "bad")
        await keep(journal, "run:1", "good")
        parked_id = await park(journal, "run:1", holds=False)

        await journal.discard_parked(parked_id, "not worth it")

        loss = Loss(kind=LossKind.WRITE, item="logMetric", reason="discarded", detail="logMetric: not worth it")
        (kept,) = await journal.losses("run:1")
        assert (kept.backend, kept.key, kept.loss, kept.times) == ("b", "run:1", loss, 1)
        assert await read(journal, "run:1") == ["good"]

    async def test_a_discarded_write_is_a_loss_of_each_of_its_items(self, shelf: Shelf) -> None:
        """And of nothing else of its run: its operation is not on record then."""
        journal = await shelf.open()
        await keep(journal, "run:1", "bad")
        parked_id = await park(journal, "run:1", holds=False)

        await journal.discard_parked(parked_id, "by hand", [(LossKind.METRIC, "loss"), (LossKind.TAG, "stage")])

        kept = await journal.losses("run:1")
        assert {(each.loss.kind, each.loss.item) for each in kept} == {
            (LossKind.METRIC, "loss"),
            (LossKind.TAG, "stage"),
        }
        assert {(each.loss.reason, each.loss.detail) for each in kept} == {("discarded", "logMetric: by hand")}

    async def test_a_discarded_create_takes_its_entity_along(self, shelf: Shelf) -> None:
        journal = await shelf.open()
        await keep_exchange(journal, "run:1", create("bad"))
        await keep(journal, "run:1", "of no use now")
        await keep(journal, "run:child", "create")
        parked_id = await park(journal, "run:1", holds=True)
        await journal.record(Progress(backend="b", key="run:child", next_at=shelf.now + 60, waiting_for="run:1"))

        await journal.discard_parked(parked_id, "not worth it", [(LossKind.TAG, "of no matter")])

        nobody = await journal.twin(run("1"), "b")
        assert nobody is not None
        assert nobody.is_discarded
        assert not await journal.is_pending("b", "run:1")
        assert await claimed(journal, shelf.now) == ["run:child"]
        (backlog,) = await journal.backlogs()
        assert (backlog.entries, backlog.held_lanes, backlog.parked) == (1, 0, 0)
        (kept,) = await journal.losses("run:1")
        assert (kept.loss.kind, kept.loss.item) == (LossKind.RUN, "")

    async def test_losses_are_counted_per_entity_and_detail(self, shelf: Shelf) -> None:
        journal = await shelf.open()
        await keep(journal, "run:1", "x")
        short, long = tag_loss("a"), tag_loss("b" * 900)

        await journal.record(Progress(backend="b", key="run:1", losses=(short, long)))
        await journal.record(Progress(backend="b", key="run:1", losses=(short,)))
        journal = await shelf.reopen()

        assert [(kept.loss, kept.times) for kept in await journal.losses("run:1")] == [(long, 1), (short, 2)]
        assert await journal.losses("run:2") == []
        assert (await journal.backlogs())[0].losses == 3

    async def test_losses_are_read_page_by_page_and_by_backend(self, shelf: Shelf) -> None:
        """The newest first; one that is counted again keeps its place, so that no page repeats or misses any."""
        journal = await shelf.open(secondaries=("b", "c"))
        for number in range(5):
            for backend in ("b", "c"):
                await journal.record(
                    Progress(backend=backend, key=f"run:{number % 2}", losses=(tag_loss(str(number)),))
                )
        await journal.record(Progress(backend="b", key="run:0", losses=(tag_loss("0"),)))

        first = await journal.losses(backend="b", limit=3)
        rest = await journal.losses(backend="b", before=first[-1].loss_id, limit=3)
        of_one = await journal.losses("run:1", backend="c", before=first[0].loss_id)

        assert [kept.loss.item for kept in first + rest] == ["4", "3", "2", "1", "0"]
        assert {kept.backend for kept in first + rest} == {"b"}
        assert [(kept.backend, kept.loss.item) for kept in of_one] == [("c", "3"), ("c", "1")]
        assert await journal.losses(before=1) == []


def tag_loss(key: str) -> Loss:
    return Loss(kind=LossKind.TAG, item=key, reason="value", detail="too long")


class Replacing:
    """Adoption: what the primary holds takes the place of what is queued up to the moment of reading it."""

    async def test_earlier_writes_are_replaced_and_later_ones_follow(self, shelf: Shelf) -> None:
        journal = await shelf.open()
        await keep(journal, "run:1", "contained")
        upto = journal.last_seq()
        await keep(journal, "run:1", "later")

        await journal.replace("b", "run:1", upto, [create("whole"), note("values")])

        assert await read(journal, "run:1") == ["whole", "values", "later"]
        assert (await journal.usage()).entries == 3

    async def test_a_lane_that_was_empty_is_due_at_once(self, shelf: Shelf) -> None:
        journal = await shelf.open(linger=60.0)

        await journal.replace("b", "run:1", journal.last_seq(), [create("whole")])

        assert await claimed(journal, shelf.now) == ["run:1"]

    async def test_only_the_asking_backend_is_concerned(self, shelf: Shelf) -> None:
        journal = await shelf.open(secondaries=("b", "c"))
        await keep(journal, "run:1", "x")

        await journal.replace("b", "run:1", journal.last_seq(), [create("whole")])

        assert await deliver(journal, "run:1", "b") == ["whole"]
        assert await deliver(journal, "run:1", "c") == ["x"]
        assert (await journal.usage()).entries == 0

    async def test_a_place_kept_for_a_doubt_stays_free(self, shelf: Shelf) -> None:
        """P4: what the settler finds out later still has its place, between what was adopted and what came after."""
        journal = await shelf.open()
        await keep(journal, "run:1", "contained")
        doubtful = journal.doubt(await journal.open(note("in doubt")), "run:1")
        await journal.replace("b", "run:1", journal.last_seq(), [create("whole"), note("values")])
        await keep(journal, "run:1", "later")

        await journal.settle(Settlement(entry_id=doubtful.entry_id, key="run:1", seq=doubtful.seq))

        assert await read(journal, "run:1") == ["whole", "values", "in doubt", "later"]

    async def test_age_and_attempts_go_over(self, shelf: Shelf) -> None:
        """P2: a create that may have been sent is looked for, however often it was told again; lag is no younger."""
        journal = await shelf.open()
        await keep(journal, "run:1", "contained")
        (old,) = await journal.read(lane("run:1"), MUCH)
        await journal.mark_attempted(lane("run:1"), old.seq)

        await journal.replace("b", "run:1", journal.last_seq(), [create("whole"), note("values")])

        first, second = await journal.read(lane("run:1"), MUCH)
        assert (first.attempted, second.attempted) == (True, False)
        assert first.settled_at == old.settled_at

    async def test_nothing_of_it_is_younger_than_what_follows(self, shelf: Shelf) -> None:
        """Neither than a write in doubt, nor than what came after the moment of reading."""
        journal = await shelf.open()
        doubtful = journal.doubt(await journal.open(note("in doubt")), "run:1")
        upto, placed_at = journal.last_seq(), shelf.now
        shelf.now += 10
        await keep(journal, "run:1", "later")
        later_at = shelf.now
        shelf.now += 10

        await journal.replace("b", "run:1", upto, [create("whole")])
        await journal.settle(Settlement(entry_id=doubtful.entry_id, key="run:1", seq=doubtful.seq))

        entries = await journal.read(lane("run:1"), MUCH)
        assert [entry.settled_at for entry in entries] == [placed_at, placed_at, later_at]

    async def test_it_can_happen_again(self, shelf: Shelf) -> None:
        """The mirror was lost twice."""
        journal = await shelf.open()
        await journal.replace("b", "run:1", journal.last_seq(), [create("first"), note("first")])

        await journal.replace("b", "run:1", journal.last_seq(), [create("second"), note("second"), note("third")])

        assert await read(journal, "run:1") == ["second", "second", "third"]

    async def test_no_acknowledged_write_has_a_higher_number(self, shelf: Shelf) -> None:
        journal = await shelf.open()
        await keep(journal, "run:1", "x")
        upto = journal.last_seq()

        (entry,) = await journal.read(lane("run:1"), MUCH)

        assert entry.seq <= upto


class Watching:
    """What comparing asks: may a lane still grow, is something of it parked, what is on its way at all."""

    async def test_a_lane_may_grow_until_what_is_under_way_is_decided(self, shelf: Shelf) -> None:
        journal = await shelf.open()
        settled, refused = await journal.open(note("settled")), await journal.open(note("refused"))
        upto = journal.last_seq()
        later = await journal.open(note("later"))

        before = journal.may_grow("run:1", upto)
        await journal.settle(Settlement(entry_id=settled, key="run:2"))
        halfway = journal.may_grow("run:1", upto)
        journal.refuse(refused)

        assert before
        assert halfway
        assert not journal.may_grow("run:1", upto)
        assert not journal.is_under_way(upto)
        assert journal.may_grow("run:1", later)
        assert journal.is_under_way(later)

    async def test_a_doubt_is_of_its_own_lane_alone(self, shelf: Shelf) -> None:
        journal = await shelf.open()
        doubtful = journal.doubt(await journal.open(note("in doubt")), "run:1")
        upto = journal.last_seq()

        assert journal.may_grow("run:1", upto)
        assert not journal.may_grow("run:2", upto)

        await journal.settle(Settlement(entry_id=doubtful.entry_id, key="run:1", seq=doubtful.seq))
        assert not journal.may_grow("run:1", upto)

    async def test_a_lane_has_grown_since_a_number(self, shelf: Shelf) -> None:
        journal = await shelf.open()
        await keep(journal, "run:1", "before")
        since = journal.last_seq()
        await keep(journal, "run:2", "after")

        assert not journal.has_grown("run:1", since)
        assert journal.has_grown("run:2", since)
        assert not journal.has_grown("run:2", journal.last_seq())

    async def test_lanes_that_hold_something_are_named_per_backend(self, shelf: Shelf) -> None:
        journal = await shelf.open(secondaries=("b", "c"))
        await keep(journal, "run:1", "x")
        await keep(journal, "run:2", "y")
        await journal.record(Progress(backend="b", key="run:1", done=(await first_seq(journal, "run:1"),)))

        assert await journal.queued("b", 10) == ["run:2"]
        assert sorted(await journal.queued("c", 10)) == ["run:1", "run:2"]
        assert len(await journal.queued("c", 1)) == 1

    async def test_a_parked_write_is_of_its_lane_and_backend(self, shelf: Shelf) -> None:
        journal = await shelf.open(secondaries=("b", "c"))
        await keep(journal, "run:1", "x")
        seq = await first_seq(journal, "run:1")
        parking = Parking(seq=seq, exchange=note("x"), reason="refused", cause="no")
        await journal.record(Progress(backend="b", key="run:1", done=(seq,), parkings=(parking,)))

        assert await journal.has_dead_letters("b", "run:1")
        assert not await journal.has_dead_letters("b", "run:2")
        assert not await journal.has_dead_letters("c", "run:1")


async def first_seq(journal: Journal, key: str) -> int:
    return (await journal.read(Lane(backend="b", key=key, attempts=0), 1 << 20))[0].seq


class Ids:
    """Who is who: the map, from every side."""

    async def test_an_entity_is_found_from_both_sides(self, shelf: Shelf) -> None:
        journal = await shelf.open()
        made = twin(run("1"), "b", "on-b")

        await journal.learn([made])

        assert await journal.twin(run("1"), "b") == made
        assert await journal.client_ref(EntityKind.RUN, "b", BackendId("on-b")) == run("1")
        assert await journal.client_ref(EntityKind.EXPERIMENT, "b", BackendId("on-b")) is None
        assert await journal.client_ref(EntityKind.RUN, "c", BackendId("on-b")) is None
        assert await journal.twin(experiment("1"), "b") is None

    @pytest.mark.parametrize("synced", [True, False])
    async def test_what_was_only_read_can_be_learned_without_a_sync(self, shelf: Shelf, *, synced: bool) -> None:
        journal = await shelf.open()
        await keep(journal, "run:parent", "create")
        await journal.claim("b", 1, shelf.now)
        await keep(journal, "run:child", "create")
        await journal.record(Progress(backend="b", key="run:child", next_at=shelf.now + 60, waiting_for="run:parent"))

        await journal.learn([twin(run("parent"), "b", "p")], synced=synced)

        assert await journal.twin(run("parent"), "b") == twin(run("parent"), "b", "p")
        assert await claimed(journal, shelf.now) == ["run:child"]

    async def test_the_longest_root_wins(self, shelf: Shelf) -> None:
        journal = await shelf.open()
        outer = twin(experiment("1"), "b", "e", root="s3://b")
        inner = twin(run("1"), "b", "r", root="s3://b/r")
        await journal.learn([outer, inner])

        assert await journal.rooted("b", ["s3://b/r/model", "s3://b/r", "s3://b"]) == inner
        assert await journal.rooted("b", ["s3://b/other", "s3://b"]) == outer
        assert await journal.rooted("b", ["s3://b", "s3://b/r"]) == inner
        assert await journal.rooted("c", ["s3://b"]) is None
        assert await journal.rooted("b", []) is None

    async def test_nobody_is_found_by_an_empty_root(self, shelf: Shelf) -> None:
        """Most rows have none."""
        journal = await shelf.open()
        await journal.learn([twin(run("1"), "b", "r")])

        assert await journal.rooted("b", [""]) is None

    async def test_an_experiment_is_the_last_choice_for_a_shared_root(self, shelf: Shelf) -> None:
        journal = await shelf.open()
        whole = twin(run("1"), "b", "r", root="s3://b")
        await journal.learn([twin(experiment("1"), "b", "e", root="s3://b"), whole])

        assert await journal.rooted("b", ["s3://b/x", "s3://b"]) == whole

    async def test_a_root_is_found_among_any_number(self, shelf: Shelf) -> None:
        journal = await shelf.open()
        outer, inner = twin(run("1"), "b", "o", root="r0700"), twin(run("2"), "b", "i", root="r000900")
        await journal.learn([outer, inner])

        assert await journal.rooted("b", [f"r{number:04}" for number in range(1200)]) == outer
        assert await journal.rooted("b", [f"r{number:04}" for number in range(1200)] + ["r000900"]) == inner

    async def test_an_experiment_is_found_by_its_name(self, shelf: Shelf) -> None:
        journal = await shelf.open()
        made = twin(experiment("1"), "b", "e", name="churn")

        await journal.learn([made, twin(run("1"), "b", "r", name="churn")])

        assert await journal.named(EntityKind.EXPERIMENT, "b", "churn") == made
        assert await journal.named(EntityKind.EXPERIMENT, "b", "other") is None

    async def test_what_is_not_said_again_is_kept(self, shelf: Shelf) -> None:
        journal = await shelf.open()
        await journal.learn([twin(run("1"), "b", "old", name="n", root="r")])

        await journal.learn([twin(run("1"), "b", "new")])

        assert await journal.twin(run("1"), "b") == twin(run("1"), "b", "new", name="n", root="r")

    async def test_an_id_can_be_forgotten(self, shelf: Shelf) -> None:
        journal = await shelf.open()
        await journal.learn([twin(run("1"), "b", "on-b"), twin(run("1"), "c", "on-c")])

        await journal.forget(run("1"), "b")

        assert await journal.twin(run("1"), "b") is None
        assert await journal.twin(run("1"), "c") is not None

    async def test_an_id_that_was_learned_anew_is_not_forgotten_for_the_one_before(self, shelf: Shelf) -> None:
        """Whoever saw that the old one is gone may be slow to say so."""
        journal = await shelf.open()
        await journal.learn([twin(run("1"), "b", "gone"), twin(run("2"), "b", "gone too")])
        await journal.learn([twin(run("1"), "b", "anew")])

        await journal.forget(run("1"), "b", BackendId("gone"))
        await journal.forget(run("2"), "b", BackendId("gone too"))

        assert await journal.twin(run("1"), "b") == twin(run("1"), "b", "anew")
        assert await journal.twin(run("2"), "b") is None

    @pytest.mark.parametrize("some_id", ["1", "on-a", "on-b"])
    async def test_any_id_finds_every_twin(self, shelf: Shelf, some_id: str) -> None:
        """An adopted run has no row of the primary; the client's id leads to its twins all the same."""
        journal = await shelf.open()
        twins = [twin(run("1"), "b", "on-b"), twin(run("1"), "c", "on-a")]
        await journal.learn([*twins, twin(run("2"), "b", "another")])

        assert await journal.find(some_id) == twins
        assert await journal.find("nobody") == []

    async def test_an_id_that_two_backends_share_finds_both_entities(self, shelf: Shelf) -> None:
        journal = await shelf.open()
        await journal.learn([twin(experiment("1"), "b", "7"), twin(experiment("7"), "b", "9")])

        assert {found.ref.client_id for found in await journal.find("7")} == {"1", "7"}

    async def test_the_map_is_exported_page_by_page(self, shelf: Shelf) -> None:
        journal = await shelf.open()
        twins = [twin(run(str(number)), "b", f"b{number}") for number in range(5)]
        await journal.learn([*twins, twin(experiment("1"), "b", "e")])

        first = await journal.export_ids(("", ""), 4)
        rest = await journal.export_ids((first[-1].ref.kind, first[-1].ref.client_id), 4)

        assert [*first, *rest] == [twin(experiment("1"), "b", "e"), *twins]

    async def test_the_map_outlives_the_entries(self, shelf: Shelf) -> None:
        journal = await shelf.open()
        await journal.learn([twin(run("1"), "b", "on-b")])

        journal = await shelf.reopen()

        assert await journal.twin(run("1"), "b") == twin(run("1"), "b", "on-b")


class Files:
    """Uploads: which file an entry needs, and what the primary has."""

    async def test_a_file_is_referred_to_before_it_exists(self, shelf: Shelf) -> None:
        """A sweep after a crash must not take what an open entry may still need."""
        journal = await shelf.open()
        await journal.open(note("upload"), "promised")
        at_once = await journal.spooled()

        journal = await shelf.reopen()

        assert at_once == await journal.spooled() == {"promised"}
        assert await journal.is_spooled("promised")
        assert not await journal.is_spooled("another")

    async def test_an_entry_names_its_file(self, shelf: Shelf) -> None:
        journal = await shelf.open()
        await keep(journal, "run:1", "metric")
        await upload(journal, "run:1", "model/MLmodel", spool="kept")

        assert [entry.spool for entry in await journal.read(lane("run:1"), MUCH)] == ["", "kept"]
        assert await journal.spooled() == {"kept"}

    async def test_a_plain_settlement_leaves_the_promise(self, shelf: Shelf) -> None:
        """The settler, after a crash, knows nothing of a copy."""
        journal = await shelf.open()
        entry_id = await journal.open(note("upload"), "promised")

        await journal.settle(Settlement(entry_id=entry_id, key="run:1"))

        assert [entry.spool for entry in await journal.read(lane("run:1"), MUCH)] == ["promised"]

    async def test_an_upload_may_end_without_a_copy(self, shelf: Shelf) -> None:
        journal = await shelf.open()

        await upload(journal, "run:1", "a", spool="")

        assert [entry.spool for entry in await journal.read(lane("run:1"), MUCH)] == [""]
        assert await journal.spooled() == set()

    async def test_a_refused_upload_refers_to_nothing(self, shelf: Shelf) -> None:
        journal = await shelf.open()
        entry_id = await journal.open(note("upload"), "promised")

        journal.refuse(entry_id)
        await keep(journal, "run:1", "after")

        assert await journal.spooled() == set()

    async def test_a_file_is_needed_until_the_last_backend_has_it(self, shelf: Shelf) -> None:
        journal = await shelf.open(secondaries=("b", "c"))
        await upload(journal, "run:1", "a", spool="kept")

        await deliver(journal, "run:1", "b")
        in_between = await journal.is_spooled("kept")
        await deliver(journal, "run:1", "c")

        assert in_between
        assert not await journal.is_spooled("kept")
        assert await journal.spooled() == set()

    async def test_a_parked_upload_keeps_its_file_and_brings_it_back(self, shelf: Shelf) -> None:
        journal = await shelf.open(secondaries=("b", "c"))
        await upload(journal, "run:1", "a", spool="kept")
        parked_id = await park(journal, "run:1", holds=False)
        await deliver(journal, "run:1", "c")
        parked = await journal.is_spooled("kept"), await journal.spooled()

        await journal.retry_parked(parked_id, shelf.now)

        assert parked == (True, {"kept"})
        assert [entry.spool for entry in await journal.read(lane("run:1"), MUCH)] == ["kept"]
        await deliver(journal, "run:1", "b")
        assert await journal.spooled() == set()

    async def test_a_letter_need_not_keep_the_file(self, shelf: Shelf) -> None:
        journal = await shelf.open()
        await upload(journal, "run:1", "a", spool="kept")
        (entry,) = await journal.read(lane("run:1"), MUCH)

        parking = Parking(seq=entry.seq, exchange=entry.exchange, reason="refused", cause="no")
        await journal.record(Progress(backend="b", key="run:1", done=(entry.seq,), parkings=(parking,)))

        assert await journal.spooled() == set()

    async def test_a_discarded_upload_refers_to_nothing(self, shelf: Shelf) -> None:
        journal = await shelf.open()
        await upload(journal, "run:1", "a", spool="kept")
        parked_id = await park(journal, "run:1", holds=False)

        await journal.discard_parked(parked_id, "not worth it")

        assert not await journal.is_spooled("kept")

    async def test_adoption_refers_to_nothing(self, shelf: Shelf) -> None:
        """What it tells is fetched from the primary."""
        journal = await shelf.open()
        await upload(journal, "run:1", "a", spool="kept")

        await journal.replace("b", "run:1", journal.last_seq(), [create("whole")])

        assert await journal.spooled() == set()
        assert [entry.spool for entry in await journal.read(lane("run:1"), MUCH)] == [""]

    async def test_the_ledger_holds_what_the_primary_took_last(self, shelf: Shelf) -> None:
        journal = await shelf.open()
        await upload(journal, "run:1", "b", sha256="01", size=1)
        await upload(journal, "run:1", "a", sha256="02", size=2, spool="kept")
        await upload(journal, "run:2", "a", sha256="03", size=3)
        await upload(journal, "run:1", "b", sha256="04", size=4)

        await deliver(journal, "run:1")
        journal = await shelf.reopen()

        first, second = ArtifactNote(path="a", size=2, sha256="02"), ArtifactNote(path="b", size=4, sha256="04")
        assert await journal.artifacts("run:1") == [first, second]
        assert await journal.artifacts("run:2") == [ArtifactNote(path="a", size=3, sha256="03")]
        assert await journal.artifacts("run:3") == []

    @pytest.mark.parametrize(
        ("path", "left"),
        [
            ("a", ["a b", "a!", "a-b", "a.txt", "a0", "ab", "b/a"]),
            ("a/b", ["a", "a b", "a!", "a-b", "a.txt", "a/bc", "a0", "ab", "b/a"]),
            ("nothing", ["a", "a b", "a!", "a-b", "a.txt", "a/b", "a/b/c", "a/bc", "a0", "ab", "b/a"]),
            ("", []),
        ],
    )
    async def test_what_is_gone_goes_with_all_below_it(self, shelf: Shelf, path: str, left: list[str]) -> None:
        """A folder, a file, or all of a run; names that merely begin alike stay."""
        journal = await shelf.open()
        for name in ("a", "a b", "a!", "a-b", "a.txt", "a/b", "a/b/c", "a/bc", "a0", "ab", "b/a"):
            await upload(journal, "run:1", name)
        await upload(journal, "run:2", "a/b")

        await upload(journal, "run:1", path, sha256="")

        assert [found.path for found in await journal.artifacts("run:1")] == left
        assert [found.path for found in await journal.artifacts("run:2")] == ["a/b"]

    async def test_an_upload_in_doubt_can_be_settled_whole(self, shelf: Shelf) -> None:
        """At its place, with another exchange, the ids and the ledger in one."""
        journal = await shelf.open()
        doubtful = journal.doubt(await journal.open(note("upload"), "promised"), "run:1")
        await keep(journal, "run:1", "after")

        await journal.settle(
            Settlement(
                entry_id=doubtful.entry_id,
                key="run:1",
                exchange=note("upload, in doubt"),
                seq=doubtful.seq,
                twins=(twin(run("1"), "a", "1"),),
                artifact=ArtifactNote(path="p", size=0, sha256=""),
            )
        )

        assert await read(journal, "run:1") == ["upload, in doubt", "after"]
        assert await journal.spooled() == set()
        assert await journal.twin(run("1"), "a") is not None

    async def test_a_settlement_that_fails_says_nothing_of_the_file(self, shelf: Shelf) -> None:
        journal = await shelf.open()
        await keep(journal, "run:1", "there")
        (taken,) = await journal.read(lane("run:1"), MUCH)
        entry_id = await journal.open(note("late"), "promised")

        artifact = ArtifactNote(path="p", size=1, sha256="5a", spool="kept")
        with pytest.raises(JournalError):
            await journal.settle(Settlement(entry_id=entry_id, key="run:1", seq=taken.seq, artifact=artifact))

        assert await journal.artifacts("run:1") == []
        assert await journal.spooled() == {"promised"}

    async def test_an_upload_lingers_as_other_writes_do(self, shelf: Shelf) -> None:
        journal = await shelf.open(linger=0.5)

        await upload(journal, "run:1", "a")

        assert await journal.next_due("b") == shelf.now + 0.5

    async def test_uploads_and_other_writes_are_opened_side_by_side(self, shelf: Shelf) -> None:
        journal = await shelf.open()

        opened = await asyncio.gather(
            *(journal.open(note(str(number)), f"s{number}" if number % 3 == 0 else "") for number in range(30))
        )
        for entry_id in opened:
            await journal.settle(Settlement(entry_id=entry_id, key="run:1"))

        entries = await journal.read(lane("run:1"), MUCH)
        expected = [f"s{number}" if number % 3 == 0 else "" for number in range(30)]
        assert [(entry.exchange.body.decode(), entry.spool) for entry in entries] == [
            (str(number), spool) for number, spool in enumerate(expected)
        ]

    async def test_the_newest_letter_of_an_operation_tells_its_cause(self, shelf: Shelf) -> None:
        journal = await shelf.open(secondaries=("b", "c"))
        await keep_exchange(journal, "run:1", create("bad"))
        for text in ("one", "two"):
            await keep(journal, "run:1", text)
        await park(journal, "run:1", holds=False, cause="no create")
        await park(journal, "run:1", holds=False, cause="first")
        parked_id = await park(journal, "run:1", holds=False, cause="second")

        found = await journal.has_parked("b", "run:1", ("logMetric", "setTag"))
        await journal.discard_parked(parked_id, "enough")

        assert found == "second"
        assert await journal.has_parked("b", "run:1", ["logMetric"]) == "first"
        assert await journal.has_parked("b", "run:1", ["createRun"]) == "no create"
        assert await journal.has_parked("b", "run:1", ["setTag"]) is None
        assert await journal.has_parked("b", "run:1", []) is None
        assert await journal.has_parked("b", "run:2", ["logMetric"]) is None
        assert await journal.has_parked("c", "run:1", ["logMetric"]) is None


class Figures:
    """Backlog, usage and the bound."""

    async def test_the_backlog_counts_what_waits_and_since_when(self, shelf: Shelf) -> None:
        journal = await shelf.open()
        started = shelf.now
        for key in ("run:1", "run:1", "run:2"):
            await keep(journal, key, "x")
            shelf.now += 10
        await journal.record(Progress(backend="b", key="run:2", next_at=shelf.now, attempts=1, error="HTTP 503"))

        (backlog,) = await journal.backlogs()

        assert (backlog.entries, backlog.lanes, backlog.held_lanes, backlog.parked) == (3, 2, 0, 0)
        assert backlog.oldest_at == started
        assert backlog.last_error == "HTTP 503"

    async def test_an_empty_backlog_has_no_age(self, shelf: Shelf) -> None:
        journal = await shelf.open()
        await keep(journal, "run:1", "x")

        await deliver(journal, "run:1")

        (backlog,) = await journal.backlogs()
        assert (backlog.entries, backlog.oldest_at, backlog.lanes) == (0, None, 0)

    async def test_the_age_is_that_of_the_head(self, shelf: Shelf) -> None:
        journal = await shelf.open()
        await keep(journal, "run:1", "old")
        shelf.now += 10
        await keep(journal, "run:1", "young")
        head, _ = await journal.read(lane("run:1"), MUCH)

        await journal.record(Progress(backend="b", key="run:1", done=(head.seq,)))

        assert (await journal.backlogs())[0].oldest_at == shelf.now

    async def test_the_backlog_is_counted_again_after_a_restart(self, shelf: Shelf) -> None:
        journal = await shelf.open(secondaries=("b", "c"))
        await keep(journal, "run:1", "x")
        await keep(journal, "run:2", "y")
        await deliver(journal, "run:2", "c")

        journal = await shelf.reopen(secondaries=("b", "c"))
        await journal.start()

        assert [each.entries for each in await journal.backlogs()] == [2, 1]
        assert (await journal.usage()).entries == 3

    async def test_the_bound_refuses_new_writes_and_lets_open_ones_settle(self, shelf: Shelf) -> None:
        """P8: the bound holds, and nothing that the primary was asked for is lost to it."""
        journal = await shelf.open(max_bytes=1 << 20)
        early = await journal.open(note("early"))
        await fill(journal, "run:1", 50_000)
        usage = await journal.usage()

        with pytest.raises(JournalFullError, match="of its 1048576"):
            await journal.open(note("late"))
        await journal.settle(Settlement(entry_id=early, key="run:2"))

        assert usage.is_full
        assert usage.used_bytes <= usage.capacity_bytes == 1 << 20
        assert await read(journal, "run:2") == ["early"]

    async def test_a_delivered_backlog_makes_room(self, shelf: Shelf) -> None:
        journal = await shelf.open(max_bytes=1 << 20)
        await fill(journal, "run:1", 50_000)

        await deliver(journal, "run:1")
        await keep(journal, "run:1", "again")

        usage = await journal.usage()
        assert not usage.is_full
        assert usage.used_bytes < usage.capacity_bytes // 2

    async def test_use_is_known_right_after_a_restart(self, shelf: Shelf) -> None:
        journal = await shelf.open()
        for _ in range(20):
            await keep(journal, "run:1", "x" * 50_000)

        journal = await shelf.reopen(max_bytes=1 << 20)

        with pytest.raises(JournalFullError):
            await journal.open(note("one more"))


class Recovery:
    """What a crash left open is found once, each with its place."""

    async def test_an_open_write_keeps_its_place_after_a_restart(self, shelf: Shelf) -> None:
        journal = await shelf.open()
        await keep(journal, "run:1", "before")
        await journal.open(note("in doubt"))
        journal = await shelf.reopen()

        (found,) = await journal.left_open(key_of)
        await keep(journal, "run:1", "after")
        held = await read(journal, "run:1")
        await journal.settle(Settlement(entry_id=found.entry_id, key="run:1", seq=found.seq))

        assert held == ["before"]
        assert await read(journal, "run:1") == ["before", "in doubt", "after"]

    async def test_what_was_acknowledged_behind_a_doubt_stays_behind_it(self, shelf: Shelf) -> None:
        """P4: such as the deletion of a run behind a metric whose answer was lost."""
        journal = await shelf.open()
        opened_at = shelf.now
        journal.doubt(await journal.open(note("in doubt")), "run:1")
        shelf.now += 10
        await keep(journal, "run:1", "behind")
        journal = await shelf.reopen()
        shelf.now += 10

        (found,) = await journal.left_open(key_of)
        held = await read(journal, "run:1")
        await journal.settle(Settlement(entry_id=found.entry_id, key="run:1", seq=found.seq))

        assert held == []
        assert await read(journal, "run:1") == ["in doubt", "behind"]
        assert [entry.settled_at for entry in await journal.read(lane("run:1"), MUCH)] == [opened_at, opened_at + 10]

    async def test_what_is_left_open_is_as_old_as_its_opening(self, shelf: Shelf) -> None:
        """Deletions that were acknowledged behind it wait for it, those before do not."""
        journal = await shelf.open()
        opened_at = shelf.now
        await journal.open(create("made?"))
        journal = await shelf.reopen()
        shelf.now += 10

        await journal.left_open(key_of)

        assert await journal.has_older("b", "experiment:1", opened_at + 1)
        assert not await journal.has_older("b", "experiment:1", opened_at)

    async def test_the_number_of_an_open_write_is_left_free_for_it(self, shelf: Shelf) -> None:
        """By letters of one place that are retried: the second goes just before the first."""
        journal = await shelf.open()
        batch = await journal.open(note("batch"))
        await journal.open(note("in doubt"))
        await journal.settle(Settlement(entry_id=batch, key="run:1"))
        (entry,) = await journal.read(lane("run:1"), MUCH)
        parkings = tuple(
            Parking(seq=entry.seq, exchange=note(text), reason="refused", cause="no") for text in ("item 1", "item 2")
        )
        await journal.record(Progress(backend="b", key="run:1", done=(entry.seq,), parkings=parkings))
        for letter in await journal.parked():
            await journal.retry_parked(letter.parked_id, shelf.now)
        journal = await shelf.reopen()
        (found,) = await journal.left_open(key_of)

        await journal.settle(Settlement(entry_id=found.entry_id, key="run:1", seq=found.seq))

        assert sorted(await read(journal, "run:1")) == ["in doubt", "item 1", "item 2"]

    async def test_what_is_brought_over_whole_leaves_room_for_an_open_write(self, shelf: Shelf) -> None:
        journal = await shelf.open()
        await journal.open(note("in doubt"))
        await journal.replace("b", "run:1", journal.last_seq(), [create("whole")])
        journal = await shelf.reopen()
        (found,) = await journal.left_open(key_of)

        await journal.settle(Settlement(entry_id=found.entry_id, key="run:1", seq=found.seq))

        assert await read(journal, "run:1") == ["whole", "in doubt"]

    async def test_a_place_is_given_up_when_the_primary_knows_nothing(self, shelf: Shelf) -> None:
        journal = await shelf.open()
        await journal.open(note("never arrived"))
        journal = await shelf.reopen()
        (found,) = await journal.left_open(key_of)
        await keep(journal, "run:1", "after")

        journal.refuse(found.entry_id)
        journal.give_up_place("run:1", found.seq)
        await keep(journal, "run:1", "last")

        assert await read(journal, "run:1") == ["after", "last"]
        assert await journal.opened(found.entry_id) is None

    async def test_several_are_found_in_the_order_of_opening(self, shelf: Shelf) -> None:
        journal = await shelf.open()
        opened = [await journal.open(note(text)) for text in ("one", "two")]
        opened.append(await journal.open(create("three")))
        journal = await shelf.reopen()

        found = await journal.left_open(key_of)

        assert [entry.entry_id for entry in found] == opened
        assert [entry.key for entry in found] == ["run:1", "run:1", None]
        assert sorted(entry.seq for entry in found) == [entry.seq for entry in found]

    async def test_a_process_that_was_killed_leaves_what_it_promised(self, shelf: Shelf) -> None:
        """What was settled while a write was open may be of either side of it: it goes behind."""
        with shelf.write_elsewhere("open") as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "open\n"
            child.kill()
        journal = await shelf.open()

        doubtful, made = await journal.left_open(key_of)
        held = await read(journal, "run:1")
        await journal.settle(Settlement(entry_id=doubtful.entry_id, key="run:1", seq=doubtful.seq))

        assert held == []
        assert await read(journal, "run:1") == ["in doubt", "settled"]
        assert made == OpenEntry(entry_id=made.entry_id, seq=made.seq, key=None)
        assert await journal.opened(made.entry_id) == create("made?")

    async def test_numbers_are_never_given_twice(self, shelf: Shelf) -> None:
        """A number that came back would put a write before one that was acknowledged earlier."""
        given: list[int] = []
        for _ in range(3):
            journal = await shelf.reopen()
            for _ in range(3):
                given.append(await keep(journal, "run:1", "x"))
                given.append(journal.last_seq())

        assert given == sorted(set(given))


class Life:
    """The table of core/entry.py is what the journal does: every step is a call of the port."""

    @pytest.mark.parametrize(("state", "event"), list(TRANSITIONS))
    async def test_every_step_of_the_table_is_taken(self, shelf: Shelf, state: State, event: Event) -> None:
        journal = await shelf.open()
        entry_id = await journal.open(note("x"))
        await _lead(journal, entry_id, state)

        await _ACTIONS[event](journal, entry_id)

        after = advance(state, event)
        assert await _state(journal, entry_id, shelf.now) == (None if after in FINAL else after)


Action = Callable[[Journal, int], Awaitable[object]]
_KEY = "run:1"


async def _accept(journal: Journal, entry_id: int) -> None:
    await journal.settle(Settlement(entry_id=entry_id, key=_KEY))


async def _refuse(journal: Journal, entry_id: int) -> None:
    journal.refuse(entry_id)
    await journal.learn([])  # the next synced write: a refusal is not waited for


async def _claim(journal: Journal, _: int) -> None:
    assert await journal.claim("b", 1, 1e12)


async def _release(journal: Journal, _: int) -> None:
    journal.release(lane(_KEY))


async def _outcome(journal: Journal, *, parks: bool, loss: Loss | None = None) -> None:
    (entry,) = await journal.read(lane(_KEY), MUCH)
    parking = Parking(seq=entry.seq, exchange=entry.exchange, reason="refused", cause="no")
    parkings, losses = (parking,) if parks else (), (loss,) if loss is not None else ()
    await journal.record(Progress(backend="b", key=_KEY, done=(entry.seq,), parkings=parkings, losses=losses))
    journal.release(lane(_KEY))


async def _confirm(journal: Journal, _: int) -> None:
    await _outcome(journal, parks=False)


async def _give_up(journal: Journal, _: int) -> None:
    await _outcome(journal, parks=True)


async def _skip(journal: Journal, _: int) -> None:
    await _outcome(journal, parks=False, loss=Loss(kind=LossKind.RUN, reason="discarded", detail="x"))


async def _retry(journal: Journal, _: int) -> None:
    assert await journal.retry_parked((await journal.parked())[0].parked_id, 0.0)


async def _discard(journal: Journal, _: int) -> None:
    assert await journal.discard_parked((await journal.parked())[0].parked_id, "enough")


_ACTIONS: dict[Event, Action] = {
    Event.ACCEPT: _accept,
    Event.REFUSE: _refuse,
    Event.CLAIM: _claim,
    Event.RELEASE: _release,
    Event.CONFIRM: _confirm,
    Event.GIVE_UP: _give_up,
    Event.SKIP: _skip,
    Event.RETRY: _retry,
    Event.DISCARD: _discard,
}
_WAYS = {
    State.OPEN: (),
    State.QUEUED: (Event.ACCEPT,),
    State.LEASED: (Event.ACCEPT, Event.CLAIM),
    State.PARKED: (Event.ACCEPT, Event.CLAIM, Event.GIVE_UP),
}


async def _lead(journal: Journal, entry_id: int, state: State) -> None:
    for event in _WAYS[state]:
        await _ACTIONS[event](journal, entry_id)


async def _state(journal: Journal, entry_id: int, now: float) -> State | None:
    """What the port shows of the only write there is; None when it is gone."""
    if await journal.opened(entry_id) is not None:
        return State.OPEN
    if await journal.parked():
        return State.PARKED
    if await journal.claim("b", 1, now):
        return State.QUEUED
    return State.LEASED if await journal.is_pending("b", _KEY) else None
