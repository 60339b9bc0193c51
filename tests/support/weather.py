"""A storm: faults of every kind at the secondary, gust after gust, some at the primary, and the proxy killed at times.

A gust lasts until it was felt and so many requests have passed; no gust lasts for a time. What comes when is drawn from
a seed. At the end of each gust all that hangs in a black hole is let go.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self

from dualtrack.emulators.faults import (
    Action,
    BlackHole,
    Body,
    Delay,
    DropAfter,
    DropBefore,
    Partial,
    Refuse,
    Rule,
    Spoil,
    Spoilt,
)
from tests.support.clouds import Cloud
from tests.support.flow import Json, Workspace
from tests.support.served import Served
from tests.support.servers import Control

MLFLOW = "/api/2.0/mlflow/"  # and nothing of files and of signing in
FILES = "artifacts|^/azureml/"  # Azure ML's container, its run history, an MLflow server's own


@dataclass(frozen=True, kw_only=True)
class Gust:
    """What happens at the secondary. `ends_tokens`: those of both sides are taken back as it begins, the first time.

    `takes_it_down`: it lasts until the proxy says that this backend is down.
    """

    name: str
    rules: tuple[Rule, ...]
    ends_tokens: bool = False
    takes_it_down: bool = False


def _often(name: str, action: Action, every: int = 2, path: str = "", **more: bool) -> Gust:
    return Gust(name=name, rules=(Rule(path=path, every=every, action=action),), **more)


GUSTS: tuple[Gust, ...] = (
    _often("429", Refuse(status=429)),
    _often("429, told when", Refuse(status=429, retry_after="1"), every=3),
    _often("500", Refuse(status=500)),
    _often("502, a page", Refuse(status=502, body=Body.HTML)),
    _often("503, nothing said", Refuse(status=503, body=Body.EMPTY)),
    _often("504", Refuse(status=504)),
    _often("reset", DropBefore(resets=True), every=3),
    _often("cut", DropBefore(), every=3),
    _often("lost answer", DropAfter()),
    _often("lost by a reset", DropAfter(resets=True), every=3),
    _often("half an answer", Spoil(body=Spoilt.TRUNCATED), every=3),
    _often("an answer that tells nothing", Spoil(body=Spoilt.HTML), every=3),
    _often("a part, then 500", Partial(status=500), path="log-batch$"),
    _often("401", Refuse(status=401), every=3, path=MLFLOW, ends_tokens=True),
    _often("slow", Spoil(body=Spoilt.SLOW, seconds=0.3), every=3),
    _often("black hole", BlackHole(), every=1, takes_it_down=True),
    _often("some in a black hole", BlackHole(), every=5),
    _often("lost answers of files", DropAfter(), path=FILES),
    _often("no files", Refuse(status=503, body=Body.XML), every=1, path=FILES),
)
# at the primary, one call in so many
PRIMARY: tuple[Action, ...] = (
    DropAfter(),
    DropAfter(resets=True),
    DropBefore(),
    Refuse(status=500),
    Refuse(status=502, body=Body.HTML),
    Refuse(status=503),
    Refuse(status=429),
    Delay(seconds=0.05),
)
ONE_IN = 30
LONGEST = 200.0  # seconds without a request: then nothing moves any more


class Weather:
    """Blows over `served` between `primary` and `secondary`. `requests` is how many pass in one gust at least."""

    def __init__(
        self, served: Served, primary: Workspace, secondary: Workspace, chance: random.Random, requests: int, kills: int
    ) -> None:
        self._served = served
        self._primary = primary
        self._secondary = secondary
        self._chance = chance
        self._requests = requests
        self._deaths = set(chance.sample(range(len(GUSTS)), kills))
        self.felt = Counter[str]()

    async def blow(self, is_over: Callable[[], bool]) -> None:
        """Until everything has happened once, and `is_over`; then it is calm."""
        for number, gust in enumerate(self._drawn()):
            if number >= len(GUSTS) and is_over():
                break
            await self._gust(gust, is_deadly=number in self._deaths)

    def _drawn(self) -> Iterator[Gust]:
        while True:
            yield from self._chance.sample(GUSTS, len(GUSTS))

    async def _gust(self, gust: Gust, *, is_deadly: bool) -> None:
        here, there = [await Watch.begin(each) for each in (self._primary, self._secondary)]
        at_primary = Rule(path="runs/|models|artifacts", every=ONE_IN, action=self._chance.choice(PRIMARY))
        await self._secondary.control.set_faults(*gust.rules)
        await self._primary.control.set_faults(*([at_primary] if self._chance.random() < 0.7 else []))
        if gust.ends_tokens and not self.felt[gust.name]:  # nobody signs in anew every second (auth/cached.py, _REST)
            self._end_tokens()
        if is_deadly:
            await here.passed(self._chance.randrange(self._requests))
            await self._served.restart()
            self.felt["killed"] += 1
        await there.felt()
        if gust.takes_it_down:
            await self._served.until_down(self._secondary.name)
        await here.passed(self._requests)
        await there.catch_up()
        self.felt[gust.name] += there.faults
        self.felt["at the primary"] += here.faults
        for side in (self._secondary, self._primary):
            await side.control.clear_faults()

    def _end_tokens(self) -> None:
        for side in (self._primary, self._secondary):
            if isinstance(side, Cloud):
                side.tokens.revoke()


class Watch:
    """One side's requests from some moment on."""

    def __init__(self, control: Control, last: int) -> None:
        self._control = control
        self._last = last
        self._count = 0
        self.faults = 0

    @classmethod
    async def begin(cls, side: Workspace) -> Self:
        seen = await side.control.log()
        return cls(side.control, seen[-1]["number"] if seen else 0)

    async def passed(self, count: int) -> None:
        """Wait until so many have come since the beginning."""
        while self._count < count:
            await self._look()

    async def felt(self) -> None:
        """Wait until a fault has met one."""
        while not self.faults:
            await self._look()

    async def catch_up(self) -> None:
        """Count what has come by now."""
        self._note(await self._control.log(self._last))

    async def _look(self) -> None:
        seen = await self._control.log(self._last, LONGEST)
        assert seen, f"no request within {LONGEST} s"
        self._note(seen)

    def _note(self, seen: Sequence[Json]) -> None:
        self._last = seen[-1]["number"] if seen else self._last
        self._count += len(seen)
        self.faults += sum(1 for entry in seen if entry["fault"])
