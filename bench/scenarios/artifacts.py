"""Files through the proxy: a large one up and down, and many small ones one after the other.

The secondary is silent, so that deliveries wait and take nothing from the uploads; once it is healthy, for
information. The bare pass-through keeps a synced and hashed copy of each upload as well, so it shows what the
libraries and the disk cost. The null upstream drops what it gets: there the hop is all there is. The real server has
its files in memory, where there is a file system for that: on a disk shared with the proxy each sync of the one waits
for what the other wrote, which two machines do not know.
"""

import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from bench import targets
from bench.measure import interleave, transfer
from bench.null_server import Mode
from bench.report import Cell, Check, Report, at_least, at_most
from bench.settings import Settings
from bench.tracking import artifact_path, create_runs
from bench.transfer import Moved

LARGE_TO_BARE = 0.8
SMALL_TO_DIRECT = 1.5

MIB = 1024**2
LARGE_BYTES = 200 * MIB
SMALL_BYTES = 64 * 1024
SMALL_FILES = 100
REPEATS = 2
"""How often one fresh server moves each: starting it takes longer."""

DIRECT = "direct"
BARE = "bare with a spool"
HELD = "dualtrack, mirror silent"
HEALTHY = "dualtrack, mirror healthy"
MEMORY = Path("/dev/shm")
REAL, NULL = "mlflow server", "null upstream"


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What one fresh server took for everything."""

    puts: tuple[Moved, ...]
    gets: tuple[Moved, ...]
    smalls: tuple[Moved, ...]


Rounds = Mapping[str, Sequence[Round]]


def run(settings: Settings) -> Report:
    with (
        targets.mlflow_server(settings, where=MEMORY if MEMORY.is_dir() else None) as real,
        targets.null(settings) as null,
        targets.null(settings) as healthy,
        targets.null(settings, Mode.SILENT) as silent,
    ):
        variants: dict[str, Callable[[], AbstractContextManager[str]]] = {
            f"{REAL}: {DIRECT}": lambda: nullcontext(real),
            f"{REAL}: {BARE}": lambda: targets.bare_files(settings, real),
            f"{REAL}: {HELD}": lambda: targets.proxied(settings, real, silent),
            f"{REAL}: {HEALTHY}": lambda: targets.proxied(settings, real, healthy),
            f"{NULL}: {DIRECT}": lambda: nullcontext(null),
            f"{NULL}: {BARE}": lambda: targets.bare_files(settings, null),
            f"{NULL}: {HELD}": lambda: targets.proxied(settings, null, silent),
        }

        def step(name: str) -> Round:
            with variants[name]() as url:
                return _move(url)

        return _report(interleave(list(variants), settings.rounds, step))


def _move(url: str) -> Round:
    """Upload, download, upload many; nothing of an earlier upload is still on its way to the disk."""
    (run_id,) = create_runs(url, 1)
    path = artifact_path(url, run_id)
    transfer("put", url, f"{path}/warm", size=SMALL_BYTES, files=5)
    puts, gets, smalls = [], [], []
    for turn in range(REPEATS):
        os.sync()
        puts.append(transfer("put", url, f"{path}/large", size=LARGE_BYTES))
        gets.append(transfer("get", url, f"{path}/large", size=LARGE_BYTES))
        os.sync()
        smalls.append(transfer("put", url, f"{path}/small-{turn}", size=SMALL_BYTES, files=SMALL_FILES))
    return Round(puts=tuple(puts), gets=tuple(gets), smalls=tuple(smalls))


def _seconds(rounds: Sequence[Round], figure: Callable[[Round], tuple[Moved, ...]]) -> list[float]:
    return [moved.seconds for each in rounds for moved in figure(each)]


def _rate(rounds: Sequence[Round], figure: Callable[[Round], tuple[Moved, ...]]) -> float:
    return LARGE_BYTES / MIB / statistics.median(_seconds(rounds, figure))


def _small_ms(rounds: Sequence[Round]) -> float:
    return 1000 * statistics.median(_seconds(rounds, lambda each: each.smalls)) / SMALL_FILES


def _report(found: Rounds) -> Report:
    return Report(
        scenario=f"artifacts: {LARGE_BYTES // MIB} MiB up and down, {SMALL_FILES} x {SMALL_BYTES // 1024} KiB up",
        columns=("", "PUT MiB/s", "x bare", "spread", "GET MiB/s", "x bare", "spread", "ms a small file", "x direct"),
        rows=tuple(_row(name, found) for name in found),
        checks=tuple(_checks(found)),
        notes=("A silent mirror holds its deliveries back; the healthy one is a null server, and for information.",),
        errors=sum(
            moved.errors
            for rounds in found.values()
            for each in rounds
            for moved in (*each.puts, *each.gets, *each.smalls)
        ),
    )


def _row(name: str, found: Rounds) -> tuple[Cell, ...]:
    upstream = name.partition(":")[0]
    rounds, bare, direct = found[name], found[f"{upstream}: {BARE}"], found[f"{upstream}: {DIRECT}"]
    cells: list[Cell] = [name]
    for figure in (_puts, _gets):
        seconds = _seconds(rounds, figure)
        noise = (max(seconds) - min(seconds)) / statistics.median(seconds)
        cells += [_rate(rounds, figure), _rate(rounds, figure) / _rate(bare, figure), f"±{50 * noise:.0f} %"]
    return (*cells, _small_ms(rounds), _small_ms(rounds) / _small_ms(direct))


def _puts(each: Round) -> tuple[Moved, ...]:
    return each.puts


def _gets(each: Round) -> tuple[Moved, ...]:
    return each.gets


def _checks(found: Rounds) -> list[Check]:
    checks = []
    for upstream in (REAL, NULL):
        held, bare = found[f"{upstream}: {HELD}"], found[f"{upstream}: {BARE}"]
        for verb, figure in (("PUT", _puts), ("GET", _gets)):
            share = _rate(held, figure) / _rate(bare, figure)
            checks.append(at_least(f"{upstream}: {verb}, dualtrack / bare with a spool", share, LARGE_TO_BARE, "x"))
    times = _small_ms(found[f"{REAL}: {HELD}"]) / _small_ms(found[f"{REAL}: {DIRECT}"])
    return [*checks, at_most(f"{REAL}: small files, dualtrack / direct", times, SMALL_TO_DIRECT, "x")]
