"""Added p50 at one connection against the null upstream: what a client waits for the proxy itself."""

from contextlib import nullcontext

from bench import targets
from bench.measure import Samples, Variant, errors, median, sample
from bench.report import Report, at_most
from bench.settings import Settings

ADDED_MS = 0.8
TO_JOURNALING = 1.5

DIRECT = "direct"
BARE = "bare pass-through"
JOURNALING = "bare journaling"
DUALTRACK = "dualtrack"


def run(settings: Settings) -> Report:
    with targets.null(settings) as primary, targets.null(settings) as mirror:
        variants: dict[str, Variant] = {
            DIRECT: lambda: nullcontext(primary),
            BARE: lambda: targets.bare(settings, primary, journal=False),
            JOURNALING: lambda: targets.bare(settings, primary, journal=True),
            DUALTRACK: lambda: targets.proxied(settings, primary, mirror),
        }
        samples = sample(settings, variants, connections=1, runs=1)
    return _report(samples)


def _report(samples: Samples) -> Report:
    p50 = {name: median(rounds, lambda each: each.p50_ms) for name, rounds in samples.items()}
    added = {name: value - p50[DIRECT] for name, value in p50.items()}
    rows = tuple(
        (
            name,
            p50[name],
            median(rounds, lambda each: each.p99_ms),
            None if name == DIRECT else added[name],
            None if name == DIRECT else added[name] / added[JOURNALING],
        )
        for name, rounds in samples.items()
    )
    return Report(
        scenario="latency: one connection, null upstream",
        columns=("", "p50 ms", "p99 ms", "added p50 ms", "x bare journaling"),
        rows=rows,
        checks=(
            at_most("dualtrack, added p50", added[DUALTRACK], ADDED_MS, "ms"),
            at_most("dualtrack / bare journaling", added[DUALTRACK] / added[JOURNALING], TO_JOURNALING, "x"),
        ),
        errors=errors(samples),
    )
