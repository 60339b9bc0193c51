"""What may have been sent is in doubt until it is recorded; what was sent since the lane was read is not."""

from dualtrack.core.coalesce import Batch
from dualtrack.delivery.doubts import Doubts

LANE = "run:1"


def batch(first: int, last: int, *done: int) -> Batch:
    return Batch(metrics=({"key": "loss"},), first=first, last=last, done=done)


def covered(doubts: Doubts, *batches: Batch) -> list[bool]:
    """Whether each is in doubt, once the lane is read again."""
    doubts.begin(LANE)
    return [doubts.covers(LANE, each, 100.0) for each in batches]


def test_nothing_is_in_doubt_at_first() -> None:
    assert covered(Doubts(), batch(1, 3)) == [False]


def test_what_was_sent_and_not_recorded_is_in_doubt_however_it_is_cut_then() -> None:
    doubts = Doubts()
    doubts.begin(LANE)
    doubts.send(LANE, batch(1, 3))

    assert covered(doubts, batch(1, 1), batch(2, 5), batch(4, 5)) == [True, True, False]
    doubts.record(LANE, (1,))
    assert covered(doubts, batch(2, 5)) == [True]
    doubts.record(LANE, (2, 3))
    assert covered(doubts, batch(4, 5)) == [False]


def test_an_entry_that_was_sent_in_part_is_in_doubt_when_it_is_begun_anew() -> None:
    """Not while the plan goes on, where the rest of it follows."""
    doubts = Doubts()
    doubts.begin(LANE)
    doubts.send(LANE, batch(1, 5, 1, 2, 3, 4))
    doubts.record(LANE, (1, 2, 3, 4))

    assert not doubts.covers(LANE, batch(5, 6, 5, 6), 100.0)
    assert covered(doubts, batch(5, 5), batch(6, 6)) == [True, False]


def test_what_was_certainly_not_done_leaves_the_doubts_that_there_were() -> None:
    doubts = Doubts()
    before = doubts.send(LANE, batch(1, 1))
    doubts.take_back(LANE, before)
    assert covered(doubts, batch(1, 1)) == [False]

    doubts.send(LANE, batch(1, 2))
    before = doubts.send(LANE, batch(1, 3))
    doubts.take_back(LANE, before)
    assert covered(doubts, batch(2, 2), batch(3, 3)) == [True, False]


def test_what_a_process_before_may_have_sent_is_in_doubt() -> None:
    doubts = Doubts()
    doubts.begin(LANE, 7)

    assert doubts.covers(LANE, batch(5, 9), 100.0)
    assert not doubts.covers(LANE, batch(8, 9), 100.0)


def test_a_repeat_is_expected_for_as_long_as_clients_repeat() -> None:
    doubts = Doubts()
    doubts.expect_repeats(LANE, 1000.0)

    assert doubts.covers(LANE, batch(5, 9), 1500.0)
    assert not doubts.covers(LANE, batch(5, 9), 9000.0)
    assert not doubts.covers("run:2", batch(5, 9), 1500.0)
