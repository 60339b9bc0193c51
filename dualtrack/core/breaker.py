"""A breaker per backend, as data and step functions.

    closed ──`failures` in a row──▶ open ──pause over──▶ half-open ──success──▶ closed
                                     ▲                       │
                                     └──────failure──────────┘   (pause doubles, up to its maximum)

Half-open lets one probe through. Any success closes it, whoever made it. A server's own Retry-After lengthens a pause,
up to an hour. Nothing here reads a clock: instants come in.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

RETRY_AFTER_MAX = 3600.0  # as in `verdict`: no header closes a backend for good


class Position(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """`failures` in a row open the breaker; pauses are seconds and double from the least to the most."""

    failures: int = 5
    pause_min: float = 2.0
    pause_max: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    position: Position = Position.CLOSED
    failures: int = 0
    openings: int = 0
    until: float = 0.0
    probing: bool = False


def slots(breaker: Breaker, wanted: int, now: float) -> tuple[Breaker, int]:
    """Say how many attempts may start now, at most `wanted`, and the breaker after they did."""
    match breaker.position:
        case Position.CLOSED:
            return breaker, wanted
        case Position.OPEN if now >= breaker.until and wanted > 0:
            return replace(breaker, position=Position.HALF_OPEN, probing=True), 1
        case Position.HALF_OPEN if not breaker.probing and wanted > 0:
            return replace(breaker, probing=True), 1
        case _:
            return breaker, 0


def succeed(_breaker: Breaker) -> Breaker:
    return Breaker()


def idle(breaker: Breaker) -> Breaker:
    """Give the probe back: it met nothing that says how the backend is (nothing was due, or it was cancelled)."""
    return replace(breaker, probing=False)


def fail(breaker: Breaker, policy: Policy, now: float, retry_after: float | None = None) -> Breaker:
    failures = breaker.failures + 1
    if breaker.position is Position.CLOSED and failures < policy.failures:
        return replace(breaker, failures=failures)
    if breaker.position is Position.OPEN:
        return replace(breaker, failures=failures)
    openings = breaker.openings + 1
    pause = min(policy.pause_max, policy.pause_min * 2.0 ** min(openings - 1, 30))
    return Breaker(
        position=Position.OPEN,
        failures=failures,
        openings=openings,
        until=now + max(pause, min(retry_after or 0.0, RETRY_AFTER_MAX)),
    )
