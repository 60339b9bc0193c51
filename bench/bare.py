"""The two baselines: a bare aiohttp+uvloop pass-through, and the same with a synced journal write.

`python -m bench.bare --port P --upstream URL [--journal FILE]`. Throw-away on purpose: no routes, no states,
no limits. They show what the libraries and the disk cost; the rest of dualtrack's time is dualtrack's own.
"""

import argparse
import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from queue import SimpleQueue

import aiohttp
import uvloop
from aiohttp import web

HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "host", "te", "upgrade"})


class GroupCommit:
    """One writer thread; all requests that wait when it comes round share one commit, hence one fdatasync."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._waiting: SimpleQueue[tuple[bytes, asyncio.Future[None]] | None] = SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._write, name="journal", daemon=True)
        self._thread.start()

    async def append(self, body: bytes) -> None:
        """Return when the body is on disk."""
        done = self._loop.create_future()
        self._waiting.put((body, done))
        await done

    async def close(self) -> None:
        self._waiting.put(None)
        await asyncio.to_thread(self._thread.join)

    def _write(self) -> None:
        journal = sqlite3.connect(self._path, isolation_level=None)
        journal.execute("PRAGMA journal_mode=WAL")
        journal.execute("PRAGMA synchronous=FULL")
        journal.execute("CREATE TABLE IF NOT EXISTS entry (id INTEGER PRIMARY KEY, body BLOB NOT NULL)")
        while batch := self._next_batch():
            journal.execute("BEGIN")
            journal.executemany("INSERT INTO entry (body) VALUES (?)", [(body,) for body, _ in batch])
            journal.execute("COMMIT")
            self._loop.call_soon_threadsafe(_wake, [done for _, done in batch])
        journal.close()

    def _next_batch(self) -> list[tuple[bytes, asyncio.Future[None]]]:
        """Wait for one, take all that wait with it; empty once closed."""
        batch: list[tuple[bytes, asyncio.Future[None]]] = []
        while not batch or not self._waiting.empty():
            waiting = self._waiting.get()
            if waiting is None:
                self._waiting.put(None)  # seen again by the next call, which then ends the thread
                break
            batch.append(waiting)
        return batch


def _wake(waiting: list[asyncio.Future[None]]) -> None:
    for done in waiting:
        if not done.done():
            done.set_result(None)


class PassThrough:
    """Send each request to the upstream and its answer back."""

    def __init__(self, upstream: str, session: aiohttp.ClientSession, journal: GroupCommit | None) -> None:
        self._upstream = upstream
        self._session = session
        self._journal = journal

    async def handle(self, request: web.BaseRequest) -> web.Response:
        body = await request.read()
        headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP}
        url = self._upstream + request.path_qs
        async with self._session.request(request.method, url, data=body or None, headers=headers) as answer:
            content = await answer.read()
        if self._journal is not None and request.method == "POST":
            await self._journal.append(body)
        kept = {name: value for name, value in answer.headers.items() if name.lower() not in HOP_BY_HOP}
        return web.Response(status=answer.status, body=content, headers=kept)


@asynccontextmanager
async def _journal(path: Path | None) -> AsyncIterator[GroupCommit | None]:
    journal = None if path is None else GroupCommit(path)
    try:
        yield journal
    finally:
        if journal is not None:
            await journal.close()


async def serve(port: int, upstream: str, path: Path | None) -> None:
    """Listen on loopback until cancelled."""
    connector = aiohttp.TCPConnector(limit=0)
    async with (
        aiohttp.ClientSession(connector=connector, auto_decompress=False) as session,
        _journal(path) as journal,
    ):
        runner = web.ServerRunner(web.Server(PassThrough(upstream, session, journal).handle))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.bare", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--upstream", required=True)
    parser.add_argument("--journal", type=Path)
    args = parser.parse_args()
    uvloop.run(serve(args.port, args.upstream.rstrip("/"), args.journal))


if __name__ == "__main__":
    main()
