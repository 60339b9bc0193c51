"""`store.models`: what its two threads may do at the same time, and what stays."""

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TypeVar

import pytest

from dualtrack.ports import KeptModel, ModelLink
from dualtrack.store.models import SqliteModels
from dualtrack.store.sqlite import SqliteJournal, open_journal
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


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[SqliteJournal]:
    opened = open_journal(tmp_path / "j.db", secondaries=("b",), max_bytes=1 << 20, linger=0.0, now=time.time)
    yield opened
    await opened.close()


def model(number: int) -> KeptModel:
    return KeptModel(model_id=f"m-{number}", experiment_id="1", root=f"root/{number}", document=b"d" * 1_500)


async def test_nothing_of_a_model_stays_but_its_root(journal: SqliteJournal) -> None:
    shelf = journal.models
    for number in (1, 2):
        await shelf.add(model(number))
        await shelf.add_points([(f"m-{number}", b"point")])
        await shelf.link([ModelLink(run_id="r", model_id=f"m-{number}", is_input=True, step=0)])
    removed = [await shelf.remove("m-1") for _ in range(2)]

    assert removed == [True, False]
    assert await shelf.points(["m-1", "m-2"]) == {"m-2": [b"point"]}
    assert [link.model_id for link in await shelf.links(["r"])] == ["m-2"]
    assert await shelf.add(KeptModel(model_id="m-3", experiment_id="1", root="root/1", document=b"{}")) is False


async def test_models_do_not_close_the_journal(journal: SqliteJournal) -> None:
    """They stay, and its bound is for what goes again; what they take is given back with them."""
    empty = (await journal.usage()).used_bytes
    for number in range(100):
        await journal.models.add(model(number))
        await journal.models.add_points([(f"m-{number}", b"%0200d" % point) for point in range(100)])
        await journal.models.change(f"m-{number}", lambda document: document * 2)
    full = await journal.usage()
    for number in range(100):
        await journal.models.remove(f"m-{number}")

    assert not full.is_full
    assert full.used_bytes < empty + (1 << 19)
    assert (await journal.usage()).used_bytes < 1 << 19
