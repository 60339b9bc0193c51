"""Background loops with one owner: named, watched, and ended in order."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Protocol

import structlog

log = structlog.get_logger("dualtrack.app")


class Stoppable(Protocol):
    """A loop that can be asked to end, and if it does not in time, to let go of what it is at."""

    def stop(self) -> None: ...

    async def abandon(self) -> None: ...


class Loops:
    """Named background tasks with one owner. `failed` is done when one of them ends that should not."""

    def __init__(self) -> None:
        self._tasks: list[tuple[asyncio.Task[None], Stoppable | None, float]] = []
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def start(
        self,
        name: str,
        loop: Coroutine[Any, Any, None],
        *,
        stop: Stoppable | None = None,
        deadline: float = 0.0,
    ) -> None:
        task = asyncio.get_running_loop().create_task(loop, name=name)
        self._tasks.append((task, stop, deadline))
        task.add_done_callback(self._ended)

    async def until(self, stopping: asyncio.Event) -> None:
        """Wait for the event, or for a loop that ends although it should not; then the event is set too."""
        self.failed.add_done_callback(lambda _: stopping.set())
        await stopping.wait()

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or self.failed.done():
            return
        error = task.exception()
        if error is not None:
            log.critical("app.loop_died", loop=task.get_name(), error=repr(error))
            self.failed.set_exception(error)
        else:
            self.failed.set_result(None)

    async def finish(self) -> None:
        """Stop claiming, give attempts their deadline, then end everything."""
        stopping = [(task, stop, deadline) for task, stop, deadline in self._tasks if stop is not None]
        for _, loop, _ in stopping:
            loop.stop()
        await asyncio.gather(*(_end(task, loop, deadline) for task, loop, deadline in stopping))
        for task, _, _ in self._tasks:
            task.cancel()
        await asyncio.gather(*(task for task, _, _ in self._tasks), return_exceptions=True)


async def _end(task: asyncio.Task[None], loop: Stoppable, deadline: float) -> None:
    _, late = await asyncio.wait([task], timeout=deadline)
    if late:
        await loop.abandon()


@asynccontextmanager
async def background() -> AsyncIterator[Loops]:
    loops = Loops()
    try:
        yield loops
        if loops.failed.done():
            loops.failed.result()
    finally:
        loops.failed.cancel()
        await loops.finish()
