"""The progress bar of `dualtrack backfill`, as a test sees it."""

from typing import Self


class Bar:
    """Stands in for the progress bar; keeps what it was told."""

    task_ids = (0,)

    def __init__(self) -> None:
        self.told: list[tuple[int, int | None]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def update(self, _task: int, *, completed: int, total: int | None) -> None:
        self.told.append((completed, total))
