"""A view of a long run costs a bounded amount of memory, and nobody else waits while it is made."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from dualtrack.core.exchange import Document
from dualtrack.core.ids import BackendId, ClientId, EntityKind, Ref, Twin
from dualtrack.core.views import RunView
from dualtrack.reconcile import snapshot
from dualtrack.reconcile.snapshot import Snapshots


class Long:
    """A reader of a run with metrics of so many points, each in one page; nothing in it waits."""

    def __init__(self, **lengths: int) -> None:
        self._lengths = lengths

    async def get(self, _kind: EntityKind, _id: str) -> Document:
        return {"run": {"info": {}, "data": {"metrics": [{"key": key} for key in self._lengths]}}}

    async def history(self, _run_id: str, key: str) -> AsyncIterator[list[Document]]:
        yield [{"key": key, "step": step, "timestamp": 0, "value": 1.0} for step in range(self._lengths[key])]

    async def has_models(self) -> bool:
        return False


class Names:
    backend = "a"
    is_primary = True

    async def client_id(self, _kind: EntityKind, backend_id: str) -> str:
        return backend_id


async def view(reader: Long, *points_of: str) -> RunView:
    some: Any = Snapshots(reader, None, Names())  # type: ignore[arg-type]  # files are not looked at
    twin = Twin(ref=Ref(EntityKind.RUN, ClientId("r1")), backend="a", backend_id=BackendId("r1"))
    found: RunView = await some.run(twin, points_of=points_of, files=False)
    return found


async def test_others_have_their_turns_while_a_page_is_read() -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)  # gives its turn away

    async with asyncio.TaskGroup() as group:
        beside = group.create_task(other())
        found = await view(Long(loss=10_000))
        beside.cancel()

    assert found.metrics["loss"].count == 10_000
    assert turns >= 20


async def test_points_are_kept_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all metrics together; one that has no room leaves it to the next."""
    monkeypatch.setattr(snapshot, "MOST_POINTS", 100)
    found = await view(Long(one=60, two=60, three=40, four=1, five=1), "one", "two", "three", "four")

    kept = {key: len(each.points) for key, each in found.metrics.items() if each.points is not None}
    assert kept == {"one": 60, "three": 40}
    assert [each.count for each in found.metrics.values()] == [60, 60, 40, 1, 1]
