"""One thread that writes: all requests that wait share one transaction and one sync (group commit).

Jobs submitted during one turn of the event loop travel to the thread together; while it syncs, the next group
gathers. A group is synced (`synchronous=FULL`) if any of its jobs asks for it; otherwise its commit is a plain write,
which survives the death of the process. A job that fails is rolled back and fails alone: the group is then tried job
by job. The alternative that lost: a pool of writers, which SQLite serialises anyway, each with a sync of its own.
"""

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

T = TypeVar("T")
Step = Callable[[sqlite3.Connection], T]
Row = tuple[Any, ...]
Bulk = Callable[[sqlite3.Connection, list[Row]], None]


@dataclass(slots=True, eq=False)
class Job(Generic[T]):
    """One thing to write. `future` learns the result after the commit.

    A job is either a `step` of its own or a `row` for a `bulk` statement that serves all such rows of the group at
    once: each statement gives the interpreter lock away and has to win it back from a busy event loop.
    """

    synced: bool
    future: "asyncio.Future[T] | None"
    step: Step[T] | None = None
    bulk: Bulk | None = None
    row: Row = ()
    result: T | None = None
    error: BaseException | None = field(default=None)


class Writer:
    """Owns the writing connection. `observe_commit` is told the seconds that each synced commit took.

    `after_failure` says whether it changed what a commit failed for: a job that failed alone is then tried again.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        observe_commit: Callable[[float], None],
        after_commit: Callable[[sqlite3.Connection], None],
        after_failure: Callable[[sqlite3.Connection, Exception], bool],
    ) -> None:
        self._connection = connection
        self._observe_commit = observe_commit
        self._after_commit = after_commit
        self._after_failure = after_failure
        self._loop = asyncio.get_running_loop()
        self._gathered: list[Job[Any]] = []
        self._groups: SimpleQueue[list[Job[Any]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="dualtrack-journal", daemon=True)
        self._thread.start()

    async def run(self, step: Step[T], *, synced: bool) -> T:
        """Run `step` in the next group; return its result once that is committed."""
        future: asyncio.Future[T] = self._loop.create_future()
        self._gather(Job(synced=synced, future=future, step=step))
        return await future

    def add(self, bulk: Bulk, row: Row, *, synced: bool) -> "asyncio.Future[None]":
        """Add `row` to the group's `bulk` statement; the future is done after the commit."""
        future: asyncio.Future[None] = self._loop.create_future()
        self._gather(Job(synced=synced, future=future, bulk=bulk, row=row))
        return future

    def add_unawaited(self, bulk: Bulk, row: Row) -> None:
        """Add `row` to the group's `bulk` statement; nobody learns of its end."""
        self._gather(Job[None](synced=False, future=None, bulk=bulk, row=row))

    def _gather(self, job: Job[Any]) -> None:
        if not self._gathered:
            self._loop.call_soon(self._hand_over)
        self._gathered.append(job)

    async def close(self) -> None:
        """Finish what was submitted, then end the thread and close the connection."""
        self._hand_over()
        self._groups.put(None)
        await asyncio.get_running_loop().run_in_executor(None, self._thread.join)

    def _hand_over(self) -> None:
        if self._gathered:
            self._groups.put(self._gathered)
            self._gathered = []

    def _run(self) -> None:
        is_open = True
        while is_open:
            group = self._groups.get()
            jobs: list[Job[Any]] = []
            while True:
                if group is None:
                    is_open = False
                    break
                jobs.extend(group)
                if self._groups.empty():
                    break
                group = self._groups.get()
            # opens need no sync: they go first, so that their requests are on the way while the others sync
            for synced in (False, True):
                part = [job for job in jobs if job.synced is synced]
                if part:
                    self._commit(part)
                    self._report(part)
        self._connection.close()

    def _commit(self, jobs: Sequence[Job[Any]]) -> None:
        try:
            self._transact(jobs)
        except Exception as error:  # noqa: BLE001 - the thread's outermost edge: whoever waits is told
            if not self._after_failure(self._connection, error) and len(jobs) == 1:
                jobs[0].error = error
                return
            for job in jobs:
                self._commit([job])
            return
        with suppress(sqlite3.Error):  # what is committed stays so, whether it could be measured or not
            self._after_commit(self._connection)

    def _transact(self, jobs: Sequence[Job[Any]]) -> None:
        synced = any(job.synced for job in jobs)
        connection = self._connection
        connection.execute("PRAGMA synchronous=FULL" if synced else "PRAGMA synchronous=NORMAL")
        started = time.perf_counter()
        connection.execute("BEGIN IMMEDIATE")
        try:
            self._apply(jobs)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        if synced:
            self._observe_commit(time.perf_counter() - started)

    def _apply(self, jobs: Sequence[Job[Any]]) -> None:
        bulks: dict[Bulk, list[Row]] = {}
        for job in jobs:
            if job.bulk is not None:
                bulks.setdefault(job.bulk, []).append(job.row)
        for bulk, rows in bulks.items():
            bulk(self._connection, rows)
        for job in jobs:
            if job.step is not None:
                job.result = job.step(self._connection)

    def _report(self, jobs: Sequence[Job[Any]]) -> None:
        # a loop that is already closed has nobody left who waits
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(_resolve, jobs)


def _resolve(jobs: Sequence[Job[Any]]) -> None:
    for job in jobs:
        future = job.future
        if future is None or future.done():
            continue
        if job.error is not None:
            future.set_exception(job.error)
        else:
            future.set_result(job.result)
