"""The head of a lane, as steps: batches where writes can share a call, single writes where they cannot. Pure.

Files that follow one another are sent side by side: none of them changes another, and a backend that registers files
first (Azure ML) takes many in one call.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from dualtrack.core.coalesce import Batch, Items, coalesce
from dualtrack.core.entry import Entry
from dualtrack.core.ids import EntityKind, Ref, parse_key
from dualtrack.core.limits import BatchLimits
from dualtrack.translate.document import MalformedError
from dualtrack.translate.files import UPLOAD, file_write
from dualtrack.translate.operations import Reading, items, read


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchStep:
    """One log-batch call for `run`; `writes` is how many entries end with it."""

    run: Ref
    batch: Batch
    settled_at: float
    queued_at: float = 0.0

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

    @property
    def queued_at(self) -> float:
        return self.entry.queued_at


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesStep:
    """Uploads to different paths of one run or model."""

    steps: tuple[SingleStep, ...]

    @property
    def done(self) -> tuple[int, ...]:
        return tuple(step.entry.seq for step in self.steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreadableStep:
    """A write that the primary took and we cannot read: parked, never guessed at."""

    entry: Entry
    cause: str

    @property
    def done(self) -> tuple[int, ...]:
        return (self.entry.seq,)


Step: TypeAlias = BatchStep | SingleStep | FilesStep | UnreadableStep

SIDE_BY_SIDE = 32  # files of one step


def plan(key: str, entries: Sequence[Entry], limits: BatchLimits) -> Iterator[Step]:
    """Yield the steps that deliver `entries`, in order.

    Lazy: nothing beyond the step that is asked for is read, so a lane that has to wait costs next to nothing.
    """
    readings = _Readings(key, entries)
    while (current := readings.current) is not None:
        uploads = tuple(readings.uploads())
        if uploads:
            yield FilesStep(steps=uploads) if len(uploads) > 1 else uploads[0]
            continue
        if isinstance(current, UnreadableStep) or readings.items is None:
            readings.advance()
            yield current
            continue
        run, first = readings.run, current.entry
        for batch in coalesce(readings.adjacent(run), limits):
            yield BatchStep(run=run, batch=batch, settled_at=first.settled_at, queued_at=first.queued_at)


class _Readings:
    """The entries, read one ahead: `current` as a step of its own, and `items` if it can share a batch."""

    def __init__(self, key: str, entries: Sequence[Entry]) -> None:
        self._lane = parse_key(key)
        self._entries = iter(entries)
        self.current: SingleStep | UnreadableStep | None = None
        self.items: Items | None = None
        self.run = self._lane
        self.advance()

    def advance(self) -> None:
        self.items = None
        entry = next(self._entries, None)
        if entry is None:
            self.current = None
            return
        try:
            reading = read(entry.exchange)
        except MalformedError as error:
            self.current = UnreadableStep(entry=entry, cause=str(error))
            return
        self.current = SingleStep(entry=entry, reading=reading)
        self.run = reading.subject or self._lane
        if self.run.kind is EntityKind.RUN:
            listed = items(entry.seq, reading)
            self.items = replace(listed, attempted=True) if listed is not None and entry.attempted else listed

    def adjacent(self, run: Ref) -> Iterator[Items]:
        """Yield from here on what can share batches about `run`, and stop at the first thing that cannot."""
        while self.items is not None and self.run == run:
            listed = self.items
            self.advance()
            yield listed

    def uploads(self) -> Iterator[SingleStep]:
        """Yield from here on the uploads to one run or model, as long as no path comes again."""
        paths: set[str] = set()
        subject = self.current.reading.subject if isinstance(self.current, SingleStep) else None
        while isinstance(self.current, SingleStep) and self.current.reading.subject == subject:
            told = file_write(self.current.reading)
            if told is None or told.operation != UPLOAD or told.path in paths or len(paths) == SIDE_BY_SIDE:
                return
            paths.add(told.path)
            step = self.current
            self.advance()
            yield step
