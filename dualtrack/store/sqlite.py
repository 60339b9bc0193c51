"""The journal on SQLite: WAL, one writing thread, one reading thread, one process.

Opening an entry is a write that survives this process; settling is synced. `seq` and entry ids come from one counter
in memory, whose upper bound is reserved on disk in blocks, so that giving a number never waits. Leases are held in
memory: the database file is locked by this process, so they end with it, which is what a lease is for.
"""

import asyncio
import itertools
import math
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from dualtrack.core.entry import Entry, OpenEntry
from dualtrack.core.exchange import Exchange
from dualtrack.core.ids import BackendId, ClientId, EntityKind, Ref, Twin
from dualtrack.core.loss import LossKind
from dualtrack.errors import JournalError, JournalFullError, RegistryEntryError, StartError
from dualtrack.ports import ArtifactNote, Backlog, Lane, Loss, Parked, Progress, RecordedLoss, Settlement, Usage
from dualtrack.store.ballast import Ballast
from dualtrack.store.models import SqliteModels
from dualtrack.store.opening import acquire, connect, migrate
from dualtrack.store.parking import discard, last_cause, park, parked_of, retry
from dualtrack.store.record import DamagedRecordError, seal, unseal
from dualtrack.store.steps import (
    SQL,
    delete_open,
    find_rooted,
    find_waiting,
    finish,
    insert_open,
    insert_spooled,
    loss_of,
    reserve,
    save_losses,
    save_roots,
    save_twins,
    settle_rows,
    settle_whole,
    settled_before,
    twin_of,
)
from dualtrack.store.writer import Writer

T = TypeVar("T")

_BLOCK = 1 << 20  # numbers reserved at once: one synced write per million writes
_READ_AHEAD_ROWS = 4000
_ACKNOWLEDGED = 10_000  # lanes remembered: as many as can be written to while one entity is compared
_FULL_SECONDS = 1.0  # after a full disk was met, until it is tried again
_NO_LANE = ""  # where creates in doubt have their places: what they made has no id yet
_ALL = (1 << 63) - 1  # larger than any row's number
_FILL = 0.8  # of the shelf's pages is rows: 0.7 to 0.99, by the length of the documents (tried with five mixes)
_RESERVE = 0.95  # opens stop at this share of the bound, so that what is open can still settle


@dataclass(frozen=True, slots=True)
class _Damaged:
    seq: int
    record: bytes | None
    why: str


