"""Run the load generator against the variants of one scenario, interleaved, and take medians."""

import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TypeVar

import orjson

from bench.load import Sample
from bench.processes import UPSTREAM_CORE
from bench.settings import Settings
from bench.transfer import Moved

LIMIT_SECONDS = 1900.0

T = TypeVar("T")

Variant = Callable[[], AbstractContextManager[str]]
"""Starts one variant and yields the URL to send the load to."""

Samples = Mapping[str, list[Sample]]


def load(url: str, *options: str) -> Sample:
    """Run `bench.load` in a process of its own with these options."""
    command = [sys.executable, "-m", "bench.load", "--url", url, "--cpu", str(UPSTREAM_CORE), *options]
    done = subprocess.run(command, check=False, capture_output=True, timeout=LIMIT_SECONDS)
    if done.returncode != 0:
        raise RuntimeError(f"the load generator failed: {done.stderr.decode()[-2000:]}")
    return Sample(**orjson.loads(done.stdout))


def transfer(verb: str, url: str, path: str, *, size: int, files: int = 1, connections: int = 1) -> Moved:
    """Move files with `bench.transfer`, in a process of its own."""
    command = [sys.executable, "-m", "bench.transfer", verb, "--url", url, "--path", path]
    command += ["--cpu", str(UPSTREAM_CORE), "--bytes", str(size)]
    command += ["--files", str(files), "--connections", str(connections)]
    done = subprocess.run(command, check=False, capture_output=True, timeout=LIMIT_SECONDS)
    if done.returncode != 0:
        raise RuntimeError(f"the transfer failed: {done.stderr.decode()[-2000:]}")
    return Moved(**orjson.loads(done.stdout))


def timed(settings: Settings, url: str, *, connections: int, runs: int) -> Sample:
    """Load the URL for the settings' time."""
    return load(
        url,
        *("--connections", str(connections), "--runs", str(runs)),
        *("--seconds", str(settings.seconds), "--warmup", str(settings.warmup)),
    )


def interleave(names: Sequence[str], rounds: int, step: Callable[[str], T]) -> dict[str, list[T]]:
    """Call `step` with every name once a round, each round beginning with another name."""
    found: dict[str, list[T]] = {name: [] for name in names}
    for turn in range(rounds):
        start = turn % len(names)
        for name in (*names[start:], *names[:start]):
            print(f"  round {turn + 1}/{rounds}: {name}", file=sys.stderr)
            found[name].append(step(name))
    return found


def sample(
    settings: Settings, variants: Mapping[str, Variant], *, connections: int, runs: int
) -> dict[str, list[Sample]]:
    """Measure each variant once a round, freshly started, so that none carries another's backlog or heat."""

    def step(name: str) -> Sample:
        with variants[name]() as url:
            return timed(settings, url, connections=connections, runs=runs)

    return interleave(list(variants), settings.rounds, step)


def median(samples: Sequence[Sample], figure: Callable[[Sample], float]) -> float:
    return statistics.median(figure(each) for each in samples)


def spread(samples: Sequence[Sample], figure: Callable[[Sample], float]) -> float:
    """The range of the rounds, as a share of their median: the noise."""
    figures = [figure(each) for each in samples]
    return (max(figures) - min(figures)) / statistics.median(figures)


def errors(samples: Samples) -> int:
    return sum(each.errors for rounds in samples.values() for each in rounds)
