"""Request rates of a Databricks workspace: one bucket of tokens for each group of endpoints (facts/backends B7).

Decides whether a call is within its group's rate, and what a refusal says of the wait; never waits itself. A bucket
holds a second's worth, at least one call. `databricks` asks for each call that a signed-in client makes.

The rates are those of an older page of the REST reference (a digest of 2026 has 120 in the last row's place). Whether
`Retry-After` is sent is not documented: a choice.
"""

import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate
from enum import StrEnum


class Tells(StrEnum):
    """What a refusal says of the wait, as `Retry-After`."""

    NOTHING = "nothing"
    SECONDS = "seconds"
    DATE = "date"


# the first that fits counts
RATES: tuple[tuple[str, float], ...] = (
    (r"/mlflow/experiments/(?:list|search|update|delete|restore)$", 7),
    (r"/mlflow/runs/search$", 7),
    (r"/mlflow/runs/log-batch$", 47),
    (r"/mlflow/", 127),
)


@dataclass(slots=True)
class Bucket:
    """Tokens of one group, `per_second` of which come back."""

    per_second: float
    tokens: float
    at: float

    def take(self, now: float) -> float:
        """Take one; answer the seconds until there is one, 0 when it was there."""
        most = max(1.0, self.per_second)
        self.tokens = min(most, self.tokens + (now - self.at) * self.per_second)
        self.at = now
        if self.tokens < 1:
            return (1 - self.tokens) / self.per_second
        self.tokens -= 1
        return 0.0


class Buckets:
    """The rates of one workspace, `scale` times those of `RATES`."""

    def __init__(
        self, scale: float = 1.0, tells: Tells = Tells.NOTHING, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.refused = 0
        self._tells = tells
        self._now = now
        started = now()
        self._groups = [
            (re.compile(pattern), Bucket(rate * scale, max(1.0, rate * scale), started)) for pattern, rate in RATES
        ]

    def refusal(self, path: str) -> dict[str, str] | None:
        """Answer the headers of a refusal; None for a call within the rate, which counts."""
        bucket = next((bucket for pattern, bucket in self._groups if pattern.search(path)), None)
        wait = bucket.take(self._now()) if bucket is not None else 0.0
        if not wait:
            return None
        self.refused += 1
        return retry_after(self._tells, wait)


def retry_after(tells: Tells, wait: float) -> dict[str, str]:
    """Say a wait in whole seconds, as services do, or as the date at which it ends."""
    whole = math.ceil(wait)
    match tells:
        case Tells.SECONDS:
            return {"Retry-After": str(whole)}
        case Tells.DATE:
            return {"Retry-After": formatdate(time.time() + whole, usegmt=True)}
        case Tells.NOTHING:
            return {}
