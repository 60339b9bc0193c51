"""The spool: uploaded files on this machine's disk, until every secondary has them.

    begin ──write──▶ folder/incoming/NAME ──finish: sync, rename, sync──▶ folder/NAME ──remove, sweep──▶ gone
                              └────────abandon, an error, a cancellation────────▶ gone

A file that has its lasting name is whole and survives a loss of power; what lies in `incoming` at the start is a
crash's, and goes. Chunks gather in memory until they make a block, which is written and hashed in one visit to a
thread, chunk by chunk as they came: nothing is copied, and a small file takes one visit in all. Each file has a lock
that such a visit holds from its beginning to its end, so that clearing up after a cancellation comes after what was
cancelled, wherever that was. What is not named as we name files is never touched. `proxy` fills the spool, `delivery`
empties it, and `app` has it swept by what the journal says. The alternative that lost: unlinking on the event loop,
which then waits for a slow disk.
"""

import asyncio
import errno
import fcntl
import hashlib
import os
import re
import secrets
import threading
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import ParamSpec, TypeVar

from dualtrack.errors import SpoolError, SpoolFullError, StartError
from dualtrack.ports import Spooled, SpoolFile

P = ParamSpec("P")
T = TypeVar("T")

_BLOCK = 1024**2
_CHUNKS = 1000  # tiny ones cost more in memory than their bytes
_NAME = re.compile(r"[0-9a-f]{32}")
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class DiskSpool:
    """The Spool port on a folder. Only one process may use it; `open` comes first."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._room = _Room(folder, max_bytes)
        self._lock: int | None = None
        self._transient: set[str] = set()  # no journal knows them, so the sweep has to be told

    async def open(self) -> None:
        """Make the folder, clear up after a crash, count what is there. Raise `StartError` with the next step."""
        try:
            await asyncio.to_thread(self._prepare)
        except BlockingIOError as error:
            raise StartError(
                f"spool.dir: the spool {self._folder} is in use by another process. Stop that dualtrack, or give this"
                " one a spool.dir of its own"
            ) from error
        except OSError as error:
            raise StartError(
                f"spool.dir: cannot write in {self._folder}: {error.strerror}. Make the folder writable for this user,"
                " or point spool.dir somewhere else"
            ) from error

    def _prepare(self) -> None:
        incoming = self._folder / "incoming"
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = os.open(self._folder, os.O_RDONLY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._unlock()
            raise
        incoming.mkdir(mode=0o700, exist_ok=True)
        for name in _names(incoming):
            (incoming / name).unlink()
        self._try()
        self._room.count(sum((self._folder / name).stat().st_size for name in _names(self._folder)))

    def _try(self) -> None:
        """Go the way that every file will go. A full disk is no reason not to start: deliveries make room."""
        name = secrets.token_hex(16)
        probe = self._folder / "incoming" / name
        try:
            os.close(_create(probe))
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
        else:
            probe.rename(self._folder / name).unlink()

    async def close(self) -> None:
        """Let another process have the folder."""
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def begin(self, size: int | None = None, *, transient: bool = False, is_bounded: bool = True) -> SpoolFile:
        self._room.take(size or 0, is_bounded=is_bounded)
        file = _File(self._folder, self._room, size or 0, is_bounded=is_bounded, forget=self._transient.discard)
        if transient:
            self._transient.add(file.name)
        return file

    def path(self, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise ValueError(f"not the name of a spooled file: {name!r}")
        return str(self._folder / name)

    async def holds(self, name: str) -> bool:
        return await self._guarded(os.path.exists, self.path(name))

    async def size(self, name: str) -> int:
        return (await self._guarded(os.stat, self.path(name))).st_size

    async def read(self, name: str, max_bytes: int) -> bytes | None:
        if await self.size(name) > max_bytes:
            return None
        return await self._guarded(Path(self.path(name)).read_bytes)

    async def remove(self, name: str) -> None:
        self._transient.discard(name)
        await self._remove([self.path(name)])

    async def sweep(self, is_kept: Callable[[], Awaitable[set[str]]]) -> int:
        """Remove the finished files that `is_kept` does not name; answer how many.

        A name is in the journal before its file is finished. So files are listed first, and the journal asked then.
        """
        found = await asyncio.to_thread(_names, self._folder)
        kept = await is_kept()
        gone = [self.path(name) for name in found if name not in kept and name not in self._transient]
        await self._remove(gone)
        return len(gone)

    async def _remove(self, paths: Iterable[str]) -> None:
        try:
            await asyncio.to_thread(self._room.unlink, paths)
        except OSError as error:
            raise SpoolError(f"a file of the spool cannot be removed: {error}") from error

    async def _guarded(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await asyncio.to_thread(work, *args, **kwargs)
        except OSError as error:
            raise SpoolError(f"the spool {self._folder} failed: {error}") from error

    @property
    def used_bytes(self) -> int:
        return self._room.used_bytes

    @property
    def capacity_bytes(self) -> int:
        return self._room.max_bytes


class _Room:
    """How much of the bound is taken, by files and by what was promised to files on their way; from any thread."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self.max_bytes = max_bytes
        self.used_bytes = 0
        self._lock = threading.Lock()

    def count(self, size: int) -> None:
        with self._lock:
            self.used_bytes += size

    def take(self, size: int, *, is_bounded: bool) -> None:
        with self._lock:
            if is_bounded and self.used_bytes + size > self.max_bytes:
                raise SpoolFullError(
                    f"the spool {self._folder} holds {self.used_bytes} bytes of its {self.max_bytes} (spool.max_size);"
                    f" {size} more do not fit"
                )
            self.used_bytes += size

    def unlink(self, paths: Iterable[str]) -> None:
        """Remove finished files; what is gone already was counted by whoever removed it."""
        for path in paths:
            with suppress(FileNotFoundError):
                size = os.stat(path).st_size  # noqa: PTH116 - the port's paths are text
                os.unlink(path)  # noqa: PTH108
                self.count(-size)