class SqliteJournal:
    """The Journal port on one SQLite file. Build it with `open_journal`, inside a running event loop."""

    def __init__(
        self,
        path: Path,
        connection: sqlite3.Connection,
        lock: int,
        *,
        secondaries: Sequence[str],
        max_bytes: int,
        linger: float,
        now: Callable[[], float],
        is_registry: Callable[[str], bool],
        observe_commit: Callable[[float], None],
    ) -> None:
        self._path = path
        self._lock = lock
        self._secondaries = tuple(secondaries)
        self._max_bytes = max_bytes
        self._linger = linger
        self._now = now
        self._is_registry = is_registry
        self._used_bytes = 0
        self._measured_at = 0.0
        self._disk_full_until = 0.0
        self._ballast = Ballast(path)
        self._ballast.take()
        # the log between two checkpoints fits into the ballast, so that it can be brought home when the disk is full
        connection.execute(f"PRAGMA wal_autocheckpoint={self._ballast.pages}")
        self._leased: set[tuple[str, str]] = set()
        self._places: dict[str, dict[int, float]] = {}  # for writes in doubt, by lane: each is kept since an instant
        self._acknowledged: dict[str, int] = {}  # the last ones, by lane
        self._under_way: dict[int, str] = {}  # opened here, and nothing heard yet; not files, which take their time
        self._queued = dict.fromkeys(self._secondaries, 0)
        self._wakers: list[Callable[[float], None]] = []
        self._given: int = connection.execute(SQL["counter"]).fetchone()[0]
        self._sequence = itertools.count(self._given + 1)
        self._reserved = self._given
        self._is_reserving = False
        self._measure(connection)
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="dualtrack-journal-reads")
        self._read_connection = connect(path, readonly=True)
        self._writer = Writer(connection, observe_commit, self._measure, self._make_room)
        self.models = SqliteModels(self._write, self._read)

    # --- the hot path -------------------------------------------------------------------------------------------

    async def open(self, exchange: Exchange, spool: str = "") -> int:
        if self._is_registry(exchange.operation):
            raise RegistryEntryError(f"{exchange.operation} is a registry call; the journal holds none (P6)")
        self._recover_room()
        if self.is_full:
            raise self._full()
        entry_id = self._number()
        record = seal(exchange)
        self._used_bytes += len(record)  # until it is measured: a burst between two measurements keeps to the bound
        row = (entry_id, self._now(), record)
        if spool:
            await self._committed(self._writer.add(insert_spooled, (*row, spool), synced=False))
            return entry_id
        await self._committed(self._writer.add(insert_open, row, synced=False))
        self._under_way[entry_id] = exchange.operation
        return entry_id

    async def settle(self, settlement: Settlement) -> None:
        now = self._now()
        if settlement.seq is None:
            seq, settled_at = self._number(), now
        else:
            # within a lane the instants rise as the numbers do, so its head is its oldest; but for a create found late
            seq, settled_at = settlement.seq, self._kept_since(settlement.key, settlement.seq, now)
        self._acknowledge(settlement.key)
        # a create is what others wait for: it does not linger
        due = now if settlement.twins else now + self._linger
        row = (settlement.entry_id, settlement.key, seq, settled_at, self._secondaries, due)
        try:
            await self._queue(settlement, row)
        finally:
            self._under_way.pop(settlement.entry_id, None)
        for backend in self._secondaries:
            self._queued[backend] += 1
        if settlement.seq is not None:
            for lane in (settlement.key, _NO_LANE):
                self.give_up_place(lane, seq)
        self._wake(due)

    def _acknowledge(self, key: str) -> None:
        self._acknowledged.pop(key, None)
        self._acknowledged[key] = self._given
        if len(self._acknowledged) > _ACKNOWLEDGED:
            del self._acknowledged[next(iter(self._acknowledged))]

    async def _queue(self, settlement: Settlement, row: tuple[Any, ...]) -> None:
        if settlement.exchange is None and settlement.artifact is None and not settlement.twins:
            await self._committed(self._writer.add(settle_rows, row, synced=True))
        else:

            def step(connection: sqlite3.Connection) -> None:
                settle_whole(connection, settlement, row)

            await self._guard(self._writer.run(step, synced=True))

    def refuse(self, entry_id: int) -> None:
        self._under_way.pop(entry_id, None)
        self.give_up_place(_NO_LANE, entry_id)
        self._writer.add_unawaited(delete_open, (entry_id,))

    def doubt(self, entry_id: int, key: str | None) -> OpenEntry:
        # nothing of what a create made was acknowledged before it
        entry = OpenEntry(entry_id=entry_id, seq=entry_id if key is None else self._number(), key=key)
        self._keep_place(entry, self._now())
        self._under_way.pop(entry_id, None)
        return entry

    def _keep_place(self, entry: OpenEntry, at: float) -> None:
        self._places.setdefault(entry.key or _NO_LANE, {})[entry.seq] = at

    def _kept_since(self, key: str, seq: int, otherwise: float) -> float:
        """Since when a place is kept; a create's is in no lane until what it made is known."""
        return self._places.get(_NO_LANE, {}).get(seq, self._places.get(key, {}).get(seq, otherwise))

    def give_up_place(self, key: str, seq: int) -> None:
        places = self._places.get(key)
        if places is not None:
            places.pop(seq, None)
            if not places:
                del self._places[key]

    def _full(self) -> JournalFullError:
        disk = ", and its disk is full" if self._disk_full_until else ""
        return JournalFullError(f"the journal holds {self._used_bytes} bytes of its {self._max_bytes}{disk}")

    @property
    def is_full(self) -> bool:
        return self._now() < self._disk_full_until or self._ballast.is_spent or self._is_at_bound

    def _recover_room(self) -> None:
        """Look now and then whether there is room again; a disk that is still full keeps us full."""
        is_time = self._now() >= self._disk_full_until
        if self._ballast.is_spent and is_time and not self._ballast.take():
            self._disk_full_until = self._now() + _FULL_SECONDS

    @property
    def _is_at_bound(self) -> bool:
        return self._used_bytes >= self._max_bytes * _RESERVE

    def _number(self) -> int:
        self._given = next(self._sequence)
        if self._given + _BLOCK // 2 > self._reserved and not self._is_reserving:
            self._is_reserving = True
            bound = self._given + _BLOCK
            reserving = self._writer.add(reserve, (bound,), synced=False)
            reserving.add_done_callback(lambda done: self._was_reserved(done, bound))
        return self._given

    def _was_reserved(self, reserving: "asyncio.Future[None]", bound: int) -> None:
        self._is_reserving = False
        if not reserving.cancelled() and reserving.exception() is None:
            self._reserved = bound

    # --- recovery -----------------------------------------------------------------------------------------------

    async def left_open(self, key_of: Callable[[Exchange], str | None]) -> list[OpenEntry]:
        found: list[OpenEntry] = []
        for entry_id, opened_at in await self._select("left_open", ()):
            exchange = await self.opened(entry_id)
            if exchange is None:
                continue
            # what has a higher number was acknowledged after this was opened: while the primary had it, or later
            entry = OpenEntry(entry_id=entry_id, seq=entry_id, key=key_of(exchange))
            self._keep_place(entry, opened_at)
            found.append(entry)
        return found

    async def opened(self, entry_id: int) -> Exchange | None:
        rows = await self._select("opened", (entry_id,))
        if not rows:
            return None
        try:
            return unseal(rows[0][0])
        except DamagedRecordError as error:
            await self.set_aside(entry_id, "", str(error))
            return None

    async def set_aside(self, entry_id: int, key: str, why: str) -> None:
        now = self._now()

        def step(connection: sqlite3.Connection) -> None:
            for (record,) in connection.execute(SQL["opened"], (entry_id,)).fetchall():
                connection.execute(SQL["insert_quarantine"], ("", key, entry_id, record, why, now))
            delete_open(connection, [(entry_id,)])

        await self._guard(self._writer.run(step, synced=True))

    # --- delivery -----------------------------------------------------------------------------------------------

    async def claim(self, backend: str, limit: int, now: float) -> list[Lane]:
        if limit <= 0:
            return []
        room = limit + sum(1 for leased, _ in self._leased if leased == backend)

        def step(connection: sqlite3.Connection) -> list[tuple[str, int]]:
            return connection.execute(SQL["due_lanes"], (backend, now, room)).fetchall()

        rows = await self._read(step)
        free = [(key, attempts) for key, attempts in rows if (backend, key) not in self._leased][:limit]
        self._leased.update((backend, key) for key, _ in free)
        return [Lane(backend=backend, key=key, attempts=attempts) for key, attempts in free]

    def release(self, lane: Lane) -> None:
        self._leased.discard((lane.backend, lane.key))

    async def next_due(self, backend: str) -> float | None:
        room = 1 + sum(1 for leased, _ in self._leased if leased == backend)

        def step(connection: sqlite3.Connection) -> list[tuple[str, float]]:
            return connection.execute(SQL["next_due"], (backend, room)).fetchall()

        rows = await self._read(step)
        return next((at for key, at in rows if (backend, key) not in self._leased), None)

    async def read(self, lane: Lane, max_bytes: int) -> list[Entry]:
        # nor beyond a place that is kept until the reading thread comes to it: that one has a number not given yet
        barrier = min(self._places.get(lane.key, ()), default=self._given + 1)

        def step(connection: sqlite3.Connection) -> list[Entry | _Damaged]:
            found: list[Entry | _Damaged] = []
            size = 0
            cursor = connection.execute(SQL["read_lane"], (lane.backend, lane.key, barrier))
            for seq, settled_at, attempted, queued_at, spool, record in cursor:
                size += len(record or b"")
                if found and (size > max_bytes or len(found) >= _READ_AHEAD_ROWS):
                    break
                try:
                    entry = Entry(
                        seq=seq,
                        exchange=unseal(record or b""),
                        settled_at=settled_at,
                        queued_at=queued_at or 0.0,
                        attempted=bool(attempted),
                        spool=spool or "",
                    )
                except DamagedRecordError as error:
                    found.append(_Damaged(seq, record, str(error)))
                else:
                    found.append(entry)
            cursor.close()
            return found

        found = await self._read(step)
        for item in found:
            if isinstance(item, _Damaged):
                await self._quarantine(lane, item.seq, item.record, item.why)
        return [item for item in found if isinstance(item, Entry)]

    async def _quarantine(self, lane: Lane, seq: int, record: bytes | None, why: str) -> None:
        now = self._now()

        def step(connection: sqlite3.Connection) -> None:
            row = (lane.backend, lane.key, seq, record, why, now)
            connection.execute(SQL["insert_quarantine"], row)
            finish(connection, lane.backend, lane.key, (seq,))
            loss = Loss(kind=LossKind.WRITE, reason="damaged_record", detail=why)
            save_losses(connection, lane.backend, lane.key, (loss,), now)

        await self._guard(self._writer.run(step, synced=False))
        self._queued[lane.backend] -= 1

    async def mark_attempted(self, lane: Lane, seq: int) -> None:
        def step(connection: sqlite3.Connection) -> None:
            connection.execute(SQL["mark_attempted"], (lane.backend, lane.key, seq))

        await self._guard(self._writer.run(step, synced=True))

    async def record(self, progress: Progress) -> None:
        now = self._now()

        def step(connection: sqlite3.Connection) -> int:
            backend, key = progress.backend, progress.key
            save_twins(connection, progress.twins)
            for parking in progress.parkings:
                park(connection, backend, key, parking, now)
            save_losses(connection, backend, key, progress.losses, now)
            finished = finish(connection, backend, key, progress.done)
            self._move_lane(connection, progress)
            if progress.twins or finished:
                connection.execute(SQL["wake_waiting"], (now, backend, key))
            return finished

        # undone progress is only repeated, and repeats are found out; so this need not be synced
        finished = await self._guard(self._writer.run(step, synced=bool(progress.twins)))
        self._queued[progress.backend] -= finished
        if progress.twins or finished:
            self._wake()

    def _move_lane(self, connection: sqlite3.Connection, progress: Progress) -> None:
        backend, key = progress.backend, progress.key
        held = any(parking.holds for parking in progress.parkings) or bool(
            connection.execute(SQL["held_by"], (backend, key)).fetchone()
        )
        head = connection.execute(SQL["head"], (backend, key)).fetchone()
        if head is None and not held:
            connection.execute(SQL["delete_lane"], (backend, key))
            return
        oldest_at = head[0] if head else self._now()
        next_at, waiting_for = progress.next_at, progress.waiting_for
        if waiting_for and not connection.execute(SQL["is_pending"], (backend, waiting_for)).fetchone():
            next_at, waiting_for = self._now(), None  # it arrived while this lane made up its mind
        row = (
            next_at,
            oldest_at,
            progress.attempts,
            int(held),
            waiting_for,
            progress.error[:500],
            backend,
            key,
        )
        connection.execute(SQL["update_lane"], row)

    async def is_pending(self, backend: str, key: str) -> bool:
        return bool(await self._select("is_pending", (backend, key)))

    async def waiting(self, backend: str, keys: Sequence[str]) -> dict[str, bool]:
        return await self._read(lambda connection: find_waiting(connection, backend, keys))

    async def has_older(self, backend: str, key: str, than: float, kind: EntityKind | None = None) -> bool:
        # the places first: what is settled while the lanes are read is in one of both
        if self._has_older_place(key, than, kind):
            return True
        pattern = "*" if kind is None else f"{kind}:*"
        return bool(await self._select("has_older", (backend, key, than, pattern)))

    async def is_at_rest(self, backend: str) -> bool:
        return not await self._select("has_older", (backend, "", math.inf, "*"))

    def _has_older_place(self, key: str, than: float, kind: EntityKind | None) -> bool:
        beginning = "" if kind is None else f"{kind}:"
        return any(
            at < than
            for lane, places in self._places.items()
            if lane != key and lane.startswith(beginning)
            for at in places.values()
        )

    async def is_spooled(self, name: str) -> bool:
        return bool(await self._select("is_spooled", (name,)))

    async def has_parked(self, backend: str, key: str, operations: Sequence[str]) -> str | None:
        return await self._read(lambda connection: last_cause(connection, backend, key, operations))

    async def has_dead_letters(self, backend: str, key: str) -> bool:
        return bool(await self._select("has_dead_letters", (backend, key)))

    async def queued(self, backend: str, limit: int) -> list[str]:
        return [key for (key,) in await self._select("queued", (backend, limit))]

    def last_seq(self) -> int:
        return self._given

    def has_grown(self, key: str, since: int) -> bool:
        return self._acknowledged.get(key, 0) > since

    def is_under_way(self, upto: int, operation: str = "") -> bool:
        under_way = self._under_way.items()
        return any(entry_id <= upto and operation in {"", started} for entry_id, started in under_way)

    def may_grow(self, key: str, upto: int) -> bool:
        return key in self._places or self.is_under_way(upto)

    async def replace(self, backend: str, key: str, upto: int, exchanges: Sequence[Exchange]) -> None:
        now = self._now()
        numbers = [self._number() for _ in exchanges]
        places = dict(self._places.get(key, {}))

        def step(connection: sqlite3.Connection) -> int:
            # an open write, whose place is its number or a later one, stays behind these; any other number up to `upto`
            # is free, and negative ones are as good
            open_from = connection.execute(SQL["open_from"]).fetchone()[0]
            last = upto if open_from is None else min(upto, open_from - 1)
            first = last - len(exchanges) + 1
            old = connection.execute(SQL["lane_entries"], (backend, key, upto)).fetchall()
            since = settled_before(connection, backend, key, last, places, now)
            since = min([since, *(settled_at for _, _, settled_at, _ in old)])
            was_attempted = any(attempted for _, _, _, attempted in old)
            finish(connection, backend, key, tuple(row[0] for row in old))
            for offset, (entry_id, exchange) in enumerate(zip(numbers, exchanges, strict=True)):
                connection.execute(SQL["insert_entry"], (entry_id, now, seal(exchange), 1, None))
                connection.execute(SQL["insert_delivery"], (backend, key, first + offset, entry_id, since))
            if exchanges:
                connection.execute(SQL["add_lane"], (backend, key, now, since))
            if exchanges and was_attempted:
                connection.execute(SQL["mark_attempted"], (backend, key, first))
            return len(exchanges) - len(old)

        change = await self._guard(self._writer.run(step, synced=True))
        self._queued[backend] += change  # in two steps: `x += await …` loses what changed x meanwhile
        self._wake()

    async def append(self, backend: str, key: str, exchanges: Sequence[Exchange]) -> None:
        now = self._now()
        rows = [(self._number(), seal(exchange)) for exchange in exchanges]

        def step(connection: sqlite3.Connection) -> None:
            for number, record in rows:
                connection.execute(SQL["insert_entry"], (number, now, record, 1, None))
                connection.execute(SQL["insert_delivery"], (backend, key, number, number, now))
            if rows:
                connection.execute(SQL["add_lane"], (backend, key, now, now))

        await self._guard(self._writer.run(step, synced=True))
        self._queued[backend] += len(rows)
        self._wake()

    def on_due(self, waker: Callable[[float], None]) -> None:
        """Call `waker` with the instant at which something became, or will be, due."""
        self._wakers.append(waker)

    def _wake(self, at: float = 0.0) -> None:
        for waker in self._wakers:
            waker(at)

    # --- the id map ---------------------------------------------------------------------------------------------

    async def twin(self, ref: Ref, backend: str) -> Twin | None:
        rows = await self._select("twin", (ref.kind, ref.client_id, backend))
        if not rows:
            return None
        backend_id, name, root = rows[0]
        return Twin(ref=ref, backend=backend, backend_id=BackendId(backend_id), name=name, root=root)

    async def client_ref(self, kind: EntityKind, backend: str, backend_id: BackendId) -> Ref | None:
        rows = await self._select("client_id", (backend_id, backend, kind))
        return Ref(kind, ClientId(rows[0][0])) if rows else None

    async def rooted(self, backend: str, uris: Sequence[str]) -> Twin | None:
        return await self._read(lambda connection: find_rooted(connection, backend, uris))

    async def learn_roots(self, backend: str, stated: Iterable[tuple[EntityKind, str, str]]) -> None:
        rows = tuple(stated)
        if self.is_full:
            raise self._full()
        await self._guard(self._writer.run(lambda connection: save_roots(connection, backend, rows), synced=False))

    async def named(self, kind: EntityKind, backend: str, name: str) -> Twin | None:
        rows = await self._select("named", (name, backend))
        if not rows:
            return None
        client_id, backend_id, root = rows[0]
        ref = Ref(kind, ClientId(client_id))
        return Twin(ref=ref, backend=backend, backend_id=BackendId(backend_id), name=name, root=root)

    async def learn(self, twins: Iterable[Twin], *, synced: bool = True) -> None:
        learned = tuple(twins)

        def step(connection: sqlite3.Connection) -> None:
            now = self._now()
            save_twins(connection, learned)
            for twin in learned:
                connection.execute(SQL["wake_waiting"], (now, twin.backend, twin.ref.key))

        await self._guard(self._writer.run(step, synced=synced))
        self._wake()

    async def forget(self, ref: Ref, backend: str, backend_id: BackendId | None = None) -> None:
        def step(connection: sqlite3.Connection) -> None:
            connection.execute(SQL["delete_twin"], (ref.kind, ref.client_id, backend, backend_id))

        await self._guard(self._writer.run(step, synced=True))

    async def find(self, some_id: str) -> list[Twin]:
        twins: list[Twin] = []
        for kind, client_id in await self._select("find_entities", (some_id,)):
            twins += [twin_of(row) for row in await self._select("entity_twins", (kind, client_id))]
        return twins

    async def export_ids(self, after: tuple[str, str], limit: int) -> list[Twin]:
        return [twin_of(row) for row in await self._select("export_ids", (*after, limit))]

    # --- what people ask ----------------------------------------------------------------------------------------

    async def backlogs(self) -> list[Backlog]:
        return [await self._backlog(backend) for backend in self._secondaries]

    async def _backlog(self, backend: str) -> Backlog:
        entries = max(0, self._queued[backend])  # before the lanes: if those are held then, so is all that is counted

        def step(connection: sqlite3.Connection) -> tuple[Any, ...]:
            lanes, held, oldest = connection.execute(SQL["backlog"], (backend,)).fetchone()
            parked = connection.execute(SQL["count_parked"], (backend,)).fetchone()[0]
            lost = connection.execute(SQL["count_losses"], (backend,)).fetchone()[0]
            error = connection.execute(SQL["last_error"], (backend,)).fetchone()
            return lanes, held, oldest, parked, lost, error[0] if error else ""

        lanes, held, oldest, parked, lost, error = await self._read(step)
        return Backlog(
            backend=backend,
            entries=entries,
            oldest_at=oldest,
            lanes=lanes,
            held_lanes=held,
            parked=parked,
            losses=lost,
            last_error=error,
        )

    async def usage(self) -> Usage:
        quarantined = (await self._select("count_quarantined", ()))[0][0]
        return Usage(
            used_bytes=self._used_bytes,
            capacity_bytes=self._max_bytes,
            entries=sum(self._queued.values()),
            quarantined=quarantined,
            is_full=self.is_full,
        )

    async def parked(self, parked_id: int | None = None, limit: int = 100, before: int | None = None) -> list[Parked]:
        return [parked_of(row) for row in await self._select("parked", (parked_id, limit, before))]

    async def retry_parked(self, parked_id: int, now: float) -> bool:
        number = self._number()
        places = {key: dict(kept) for key, kept in self._places.items()}

        def step(connection: sqlite3.Connection) -> str | None:
            return retry(connection, parked_id, number, places, now)

        backend = await self._guard(self._writer.run(step, synced=True))
        if backend is not None and backend in self._queued:
            self._queued[backend] += 1
            self._wake()
        return backend is not None

    async def discard_parked(self, parked_id: int, note: str, items: Sequence[tuple[LossKind, str]] = ()) -> bool:
        now = self._now()

        def step(connection: sqlite3.Connection) -> tuple[str, int] | None:
            return discard(connection, parked_id, note, items, now)

        found = await self._guard(self._writer.run(step, synced=True))
        if found is None:
            return False
        backend, dropped = found
        if backend in self._queued:
            self._queued[backend] -= dropped
        self._wake()
        return True

    async def losses(
        self, key: str | None = None, *, backend: str | None = None, before: int | None = None, limit: int = 100
    ) -> list[RecordedLoss]:
        asked = (backend, _ALL if before is None else before, limit)
        rows = await (self._select("losses", asked) if key is None else self._select("losses_of", (*asked, key)))
        return [loss_of(row) for row in rows]

    # --- files --------------------------------------------------------------------------------------------------

    async def spooled(self) -> set[str]:
        return {name for (name,) in await self._select("spooled", ())}

    async def artifacts(self, key: str) -> list[ArtifactNote]:
        rows = await self._select("artifacts", (key,))
        return [ArtifactNote(path=path, size=size, sha256=sha256) for path, size, sha256 in rows]

    # --- housekeeping -------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Count the backlog, once, before anything is settled or delivered."""

        def step(connection: sqlite3.Connection) -> dict[str, int]:
            return dict(connection.execute(SQL["count_queued"]).fetchall())

        for backend, queued in (await self._read(step)).items():
            self._queued[backend] = self._queued.get(backend, 0) + queued

    async def close(self) -> None:
        await self._writer.close()
        await asyncio.get_running_loop().run_in_executor(self._reader, self._read_connection.close)
        self._reader.shutdown()
        os.close(self._lock)

    def _measure(self, connection: sqlite3.Connection) -> None:
        self._disk_full_until = 0.0
        if self._ballast.is_spent:
            # while room is scarce the log must not grow
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        started = time.monotonic()
        # at the bound nothing is opened, so a delivery's commit may be the last for long: measure every one
        if started - self._measured_at < 0.05 and not self._is_at_bound:
            return
        self._measured_at = started
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        free = connection.execute("PRAGMA freelist_count").fetchone()[0]
        page_bytes = connection.execute("PRAGMA page_size").fetchone()[0]
        shelf_bytes = int(connection.execute(SQL["shelf_bytes"]).fetchone()[0] / _FILL)
        self._used_bytes = max(0, (pages - free) * page_bytes - shelf_bytes)

    def _make_room(self, connection: sqlite3.Connection, error: Exception) -> bool:
        """Give up the ballast, and bring the write-ahead log home into the room that it leaves; say whether it did."""
        if not _is_full(error) or self._ballast.is_spent:
            return False
        self._ballast.give()
        with suppress(sqlite3.Error):  # what was given up is room, too
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return self._ballast.is_spent

    async def _committed(self, future: "asyncio.Future[None]") -> None:
        try:
            await future
        except (sqlite3.Error, OSError) as error:
            raise self._renamed(error) from error

    async def _write(self, step: Callable[[sqlite3.Connection], T]) -> T:
        result: T = await self._guard(self._writer.run(step, synced=True))
        return result

    async def _guard(self, work: "Any") -> Any:
        try:
            return await work
        except (sqlite3.Error, OSError) as error:
            raise self._renamed(error) from error

    def _renamed(self, error: Exception) -> JournalError:
        if _is_full(error):
            # for a while only: nobody says when there is room again, so the next write finds out
            self._disk_full_until = self._now() + _FULL_SECONDS
            return JournalFullError(f"no room for the journal {self._path}: {error}")
        return JournalError(f"the journal {self._path} failed: {error}")

    async def _select(self, name: str, parameters: Sequence[Any]) -> list[Any]:
        return await self._read(lambda connection: connection.execute(SQL[name], parameters).fetchall())

    async def _read(self, step: Callable[[sqlite3.Connection], T]) -> T:
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._reader, step, self._read_connection)
        except sqlite3.Error as error:
            raise self._renamed(error) from error


def _is_full(error: Exception) -> bool:
    return isinstance(error, sqlite3.OperationalError) and "full" in str(error)


def open_journal(
    path: Path,
    *,
    secondaries: Sequence[str],
    max_bytes: int,
    linger: float,
    now: Callable[[], float],
    is_registry: Callable[[str], bool] = lambda _: False,
    observe_commit: Callable[[float], None] = lambda _: None,
) -> SqliteJournal:
    """Open or make the journal at `path`; raise `StartError` with the next step when that cannot be."""
    lock = acquire(path)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.close(descriptor)
        connection = connect(path)
        migrate(connection, path)
    except (sqlite3.Error, OSError) as error:
        os.close(lock)
        raise StartError(
            f"store.url: the journal {path} cannot be opened: {error}. Check the disk, or move the file away"
            " and let `dualtrack` make a new one"
        ) from error
    except StartError:
        os.close(lock)
        raise
    return SqliteJournal(
        path,
        connection,
        lock,
        secondaries=secondaries,
        max_bytes=max_bytes,
        linger=linger,
        now=now,
        is_registry=is_registry,
        observe_commit=observe_commit,
    )
