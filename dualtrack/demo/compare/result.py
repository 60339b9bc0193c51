"""What a comparison found, as values; filled by `comparing`, printed by the demo."""

from collections.abc import Iterable
from dataclasses import dataclass

from dualtrack.demo.compare.snapshot import Loss

FILE, NAMED = "file", "id in"  # kinds of differences between trees of files


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """`name` is what a record of a loss calls it: the key, unless `item` says otherwise."""

    kind: str
    key: str
    primary: str
    secondary: str
    item: str = ""

    @property
    def name(self) -> str:
        return self.item or self.key

    def __str__(self) -> str:
        return f"{self.kind} {self.key}: {self.primary!r} on the primary, {self.secondary!r} on the secondary"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunComparison:
    """One run and its mirror; the counts are the primary's."""

    name: str
    primary_id: str
    secondary_id: str | None
    params: int
    tags: int
    metrics: int
    points: int
    files: int = 0
    file_bytes: int = 0
    differences: tuple[Difference, ...]
    losses: tuple[Loss, ...] = ()

    @property
    def is_equal(self) -> bool:
        return not self.differences

    @property
    def has_equal_files(self) -> bool:
        return self.secondary_id is not None and not _about_files(self.differences)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelComparison:
    """One logged model and its mirror; the counts are the primary's.

    Where there are no logged models, `secondary_id` is the run and the folder that has its files: `<run id>/<folder>`.
    """

    name: str
    primary_id: str
    secondary_id: str | None
    params: int
    tags: int
    points: int
    files: int
    file_bytes: int
    differences: tuple[Difference, ...]
    losses: tuple[Loss, ...] = ()

    @property
    def is_equal(self) -> bool:
        return not self.differences

    @property
    def has_equal_files(self) -> bool:
        return self.secondary_id is not None and not _about_files(self.differences)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """An experiment and its mirror: `differences` are those that belong to no single run or model.

    `losses` are what the proxy has on record; they explain what is no difference here, and nothing else does.
    """

    primary_experiment_id: str
    secondary_experiment_id: str | None
    runs: tuple[RunComparison, ...]
    models: tuple[ModelComparison, ...] = ()
    differences: tuple[Difference, ...]
    losses: tuple[Loss, ...] = ()

    @property
    def owners(self) -> tuple[RunComparison | ModelComparison, ...]:
        """All that may have files."""
        return self.runs + self.models

    @property
    def is_equal(self) -> bool:
        return not self.all_differences

    @property
    def all_differences(self) -> tuple[Difference, ...]:
        return self.differences + tuple(item for owner in self.owners for item in owner.differences)

    @property
    def all_losses(self) -> tuple[Loss, ...]:
        return self.losses + tuple(item for owner in self.owners for item in owner.losses)

    def __str__(self) -> str:
        """List the differences, for a failing assertion."""
        lines = [f"  {item}" for item in self.differences]
        lines += [f"  run {run.name} {run.primary_id}: {item}" for run in self.runs for item in run.differences]
        lines += [f"  model {each.name} {each.primary_id}: {item}" for each in self.models for item in each.differences]
        return "\n".join([f"{len(self.runs)} runs, {len(lines)} differences", *lines])


def _about_files(differences: Iterable[Difference]) -> list[Difference]:
    return [item for item in differences if item.kind.startswith((FILE, NAMED))]
