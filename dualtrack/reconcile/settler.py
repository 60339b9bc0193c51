"""Settles writes whose answer from the primary was lost: a crash in between, a dropped connection, a 5xx.

It asks the primary what took effect. That much is queued, at the place that was kept for it in its lane; the rest is
refused, as if the primary had said so. A create is looked for among what nobody has claimed: a run that the primary
made and nobody heard of is mirrored too, so that both sides agree.

A primary that gave no answer may still be at work. So a create that made nothing yet is looked for a while longer, and
holds nothing back meanwhile; the entity of any other write is compared after that while.
"""

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto

import structlog

from dualtrack.core.entry import OpenEntry
from dualtrack.core.exchange import Exchange
from dualtrack.core.verdict import RetryPolicy, wait_before
from dualtrack.errors import BackendError, JournalError, RejectedError
from dualtrack.metrics import Metrics
from dualtrack.ports import ArtifactNote, Clock, Journal, Settlement
from dualtrack.reconcile.reader import Reader
from dualtrack.reconcile.unanswered import Unanswered, UndecidedError
from dualtrack.translate.document import MalformedError, write
from dualtrack.translate.evidence import metric_keys, remaining, shows, shows_by_absence
from dualtrack.translate.files import file_write, tell
from dualtrack.translate.mlflow import API
from dualtrack.translate.operations import Reading, Shape, lane_of, made_by, read

log = structlog.get_logger("dualtrack.reconcile")

_POLICY = RetryPolicy(wait_min=1.0, wait_max=30.0)
_SOON = RetryPolicy(wait_min=0.1, wait_max=1.0)  # until it is known what was under way at the primary
_IDLE_SECONDS = 60.0
_COMPARED = 10_000  # lanes to compare: what does not fit is left to the sweep
_TRIES = 3  # of what fails in a way that nobody foresaw; then it is set aside


class _No(Enum):
    REFUSED = auto()  # it did not take effect
    MISSING = auto()  # a create made nothing, so far
    UNDECIDED = auto()


@dataclass(slots=True, kw_only=True)
class _Doubt:
    """A write in doubt. A create that was looked for in vain is looked for again until `late_until`."""

    entry: OpenEntry
    late_until: float
    looks: int = 0
    failures: int = 0


