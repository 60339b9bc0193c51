"""Room kept beside the journal for the day on which its disk is full.

Taking writes out of a full database needs room too: for the write-ahead log, before any page is free. So a file of real
blocks lies beside the journal. It is given up when the disk is full, which lets deliveries go on, and taken back as
soon as there is room for all of it again. Until then the journal takes no new writes, or they would eat it.
"""

import os
from contextlib import suppress
from pathlib import Path

_MOST = 20 * 1024**2  # the write-ahead log's 16 MiB between checkpoints, and some
_SHARE = 4  # of a small disk's free room, at most a quarter


class Ballast:
    """`is_spent` from giving it up until it is back. A disk that has no room for it has none from the start."""

    def __init__(self, journal: Path) -> None:
        self._path = journal.with_name(journal.name + ".reserve")
        self._size = 0
        self.is_spent = False

    @property
    def pages(self) -> int:
        """How many pages of 4 KiB it stands for, with a fifth to spare; a small disk gets a short log."""
        return max(32, self._size // 4096 * 4 // 5)

    def take(self) -> bool:
        """Allocate it, if it is not there; say whether it is."""
        try:
            if not self._size:
                free = os.statvfs(self._path.parent)
                self._size = min(_MOST, free.f_bavail * free.f_frsize // _SHARE)
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, max(1, self._size))
            finally:
                os.close(descriptor)
        except OSError:
            with suppress(OSError):
                self._path.unlink(missing_ok=True)
            return False
        self.is_spent = False
        return True

    def give(self) -> None:
        """Free its blocks."""
        if self._path.exists():
            with suppress(OSError):
                self._path.unlink()
            self.is_spent = True
