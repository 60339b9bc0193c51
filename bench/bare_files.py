"""The baseline for files: a bare aiohttp+uvloop pass-through that streams, and keeps a synced copy of each upload.

`python -m bench.bare_files --port P --upstream URL --spool FOLDER`. Throw-away on purpose, as `bench.bare` is: no
routes, no journal, no limits. A PUT's body goes to the upstream and, in blocks and in a thread, to a file with its
SHA-256; the client is answered once that is synced and renamed. Everything else just streams.
"""

import argparse
import asyncio
import hashlib
import os
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import uvloop
from aiohttp import web

from bench.bare import HOP_BY_HOP

BLOCK = 1024**2
READ_BUFFER = 256 * 1024


class Copy:
    """A file on its way into the folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._name = uuid.uuid4().hex
        self._file = (folder / f"{self._name}.part").open("wb", buffering=0)
        self._digest = hashlib.sha256()
        self._gathered = bytearray()

    async def write(self, chunk: bytes) -> None:
        self._gathered += chunk
        if len(self._gathered) >= BLOCK:
            await asyncio.to_thread(self._append, self._take())

    async def finish(self) -> None:
        await asyncio.to_thread(self._complete, self._take())

    def _take(self) -> bytearray:
        block, self._gathered = self._gathered, bytearray()
        return block

    def _append(self, block: bytearray) -> None:
        self._file.write(block)
        self._digest.update(block)

    def _complete(self, block: bytearray) -> None:
        self._append(block)
        os.fdatasync(self._file.fileno())
        self._file.close()
        (self._folder / f"{self._name}.part").rename(self._folder / self._digest.hexdigest())
        folder = os.open(self._folder, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)


class PassThrough:
    """Stream each request to the upstream and its answer back."""

    def __init__(self, upstream: str, session: aiohttp.ClientSession, folder: Path) -> None:
        self._upstream = upstream
        self._session = session
        self._folder = folder

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        copy = Copy(self._folder) if request.method == "PUT" else None
        headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP}
        if request.content_length is not None:
            headers["Content-Length"] = str(request.content_length)
        body = _chunks(request, copy) if request.body_exists else None
        url = self._upstream + request.path_qs
        async with self._session.request(request.method, url, data=body, headers=headers) as answer:
            if copy is not None:
                await copy.finish()
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in HOP_BY_HOP}
            response = web.StreamResponse(status=answer.status, headers=kept)
            response.content_length = answer.content_length
            await response.prepare(request)
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
        await response.write_eof()
        return response


async def _chunks(request: web.BaseRequest, copy: Copy | None) -> AsyncIterator[bytes]:
    async for chunk in request.content.iter_any():
        if copy is not None:
            await copy.write(chunk)
        yield chunk


async def serve(port: int, upstream: str, folder: Path) -> None:
    """Listen on loopback until cancelled."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, auto_decompress=False, read_bufsize=READ_BUFFER) as session:
        handler = PassThrough(upstream, session, folder).handle
        runner = web.ServerRunner(web.Server(handler, read_bufsize=READ_BUFFER))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.bare_files", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--upstream", required=True)
    parser.add_argument("--spool", type=Path, required=True)
    args = parser.parse_args()
    uvloop.run(serve(args.port, args.upstream.rstrip("/"), args.spool))


if __name__ == "__main__":
    main()
