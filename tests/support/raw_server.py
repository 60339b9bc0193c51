"""A server that says exactly what a test wants said, byte for byte, and remembers what it heard."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Heard:
    """One request as it came on the wire."""

    line: str
    headers: dict[str, str]  # names in lower case
    body: bytes


class Silence:
    """Say nothing, and keep the connection open until the other side ends it."""


DROP = b""  # close the connection without a word
SILENCE = Silence()


def answer(status: int, body: bytes = b"{}", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} Said", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


@dataclass
class RawServer:
    """Gives `answers` in order, the last one for ever. `ended` is set when the other side ended a connection."""

    answers: Sequence[bytes | Silence]
    url: str = ""
    heard: list[Heard] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    connections: int = 0

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while await self._exchange(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            self.ended.set()
        finally:
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        body = await _chunked(reader) if "transfer-encoding" in headers else b""
        body += await reader.readexactly(int(headers.get("content-length", "0")))
        self.heard.append(Heard(head[0], headers, body))
        self.arrived.set()
        said = self.answers[min(len(self.heard), len(self.answers)) - 1]
        if isinstance(said, Silence):
            await reader.readexactly(1)
            return False
        writer.write(said)
        await writer.drain()
        return said != DROP and b"onnection: close" not in said


async def _chunked(reader: asyncio.StreamReader) -> bytes:
    chunks = []
    while size := int(await reader.readline(), 16):
        chunks.append(await reader.readexactly(size))
        await reader.readline()
    await reader.readline()
    return b"".join(chunks)


@asynccontextmanager
async def saying(*answers: bytes | Silence) -> AsyncIterator[RawServer]:
    """Serve on a free loopback port; connections are ended with the test."""
    server = RawServer(answers or (answer(200),))
    tasks: set[asyncio.Task[None]] = set()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        await server.talk(reader, writer)

    listener = await asyncio.start_server(talk, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listener.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await listener.wait_closed()
