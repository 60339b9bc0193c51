"""The real clock."""

import asyncio
import random
import time


class SystemClock:
    def now(self) -> float:
        return time.time()

    def chance(self) -> float:
        return random.random()  # noqa: S311 - jitter

    async def wait(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
