"""A lean HTTP/1.1 client for whole exchanges: bytes out, bytes in, on pooled connections.

    idle ──take──▶ busy ──message complete──▶ idle      after `keepalive` seconds of rest, or any doubt: closed

Every mirrored write and every delivery is one small request with one small answer, so this path pays for nothing
else: no streaming, no redirects, no cookies, no decompression. Parsing is httptools' (llhttp). Measured 2026-11: with
aiohttp's client, half of the proxy's time on a write was spent in that client. What streams stays with aiohttp.

A request is never repeated here. `WireError.sent` says whether it may have arrived.
"""

import asyncio
import ssl
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit

import httptools


class WireError(Exception):
    """No whole answer came. `sent` says whether the request may have arrived."""

    def __init__(self, cause: str, *, sent: bool) -> None:
        super().__init__(cause)
        self.sent = sent


class SilenceError(WireError):
    """Nothing came for as long as the caller was ready to wait."""


@dataclass(frozen=True, slots=True)
class WireAnswer:
    status: int
    reason: str
    headers: tuple[tuple[str, str], ...]
    body: bytes


class _Connection(asyncio.Protocol):
    """One connection; at most one exchange at a time."""

    def __init__(self, max_body: int) -> None:
        self._max_body = max_body
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._answered: asyncio.Future[WireAnswer] | None = None
        self._reason = b""
        self._headers: list[tuple[str, str]] = []
        self._chunks: list[bytes] = []
        self._size = 0
        self._head_is_complete = False
        self._is_head = False
        self.heard_at = 0.0
        self.is_reusable = True

    @property
    def is_open(self) -> bool:
        return self.is_reusable and self._transport is not None and not self._transport.is_closing()

    def ask(self, request: bytes, body: bytes, *, is_head: bool = False) -> "asyncio.Future[WireAnswer]":
        assert self._transport is not None
        self._is_head = is_head
        self._forget_answer()
        self._answered = asyncio.get_running_loop().create_future()
        self.heard_at = time.monotonic()
        self._transport.write(request + body if len(body) < 65536 else request)
        if len(body) >= 65536:
            self._transport.write(body)
        return self._answered

    def close(self) -> None:
        self.is_reusable = False
        if self._transport is not None:
            self._transport.abort()

    # --- asyncio.Protocol ---------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are no subclass of it

    def data_received(self, data: bytes) -> None:
        self.heard_at = time.monotonic()
        if self._answered is None:
            self.close()  # nobody asked: whatever this is, the next exchange must not take it for its answer
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(f"not an HTTP answer: {error}")

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_reusable = False
        has_length = any(name.lower() in {"content-length", "transfer-encoding"} for name, _ in self._headers)
        if self._head_is_complete and not has_length and exc is None:
            self.on_message_complete()  # a body without length ends with its connection
            return
        self._fail(str(exc) if exc else "the connection was closed before the answer was complete")

    def _fail(self, cause: str) -> None:
        self.close()
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(WireError(cause, sent=True))

    # --- httptools ----------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._answered is None:
            self.close()  # an answer that nobody asked for, right behind another one
        self._forget_answer()

    def _forget_answer(self) -> None:
        self._reason, self._headers, self._chunks, self._size = b"", [], [], 0
        self._head_is_complete = False

    def on_status(self, status: bytes) -> None:
        self._reason += status

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.decode("latin-1"), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        self._head_is_complete = self._parser.get_status_code() >= 200
        if self._is_head and self._head_is_complete:
            # llhttp would wait for a body that a HEAD's answer announces and does not have
            self.is_reusable = False
            self.on_message_complete()

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        if self._size > self._max_body:
            self._fail(f"the answer is larger than {self._max_body} bytes")
            return
        self._chunks.append(body)

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:
            return  # 100 Continue and the like: the answer is still to come
        answered, self._answered = self._answered, None
        self.is_reusable = self.is_reusable and self._parser.should_keep_alive()
        if answered is not None and not answered.done():
            answered.set_result(
                WireAnswer(status, self._reason.decode("latin-1"), tuple(self._headers), b"".join(self._chunks))
            )


class WirePool:
    """Connections to one backend. Times are seconds; `read_timeout` bounds each silence."""

    def __init__(
        self,
        base_url: str,
        *,
        tls: ssl.SSLContext | None,
        connect_timeout: float,
        read_timeout: float,
        keepalive: float,
        limit: int,
        max_body: int,
    ) -> None:
        parts = urlsplit(base_url)
        self._prefix = parts.path.rstrip("/").encode()
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._host_line = f"Host: {parts.netloc.rpartition('@')[2]}\r\n".encode()
        self._tls = (tls or ssl.create_default_context()) if parts.scheme == "https" else None
        self._connect_timeout = connect_timeout
        self._read_timeout = read_timeout
        self._keepalive = keepalive
        self._max_body = max_body
        self._slots = asyncio.Semaphore(limit)
        self._idle: deque[_Connection] = deque()

    async def exchange(self, method: str, target: str, headers: Iterable[tuple[str, str]], body: bytes) -> WireAnswer:
        """Send one request, read its whole answer. Raise `WireError`. Cancellation closes the connection."""
        request = self._head(method, target, headers, body)
        async with self._slots:
            connection = self._take() or await self._connect()
            try:
                answer = await self._answer(connection, connection.ask(request, body, is_head=method == "HEAD"))
            except BaseException:
                connection.close()
                raise
            if connection.is_open:
                self._idle.append(connection)
            else:
                connection.close()
            return answer

    def _head(self, method: str, target: str, headers: Iterable[tuple[str, str]], body: bytes) -> bytes:
        lines = [b"%b %b%b HTTP/1.1\r\n" % (method.encode(), self._prefix, target.encode("ascii")), self._host_line]
        lines += [f"{name}: {value}\r\n".encode("utf-8", "surrogateescape") for name, value in headers]
        if body or method not in {"GET", "HEAD", "DELETE"}:
            lines.append(b"Content-Length: %d\r\n" % len(body))
        lines.append(b"\r\n")
        return b"".join(lines)

    async def _answer(self, connection: _Connection, answered: "asyncio.Future[WireAnswer]") -> WireAnswer:
        loop = asyncio.get_running_loop()
        timer: asyncio.TimerHandle

        def look() -> None:
            nonlocal timer
            silence = time.monotonic() - connection.heard_at
            if silence >= self._read_timeout:
                if not answered.done():
                    answered.set_exception(SilenceError(f"silent for {silence:.0f} s", sent=True))
                return
            timer = loop.call_later(self._read_timeout - silence, look)

        timer = loop.call_later(self._read_timeout, look)
        try:
            return await answered
        finally:
            timer.cancel()

    def _take(self) -> _Connection | None:
        """The connection used last that is still good; those that rested too long are closed."""
        oldest = time.monotonic() - self._keepalive
        while self._idle and self._idle[0].heard_at < oldest:
            self._idle.popleft().close()
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                return connection
            connection.close()
        return None

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._connect_timeout):
                _, connection = await loop.create_connection(
                    lambda: _Connection(self._max_body),
                    self._host,
                    self._port,
                    ssl=self._tls,
                    server_hostname=self._host if self._tls else None,
                )
        except TimeoutError as error:
            raise WireError(f"no connection within {self._connect_timeout:.0f} s", sent=False) from error
        except OSError as error:  # ssl.SSLError is one too
            raise WireError(str(error), sent=False) from error
        return connection

    def close(self) -> None:
        """Close the idle connections; busy ones end with their exchange."""
        while self._idle:
            self._idle.popleft().close()
