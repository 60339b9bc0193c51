"""A TCP forwarder that can be shut, so that the real server behind it refuses until told otherwise.

It runs on a thread with a loop of its own inside the benchmark. Shut, nobody listens on its port and what was
connected is cut; open, bytes pass untouched, and `first_byte_at` says when the first came after opening.
"""

import asyncio
import threading
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager

from bench.processes import free_port

CHUNK = 65536
ORDER_SECONDS = 10.0


class Gate:
    """One listening port in front of one upstream port; starts shut."""

    def __init__(self, upstream_port: int, loop: asyncio.AbstractEventLoop) -> None:
        self.port = free_port()
        self.first_byte_at: float | None = None
        self._upstream_port = upstream_port
        self._loop = loop
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def open(self) -> float:
        """Listen, and answer when that began."""
        self.first_byte_at = None
        self._order(self._open())
        return time.perf_counter()

    def shut(self) -> None:
        """Refuse from now on, and cut what is connected."""
        self._order(self._shut())

    def _order(self, step: Coroutine[None, None, None]) -> None:
        asyncio.run_coroutine_threadsafe(step, self._loop).result(ORDER_SECONDS)

    async def _open(self) -> None:
        self._server = await asyncio.start_server(self._forward, "127.0.0.1", self.port)

    async def _shut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._writers):
            writer.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._upstream_port)
        both = {writer, there_writer}
        self._writers |= both
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, there_writer, note=True))
                group.create_task(self._pump(there_reader, writer, note=False))
        finally:
            self._writers -= both
            for each in both:
                each.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, note: bool) -> None:
        try:
            while chunk := await reader.read(CHUNK):
                if note and self.first_byte_at is None:
                    self.first_byte_at = time.perf_counter()
                writer.write(chunk)
                await writer.drain()
        except ConnectionError:
            return
        finally:
            writer.close()


@contextmanager
def gate(upstream_port: int) -> Iterator[Gate]:
    """Hold a shut gate in front of the port."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="gate", daemon=True)
    thread.start()
    barrier = Gate(upstream_port, loop)
    try:
        yield barrier
    finally:
        barrier.shut()
        loop.call_soon_threadsafe(loop.stop)
        thread.join(ORDER_SECONDS)
