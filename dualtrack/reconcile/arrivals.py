"""Tells when lanes are empty: all of an entity has arrived, or will not without a person.

It is woken by the journal, whose every progress it hears of, and then asks about all lanes that are awaited at once.
"""

import asyncio
from collections.abc import Callable

from dualtrack.errors import UnreachableError
from dualtrack.ports import Clock, Queue
from dualtrack.reconcile.patience import Patience

# a lane that comes to wait for a held one is no progress, so nobody calls
_LOOK_SECONDS = 2.0


class Arrivals:
    """Of one backend. `wake` hears the journal (`on_due`); `run` works while something is awaited.

    When nothing has arrived for as long as there is `patience` while the backend is known to be down, `run` raises
    `UnreachableError`: what is queued stays queued.
    """

    def __init__(
        self, queue: Queue, backend: str, clock: Clock, is_up: Callable[[], bool | None], patience: Patience
    ) -> None:
        self._queue = queue
        self._backend = backend
        self._clock = clock
        self._is_up = is_up
        self._patience = patience
        self._moved = asyncio.Event()
        self._awaited: dict[str, asyncio.Future[bool]] = {}
        self._all: asyncio.Future[None] | None = None

    def wake(self, _at: float = 0.0) -> None:
        self._moved.set()

    async def of(self, key: str) -> bool:
        """Wait until lane `key` is empty; False when it is held, or waits for one that is."""
        found = self._awaited.get(key)
        if found is None:
            found = self._awaited[key] = asyncio.get_running_loop().create_future()
            self.wake()
        return await asyncio.shield(found)

    async def of_all(self) -> None:
        """Wait until nothing moves any more: all lanes are empty, or cannot go on without a person."""
        self._all = asyncio.get_running_loop().create_future()
        self.wake()
        await self._all

    async def run(self) -> None:
        """Answer who waits, for ever."""
        arrived_at = self._clock.now()
        while True:
            try:
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._moved.wait()
            except TimeoutError:
                pass
            self._moved.clear()
            if await self._look() or not (self._awaited or self._all):
                arrived_at = self._clock.now()
            elif self._is_up() is False and self._clock.now() - arrived_at > self._patience.seconds:
                cause = f"nothing could be delivered for {self._patience.seconds:.0f} s; what is left is kept"
                raise UnreachableError(self._backend, "backfill", cause)

    async def _look(self) -> bool:
        """Answer whoever can be answered; say whether that was anybody."""
        keys = list(self._awaited)
        waiting = await self._queue.waiting(self._backend, keys)
        over = [key for key in keys if waiting.get(key) is not False]
        for key in over:
            self._awaited.pop(key).set_result(key not in waiting)
        if self._all is not None and await self._queue.is_at_rest(self._backend):
            self._all.set_result(None)
            self._all = None
            return True
        return bool(over)
