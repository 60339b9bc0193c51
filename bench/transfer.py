"""The client of the file benchmarks: uploads and downloads over keep-alive connections, as MLflow's client does it.

`python -m bench.transfer put|get --url URL --path PATH` prints one JSON object: seconds, bytes, errors. `--files`
are moved one after the other on one connection, `--connections` do that at once. It is `http.client`, which is what
`requests` stands on, with larger blocks, in a process of its own, pinned to the core that the server under test does
not have. Bodies are made up block by block; nothing is held in memory.
"""

import argparse
import http.client
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import urlsplit

import orjson

BLOCK = 1024**2
SECONDS = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """What one measurement found."""

    seconds: float
    moved_bytes: int
    errors: int


class Connection:
    """One keep-alive connection to the server that `url` names."""

    def __init__(self, url: str) -> None:
        target = urlsplit(url)
        self._http = http.client.HTTPConnection(
            target.hostname or "127.0.0.1", target.port, timeout=SECONDS, blocksize=BLOCK
        )
        self._block = os.urandom(BLOCK)
        self._buffer = bytearray(BLOCK)

    def put(self, path: str, size: int) -> bool:
        """Upload a file of so many bytes; answer whether it was taken."""
        headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
        self._http.request("PUT", path, body=self._blocks(size), headers=headers)
        answer = self._http.getresponse()
        answer.read()
        return answer.status == 200

    def get(self, path: str, size: int) -> bool:
        """Download a file and drop it; answer whether it was there, and of this size."""
        self._http.request("GET", path)
        answer = self._http.getresponse()
        found = 0
        while count := answer.readinto(self._buffer):
            found += count
        return answer.status == 200 and found == size

    def close(self) -> None:
        self._http.close()

    def _blocks(self, size: int) -> Iterator[bytes]:
        for _ in range(size // BLOCK):
            yield self._block
        if size % BLOCK:
            yield self._block[: size % BLOCK]


def measure(url: str, path: str, *, is_put: bool, size: int, files: int, connections: int) -> Moved:
    """Move the files; each connection has names of its own, unless there is one file in all."""
    names = [[_name(path, at, file) for file in range(files)] for at in range(connections)]
    started = time.perf_counter()
    with ThreadPoolExecutor(connections) as pool:
        failed = sum(pool.map(lambda mine: _move(url, mine, is_put=is_put, size=size), names))
    return Moved(seconds=time.perf_counter() - started, moved_bytes=size * files * connections, errors=failed)


def _name(path: str, at: int, file: int) -> str:
    return path if at == file == 0 else f"{path}-{at}-{file}"


def _move(url: str, paths: list[str], *, is_put: bool, size: int) -> int:
    connection = Connection(url)
    try:
        move = connection.put if is_put else connection.get
        return sum(not move(path, size) for path in paths)
    finally:
        connection.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.transfer", description=__doc__)
    parser.add_argument("verb", choices=["put", "get"])
    parser.add_argument("--url", required=True)
    parser.add_argument("--path", required=True, help="of the first file; the others get a suffix")
    parser.add_argument("--bytes", type=int, default=BLOCK, help="of each file")
    parser.add_argument("--files", type=int, default=1)
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--cpu", type=int, help="the core to stay on")
    args = parser.parse_args()
    if args.cpu is not None:
        os.sched_setaffinity(0, {args.cpu})
    moved = measure(
        args.url,
        args.path,
        is_put=args.verb == "put",
        size=args.bytes,
        files=args.files,
        connections=args.connections,
    )
    sys.stdout.buffer.write(orjson.dumps(moved) + b"\n")


if __name__ == "__main__":
    main()
