"""A life of dualtrack that ends at a chosen call of its journal or of its spool, as `kill -9` ends one.

The real composition, with a guard around both. When death comes, no guarded call of that process ever returns again,
its connections are cut and its tasks cancelled. Hanging, rather than raising, because a process that is killed runs no
`except` and sends nothing more. What a thread has begun goes on to its end, as a system call would.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from aiohttp import web

from dualtrack.app import App
from dualtrack.clock import SystemClock
from dualtrack.config import Config
from dualtrack.lifespan import background
from dualtrack.metrics import Metrics
from dualtrack.ports import Spooled, SpoolFile
from dualtrack.proxy.server import BoundedServer
from dualtrack.store.spool import DiskSpool
from dualtrack.store.sqlite import SqliteJournal

JOURNAL_WRITES = frozenset(
    {"open", "settle", "refuse", "mark_attempted", "record", "learn", "learn_roots", "forget", "replace"}
)
JOURNAL_READS = frozenset(
    {
        *("start", "left_open", "opened", "spooled"),
        *("claim", "next_due", "read", "is_pending", "waiting", "has_older", "is_at_rest", "is_spooled", "has_parked"),
        *("twin", "client_ref", "named", "rooted"),
    }
)
SPOOL = frozenset({"spool.begin", "spool.write", "spool.finish", "spool.abandon", "spool.remove", "spool.sweep"})
_SPOOL_READS = frozenset({"holds", "size", "read"})


@dataclass
class Death:
    """When a process dies: when `call` is made for the time number `at`, before or after it takes effect."""

    call: str
    at: int
    is_after: bool
    seen: int = 0
    came: asyncio.Event = field(default_factory=asyncio.Event)

    def comes_now(self, call: str) -> bool:
        self.seen += call == self.call
        return call == self.call and self.seen == self.at

    def __str__(self) -> str:
        met = "" if self.came.is_set() else ", which was not met"
        return f"{'after' if self.is_after else 'before'} {self.call} number {self.at}{met}"


class Life:
    """Passes calls on until death comes. `moved` is set by every call."""

    def __init__(self, death: Death | None) -> None:
        self._death = death
        self._grave: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._under_way: set[asyncio.Future[Any]] = set()
        self.moved = asyncio.Event()

    @property
    def is_over(self) -> bool:
        return self._death is not None and self._death.came.is_set()

    def guard(self, name: str, real: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def call(*given: Any, **named: Any) -> Any:
            death = self._death
            if self.is_over:
                await self._never()
            is_last = death is not None and death.comes_now(name)
            if is_last and death is not None and not death.is_after:
                death.came.set()
                await self._never()
            result = await self._to_its_end(real(*given, **named))
            if is_last and death is not None:
                death.came.set()
            if self.is_over:  # it came elsewhere while this call was under way
                await self._never()
            # whoever called goes on first, so who waits for `moved` sees what came of it
            asyncio.get_running_loop().call_soon(self.moved.set)
            return result

        return call

    def guard_sync(self, name: str, real: Callable[..., None]) -> Callable[..., None]:
        """For what nobody waits for: whoever called goes on; what it sends reaches nobody."""

        def call(*given: Any) -> None:
            death = self._death
            if self.is_over:
                return
            is_last = death is not None and death.comes_now(name)
            if not (is_last and death is not None and not death.is_after):
                real(*given)
            if is_last and death is not None:
                death.came.set()
            asyncio.get_running_loop().call_soon(self.moved.set)

        return call

    async def _to_its_end(self, work: Awaitable[Any]) -> Any:
        task = asyncio.get_running_loop().create_task(_awaited(work))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return await asyncio.shield(task)

    async def _never(self) -> None:
        await asyncio.shield(self._grave)

    def bury(self) -> None:
        """End those who wait for a dead process, and who will."""
        self._grave.cancel()

    async def ended(self) -> None:
        """Wait for what threads have begun."""
        await asyncio.gather(*self._under_way, return_exceptions=True)


async def _awaited(work: Awaitable[Any]) -> Any:
    return await work


class MortalJournal:
    """The real journal, until its process dies."""

    def __init__(self, journal: SqliteJournal, life: Life) -> None:
        self._journal = journal
        self._life = life

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._journal, name)
        if name == "refuse":
            return self._life.guard_sync(name, real)
        return self._life.guard(name, real) if name in JOURNAL_WRITES | JOURNAL_READS else real


class MortalSpool:
    """The real spool, until its process dies."""

    def __init__(self, spool: DiskSpool, life: Life) -> None:
        self._spool = spool
        self._life = life

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._spool, name)
        is_guarded = name in _SPOOL_READS or f"spool.{name}" in SPOOL
        return self._life.guard(f"spool.{name}", real) if is_guarded else real

    def begin(self, size: int | None = None, *, transient: bool = False, is_bounded: bool = True) -> SpoolFile:
        """Nothing of it is on disk yet, so before and after are one; whoever called goes on."""
        self._life.guard_sync("spool.begin", lambda: None)()
        return MortalFile(self._spool.begin(size, transient=transient, is_bounded=is_bounded), self._life)


class MortalFile:
    def __init__(self, file: SpoolFile, life: Life) -> None:
        self.name = file.name
        self._file = file
        self._life = life

    async def write(self, chunk: bytes) -> None:
        await self._life.guard("spool.write", self._file.write)(chunk)

    async def finish(self) -> Spooled:
        return cast("Spooled", await self._life.guard("spool.finish", self._file.finish)())

    async def abandon(self) -> None:
        await self._life.guard("spool.abandon", self._file.abandon)()


class MortalApp(App):
    """The real composition, with a journal and a spool that can die."""

    def __init__(self, config: Config, life: Life) -> None:
        self.life = life
        super().__init__(config, Metrics(), SystemClock())

    def _open_journal(self) -> SqliteJournal:
        return cast("SqliteJournal", MortalJournal(super()._open_journal(), self.life))

    @property
    def spool(self) -> DiskSpool:
        return self._spool

    @spool.setter
    def spool(self, spool: DiskSpool) -> None:
        self._spool = cast("DiskSpool", MortalSpool(spool, self.life))


class Process:
    """One life of dualtrack: the loops and the listener of `App.serve`, and an end without goodbye."""

    def __init__(self, config: Config, death: Death | None) -> None:
        self._life = Life(death)
        self._app = MortalApp(config, self._life)
        self._config = config
        assert self._app.journal is not None
        assert self._app.settler is not None
        self._journal = self._app.journal
        self._settler = self._app.settler

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        """Recover, deliver and listen; give the address. On leaving, connections are cut and tasks cancelled."""
        app = self._app
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._journal.close)
            stack.push_async_callback(app.spool.close)
            stack.push_async_callback(self._life.ended)
            for backend in app.backends.values():
                stack.push_async_callback(backend.close)
            for store in app.stores.values():
                stack.push_async_callback(store.close)
            # listening first, while nothing can die: a cancelled start of a listener would leak its socket
            limits = self._config.limits
            server = BoundedServer(
                app.make_proxy(),
                max_connections=limits.max_connections,
                max_headers=limits.max_headers,
                idle_timeout=limits.idle_timeout.total_seconds(),
            )
            runner = web.ServerRunner(server, shutdown_timeout=0.001)  # 0 would be for ever
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            await self._journal.start()
            await app.spool.open()
            await app.spool.sweep(self._journal.spooled)
            await self._settler.recover()
            loops = await stack.enter_async_context(background())
            app._start_loops(loops)
            stack.callback(self._life.bury)
            stack.callback(_cut, server)
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"

    async def drained(self) -> None:
        """Wait until everything is delivered, without a loss, and no copy of a file is left.

        What was brought over whole meanwhile leaves copies to the sweep, which comes every few minutes by itself.
        """
        while True:
            self._life.moved.clear()
            usage = await self._journal.usage()
            if usage.entries == self._settler.missing and self._settler.unsettled == 0:
                await self._app.spool.sweep(self._journal.spooled)
                if not spooled(self._config.spool_dir):
                    break
            await self._life.moved.wait()
        assert await self._journal.parked() == []
        assert await self._journal.losses() == [], await self._journal.losses()


def spooled(folder: Path) -> list[str]:
    """What lies in a spool's folder, finished or on its way."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def _cut(server: BoundedServer) -> None:
    for connection in server.connections:
        if connection.transport is not None:
            connection.transport.abort()
