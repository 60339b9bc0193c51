"""`store.models`: what its two threads may do at the same time."""

from typing import TypeVar

from dualtrack.ports import KeptModel
from dualtrack.store.models import SqliteModels
from dualtrack.store.writer import Step

T = TypeVar("T")


async def test_a_model_that_is_added_while_the_disk_is_asked_counts() -> None:
    """The disk has seen none; the answer comes after the model."""

    async def read(_step: Step[T]) -> T:
        await models.add(KeptModel(model_id="m-1", experiment_id="1", root="r", document=b"{}"))
        return None  # type: ignore[return-value]  # no row

    async def write(_step: Step[T]) -> T:
        return True  # type: ignore[return-value]  # it was added

    models = SqliteModels(write, read)

    assert [await models.is_used() for _ in range(2)] == [True, True]
