"""A rate for all MLflow calls of an Azure ML workspace (facts/backends A6, A7, checklist item 17).

The service publishes no rates, and whether it sends `Retry-After` is not known: so both are choices. Single 429s are
fault rules (`faults`).
"""

import time
from collections.abc import Callable

from dualtrack.emulators.azureml_errors import Objection
from dualtrack.emulators.buckets import Bucket, Tells, retry_after
from dualtrack.emulators.tracking import Call


class Throttle:
    """One bucket of a second's worth of calls; files and storage are outside of it."""

    def __init__(
        self, per_second: float, tells: Tells = Tells.NOTHING, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._bucket = Bucket(per_second, max(1.0, per_second), now())
        self._tells = tells
        self._now = now

    def objection(self, _call: Call) -> Objection | None:
        """Refuse a call beyond the rate; one within it counts."""
        wait = self._bucket.take(self._now())
        if not wait:
            return None
        return Objection(
            message="Too many requests for this workspace.",
            code="REQUEST_LIMIT_EXCEEDED",
            status=429,
            headers=retry_after(self._tells, wait),
        )
