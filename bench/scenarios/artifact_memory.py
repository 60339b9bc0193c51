"""Resident memory of `serve` while files of 1 GiB go through it: one at a time, and eight at once.

The primary is a null server that drops what it gets, so that the bodies come as fast as the proxy takes them. Each
case has a fresh process and an empty spool; where the disk has no room for eight copies, that case is left out and said
so. The case without copies has a spool that takes none of them, with `on_full: direct`.
"""

import shutil
import statistics
import time
from dataclasses import dataclass

from bench import targets
from bench.measure import interleave, transfer
from bench.null_server import Mode
from bench.processes import memory
from bench.report import Report, at_most
from bench.settings import Settings
from bench.tracking import artifact_path, create_runs

ONE_MIB = 16.0
EIGHT_PEAK_MIB = 250.0

MIB = 1024**2
LARGE_BYTES = 1024 * MIB
SMALL_BYTES = 64 * 1024
SETTLE_SECONDS = 2.0
DELIVER_SECONDS = 300.0
SPARE_BYTES = 4 * 1024 * MIB
ROUNDS = 3
"""At most: each moves many gigabytes, and memory varies little."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    name: str
    at_once: int
    verb: str = "put"
    keeps_copies: bool = True
    is_delivered: bool = False

    @property
    def kept_bytes(self) -> int:
        return self.at_once * LARGE_BYTES if self.keeps_copies else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """VmRSS before, VmHWM and VmRSS after, in MiB."""

    before: float
    peak: float
    after: float
    seconds: float
    errors: int


ONE = Case(name="1 upload", at_once=1)
ONE_DIRECT = Case(name="1 upload, spool full", at_once=1, keeps_copies=False)
ONE_DELIVERED = Case(name="1 upload and its delivery", at_once=1, is_delivered=True)
ONE_DOWN = Case(name="1 download", at_once=1, verb="get", keeps_copies=False)
EIGHT = Case(name="8 uploads at once", at_once=8)
EIGHT_DIRECT = Case(name="8 uploads at once, spool full", at_once=8, keeps_copies=False)
CASES = (ONE, ONE_DIRECT, ONE_DELIVERED, ONE_DOWN, EIGHT, EIGHT_DIRECT)


def run(settings: Settings) -> Report:
    free = shutil.disk_usage(settings.folder).free
    cases = {case.name: case for case in CASES if case.kept_bytes + SPARE_BYTES <= free}
    left_out = [case.name for case in CASES if case.name not in cases]
    with (
        targets.null(settings) as primary,
        targets.null(settings) as healthy,
        targets.null(settings, Mode.SILENT) as silent,
    ):

        def step(name: str) -> Use:
            case = cases[name]
            return _use(settings, case, primary, healthy if case.is_delivered else silent)

        found = interleave(list(cases), min(settings.rounds, ROUNDS), step)
    return _report(cases, {name: _middle(uses) for name, uses in found.items()}, left_out)


def _use(settings: Settings, case: Case, primary: str, mirror: str) -> Use:
    spool: dict[str, object] | None = None if case.keeps_copies else {"max_size": "1MiB", "on_full": "direct"}
    with targets.dualtrack(settings, primary=primary, mirror=mirror, spool=spool) as proxy:
        (run_id,) = create_runs(proxy.url, 1)
        path = artifact_path(proxy.url, run_id)
        transfer("put", proxy.url, f"{path}/warm", size=SMALL_BYTES)
        if case.verb == "get":
            transfer("put", primary, f"{path}/large", size=LARGE_BYTES)
        time.sleep(SETTLE_SECONDS)
        before, _ = memory(proxy.process.pid)
        moved = transfer(case.verb, proxy.url, f"{path}/large", size=LARGE_BYTES, connections=case.at_once)
        if case.is_delivered:
            _await_delivery(proxy)
        time.sleep(SETTLE_SECONDS)
        after, peak = memory(proxy.process.pid)
    return Use(before=before, peak=peak, after=after, seconds=moved.seconds, errors=moved.errors)


def _await_delivery(proxy: targets.Proxy) -> None:
    deadline = time.perf_counter() + DELIVER_SECONDS
    while proxy.backlog() > 0:
        if time.perf_counter() > deadline:
            raise TimeoutError(f"the files were not delivered within {DELIVER_SECONDS:.0f} s")
        time.sleep(SETTLE_SECONDS)


def _middle(uses: list[Use]) -> Use:
    """The median of before, after and time; the highest peak."""
    return Use(
        before=statistics.median(use.before for use in uses),
        peak=max(use.peak for use in uses),
        after=statistics.median(use.after for use in uses),
        seconds=statistics.median(use.seconds for use in uses),
        errors=sum(use.errors for use in uses),
    )


def _report(cases: dict[str, Case], found: dict[str, Use], left_out: list[str]) -> Report:
    rows = tuple(
        (
            name,
            use.before,
            use.peak,
            use.peak - use.before,
            use.after,
            cases[name].at_once * LARGE_BYTES / MIB / use.seconds,
        )
        for name, use in found.items()
    )
    grown = [
        at_most(f"{name}, growth", use.peak - use.before, ONE_MIB, "MiB")
        for name, use in found.items()
        if cases[name].at_once == 1
    ]
    peaks = [
        at_most(f"{name}, peak", use.peak, EIGHT_PEAK_MIB, "MiB")
        for name, use in found.items()
        if cases[name].at_once == 8
    ]
    return Report(
        scenario=f"artifact memory: files of {LARGE_BYTES // MIB:,} MiB, null upstream",
        columns=("", "VmRSS before MiB", "VmHWM MiB", "growth MiB", "VmRSS after MiB", "MiB/s"),
        rows=rows,
        checks=(*grown, *peaks),
        notes=(f"No room on the disk for: {', '.join(left_out)}.",) if left_out else (),
        errors=sum(use.errors for use in found.values()),
    )
