"""A clock whose hands a test moves: nothing waits, and chance is none."""


class Hands:
    """The Clock port. `wait` moves the hands at once; `waits` are all that were asked for."""

    def __init__(self, now: float = 1000.0) -> None:
        self.at = now
        self.waits: list[float] = []

    def now(self) -> float:
        return self.at

    def chance(self) -> float:
        return 0.0

    async def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.at += seconds
