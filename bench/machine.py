"""What the figures were taken on: one line for the head of the report."""

import os
import platform
import sqlite3
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

SYNCS = 300
BLOCK = bytes(4096)


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    cores: int
    cpu: str
    memory_gib: float
    kernel: str
    python: str
    sqlite: str
    filesystem: str
    fdatasync_ms: float

    def __str__(self) -> str:
        return (
            f"{self.cores} cores ({self.cpu}), {self.memory_gib:.0f} GiB, Linux {self.kernel}, "
            f"Python {self.python}, SQLite {self.sqlite}, journal on {self.filesystem}, "
            f"4 KiB fdatasync {self.fdatasync_ms:.2f} ms (median)"
        )


def describe(folder: Path) -> Machine:
    """Describe this machine and the disk below `folder`."""
    return Machine(
        cores=len(os.sched_getaffinity(0)),
        cpu=_cpu(),
        memory_gib=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3,
        kernel=platform.release(),
        python=platform.python_version(),
        sqlite=sqlite3.sqlite_version,
        filesystem=_filesystem(folder),
        fdatasync_ms=_fdatasync_ms(folder),
    )


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _filesystem(folder: Path) -> str:
    """The type of the longest mount point above the folder."""
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    above = [(len(point), kind) for point, kind in mounts if folder.resolve().is_relative_to(point)]
    return max(above)[1] if above else "unknown"


def _fdatasync_ms(folder: Path) -> float:
    probe = folder / "fdatasync.probe"
    took = []
    with probe.open("wb", buffering=0) as file:
        for _ in range(SYNCS):
            file.write(BLOCK)
            started_at = time.perf_counter()
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - started_at)
    probe.unlink()
    return 1000 * statistics.median(took)
