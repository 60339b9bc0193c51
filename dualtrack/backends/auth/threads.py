"""Blocking calls of vendors' libraries, each in a thread of its own.

Not in asyncio's pool: that one looks host names up for everybody, and a call that never returns (the databricks-sdk
asks for tokens without a time-out) would keep a place in it, and the process, for ever. These threads are daemons.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")

_MOST = 4  # calls that nobody waits for any more and that have not returned; more would only add to a dead endpoint


class Threads:
    """Runs calls for one backend. A cancelled caller leaves its call behind, which ends by itself or never."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._running: set[threading.Thread] = set()

    async def run(self, call: Callable[[], T]) -> T:
        """Answer what `call` answers; raise what it raises, and `TimeoutError` while too many earlier ones hang."""
        self._running = {thread for thread in self._running if thread.is_alive()}
        if len(self._running) >= _MOST:
            raise TimeoutError(f"{len(self._running)} earlier attempts still have no answer")
        answer: Future[T] = Future()
        answer.set_running_or_notify_cancel()  # from here on it cannot be cancelled, so the thread may always settle it
        thread = threading.Thread(target=_settle, args=(answer, call), name=f"sign-in {self._name}", daemon=True)
        self._running.add(thread)
        thread.start()
        return await asyncio.wrap_future(answer)


def _settle(answer: "Future[T]", call: Callable[[], T]) -> None:
    try:
        answer.set_result(call())
    except BaseException as error:  # noqa: BLE001 - it is raised where the call is awaited
        answer.set_exception(error)
