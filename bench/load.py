"""The load generator: N keep-alive connections, each sending its next write when its last was answered.

`python -m bench.load --url URL` prints one JSON object: requests/s, p50, p95 and p99 in milliseconds, errors
(`--help` lists the rest). It runs in a process of its own, pinned to the core that the server under test does
not have; raw protocols and httptools keep it from being the bottleneck.
"""

import argparse
import asyncio
import math
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit

import httptools
import orjson
import uvloop

from bench.bodies import requests
from bench.tracking import create_runs

COUNT_LIMIT_SECONDS = 1800.0
MOST_RECONNECTS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What one measurement found."""

    requests_per_second: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    requests: int
    sent_bytes: int
    seconds: float
    errors: int


class Load:
    """What the connections of one measurement share: the source, the window that counts, the results."""

    def __init__(self, source: Iterator[bytes], count: int | None) -> None:
        self._source = source
        self._unsent = count
        self._unanswered = count
        self.finished = asyncio.Event()
        self.measuring = count is not None
        self.latencies: list[float] = []
        self.errors = 0
        self.sent_bytes = 0

    def take(self) -> bytes | None:
        """Answer the next request, None when there is no more to send."""
        if self._unsent is not None:
            if self._unsent == 0:
                return None
            self._unsent -= 1
        return next(self._source)

    def is_spent(self) -> bool:
        """Whether every request of a counted load has been sent."""
        return self._unsent == 0

    def answered(self, request: bytes, status: int, seconds: float) -> None:
        if self.measuring:
            self.latencies.append(seconds)
            self.sent_bytes += len(request)
            self.errors += status != 200
        self._one_less()

    def lost(self) -> None:
        """Count a request whose connection ended before its answer."""
        if not self.finished.is_set():
            self.errors += 1
            self._one_less()

    def _one_less(self) -> None:
        if self._unanswered is not None:
            self._unanswered -= 1
            if self._unanswered == 0:
                self.finished.set()


class Connection(asyncio.Protocol):
    """One keep-alive connection with at most one request under way; httptools calls `on_message_complete`."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._request: bytes | None = None
        self._sent_at = 0.0
        self.closed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        if self._request is not None:
            self._load.lost()
        self.closed.set()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        assert self._request is not None
        took = time.perf_counter() - self._sent_at
        self._load.answered(self._request, self._parser.get_status_code(), took)
        self._send()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _send(self) -> None:
        assert self._transport is not None
        self._request = None if self._load.finished.is_set() else self._load.take()
        if self._request is None:
            self._transport.close()
            return
        self._sent_at = time.perf_counter()
        self._transport.write(self._request)


async def _keep_connected(load: Load, host: str, port: int) -> None:
    loop = asyncio.get_running_loop()
    for _ in range(MOST_RECONNECTS):
        _, connection = await loop.create_connection(lambda: Connection(load), host, port)
        try:
            await connection.closed.wait()
        finally:
            connection.abort()
        if load.finished.is_set() or load.is_spent():
            return


async def measure(
    url: str, source: Iterator[bytes], *, connections: int, seconds: float, warmup: float, count: int | None
) -> Sample:
    """Run the load for `seconds` after the warm-up, or until `count` requests are answered."""
    load = Load(source, count)
    target = urlsplit(url)
    host, port = target.hostname or "127.0.0.1", target.port or 80
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_keep_connected(load, host, port)) for _ in range(connections)]
        if count is None:
            await asyncio.sleep(warmup)
            load.measuring = True
        started = time.perf_counter()
        async with asyncio.timeout(COUNT_LIMIT_SECONDS if count else None):
            await (load.finished.wait() if count else asyncio.sleep(seconds))
        took = time.perf_counter() - started
        load.measuring = False
        load.finished.set()
        for task in tasks:
            task.cancel()
    return _sample(load, took)


def _sample(load: Load, seconds: float) -> Sample:
    milliseconds = sorted(1000 * latency for latency in load.latencies)
    return Sample(
        requests_per_second=len(milliseconds) / seconds,
        p50_ms=_percentile(milliseconds, 0.50),
        p95_ms=_percentile(milliseconds, 0.95),
        p99_ms=_percentile(milliseconds, 0.99),
        requests=len(milliseconds),
        sent_bytes=load.sent_bytes,
        seconds=seconds,
        errors=load.errors,
    )


def _percentile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else math.nan


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.load", description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--warmup", type=float, default=1.0, help="seconds before the window that counts")
    parser.add_argument("--count", type=int, help="a number of requests instead of a time; no warm-up")
    parser.add_argument("--runs", type=int, default=1, help="create this many runs first, and write to them in turn")
    parser.add_argument("--run-id", nargs="+", help="write to these runs, and create none")
    parser.add_argument("--batch-bytes", type=int, default=0, help="log-batch bodies of this size, not log-metric")
    parser.add_argument("--cpu", type=int, help="the core to stay on")
    args = parser.parse_args()
    if args.cpu is not None:
        os.sched_setaffinity(0, {args.cpu})
    run_ids = args.run_id or create_runs(args.url, args.runs)
    source = requests(args.url, run_ids, args.batch_bytes)
    sample = uvloop.run(
        measure(
            args.url,
            source,
            connections=args.connections,
            seconds=args.seconds,
            warmup=args.warmup,
            count=args.count,
        )
    )
    sys.stdout.buffer.write(orjson.dumps(sample) + b"\n")


if __name__ == "__main__":
    main()
