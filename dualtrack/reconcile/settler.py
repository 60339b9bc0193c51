"""Settles writes whose answer from the primary was lost: a crash in between, a dropped connection, a 5xx.

It asks the primary what took effect. That much is queued, at the place that was kept for it in its lane; the rest is
refused, as if the primary had said so. A create is looked for among what nobody has claimed: a run that the primary
made and nobody heard of is mirrored too, so that both sides agree.
"""

import asyncio
from collections.abc import Callable

import structlog

from dualtrack.core.entry import OpenEntry
from dualtrack.core.exchange import Document, Exchange
from dualtrack.core.ids import BackendId, EntityKind
from dualtrack.core.verdict import RetryPolicy, wait_before
from dualtrack.errors import BackendError, JournalError, RejectedError
from dualtrack.metrics import Metrics
from dualtrack.ports import ArtifactNote, Clock, Journal, Settlement
from dualtrack.reconcile.reader import Reader
from dualtrack.translate.document import MalformedError, field, objects, parse, text, write
from dualtrack.translate.evidence import created, metric_keys, remaining, shows, shows_by_absence
from dualtrack.translate.files import file_write, tell
from dualtrack.translate.mlflow import API, experiment_by_name, search_created
from dualtrack.translate.operations import Reading, Shape, lane_of, made_by, read

log = structlog.get_logger("dualtrack.reconcile")

_POLICY = RetryPolicy(wait_min=1.0, wait_max=30.0)
_CREATED_ID = {EntityKind.RUN: ("run", "info", "run_id"), EntityKind.MODEL: ("model", "info", "model_id")}


class Settler:
    """Owns the writes in doubt. `primary` is the primary's name.

    `expect_repeats` is told the lane of each that took effect: its client did not hear of it, and sends it again.
    """

    def __init__(
        self,
        journal: Journal,
        reader: Reader,
        primary: str,
        clock: Clock,
        metrics: Metrics,
        expect_repeats: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._expect_repeats = expect_repeats
        self._journal = journal
        self._reader = reader
        self._primary = primary
        self._clock = clock
        self._metrics = metrics
        self._doubts: asyncio.Queue[OpenEntry] = asyncio.Queue()
        self._unsettled = 0

    @property
    def unsettled(self) -> int:
        """How many writes are in doubt now."""
        return self._unsettled

    def take(self, entry: OpenEntry) -> None:
        """Ask about `entry` soon."""
        self._unsettled += 1
        self._metrics.journal_open.set(self._unsettled)
        self._doubts.put_nowait(entry)

    async def recover(self) -> int:
        """Take over what a crash left open; the place of each in its lane is kept from here on."""
        entries = await self._journal.left_open(lane_of)
        for entry in entries:
            self.take(entry)
        if entries:
            log.warning("reconcile.left_open", entries=len(entries))
        return len(entries)

    async def run(self) -> None:
        """Settle doubts in turn, for ever; one that the primary cannot say anything about goes to the end."""
        failures = 0
        while True:
            entry = await self._doubts.get()
            try:
                accepted = await self._settle(entry)
            except (BackendError, JournalError, MalformedError) as error:
                self._doubts.put_nowait(entry)
                failures += 1
                wait = wait_before(failures, _POLICY, self._clock.chance())
                log.warning("reconcile.unsettled", entry=entry.entry_id, reason=str(error), wait=round(wait, 1))
                await self._clock.wait(wait)
                continue
            failures = 0
            self._unsettled -= 1
            self._metrics.journal_open.set(self._unsettled)
            log.info("reconcile.settled", entry=entry.entry_id, accepted=accepted)

    async def _settle(self, entry: OpenEntry) -> bool:
        exchange = await self._journal.opened(entry.entry_id)
        try:
            settlement = await self._judge(entry, exchange) if exchange is not None else None
        except RejectedError as error:
            # what cannot even be asked about was not written either
            log.warning("reconcile.rejected", entry=entry.entry_id, reason=str(error))
            settlement = None
        if settlement is not None:
            self._expect_repeats(settlement.key)
            await self._journal.settle(settlement)
            return True
        self._journal.refuse(entry.entry_id)
        if entry.key is not None:
            self._journal.give_up_place(entry.key, entry.seq)
        return False

    async def _judge(self, entry: OpenEntry, exchange: Exchange) -> Settlement | None:
        try:
            reading = read(exchange)
        except MalformedError:
            return None
        if reading.operation.creates:
            return await self._find_created(entry, reading)
        if reading.subject is None:
            return None
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
            return Settlement(entry_id=entry.entry_id, key=subject.key, seq=entry.seq) if took else None
        took_effect: Exchange | None = None
        if reading.operation.shape is Shape.NONE:
            if not shows(reading, observed):
                return None
        else:
            left = remaining(reading, observed)
            if left is None:
                return None
            body = write({"run_id": subject.client_id, **left})
            took_effect = Exchange(operation="logBatch", method="POST", path=f"{API}/runs/log-batch", body=body)
        return Settlement(entry_id=entry.entry_id, key=subject.key, exchange=took_effect, seq=entry.seq)

    async def _find_created(self, entry: OpenEntry, reading: Reading) -> Settlement | None:
        kind = reading.operation.about
        if kind is EntityKind.EXPERIMENT:
            found = await self._named(reading)
        else:
            found = await self._unclaimed(reading)
        if found is None:
            return None
        exchange = reading.exchange
        answered = Exchange(
            operation=exchange.operation,
            method=exchange.method,
            path=exchange.path,
            query=exchange.query,
            body=exchange.body,
            answer=write(found),
        )
        made = made_by(answered, self._primary)
        if made is None:
            return None
        return Settlement(entry_id=entry.entry_id, key=made.ref.key, exchange=answered, seq=entry.seq, twins=(made,))

    async def _named(self, reading: Reading) -> Document | None:
        name = text(reading.document.get("name"))
        answer = await self._reader.ask(experiment_by_name(name)) if name else None
        experiment = field(parse(answer.body), "experiment") if answer is not None else None
        return {"experiment_id": field(experiment, "experiment_id")} if experiment else None

    async def _unclaimed(self, reading: Reading) -> Document | None:
        kind = reading.operation.about
        try:
            answer = await self._reader.ask(search_created(reading))
        except RejectedError:
            answer = await self._reader.ask(search_created(reading, by_start=False))
        if answer is None:
            return None
        listed = parse(answer.body)
        found: list[Document] = [{"run": run} for run in objects(listed.get("runs"))]
        found += [{"model": model} for model in objects(listed.get("models"))]
        known: set[str] = set()
        for candidate in found:
            some_id = text(field(candidate, *_CREATED_ID[kind]))
            if await self._journal.client_ref(kind, self._primary, BackendId(some_id)) is not None:
                known.add(some_id)
        return created(reading, found, frozenset(known))
