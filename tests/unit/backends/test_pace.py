"""Our own calls keep to the rates of their class, each class for itself."""

import pytest

from dualtrack.backends.pace import Pace
from dualtrack.core.limits import RATES

API = "/api/2.0/mlflow"


class Watch:
    """A clock that moves only by waiting."""

    def __init__(self) -> None:
        self.now = 100.0
        self.waits: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


def pace(watch: Watch, kind: str) -> Pace:
    return Pace(RATES[kind], lambda: watch.now, watch.sleep)


@pytest.mark.parametrize(
    ("path", "per_second"),
    [
        (f"{API}/runs/search", 7),
        (f"{API}/experiments/search", 7),
        (f"{API}/experiments/update", 7),
        (f"{API}/runs/log-batch", 47),
        (f"{API}/runs/create", 120),
        (f"{API}/experiments/create", 120),
        (f"{API}/runs/get?run_id=1", 120),
    ],
)
async def test_each_class_has_its_rate(path: str, per_second: int) -> None:
    """What is known of Databricks (facts B7): a second's worth at once, then evenly."""
    watch = Watch()
    paced = pace(watch, "databricks")
    for _ in range(per_second):
        await paced.turn(path)
    assert watch.waits == []

    for _ in range(per_second):
        await paced.turn(path)

    assert watch.now == pytest.approx(101.0)
    assert len(watch.waits) == per_second


async def test_classes_do_not_wait_for_each_other() -> None:
    watch = Watch()
    paced = pace(watch, "databricks")
    for _ in range(7):
        await paced.turn(f"{API}/runs/search")
    await paced.turn(f"{API}/runs/log-batch")
    await paced.turn("/api/2.0/workspace/mkdirs")

    assert watch.waits == []


@pytest.mark.parametrize("kind", ["mlflow", "azureml"])
async def test_where_no_rate_is_known_nothing_waits(kind: str) -> None:
    watch = Watch()
    paced = pace(watch, kind)
    for _ in range(1000):
        await paced.turn(f"{API}/runs/search")

    assert watch.waits == []
