"""A token bucket: how long a call has to wait so that no more than so many are made in a second. Pure."""

_LEAST = 1e-6  # seconds: less is the rounding of a clock


class Bucket:
    """Lets `burst` calls through at once, and after that `per_second`, evenly. Times are seconds of one clock."""

    def __init__(self, per_second: float, burst: int) -> None:
        self._step = 1.0 / per_second
        self._slack = (burst - 1) * self._step
        self._next = float("-inf")

    def reserve(self, now: float) -> float:
        """Take the next place, and answer the seconds until it comes. A place that is not used is not given back."""
        place = max(self._next, now)
        self._next = place + self._step
        wait = place - self._slack - now
        return wait if wait > _LEAST else 0.0
