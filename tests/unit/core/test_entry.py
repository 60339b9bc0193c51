"""The life of a journal entry: the table, and that every path through it ends."""

import pytest

from dualtrack.core.entry import FINAL, TRANSITIONS, Event, State, advance

# Lawful for ever, by design: a retry is a wait, not an end. Without them every path is finite.
REPEATS = {Event.RELEASE, Event.RETRY}


def followers(state: State) -> set[State]:
    return {after for (before, _), after in TRANSITIONS.items() if before is state}


def endings(state: State, seen: frozenset[State] = frozenset()) -> set[State]:
    """The states in which paths from `state` stop, those that go round for ever left out."""
    if state in seen:
        return set()
    ahead = followers(state)
    return {end for after in ahead for end in endings(after, seen | {state})} if ahead else {state}


@pytest.mark.parametrize("state", State)
def test_every_path_ends_in_a_final_state(state: State) -> None:
    """Nothing gets stuck: where no step leads on, the entry is done with."""
    ends = endings(state)

    assert ends
    assert ends <= FINAL


def test_without_repeats_every_path_is_finite() -> None:
    """Only a release or a retry leads back; so every other event brings an entry nearer to its end."""
    order = [State.OPEN, State.QUEUED, State.LEASED, State.PARKED, State.DELIVERED, State.SKIPPED, State.REFUSED]
    forward = [(before, after) for (before, event), after in TRANSITIONS.items() if event not in REPEATS]

    assert all(order.index(before) < order.index(after) for before, after in forward)


def test_every_state_is_reached() -> None:
    reached = {State.OPEN}
    for _ in State:
        reached |= {after for state in reached for after in followers(state)}

    assert reached == set(State)


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", Event)
def test_the_table_says_all(state: State, event: Event) -> None:
    """A step is in the table, or it is refused with words; there is no third way."""
    if (state, event) in TRANSITIONS:
        assert advance(state, event) is TRANSITIONS[state, event]
    else:
        with pytest.raises(ValueError, match=f"an entry that is {state} cannot {event}"):
            advance(state, event)


def test_final_states_are_left_by_no_event() -> None:
    assert {before for before, _ in TRANSITIONS} == set(State) - FINAL
