"""Who dualtrack is on each backend, for people who look: asked when somebody does, never before, and kept for a while.

Asking takes a few harmless calls (`online.look`), and on a bad day a long time: so whoever reads what is known never
waits for it. `app` runs the loop.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from dualtrack.backends.online import Seen
from dualtrack.errors import BackendError
from dualtrack.ports import Clock

_KEPT_SECONDS, _AGAIN_SECONDS = 3600.0, 30.0


class Identities:
    """Calling it answers what is known by backend, in words, and has the rest asked in the background."""

    def __init__(self, asks: Mapping[str, Callable[[], Awaitable[Seen]]], clock: Clock) -> None:
        self._asks = asks
        self._clock = clock
        self._known: dict[str, str] = {}
        self._due = dict.fromkeys(asks, 0.0)
        self._wanted = asyncio.Event()

    def __call__(self) -> Mapping[str, str]:
        self._wanted.set()
        return self._known

    async def run(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            now = self._clock.now()
            await asyncio.gather(*(self._ask(name) for name, due in self._due.items() if due <= now))

    async def _ask(self, name: str) -> None:
        try:
            self._known[name], kept = (await self._asks[name]()).who, _KEPT_SECONDS
        except BackendError as error:
            self._known[name], kept = f"could not ask: {error.cause}", _AGAIN_SECONDS
        self._due[name] = self._clock.now() + kept