class Settler:
    """Owns the writes in doubt. `primary` is the primary's name, `late` the seconds that it may still be at work.

    `expect_repeats` is told the lane of each that took effect: its client did not hear of it, and sends it again.
    `compare` is told the lane of each, once the primary can have nothing of it left to do.
    """

    def __init__(
        self,
        journal: Journal,
        reader: Reader,
        primary: str,
        clock: Clock,
        metrics: Metrics,
        *,
        late: float = 0.0,
        expect_repeats: Callable[[str], None] = lambda _: None,
        compare: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._expect_repeats = expect_repeats
        self._compare = compare
        self._journal = journal
        self._reader = reader
        self._primary = primary
        self._clock = clock
        self._metrics = metrics
        self._late = late
        self._unanswered = Unanswered(journal, reader, primary)
        self._doubts: dict[int, _Doubt] = {}
        self._missing: set[int] = set()
        self._due: list[tuple[float, int]] = []  # a heap of when each of them is asked about
        self._to_compare: deque[tuple[float, str]] = deque(maxlen=_COMPARED)  # lanes, and when
        self._wake = asyncio.Event()

    @property
    def unsettled(self) -> int:
        """How many writes are in doubt now, without those that were looked for in vain."""
        return len(self._doubts) - self.missing

    @property
    def missing(self) -> int:
        """How many creates were looked for in vain, so far."""
        return len(self._missing)

    def take(self, entry: OpenEntry) -> None:
        """Ask about `entry` soon."""
        now = self._clock.now()
        self._doubts[entry.entry_id] = _Doubt(entry=entry, late_until=now + self._late)
        if entry.key is None:
            self._unanswered.add(entry.entry_id)
        self._ask_at(now, entry.entry_id)
        self._metrics.journal_open.set(self.unsettled)

    async def recover(self) -> Sequence[OpenEntry]:
        """Take over what a crash left open; the place of each in its lane is kept from here on."""
        entries = await self._journal.left_open(lane_of)
        for entry in entries:
            self.take(entry)
        if entries:
            log.warning("reconcile.left_open", entries=len(entries))
        return entries

    async def run(self) -> None:
        """Settle doubts in turn, for ever. The primary's trouble is waited out; a doubt's own holds back itself."""
        failures = 0
        while True:
            self._compare_due()
            doubt = self._next()
            if doubt is None:
                await self._rest()
                continue
            try:
                await self._turn(doubt)
            except (BackendError, JournalError, MalformedError) as error:
                self._ask_at(self._clock.now(), doubt.entry.entry_id)
                failures += 1
                wait = wait_before(failures, _POLICY, self._clock.chance())
                log.warning("reconcile.unsettled", entry=doubt.entry.entry_id, reason=str(error), wait=round(wait, 1))
                await self._clock.wait(wait)
            except Exception as error:  # the outermost edge of a doubt: the next one goes on
                log.exception("reconcile.unforeseen", entry=doubt.entry.entry_id, failures=doubt.failures + 1)
                await self._fail(doubt, error)
            else:
                failures = 0

    def _ask_at(self, at: float, entry_id: int) -> None:
        heapq.heappush(self._due, (at, entry_id))
        self._wake.set()

    def _next(self) -> _Doubt | None:
        if not self._due or self._due[0][0] > self._clock.now():
            return None
        return self._doubts[heapq.heappop(self._due)[1]]

    async def _rest(self) -> None:
        """Wait until something is due, or in doubt."""
        self._wake.clear()
        moments = [queue[0][0] for queue in (self._due, self._to_compare) if queue]
        wait = min([_IDLE_SECONDS, *(max(0.0, moment - self._clock.now()) for moment in moments)])
        try:
            async with asyncio.timeout(wait):
                await self._wake.wait()
        except TimeoutError:
            return

    def _compare_due(self) -> None:
        while self._to_compare and self._to_compare[0][0] <= self._clock.now():
            self._compare(self._to_compare.popleft()[1])

    async def _turn(self, doubt: _Doubt) -> None:
        """Ask about a write once: settle it, or say when it is asked about again."""
        entry = doubt.entry
        judged = await self._look(entry)
        match judged:
            case Settlement():
                self._expect_repeats(judged.key)
                await self._journal.settle(judged)
            case _No.UNDECIDED:
                self._look_again(doubt, _SOON)
                return
            case _No.MISSING if self._clock.now() < doubt.late_until:
                self._miss(doubt)
                self._look_again(doubt, _POLICY)
                return
            case _:
                self._refuse(entry)
        self._end(doubt)
        log.info("reconcile.settled", entry=entry.entry_id, accepted=isinstance(judged, Settlement))

    async def _look(self, entry: OpenEntry) -> Settlement | _No:
        exchange = await self._journal.opened(entry.entry_id)
        try:
            return await self._judge(entry, exchange) if exchange is not None else _No.REFUSED
        except UndecidedError:
            return _No.UNDECIDED
        except RejectedError as error:
            # what cannot even be asked about was not written either
            log.warning("reconcile.rejected", entry=entry.entry_id, reason=str(error))
            return _No.REFUSED

    def _miss(self, doubt: _Doubt) -> None:
        """What a create made is not there, so far: nothing waits for it any more."""
        entry = doubt.entry
        if entry.entry_id not in self._missing:
            self._missing.add(entry.entry_id)
            self._journal.give_up_place("", entry.seq)  # it has no lane yet
            self._metrics.journal_open.set(self.unsettled)
            doubt.looks = 0
            log.info("reconcile.missing", entry=entry.entry_id, seconds=round(self._late))

    def _look_again(self, doubt: _Doubt, policy: RetryPolicy) -> None:
        doubt.looks += 1
        at = self._clock.now() + wait_before(doubt.looks, policy, self._clock.chance())
        self._ask_at(at, doubt.entry.entry_id)

    def _refuse(self, entry: OpenEntry) -> None:
        self._journal.refuse(entry.entry_id)
        if entry.key is not None:
            self._journal.give_up_place(entry.key, entry.seq)

    async def _fail(self, doubt: _Doubt, error: Exception) -> None:
        """Try it again later; what fails again and again is set aside, so that it holds back nobody."""
        doubt.failures += 1
        if doubt.failures >= _TRIES:
            try:
                await self._journal.set_aside(
                    doubt.entry.entry_id, doubt.entry.key or "", f"cannot be judged: {error!r}"
                )
            except JournalError as trouble:
                log.warning("reconcile.unsettled", entry=doubt.entry.entry_id, reason=str(trouble))
            else:
                self._refuse(doubt.entry)
                self._end(doubt)
                return
        wait = wait_before(doubt.failures, _POLICY, self._clock.chance())
        self._ask_at(self._clock.now() + wait, doubt.entry.entry_id)

    def _end(self, doubt: _Doubt) -> None:
        entry = doubt.entry
        del self._doubts[entry.entry_id]
        self._missing.discard(entry.entry_id)
        self._unanswered.remove(entry.entry_id)
        if entry.key is not None:
            self._to_compare.append((self._clock.now() + self._late, entry.key))
        self._metrics.journal_open.set(self.unsettled)

    async def _judge(self, entry: OpenEntry, exchange: Exchange) -> Settlement | _No:
        try:
            reading = read(exchange)
        except MalformedError:
            return _No.REFUSED
        if reading.operation.creates:
            return await self._find_created(entry, reading)
        if reading.subject is None:
            return _No.REFUSED
        subject = reading.subject
        if (told := file_write(reading)) is not None:
            # whether it took effect or not: that side is made to equal what the primary has there now
            unknown = ArtifactNote(path=told.path, size=0, sha256="", spool="")
            return Settlement(
                entry_id=entry.entry_id,
                key=subject.key,
                seq=entry.seq,
                exchange=tell(told.operation, told.ref, told.path, in_doubt=True),
                artifact=unknown,
            )
        observed = await self._reader.observe(subject.kind, subject.client_id, metric_keys(reading))
        if observed is None:
            is_known = await self._journal.twin(subject, self._primary) is not None
            took = is_known and shows_by_absence(reading)
            return Settlement(entry_id=entry.entry_id, key=subject.key, seq=entry.seq) if took else _No.REFUSED
        took_effect: Exchange | None = None
        if reading.operation.shape is Shape.NONE:
            if not shows(reading, observed):
                return _No.REFUSED
        else:
            left = remaining(reading, observed)
            if left is None:
                return _No.REFUSED
            body = write({"run_id": subject.client_id, **left})
            took_effect = Exchange(operation="logBatch", method="POST", path=f"{API}/runs/log-batch", body=body)
        return Settlement(entry_id=entry.entry_id, key=subject.key, exchange=took_effect, seq=entry.seq)

    async def _find_created(self, entry: OpenEntry, reading: Reading) -> Settlement | _No:
        found = await self._unanswered.find(entry.entry_id, reading)
        exchange = replace(reading.exchange, answer=write(found or {}))
        made = made_by(exchange, self._primary) if found is not None else None
        if made is None:
            return _No.MISSING
        return Settlement(entry_id=entry.entry_id, key=made.ref.key, exchange=exchange, seq=entry.seq, twins=(made,))
