"""The head of a lane, as steps: batches where writes can share a call, single writes where they cannot. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from dualtrack.core.coalesce import Batch, Items, coalesce
from dualtrack.core.entry import Entry
from dualtrack.core.ids import EntityKind, Ref, parse_key
from dualtrack.core.limits import BatchLimits
from dualtrack.translate.document import MalformedError
from dualtrack.translate.operations import Reading, items, read


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchStep:
    """One log-batch call for `run`; `writes` is how many entries end with it."""

    run: Ref
    batch: Batch
    settled_at: float

    @property
    def done(self) -> tuple[int, ...]:
        return self.batch.done


@dataclass(frozen=True, slots=True, kw_only=True)
class SingleStep:
    entry: Entry
    reading: Reading

    @property
    def done(self) -> tuple[int, ...]:
        return (self.entry.seq,)

    @property
    def settled_at(self) -> float:
        return self.entry.settled_at


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreadableStep:
    """A write that the primary took and we cannot read: parked, never guessed at."""

    entry: Entry
    cause: str

    @property
    def done(self) -> tuple[int, ...]:
        return (self.entry.seq,)


Step: TypeAlias = BatchStep | SingleStep | UnreadableStep


@dataclass(slots=True)
class _Group:
    """Adjacent coalescable writes about one run."""

    run: Ref
    settled_at: float
    writes: list[Items] = field(default_factory=list)


def plan(key: str, entries: Sequence[Entry], limits: BatchLimits) -> list[Step]:
    """Answer the steps that deliver `entries`, in order."""
    steps: list[Step] = []
    group: _Group | None = None

    def close() -> None:
        nonlocal group
        if group is not None:
            batches = coalesce(group.writes, limits)
            steps.extend(BatchStep(run=group.run, batch=batch, settled_at=group.settled_at) for batch in batches)
            group = None

    for entry in entries:
        try:
            reading = read(entry.exchange)
        except MalformedError as error:
            close()
            steps.append(UnreadableStep(entry=entry, cause=str(error)))
            continue
        listed = items(entry.seq, reading)
        run = reading.subject or parse_key(key)
        if listed is None or run.kind is not EntityKind.RUN:
            close()
            steps.append(SingleStep(entry=entry, reading=reading))
            continue
        if group is not None and group.run != run:
            close()
        if group is None:
            group = _Group(run=run, settled_at=entry.settled_at)
        group.writes.append(listed)
    close()
    return steps
