"""A null upstream: an MLflow server that keeps nothing and answers at once, so that only the hop is measured.

`python -m bench.null_server --port P [--mode healthy|slow|silent]`; later, `POST /_null/mode` with the
mode as its body switches it, and `GET /_null/stats` counts the requests. The fourth mode, refusing, is a port
where nobody listens: `bench.processes.refusing_port`. Of an artifact it remembers the size: the body of a PUT is
dropped as it comes, and a GET answers as many zeros. Raw asyncio protocols and httptools: aiohttp here would be the
bottleneck.
"""

import argparse
import asyncio
from dataclasses import dataclass, field
from enum import StrEnum
from typing import cast

import httptools
import orjson
import uvloop

from bench.null_answers import Workspace

SLOW_SECONDS = 5.0
LOG_METRIC = b"/api/2.0/mlflow/runs/log-metric"
ARTIFACTS = b"/api/2.0/mlflow-artifacts/artifacts/"
ZEROS = bytes(256 * 1024)


class Mode(StrEnum):
    HEALTHY = "healthy"
    SLOW = "slow"
    SILENT = "silent"


@dataclass(slots=True)
class State:
    """What the connections of one server share."""

    mode: Mode
    requests: int = 0
    sizes: dict[bytes, int] = field(default_factory=dict)
    """Of the artifacts, by their URL."""
    workspace: Workspace = field(default_factory=Workspace)


def _reply(status: int, body: bytes) -> bytes:
    reason = b"OK" if status == 200 else b"Not Found"
    head = b"HTTP/1.1 %d %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return head % (status, reason, len(body)) + body


EMPTY = _reply(200, b"{}")


class Connection(asyncio.Protocol):
    """One keep-alive connection; httptools calls the `on_` methods."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._url = b""
        self._body: list[bytes] = []
        self._size = 0
        self._zeros = 0
        self._is_paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._transport = None

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            if self._transport is not None:
                self._transport.close()

    def on_message_begin(self) -> None:
        self._url = b""
        self._body.clear()
        self._size = 0

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        if not self._is_file():
            self._body.append(body)

    def _is_file(self) -> bool:
        return self._url.startswith(ARTIFACTS)

    def on_message_complete(self) -> None:
        if self._url.startswith(b"/_null/"):
            self._write(self._control())
            return
        self._state.requests += 1
        if self._state.mode is Mode.SILENT:
            return
        if self._is_file() and self._parser.get_method() == b"GET":
            self._send_file()
            return
        if self._is_file():
            self._state.sizes[self._url] = self._size
        reply = EMPTY if self._url == LOG_METRIC or self._is_file() else self._answer()
        if self._state.mode is Mode.SLOW:
            asyncio.get_running_loop().call_later(SLOW_SECONDS, self._write, reply)
        else:
            self._write(reply)

    def _answer(self) -> bytes:
        url = httptools.parse_url(self._url)
        path, query = (url.path or b"").decode(), (url.query or b"").decode()
        return _reply(*self._state.workspace.answer(path, query, b"".join(self._body)))

    def _control(self) -> bytes:
        if self._url == b"/_null/mode" and self._body:
            self._state.mode = Mode(b"".join(self._body).decode().strip())
        return _reply(200, orjson.dumps({"mode": self._state.mode, "requests": self._state.requests}))

    def _send_file(self) -> None:
        size = self._state.sizes.get(self._url)
        if size is None:
            self._write(_reply(404, b"{}"))
            return
        self._write(b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n" % size)
        self._zeros = size
        self._send_zeros()

    def _send_zeros(self) -> None:
        while self._zeros and not self._is_paused and self._transport is not None:
            part = ZEROS if self._zeros >= len(ZEROS) else ZEROS[: self._zeros]
            self._zeros -= len(part)
            self._transport.write(part)  # may pause

    def pause_writing(self) -> None:
        self._is_paused = True

    def resume_writing(self) -> None:
        self._is_paused = False
        self._send_zeros()

    def _write(self, reply: bytes) -> None:
        if self._transport is not None:
            self._transport.write(reply)


async def serve(port: int, mode: Mode) -> None:
    """Listen on loopback until cancelled."""
    state = State(mode)
    server = await asyncio.get_running_loop().create_server(lambda: Connection(state), "127.0.0.1", port)
    async with server:
        await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.null_server", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--mode", type=Mode, choices=list(Mode), default=Mode.HEALTHY)
    args = parser.parse_args()
    uvloop.run(serve(args.port, args.mode))


if __name__ == "__main__":
    main()
