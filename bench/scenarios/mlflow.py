"""Latency and throughput with a real `mlflow server` as the primary: what the proxy weighs in real use."""

from contextlib import nullcontext

from bench import targets
from bench.load import Sample
from bench.measure import Samples, Variant, errors, median, sample
from bench.report import Cell, Report, at_most
from bench.scenarios.latency import ADDED_MS, DIRECT, DUALTRACK
from bench.settings import Settings

CONNECTIONS = (1, 64)


def run(settings: Settings) -> Report:
    with targets.mlflow_server(settings) as primary, targets.null(settings) as mirror:
        variants: dict[str, Variant] = {
            DIRECT: lambda: nullcontext(primary),
            DUALTRACK: lambda: targets.proxied(settings, primary, mirror),
        }
        found = {each: sample(settings, variants, connections=each, runs=each) for each in CONNECTIONS}
    return _report(found)


def _report(found: dict[int, dict[str, list[Sample]]]) -> Report:
    one = found[1]
    added = median(one[DUALTRACK], _p50) - median(one[DIRECT], _p50)
    return Report(
        scenario="mlflow: a real `mlflow server` (one worker, SQLite) as the primary",
        columns=("", "log-metric/s", "x direct", "p50 ms", "p99 ms"),
        rows=tuple(row for connections, samples in found.items() for row in _rows(connections, samples)),
        checks=(at_most("dualtrack, added p50 at one connection", added, ADDED_MS, "ms"),),
        notes=("No target for the rate: the server, not the proxy, sets it.",),
        errors=sum(errors(samples) for samples in found.values()),
    )


def _rows(connections: int, samples: Samples) -> list[tuple[Cell, ...]]:
    direct = median(samples[DIRECT], _rate)
    return [
        (
            f"{name}, {connections} connections",
            median(rounds, _rate),
            median(rounds, _rate) / direct,
            median(rounds, _p50),
            median(rounds, lambda each: each.p99_ms),
        )
        for name, rounds in samples.items()
    ]


def _rate(sample: Sample) -> float:
    return sample.requests_per_second


def _p50(sample: Sample) -> float:
    return sample.p50_ms
