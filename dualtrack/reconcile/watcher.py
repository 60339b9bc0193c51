"""Compares by itself: what ended, was parked or was left over by a crash, soon; everything mirrored, in a slow sweep.

    told ─▶ due, after a while ─▶ first look ─ equal, explained ─▶ done
                    ▲                 │ drift
             pending: later      second look, after a while ─▶ repair queued ─▶ last look: still drift is an error

One comparison at a time, and a pause after each: backends have rates, and deliveries come first. A difference is
mended only if a second look finds just the same, because some backends show late what they took; not while a run is
active, because others may be writing to it; not while something of it is parked, because then a person has to choose;
and not again if a repair did not take. What nobody mirrored is left to `backfill`. No comparison, whatever becomes of
it, ends the process that carries training.
"""

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from enum import IntEnum
from itertools import product

import structlog

from dualtrack.core.difference import Difference
from dualtrack.core.ids import ClientId, EntityKind, Ref, parse_key
from dualtrack.core.standing import Occasion, State
from dualtrack.core.verdict import RetryPolicy, wait_before
from dualtrack.errors import BackendError, JournalError, RejectedError
from dualtrack.ports import Clock, Journal
from dualtrack.reconcile.standings import Standings
from dualtrack.reconcile.verifier import Checked, Mended, Verifier

log = structlog.get_logger("dualtrack.reconcile")

