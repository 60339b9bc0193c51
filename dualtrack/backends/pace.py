"""Spaces our own calls to a backend, by the class of endpoint, so that a 429 is the exception.

Clients' calls that are passed on are not held back: the service itself tells them, and their own retries know what to
do.
"""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache

from dualtrack.core.bucket import Bucket
from dualtrack.core.limits import Rate

Sleep = Callable[[float], Awaitable[None]]


class Pace:
    """One bucket for each of `rates`; what none of them is about goes at once."""

    def __init__(
        self, rates: Sequence[Rate], now: Callable[[], float] = time.monotonic, sleep: Sleep = asyncio.sleep
    ) -> None:
        # a second's worth at once: what the services count in
        self._buckets = [(re.compile(rate.pattern), Bucket(rate.per_second, int(rate.per_second))) for rate in rates]
        self._now = now
        self._sleep = sleep
        self._bucket_of = lru_cache(maxsize=256)(self._find)

    async def turn(self, target: str) -> None:
        """Wait until a call of `target`, a path with or without a query, is within the rate of its class."""
        bucket = self._bucket_of(target.partition("?")[0]) if self._buckets else None
        if bucket is not None and (wait := bucket.reserve(self._now())):
            await self._sleep(wait)

    def _find(self, path: str) -> Bucket | None:
        return next((bucket for pattern, bucket in self._buckets if pattern.search(path)), None)
