"""The lean client: whole answers of the request that was asked, or an error that says whether it was sent."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from dualtrack.backends.wire import SilenceError, WireError, WirePool

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


@asynccontextmanager
async def pool_for(serve: Serve, *, read_timeout: float = 5.0, max_body: int = 1000) -> AsyncIterator[WirePool]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    pool = WirePool(
        f"http://127.0.0.1:{port}",
        tls=None,
        connect_timeout=5,
        read_timeout=read_timeout,
        keepalive=60,
        limit=2,
        max_body=max_body,
    )
    try:
        yield pool
    finally:
        pool.close()
        server.close()
        await server.wait_closed()


async def heads(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """The head of each request without a body, until the client is gone."""
    while not reader.at_eof():
        try:
            yield await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return


def answering(*answers: bytes) -> Serve:
    """Answer the requests of a connection in turn, then close it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left = list(answers)
        async for _ in heads(reader):
            if not left:
                return
            writer.write(left.pop(0))
            await writer.drain()

    return serve


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        (OK, 200, b"{}"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, 200, b"{}"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n", 200, b"{}"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
    ],
)
async def test_an_answer_is_read_whole(answer: bytes, status: int, body: bytes) -> None:
    async with pool_for(answering(answer)) as pool:
        found = await pool.exchange("GET", "/", (), b"")

    assert (found.status, found.body) == (status, body)


async def test_a_body_without_length_ends_with_its_connection() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nall of it")

    async with pool_for(serve) as pool:
        found = await pool.exchange("GET", "/", (), b"")

    assert found.body == b"all of it"


async def test_the_head_of_a_body_that_is_not_sent_is_enough() -> None:
    async with pool_for(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")) as pool:
        found = await pool.exchange("HEAD", "/", (), b"")

    assert (found.status, found.body) == (200, b"")


async def test_an_old_answer_is_never_taken_for_a_new_one() -> None:
    """P1: a connection that closes silently after a 204 has said nothing about the next request."""
    async with pool_for(answering(b"HTTP/1.1 204 No Content\r\n\r\n")) as pool:
        await pool.exchange("GET", "/first", (), b"")

        with pytest.raises(WireError) as caught:
            await pool.exchange("GET", "/second", (), b"")

    assert caught.value.sent


async def test_what_nobody_asked_for_ends_the_connection() -> None:
    """Surplus behind an answer is no answer to the next request."""
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await answering(OK + b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", OK)(reader, writer)

    async with pool_for(serve) as pool:
        first = await pool.exchange("GET", "/", (), b"")
        second = await pool.exchange("GET", "/", (), b"")

    assert (first.status, second.status, connections) == (200, 200, 2)


async def test_connections_are_used_again() -> None:
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await answering(OK, OK, OK)(reader, writer)

    async with pool_for(serve) as pool:
        for _ in range(3):
            await pool.exchange("GET", "/", (), b"")

    assert connections == 1


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", b"SSH-2.0-x\r\n"])
async def test_half_an_answer_is_none(answer: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)

    async with pool_for(serve) as pool:
        with pytest.raises(WireError) as caught:
            await pool.exchange("GET", "/", (), b"")

    assert caught.value.sent


async def test_an_answer_is_bounded() -> None:
    async with pool_for(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + b"x" * 5000)) as pool:
        with pytest.raises(WireError, match="larger than 1000 bytes"):
            await pool.exchange("GET", "/", (), b"")


async def test_silence_is_bounded_and_cancelling_closes() -> None:
    gone = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async for _ in heads(reader):
            pass
        gone.set()

    async with pool_for(serve, read_timeout=0.05) as pool:
        with pytest.raises(SilenceError):
            await pool.exchange("GET", "/", (), b"")

        async with asyncio.timeout(60):
            await gone.wait()


async def test_nothing_listens_so_nothing_was_sent() -> None:
    pool = WirePool(
        "http://127.0.0.1:1", tls=None, connect_timeout=5, read_timeout=5, keepalive=4, limit=1, max_body=10
    )

    with pytest.raises(WireError) as caught:
        await pool.exchange("POST", "/", (), b"{}")

    assert not caught.value.sent
