"""log-metric/s on one core at 64 connections, against the null upstream, with the mirror in every mood."""

from contextlib import nullcontext

from bench import targets
from bench.measure import Samples, Variant, errors, median, sample, spread
from bench.null_server import Mode
from bench.report import Report, at_least
from bench.scenarios.latency import BARE, DIRECT, JOURNALING
from bench.settings import Settings

CONNECTIONS = 64
PER_SECOND = 4000.0
TO_JOURNALING = 0.7
TO_HEALTHY = 0.9
"""The same as with a healthy mirror; where the spread of the rounds is wider than this, measure again."""

HEALTHY = "dualtrack, mirror healthy"
TROUBLED = ("dualtrack, mirror slow (5 s)", "dualtrack, mirror refusing", "dualtrack, mirror silent")


def run(settings: Settings) -> Report:
    with (
        targets.null(settings) as primary,
        targets.null(settings) as healthy,
        targets.null(settings, Mode.SLOW) as slow,
        targets.refusing() as refusing,
        targets.null(settings, Mode.SILENT) as silent,
    ):
        mirrors = dict(zip(TROUBLED, (slow, refusing, silent), strict=True))
        variants: dict[str, Variant] = {
            DIRECT: lambda: nullcontext(primary),
            BARE: lambda: targets.bare(settings, primary, journal=False),
            JOURNALING: lambda: targets.bare(settings, primary, journal=True),
            HEALTHY: lambda: targets.proxied(settings, primary, healthy),
        }
        variants |= {
            name: lambda mirror=mirror: targets.proxied(settings, primary, mirror)  # type: ignore[misc]
            for name, mirror in mirrors.items()
        }
        return _report(sample(settings, variants, connections=CONNECTIONS, runs=settings.runs), settings.runs)


def _report(samples: Samples, runs: int) -> Report:
    rate = {name: median(rounds, lambda each: each.requests_per_second) for name, rounds in samples.items()}
    rows = tuple(
        (
            name,
            rate[name],
            rate[name] / rate[JOURNALING],
            median(rounds, lambda each: each.p50_ms),
            median(rounds, lambda each: each.p99_ms),
            f"±{50 * spread(rounds, lambda each: each.requests_per_second):.0f} %",
        )
        for name, rounds in samples.items()
    )
    return Report(
        scenario=f"throughput: {CONNECTIONS} connections, {runs} run(s), null upstream",
        columns=("", "log-metric/s", "x bare journaling", "p50 ms", "p99 ms", "spread"),
        rows=rows,
        checks=(
            at_least(HEALTHY, rate[HEALTHY], PER_SECOND, "/s"),
            at_least("the same / bare journaling", rate[HEALTHY] / rate[JOURNALING], TO_JOURNALING, "x"),
            *(at_least(f"{name} / healthy", rate[name] / rate[HEALTHY], TO_HEALTHY, "x") for name in TROUBLED),
        ),
        notes=("`direct` is the ceiling of the load generator and the null upstream, which share a core.",),
        errors=errors(samples),
    )