class _File:
    """A file on its way in. Only the thread that holds the lock touches what lies on disk."""

    def __init__(
        self, folder: Path, room: _Room, size: int, *, is_bounded: bool, forget: Callable[[str], None]
    ) -> None:
        self.name = secrets.token_hex(16)
        self._folder = folder
        self._incoming = folder / "incoming" / self.name
        self._room = room
        self._reserved = size
        self._is_bounded = is_bounded
        self._forget = forget  # told when it comes to nothing
        self._taken = 0  # bytes that `write` was given
        self._gathered: list[bytes] = []
        self._gathered_bytes = 0
        self._is_finished = False
        self._clearing: asyncio.Future[None] | None = None
        self._lock = threading.Lock()
        self._descriptor: int | None = None
        self._digest = hashlib.sha256()
        self._is_lasting = False
        self._is_cleared = False

    async def write(self, chunk: bytes) -> None:
        self._check()
        await self._reserve(len(chunk))
        if self._gathered_bytes >= _BLOCK or len(self._gathered) >= _CHUNKS:
            await self._visit(self._append)
        self._gathered.append(chunk)
        self._gathered_bytes += len(chunk)

    async def finish(self) -> Spooled:
        self._check()
        await self._visit(self._complete)
        self._is_finished = True
        return Spooled(name=self.name, size=self._taken, sha256=self._digest.hexdigest())

    async def abandon(self) -> None:
        """Leave nothing of an unfinished file. Goes on to the end even if whoever waits is cancelled."""
        if not self._is_finished:
            await asyncio.shield(self._clear())

    def _check(self) -> None:
        if self._is_finished or self._clearing is not None:
            raise SpoolError(f"the spooled file {self.name} has ended already")

    async def _reserve(self, size: int) -> None:
        self._taken += size
        missing = self._taken - self._reserved
        if missing > 0:
            try:
                self._room.take(missing, is_bounded=self._is_bounded)
            except SpoolFullError:
                await self.abandon()
                raise
            self._reserved += missing

    async def _visit(self, work: Callable[[list[bytes]], None]) -> None:
        """Let a thread work on what was gathered. If that fails, or nobody waits for it, the file is of no use."""
        block, self._gathered, self._gathered_bytes = self._gathered, [], 0
        try:
            await asyncio.to_thread(self._alone, work, block)
        except asyncio.CancelledError:
            self._clear()
            raise
        except OSError as error:
            await self.abandon()
            raise self._renamed(error) from error

    def _clear(self) -> "asyncio.Future[None]":
        """Start to clear up, once; it needs nobody who waits."""
        if self._clearing is None:
            self._gathered.clear()
            self._forget(self.name)
            self._clearing = asyncio.get_running_loop().run_in_executor(None, self._remove)
        return self._clearing

    def _renamed(self, error: OSError) -> SpoolError:
        if error.errno in _NO_ROOM:
            return SpoolFullError(f"no room on the disk of the spool {self._folder}: {error.strerror}")
        return SpoolError(f"the spool {self._folder} failed: {error}")

    # --- in a thread --------------------------------------------------------------------------------------------

    def _alone(self, work: Callable[[list[bytes]], None], block: list[bytes]) -> None:
        with self._lock:
            if not self._is_cleared:  # a visit that was cancelled may begin after its clearing up
                work(block)

    def _append(self, block: list[bytes]) -> None:
        if self._descriptor is None:
            self._descriptor = _create(self._incoming)
        for chunk in block:
            rest = memoryview(chunk)
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
            self._digest.update(chunk)
        block.clear()  # the thread may hold on to it for longer than anybody waits

    def _complete(self, block: list[bytes]) -> None:
        self._append(block)
        assert self._descriptor is not None
        os.fdatasync(self._descriptor)
        descriptor, self._descriptor = self._descriptor, None
        os.close(descriptor)
        self._incoming.rename(self._folder / self.name)
        self._is_lasting = True
        self._room.count(self._taken - self._reserved)
        self._reserved = 0
        _sync(self._folder)

    def _remove(self) -> None:
        """Errors are nobody's: what cannot be removed now goes at the next start."""
        with self._lock, suppress(OSError):
            self._is_cleared = True
            self._room.count(-self._reserved)
            self._reserved = 0
            if self._is_lasting:
                self._room.unlink([str(self._folder / self.name)])
            else:
                self._incoming.unlink(missing_ok=True)
            if self._descriptor is not None:
                os.close(self._descriptor)


def _names(folder: Path) -> list[str]:
    """The files in a folder that are named as ours are."""
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries if _NAME.fullmatch(entry.name) and entry.is_file(follow_symlinks=False)]


def _create(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
