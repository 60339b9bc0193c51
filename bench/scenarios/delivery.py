"""1,000 queued log-metric calls of one run to a real server: one by one over HTTP, and by coalesced delivery.

The queue grows while a gate in front of the mirror is shut. After it opens, dualtrack's own retry decides when
it looks again, so two times are given: from the opening, and from the first byte that it then sends, which is
delivery proper and what the target is for. Afterwards the mirror is asked whether it has every point.
"""

import statistics
import time
from urllib.parse import urlsplit

from bench import targets
from bench.gate import Gate, gate
from bench.measure import interleave, load
from bench.report import Report, at_least
from bench.settings import Settings
from bench.tracking import create_runs, mirrored_points

CALLS = 1000
TO_ONE_BY_ONE = 40.0
DELIVER_SECONDS = 300.0
POLL_SECONDS = 0.005

DIRECT = "one by one, direct"
COALESCED = "dualtrack, coalesced"


def run(settings: Settings) -> Report:
    from_opening: list[float] = []
    with targets.mlflow_server(settings) as server, targets.null(settings) as primary:

        def step(name: str) -> float:
            if name == DIRECT:
                return load(server, "--count", str(CALLS)).seconds
            opened, sent = _coalesced(settings, primary, server)
            from_opening.append(opened)
            return sent

        seconds = interleave((DIRECT, COALESCED), settings.rounds, step)
    return _report(seconds, statistics.median(from_opening))


def _coalesced(settings: Settings, primary: str, server: str) -> tuple[float, float]:
    """Answer the seconds until the backlog was empty: from the opening, and from the first byte after it."""
    port = urlsplit(server).port
    assert port is not None
    with gate(port) as mirror, targets.dualtrack(settings, primary=primary, mirror=mirror.url) as proxy:
        mirror.open()
        run_ids = create_runs(proxy.url, 1)
        _await_empty(proxy)
        mirror.shut()
        load(proxy.url, "--count", str(CALLS), "--run-id", *run_ids)
        took = _time_delivery(mirror, proxy)
    if (points := mirrored_points(server, run_ids[0])) != CALLS:
        raise RuntimeError(f"the mirror has {points} points of the run, not {CALLS}")
    return took


def _time_delivery(mirror: Gate, proxy: targets.Proxy) -> tuple[float, float]:
    queued = proxy.backlog()
    if queued < CALLS:
        raise RuntimeError(f"{queued} entries were queued behind the shut gate, not {CALLS}")
    opened_at = mirror.open()
    _await_empty(proxy)
    done_at = time.perf_counter()
    assert mirror.first_byte_at is not None
    return done_at - opened_at, done_at - mirror.first_byte_at


def _await_empty(proxy: targets.Proxy) -> None:
    deadline = time.perf_counter() + DELIVER_SECONDS
    while (left := proxy.backlog()) > 0:
        if time.perf_counter() > deadline:
            raise TimeoutError(f"{left} entries were not delivered within {DELIVER_SECONDS:.0f} s")
        time.sleep(POLL_SECONDS)


def _report(seconds: dict[str, list[float]], from_opening: float) -> Report:
    direct, coalesced = (statistics.median(seconds[name]) for name in (DIRECT, COALESCED))
    return Report(
        scenario=f"delivery: {CALLS:,} queued log-metric calls of one run to a real `mlflow server`",
        columns=("", "seconds", "calls/s", "x one by one"),
        rows=(
            (DIRECT, direct, CALLS / direct, 1.0),
            (COALESCED, coalesced, CALLS / coalesced, direct / coalesced),
            ("the same, from the mirror's return", from_opening, CALLS / from_opening, direct / from_opening),
        ),
        checks=(at_least("coalesced / one by one", direct / coalesced, TO_ONE_BY_ONE, "x"),),
        notes=("The last row adds the wait until dualtrack looks again; the target is for delivery itself.",),
    )
