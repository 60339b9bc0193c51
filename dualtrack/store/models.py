"""Logged models that no backend keeps, in the journal's database: written by its thread, read by its other one."""

import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

from dualtrack.ports import KeptModel, ModelLink
from dualtrack.store.steps import SQL
from dualtrack.store.writer import Row, Step

T = TypeVar("T")


class Run(Protocol):
    """Runs a step against the database; raises `JournalError`."""

    def __call__(self, step: Step[T], /) -> Awaitable[T]: ...


class SqliteModels:
    """The `ModelShelf` port. What `write` has run is synced on return."""

    def __init__(self, write: Run, read: Run) -> None:
        self._write = write
        self._read = read
        self._is_used: bool | None = None

    async def is_used(self) -> bool:
        if self._is_used is None:
            found = await self._read(lambda connection: connection.execute(SQL["any_model"]).fetchone())
            self._is_used = self._is_used or bool(found)  # one may have been added while it was read
        return self._is_used

    async def add(self, model: KeptModel) -> bool:
        row = (model.model_id, model.experiment_id, model.root, model.document)
        self._is_used = True
        return await self._write(lambda connection: connection.execute(SQL["add_model"], row).rowcount > 0)

    async def model(self, model_id: str) -> KeptModel | None:
        rows = await self._read(lambda connection: connection.execute(SQL["model"], (model_id,)).fetchall())
        return _model(rows[0]) if rows else None

    async def models(self, experiment_ids: Sequence[str]) -> list[KeptModel]:
        return [_model(row) for _, row in await self._read(_each("models_of", experiment_ids))]

    async def change(self, model_id: str, change: Callable[[bytes], bytes]) -> KeptModel | None:
        def step(connection: sqlite3.Connection) -> KeptModel | None:
            row = connection.execute(SQL["model"], (model_id,)).fetchone()
            if row is None:
                return None
            changed = change(row[3])
            connection.execute(SQL["change_model"], (changed, model_id))
            return _model((*row[:3], changed))

        return await self._write(step)

    async def remove(self, model_id: str) -> bool:
        def step(connection: sqlite3.Connection) -> bool:
            for name in ("remove_model_points", "remove_model_links"):
                connection.execute(SQL[name], (model_id,))
            return connection.execute(SQL["remove_model"], (model_id,)).rowcount > 0

        return await self._write(step)

    async def points(self, model_ids: Sequence[str]) -> dict[str, list[bytes]]:
        found: dict[str, list[bytes]] = {}
        for model_id, (point,) in await self._read(_each("model_points", model_ids)):
            found.setdefault(model_id, []).append(point)
        return found

    async def add_points(self, points: Sequence[tuple[str, bytes]]) -> None:
        def step(connection: sqlite3.Connection) -> None:
            connection.executemany(SQL["add_model_point"], points)

        await self._write(step)

    async def links(self, run_ids: Sequence[str]) -> list[ModelLink]:
        return [
            ModelLink(run_id=run_id, model_id=model_id, is_input=bool(is_input), step=step)
            for run_id, (model_id, is_input, step) in await self._read(_each("model_links", run_ids))
        ]

    async def link(self, links: Sequence[ModelLink]) -> None:
        rows = [(link.run_id, link.model_id, int(link.is_input), link.step) for link in links]

        def step(connection: sqlite3.Connection) -> None:
            connection.executemany(SQL["add_model_link"], rows)

        await self._write(step)


def _each(name: str, keys: Sequence[str]) -> Step[list[tuple[str, Row]]]:
    """Select for one key after the other; each row comes with its key."""

    def step(connection: sqlite3.Connection) -> list[tuple[str, Row]]:
        return [(key, row) for key in keys for row in connection.execute(SQL[name], (key,))]

    return step


def _model(row: Row) -> KeptModel:
    model_id, experiment_id, root, document = row
    return KeptModel(model_id=model_id, experiment_id=experiment_id, root=root, document=document)
