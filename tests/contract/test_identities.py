"""Who dualtrack is on each backend: asked when somebody looks, kept, and never waited for."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from dualtrack.backends.identities import Identities
from dualtrack.backends.online import Seen
from dualtrack.errors import BackendError


class Clock:
    """Time that the test decides about."""

    at = 1000.0

    def now(self) -> float:
        return self.at

    def chance(self) -> float:
        return 0.5

    async def wait(self, seconds: float) -> None:  # noqa: ARG002
        raise AssertionError("identities wait for people, not for time")


class There:
    """A backend that says who we are, or fails; each look is counted, and waits until it may answer."""

    def __init__(self, said: Seen | BackendError) -> None:
        self.said = said
        self.looks = 0
        self.looked = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def look(self) -> Seen:
        self.looks += 1
        self.looked.set()
        await self.may_answer.wait()
        if isinstance(self.said, BackendError):
            raise self.said
        return self.said


@asynccontextmanager
async def running(clock: Clock, **there: There) -> AsyncIterator[Identities]:
    identities = Identities({name: each.look for name, each in there.items()}, clock)
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        loop = group.create_task(identities.run())
        yield identities
        loop.cancel()


async def settle(identities: Identities) -> dict[str, str]:
    """Look, let the loop do all it can, and look again."""
    identities()
    for _ in range(20):
        await asyncio.sleep(0)
    return dict(identities())


ME = Seen(who="me@example.com", detail="")
DOWN = BackendError("b", "look", "no answer within 30 s", "start it")


async def test_nobody_is_asked_until_somebody_looks() -> None:
    there = There(ME)
    async with running(Clock(), a=there) as identities:
        for _ in range(20):
            await asyncio.sleep(0)
        assert there.looks == 0

        assert identities() == {}
        await there.looked.wait()

        assert await settle(identities) == {"a": "me@example.com"}


async def test_an_answer_is_kept_and_a_failure_is_asked_again_soon() -> None:
    clock, known, down = Clock(), There(ME), There(DOWN)
    async with running(clock, a=known, b=down) as identities:
        assert (await settle(identities))["b"] == "could not ask: no answer within 30 s"
        await settle(identities)
        assert (known.looks, down.looks) == (1, 1)

        clock.at += 31
        down.said = ME

        assert (await settle(identities))["b"] == "me@example.com"
        assert (known.looks, down.looks) == (1, 2)
        clock.at += 3600
        await settle(identities)
        assert (known.looks, down.looks) == (2, 3)


async def test_a_backend_that_does_not_answer_holds_nobody_up() -> None:
    """Who looks gets what is known of the others."""
    quick, slow = There(ME), There(ME)
    slow.may_answer.clear()
    async with running(Clock(), a=slow, b=quick) as identities:
        assert await settle(identities) == {"b": "me@example.com"}
