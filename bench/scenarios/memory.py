"""Resident memory and time to ready of `serve`: idle, after requests, and with a large backlog."""

import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import targets
from bench.load import Sample
from bench.measure import load
from bench.processes import memory
from bench.report import Report, at_most
from bench.settings import Settings
from bench.tracking import create_runs

IDLE_MIB = 90.0
BACKLOG_MIB = 130.0
READY_SECONDS = 1.0
READY_WITH_BACKLOG_SECONDS = 5.0

MIB = 1024**2
SETTLE_SECONDS = 10.0
REQUESTS = 1000
BATCH_BYTES = 65536
FILL_CONNECTIONS = 8
FILL_RUNS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Resident:
    """One look at the process."""

    when: str
    rss_mib: float
    peak_mib: float
    ready_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Fill:
    """How the backlog came to be."""

    sample: Sample
    entries: int
    journal_bytes: int


def run(settings: Settings) -> Report:
    with targets.null(settings) as primary, targets.null(settings) as mirror:
        idle = _idle(settings, primary, mirror)
        ready = [_ready(settings, primary, mirror) for _ in range(settings.rounds)]
        with targets.refusing() as refusing, TemporaryDirectory(dir=settings.folder) as folder:
            filled, fill = _fill(settings, primary, refusing, Path(folder))
            full = [_restart(settings, primary, refusing, Path(folder)) for _ in range(settings.rounds)]
    return _report(idle, ready, filled, full, fill)


def _idle(settings: Settings, primary: str, mirror: str) -> list[Resident]:
    with targets.dualtrack(settings, primary=primary, mirror=mirror) as proxy:
        looks = [_look("ready, empty journal", proxy)]
        time.sleep(SETTLE_SECONDS)
        looks.append(_look(f"idle for {SETTLE_SECONDS:.0f} s", proxy))
        load(proxy.url, "--count", str(REQUESTS))
        time.sleep(SETTLE_SECONDS)
        looks.append(_look(f"{SETTLE_SECONDS:.0f} s after {REQUESTS:,} requests", proxy))
    return looks


def _ready(settings: Settings, primary: str, mirror: str) -> float:
    with targets.dualtrack(settings, primary=primary, mirror=mirror) as proxy:
        return proxy.process.ready_seconds


def _fill(settings: Settings, primary: str, refusing: str, folder: Path) -> tuple[Resident, Fill]:
    with targets.dualtrack(settings, primary=primary, mirror=refusing, folder=folder) as proxy:
        sample = load(
            proxy.url,
            *("--count", str(settings.backlog_bytes // BATCH_BYTES + 1), "--batch-bytes", str(BATCH_BYTES)),
            *("--connections", str(FILL_CONNECTIONS), "--run-id", *create_runs(proxy.url, FILL_RUNS)),
        )
        time.sleep(SETTLE_SECONDS)
        journal_bytes = sum(file.stat().st_size for file in folder.glob("journal.db*"))
        fill = Fill(sample=sample, entries=proxy.backlog(), journal_bytes=journal_bytes)
        if fill.entries < sample.requests:
            raise RuntimeError(f"only {fill.entries} of {sample.requests} writes are queued: is the journal bounded?")
        return _look(f"{SETTLE_SECONDS:.0f} s after the backlog was filled", proxy), fill


def _restart(settings: Settings, primary: str, refusing: str, folder: Path) -> Resident:
    with targets.dualtrack(settings, primary=primary, mirror=refusing, folder=folder) as proxy:
        time.sleep(SETTLE_SECONDS)
        return _look(f"restarted with the backlog, after {SETTLE_SECONDS:.0f} s", proxy)


def _look(when: str, proxy: targets.Proxy) -> Resident:
    rss, peak = memory(proxy.process.pid)
    return Resident(when=when, rss_mib=rss, peak_mib=peak, ready_seconds=proxy.process.ready_seconds)


def _middle(looks: list[Resident]) -> Resident:
    """The median of several looks, figure by figure."""
    return Resident(
        when=looks[0].when,
        rss_mib=statistics.median(look.rss_mib for look in looks),
        peak_mib=statistics.median(look.peak_mib for look in looks),
        ready_seconds=statistics.median(look.ready_seconds for look in looks),
    )


def _report(idle: list[Resident], ready: list[float], filled: Resident, full: list[Resident], fill: Fill) -> Report:
    restarted, empty_seconds = _middle(full), statistics.median(ready)
    looks = (*idle, filled, restarted)
    with_backlog = max(filled.rss_mib, restarted.rss_mib)
    return Report(
        scenario="memory: resident size of `serve`, and its time to ready",
        columns=("", "VmRSS MiB", "VmHWM MiB"),
        rows=tuple((look.when, look.rss_mib, look.peak_mib) for look in looks),
        checks=(
            at_most("idle", max(look.rss_mib for look in idle), IDLE_MIB, "MiB"),
            at_most("with the backlog", with_backlog, BACKLOG_MIB, "MiB"),
            at_most("ready, empty journal", empty_seconds, READY_SECONDS, "s"),
            at_most("ready, with the backlog", restarted.ready_seconds, READY_WITH_BACKLOG_SECONDS, "s"),
        ),
        notes=(_tell(fill),),
        errors=fill.sample.errors,
    )


def _tell(fill: Fill) -> str:
    sample = fill.sample
    sent_mib = sample.sent_bytes / MIB
    return (
        f"The backlog: {fill.entries:,} entries queued, {sent_mib:,.0f} MiB sent in {sample.seconds:.1f} s "
        f"({sent_mib / sample.seconds:.0f} MiB/s at {FILL_CONNECTIONS} connections), "
        f"{fill.journal_bytes / MIB:,.0f} MiB of journal files."
    )
