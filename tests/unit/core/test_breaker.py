"""The breaker as a machine that is played at random: one probe at a time, bounded pauses, and it always closes."""

from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dualtrack.core.breaker import RETRY_AFTER_MAX, Breaker, Policy, Position, fail, idle, slots, succeed

POLICY = Policy(failures=3, pause_min=2.0, pause_max=60.0)


class BreakerMachine(RuleBasedStateMachine):
    """A backend that fails and recovers; `running` counts the attempts that were let through and are not over."""

    @initialize(failures=st.integers(1, 5), pause_min=st.floats(0.1, 10.0), factor=st.floats(1.0, 100.0))
    def begin(self, failures: int, pause_min: float, factor: float) -> None:
        self.policy = Policy(failures=failures, pause_min=pause_min, pause_max=pause_min * factor)
        self.breaker = Breaker()
        self.now = 0.0
        self.running = 0
        self.probes = 0

    @rule(wanted=st.integers(0, 4))
    def start(self, wanted: int) -> None:
        """Closed lets all through, half-open one, open none."""
        before = self.breaker
        self.breaker, granted = slots(self.breaker, wanted, self.now)

        assert 0 <= granted <= wanted
        if before.position is Position.CLOSED:
            assert granted == wanted
            assert self.breaker == before
            self.running += granted
        else:
            self.probes += granted
        if before.position is Position.OPEN and self.now < before.until:
            assert granted == 0

    @rule(seconds=st.floats(0.0, 5000.0))
    def let_time_pass(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.probes or self.running)
    @rule()
    def succeed(self) -> None:
        """Any success closes it."""
        self.breaker = succeed(self.breaker)
        self._over()

        assert self.breaker == Breaker()

    @precondition(lambda self: self.probes or self.running)
    @rule(retry_after=st.none() | st.floats(0.0, 1e12))
    def fail(self, retry_after: float | None) -> None:
        """A failure never makes it more open-handed, and a pause has an end."""
        before = self.breaker
        self.breaker = fail(self.breaker, self.policy, self.now, retry_after)
        self._over()

        assert before.position is Position.CLOSED or self.breaker.position is Position.OPEN
        assert self.breaker.position is not Position.HALF_OPEN
        assert self.breaker.failures == before.failures + 1

    @precondition(lambda self: self.probes)
    @rule()
    def give_probe_back(self) -> None:
        """Nothing was learned, so nothing but the probe's place changes."""
        before = self.breaker
        self.breaker = idle(self.breaker)
        self.probes = 0

        assert self.breaker == replace(before, probing=False)

    def _over(self) -> None:
        if self.probes:
            self.probes = 0
        else:
            self.running -= 1

    @invariant()
    def at_most_one_probe(self) -> None:
        assert self.probes <= 1

    @invariant()
    def closed_means_few_failures(self) -> None:
        if self.breaker.position is Position.CLOSED:
            assert self.breaker.failures < self.policy.failures

    @invariant()
    def pauses_are_bounded(self) -> None:
        assert self.breaker.until <= self.now + max(self.policy.pause_max, RETRY_AFTER_MAX)

    @invariant()
    def it_closes_by_itself(self) -> None:
        """Once its pause is over, a probe goes out, and its success closes the breaker."""
        free = idle(self.breaker)
        later = max(self.now, free.until)
        probing, granted = slots(free, 1, later)

        assert granted == 1
        assert slots(succeed(probing), 7, later) == (Breaker(), 7)


TestBreaker = BreakerMachine.TestCase
TestBreaker.settings = settings(max_examples=100, stateful_step_count=30)


def opened(times: int, now: float = 0.0) -> Breaker:
    """A breaker that has opened `times` in a row at `now`."""
    breaker = Breaker(failures=POLICY.failures - 1)
    for _ in range(times):
        breaker = fail(breaker, POLICY, now)
        breaker = Breaker(position=Position.HALF_OPEN, openings=breaker.openings, until=breaker.until)
    return breaker


def test_it_opens_at_the_failure_that_is_one_too_many() -> None:
    breaker, positions = Breaker(), []
    for _ in range(4):
        breaker = fail(breaker, POLICY, 10.0)
        positions.append(breaker.position)

    assert positions == [Position.CLOSED, Position.CLOSED, Position.OPEN, Position.OPEN]


def test_pauses_double_up_to_their_maximum() -> None:
    assert [opened(times).until for times in (1, 2, 3, 4, 5, 6, 99)] == [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]


def test_a_server_may_ask_for_a_longer_pause() -> None:
    """But for no longer than an hour: no header closes a backend for good."""
    breaker = Breaker(failures=POLICY.failures - 1)

    assert fail(breaker, POLICY, 100.0, retry_after=30.0).until == 130.0
    assert fail(breaker, POLICY, 100.0, retry_after=1e9).until == 100.0 + RETRY_AFTER_MAX


def test_half_open_lets_one_probe_through_until_it_is_over() -> None:
    waiting = fail(Breaker(failures=POLICY.failures - 1), POLICY, 0.0)
    probing, first = slots(waiting, 8, 2.0)
    _, second = slots(probing, 8, 2.0)
    _, third = slots(idle(probing), 8, 2.0)

    assert probing.position is Position.HALF_OPEN
    assert (first, second, third) == (1, 0, 1)