_IDLE_SECONDS = 60.0
_QUEUE = 10_000  # what does not fit is left to the sweep
_AGAIN = RetryPolicy(wait_min=5.0, wait_max=300.0)  # a backlog or an outage is waited out
_SWEEP_AGAIN_SECONDS = 300.0  # after one that could not see everything
_WINDOWS = (86_400.0, 7 * 86_400.0, None)  # a day's runs, a week's, all: newest first, without a listing of everything
_PASSED_OVER = 100  # experiments and what is in them, not looked at between two pauses
_TOLD = 5  # differences in a line of the log


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What to compare for, and how eagerly; seconds. `sweep` is None for never."""

    occasions: frozenset[Occasion]
    settle: float
    sweep: float | None
    pause: float
    repairs: bool


class _Look(IntEnum):
    FIRST = 1
    SECOND = 2
    LAST = 3  # after a repair


@dataclass(frozen=True, slots=True, kw_only=True)
class _Due:
    """A look to come; `found` and `lanes` are of the one before."""

    at: float
    look: _Look = _Look.FIRST
    waits: int = 0
    found: tuple[Difference, ...] = ()
    lanes: frozenset[str] = frozenset()


class Watcher:
    """Run with `run`. `targets` are the secondaries; `is_up` says whether one answers, as far as anyone knows."""

    def __init__(
        self,
        verifier: Verifier,
        standings: Standings,
        journal: Journal,
        clock: Clock,
        rules: Rules,
        targets: Sequence[str],
        is_up: Callable[[str], bool | None],
    ) -> None:
        self._verifier = verifier
        self._standings = standings
        self._journal = journal
        self._clock = clock
        self._rules = rules
        self._targets = tuple(targets)
        self._is_up = is_up
        self._due: dict[tuple[Ref, str], _Due] = {}
        self._unmended: dict[tuple[Ref, str], tuple[Difference, ...]] = {}  # what a repair did not mend
        self._sweep_at = math.inf
        self._is_whole = True  # the sweep's pass saw everything so far
        self._passed_over = 0
        self._wake = asyncio.Event()

    @property
    def waiting(self) -> int:
        """How many entities are due, now or later; the sweep's are not counted."""
        return len(self._due)

    def tell(self, backend: str, key: str, occasion: Occasion) -> None:
        """Hear that something happened to an entity. Called for every delivery: never waits."""
        now = self._clock.now()
        if occasion is not Occasion.LEFT_OVER:
            self._standings.changed(key, backend, now)
        item = (parse_key(key), backend)
        waiting = self._due.get(item)
        # what waits for its second or last look goes on so: a repair is a delivery, too
        if occasion in self._rules.occasions and (waiting is None or waiting.look is _Look.FIRST):
            self._add(item, _Due(at=now + self._rules.settle))

    async def take_over(self, doubtful: Iterable[str]) -> None:
        """Remember what was on its way when the process began; `doubtful` are the lanes of writes in doubt."""
        if Occasion.LEFT_OVER not in self._rules.occasions:
            return
        keys = set(doubtful)
        for backend in self._targets:
            try:
                queued = await self._journal.queued(backend, _QUEUE)
            except JournalError as error:  # left to the sweep
                log.warning("verify.left_over_unknown", backend=backend, reason=str(error))
                queued = []
            for key in keys.union(queued):
                self.tell(backend, key, Occasion.LEFT_OVER)

    def _add(self, item: tuple[Ref, str], due: _Due) -> None:
        if item in self._due or len(self._due) < _QUEUE:
            self._due[item] = due
            self._wake.set()

    async def run(self) -> None:
        """Compare for ever; what is due and the sweep take turns."""
        async with aclosing(self._sweep()) as swept:
            while True:
                item = self._next()
                if item is not None and await self._look(*item, self._due.pop(item)):
                    await self._clock.wait(self._rules.pause)
                if await anext(swept):
                    await self._clock.wait(self._rules.pause)
                elif item is None:
                    await self._rest()

    def _next(self) -> tuple[Ref, str] | None:
        """Answer what is due first, if it is time."""
        first = min(self._due, key=lambda item: self._due[item].at, default=None)
        return first if first is not None and self._due[first].at <= self._clock.now() else None

    async def _rest(self) -> None:
        """Wait until something is due or told, or the sweep begins; a little at most."""
        self._wake.clear()
        first = min((due.at for due in self._due.values()), default=math.inf)
        wait = min(_IDLE_SECONDS, max(0.0, min(first, self._sweep_at) - self._clock.now()))
        try:
            async with asyncio.timeout(wait):
                await self._wake.wait()
        except TimeoutError:
            return

    # --- one look -------------------------------------------------------------------------------------------------

    async def _look(self, ref: Ref, backend: str, due: _Due) -> bool:
        """Look once, and decide what follows; say whether it cost the backends anything."""
        try:
            if not await self._may_be_asked(backend) or await self._journal.is_pending(backend, ref.key):
                self._later(ref, backend, due)
                return False
            mended = await self._compare(ref, backend, due)
        except RejectedError as error:
            log.warning("verify.impossible", backend=backend, entity=ref.key, reason=str(error))
        except (BackendError, JournalError) as error:
            log.info("verify.later", backend=backend, entity=ref.key, reason=str(error))
            self._later(ref, backend, due)
        except Exception:  # the outermost edge of a comparison: the next one goes on
            log.exception("verify.unforeseen", backend=backend, entity=ref.key)
        else:
            self._judge(ref, backend, due, mended)
        return True

    async def _may_be_asked(self, backend: str) -> bool:
        """Say no while it is down and deliveries find out when it is not; with none to make, a look finds out."""
        return self._is_up(backend) is not False or await self._journal.is_at_rest(backend)

    async def _compare(self, ref: Ref, backend: str, due: _Due) -> Mended:
        if due.look is _Look.SECOND and not await self._is_parked(due.lanes, backend):
            return await self._verifier.mend(ref, backend, only=due.found)
        return Mended(checked=await self._verifier.check(ref, backend))

    async def _is_parked(self, lanes: frozenset[str], backend: str) -> bool:
        for key in lanes:
            if await self._journal.has_dead_letters(backend, key):
                return True
        return False

    def _judge(self, ref: Ref, backend: str, due: _Due, mended: Mended) -> None:
        checked, item = mended.checked, (ref, backend)
        match checked.state:
            case State.PENDING:
                self._later(ref, backend, due)
            case State.DRIFT:
                self._go_on(item, due, mended)
            case _:
                self._unmended.pop(item, None)
                if due.look is _Look.LAST:
                    log.info("verify.mended", backend=backend, entity=ref.key)

    def _go_on(self, item: tuple[Ref, str], due: _Due, mended: Mended) -> None:
        checked = mended.checked
        again = self._clock.now() + self._rules.settle
        is_same = checked.drift == due.found
        if due.look is _Look.SECOND and (mended.operations or mended.adopted):
            self._add(item, _Due(at=again, look=_Look.LAST))
        elif due.look is _Look.SECOND and not is_same:  # it moves: look until it stands still
            self._later(*item, replace(due, found=checked.drift, lanes=checked.lanes))
        elif due.look is _Look.FIRST and self._may_mend(item, checked):
            self._add(item, _Due(at=again, look=_Look.SECOND, found=checked.drift, lanes=checked.lanes))
        else:
            if due.look is _Look.LAST:
                self._remember(item, checked)
            _tell(checked, due.look)
        for each in mended.unrepaired:
            log.warning(
                "verify.unrepaired",
                backend=checked.backend,
                entity=checked.ref.key,
                kind=each.difference.kind,
                item=each.difference.item,
                choice=each.choice,
            )

    def _may_mend(self, item: tuple[Ref, str], checked: Checked) -> bool:
        return self._rules.repairs and not checked.is_active and self._unmended.get(item) != checked.drift

    def _remember(self, item: tuple[Ref, str], checked: Checked) -> None:
        self._unmended[item] = checked.drift
        if len(self._unmended) > _QUEUE:
            del self._unmended[next(iter(self._unmended))]

    def _later(self, ref: Ref, backend: str, due: _Due) -> None:
        wait = wait_before(due.waits + 1, _AGAIN, self._clock.chance())
        self._add((ref, backend), replace(due, at=self._clock.now() + wait, waits=due.waits + 1))

    # --- everything -----------------------------------------------------------------------------------------------

    async def _sweep(self) -> AsyncGenerator[bool, None]:
        """Go a step further each time that it is asked; say whether that cost anything, False when it is not time.

        A pass begins a while after the start or the end of the one before. What was compared since it began, and has
        not changed, is left out. One that could not see everything is tried again soon, and leaves that out, too.
        """
        if self._rules.sweep is None:
            while True:
                yield False
        self._sweep_at = self._clock.now() + max(self._rules.settle, self._rules.pause)
        began_at = None
        while True:
            if self._clock.now() < self._sweep_at:
                yield False
                continue
            began_at = began_at or self._clock.now()
            self._is_whole = True
            async for _ in self._pass(began_at):
                yield True
            if self._is_whole:
                began_at = None
            wait = self._rules.sweep if began_at is None else min(self._rules.sweep, _SWEEP_AGAIN_SECONDS)
            self._sweep_at = self._clock.now() + wait

    async def _pass(self, began_at: float) -> AsyncIterator[None]:
        try:
            experiments = [each async for each in self._verifier.experiments()]
        except (BackendError, JournalError) as error:
            self._miss("", error)
            return
        except Exception as error:  # as below
            log.exception("verify.unforeseen")
            self._miss("", error)
            return
        for backend, window, experiment_id in product(self._targets, _WINDOWS, experiments):
            since = began_at - window if window is not None else 0.0
            refs = self._verifier.refs_in(experiment_id, backend, since=since, models=window is None)
            experiment = Ref(EntityKind.EXPERIMENT, ClientId(experiment_id))
            try:
                if await self._journal.twin(experiment, backend) is not None:
                    async for _ in self._over(refs, backend, began_at):
                        yield
                elif self._passes_over():  # nothing in it is mirrored, so nothing is listed
                    yield
            except (BackendError, JournalError) as error:
                self._miss(experiment_id, error)
                yield
            except Exception as error:  # the outermost edge of a listing: the next one goes on
                log.exception("verify.unforeseen", backend=backend, experiment=experiment_id)
                self._miss(experiment_id, error)
                yield

    def _miss(self, experiment_id: str, error: Exception) -> None:
        self._is_whole = False
        log.info("verify.sweep_later", experiment=experiment_id, reason=str(error))

    async def _over(self, refs: AsyncIterator[Ref], backend: str, began_at: float) -> AsyncIterator[None]:
        async for ref in refs:
            if not await self._may_be_asked(backend):
                self._is_whole = False
                return
            if await self._is_wanted(ref, backend, began_at):
                await self._look(ref, backend, _Due(at=began_at))
                yield
                if self._is_up(backend) is False:
                    self._is_whole = False
                    return
            elif self._passes_over():
                yield

    def _passes_over(self) -> bool:
        """Count what is left out, which costs little; say when that has added up to a step."""
        self._passed_over += 1
        return self._passed_over % _PASSED_OVER == 0

    async def _is_wanted(self, ref: Ref, backend: str, began_at: float) -> bool:
        if (ref, backend) in self._due:
            return False
        standing = self._standings.of(ref, backend)
        if standing is not None and not standing.is_stale and (standing.compared_at or 0.0) >= began_at:
            return False
        return await self._journal.twin(ref, backend) is not None


def _tell(checked: Checked, look: _Look) -> None:
    differences = [f"{each.kind} {each.item}".strip() for each in checked.drift]
    log.error(
        "verify.drift",
        backend=checked.backend,
        entity=checked.ref.key,
        differences=differences[:_TOLD],
        count=len(differences),
        hint="it is still there after a repair" if look is _Look.LAST else "`dualtrack verify` shows it whole",
    )
