"""When a lane is empty, or cannot go on; and when there is no more waiting. The journal's calls are the only events."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from dualtrack.errors import UnreachableError
from dualtrack.reconcile.arrivals import Arrivals
from dualtrack.reconcile.patience import Patience
from tests.support.hands import Hands

MOVING, HELD = False, True  # as `Queue.waiting` tells lanes that hold anything


class Lanes:
    """Stands in for the journal: what each lane is like now."""

    def __init__(self, **lanes: bool) -> None:
        self.lanes = lanes

    async def waiting(self, _backend: str, keys: Sequence[str]) -> dict[str, bool]:
        return {key: self.lanes[key] for key in keys if key in self.lanes}

    async def is_at_rest(self, _backend: str) -> bool:
        return not any(state is MOVING for state in self.lanes.values())


class Scene:
    """Arrivals at work."""

    def __init__(self, lanes: Lanes, *, is_up: bool | None = True) -> None:
        self.lanes = lanes
        self.clock = Hands()
        self.is_up = is_up
        self.arrivals = Arrivals(
            lanes,  # type: ignore[arg-type]  # what it asks a journal for
            "b",
            self.clock,
            lambda: self.is_up,
            Patience(self.clock, 10.0),
        )
        self.work = asyncio.get_running_loop().create_task(self.arrivals.run())

    def wait_for(self, key: str) -> "asyncio.Task[bool]":
        return asyncio.get_running_loop().create_task(self.arrivals.of(key))

    async def progress(self, **lanes: bool) -> None:
        """Say that the journal got on to this, and let everybody hear of it."""
        self.lanes.lanes = lanes
        self.arrivals.wake()
        await settle()


async def settle() -> None:
    """Let all that can go on go on: nothing here waits for anything but the loop."""
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture
async def scenes() -> AsyncIterator[list[Scene]]:
    made: list[Scene] = []
    yield made
    for scene in made:
        scene.work.cancel()
    await asyncio.gather(*(scene.work for scene in made), return_exceptions=True)


@pytest.mark.parametrize(
    ("then", "expected"),
    [({}, True), ({"k": HELD}, False), ({"k": MOVING}, None), ({"other": MOVING}, True), ({"other": HELD}, True)],
)
async def test_whoever_waits_is_told(scenes: list[Scene], then: dict[str, bool], expected: bool | None) -> None:
    """True for a lane that is empty, False for one that a person has to help, nothing while it moves."""
    scenes.append(scene := Scene(Lanes(k=MOVING)))
    waiting = scene.wait_for("k")
    await settle()
    assert not waiting.done()
    await scene.progress(**then)

    assert (waiting.result() if waiting.done() else None) is expected
    waiting.cancel()


async def test_an_empty_lane_is_not_waited_for(scenes: list[Scene]) -> None:
    scenes.append(scene := Scene(Lanes()))

    assert await scene.arrivals.of("k")


async def test_all_who_wait_for_a_lane_are_told(scenes: list[Scene]) -> None:
    """And one who gave up takes nothing away from the others."""
    scenes.append(scene := Scene(Lanes(k=MOVING)))
    first, second = scene.wait_for("k"), scene.wait_for("k")
    await settle()
    first.cancel()
    await scene.progress()

    assert await second
    assert first.cancelled()


@pytest.mark.parametrize(
    ("then", "is_over"), [({}, True), ({"k": HELD}, True), ({"k": MOVING}, False), ({"k": HELD, "l": MOVING}, False)]
)
async def test_all_has_arrived_when_nothing_moves(scenes: list[Scene], then: dict[str, bool], is_over: bool) -> None:
    scenes.append(scene := Scene(Lanes(k=MOVING)))
    waiting = asyncio.get_running_loop().create_task(scene.arrivals.of_all())
    await settle()
    await scene.progress(**then)

    assert waiting.done() is is_over
    waiting.cancel()


@pytest.mark.parametrize(
    ("is_up", "seconds", "is_over"),
    [(False, 10.1, True), (False, 10.0, False), (True, 1000.0, False), (None, 1000.0, False)],
)
async def test_a_backend_that_is_down_ends_the_wait(
    scenes: list[Scene], is_up: bool | None, seconds: float, is_over: bool
) -> None:
    """Only one that is known to be down, and only after all the patience there is."""
    scenes.append(scene := Scene(Lanes(k=MOVING), is_up=is_up))
    waiting = scene.wait_for("k")
    await settle()
    scene.clock.at += seconds
    await scene.progress(k=MOVING)

    assert scene.work.done() is is_over
    if is_over:
        assert isinstance(scene.work.exception(), UnreachableError)
    waiting.cancel()


async def test_an_arrival_renews_the_patience(scenes: list[Scene]) -> None:
    scenes.append(scene := Scene(Lanes(k=MOVING, m=MOVING), is_up=False))
    slow, quick = scene.wait_for("k"), scene.wait_for("m")
    await settle()
    scene.clock.at += 9.0
    await scene.progress(k=MOVING)
    scene.clock.at += 9.0
    await scene.progress(k=MOVING)

    assert (quick.done(), scene.work.done()) == (True, False)
    slow.cancel()


async def test_nobody_who_waits_is_nobody_to_lose_patience(scenes: list[Scene]) -> None:
    """What was quiet for a day has all its patience for the next one who comes."""
    scenes.append(scene := Scene(Lanes(k=MOVING), is_up=False))
    await scene.progress(k=MOVING)
    scene.clock.at += 86_400.0
    await scene.progress(k=MOVING)
    waiting = scene.wait_for("k")
    await settle()

    assert not scene.work.done()
    waiting.cancel()
