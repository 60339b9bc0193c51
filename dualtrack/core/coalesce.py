"""Queued writes of one run → the fewest legal log-batch calls.

    log-metric ┐
    log-batch  ├─ adjacent ─▶ Batch ─▶ Batch …      everything else is a barrier and stays a step of its own
    set-tag    ┘

Applying the batches equals applying the originals, in values, histories and order:

- Metrics are points of a history; an exact repeat of a point (a client's retry) is one point (facts section 4).
- Params never change. A repeat with the same value is dropped; one with another value starts a new batch, so that the
  backend judges it alone, and never in a body where a duplicate key would refuse the rest.
- Tags: the last one wins, so a later value replaces an earlier one inside a batch; batches go in order.

A write that is larger than a batch may be is spread over several; its entry is done with the last of them. The
alternative that lost: one call per write, which a real server takes 190 times a second.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from dualtrack.core.exchange import Document
from dualtrack.core.limits import BatchLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class Items:
    """What one coalescable write carries; each item is the JSON object of a log-batch body.

    `attempted` says that it may have been sent before, and long ago.
    """

    seq: int
    attempted: bool = False
    metrics: tuple[Document, ...] = ()
    params: tuple[Document, ...] = ()
    tags: tuple[Document, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One log-batch call. `done` are the entries that are complete once it is applied.

    `first` and `last` are the entries that it carries anything of; `attempted` says that one of them was.
    """

    metrics: tuple[Document, ...] = ()
    params: tuple[Document, ...] = ()
    tags: tuple[Document, ...] = ()
    done: tuple[int, ...] = ()
    first: int = field(default=0, compare=False)
    last: int = field(default=0, compare=False)
    attempted: bool = field(default=False, compare=False)

    def __len__(self) -> int:
        return len(self.metrics) + len(self.params) + len(self.tags)

    def items(self) -> Iterator[tuple[str, Document]]:
        """Yield each item with what it is: `metric`, `param` or `tag`."""
        for kind, listed in (("metric", self.metrics), ("param", self.params), ("tag", self.tags)):
            for item in listed:
                yield kind, item


# what makes a point of a history what it is; the JSON values as sent, so two spellings of one number are two points,
# which a server keeps once
_POINT = ("key", "step", "timestamp", "value", "model_id", "dataset_name", "dataset_digest")
_ITEM_OVERHEAD = 192  # bytes of field names, numbers and punctuation around a metric, generously


def _text_bytes(item: Document) -> int:
    """Estimate the item's size in a body from above: a quote takes two bytes, an escape or UTF-8 at most six."""
    size = _ITEM_OVERHEAD
    for value in item.values():
        if isinstance(value, str):
            is_plain = value.isascii() and value.isprintable()
            size += len(value) + value.count('"') + value.count("\\") if is_plain else 6 * len(value)
    return size


@dataclass(slots=True)
class _Draft:
    """The batch being filled."""

    limits: BatchLimits
    metrics: dict[tuple[object, ...], Document] = field(default_factory=dict)
    params: dict[str, Document] = field(default_factory=dict)
    tags: dict[str, Document] = field(default_factory=dict)
    rows: dict[object, int] = field(default_factory=dict)
    size: int = 0
    done: list[int] = field(default_factory=list)
    first: int | None = None
    last: int = 0
    attempted: bool = False

    def carry(self, write: Items) -> None:
        """Note that something of this write is in it."""
        self.first = write.seq if self.first is None else self.first
        self.last = write.seq
        self.attempted = self.attempted or write.attempted

    def _has_room(self, taken: int, bound: int, size: int) -> bool:
        total = len(self.metrics) + len(self.params) + len(self.tags)
        fits = taken < bound and total < self.limits.total
        return fits and (total == 0 or self.size + size <= self.limits.body_bytes)

    def add_metric(self, item: Document) -> bool:
        if "run_id" in item:
            # It repeats the body's, and only some clients send it; one point in both spellings is refused (3.17.2)
            item = {key: value for key, value in item.items() if key != "run_id"}
        point = tuple(map(item.get, _POINT))
        if point in self.metrics:
            return True
        size, name = _text_bytes(item), item.get("key")
        if not self._has_room(len(self.metrics), self.limits.metrics, size):
            return False
        if self.rows.get(name, 0) >= self.limits.rows_per_metric:
            return False
        self.metrics[point] = item
        self.rows[name] = self.rows.get(name, 0) + 1
        self.size += size
        return True

    def add_param(self, item: Document) -> bool:
        key, size = str(item.get("key")), _text_bytes(item)
        if key in self.params:
            return self.params[key].get("value") == item.get("value")
        if not self._has_room(len(self.params), self.limits.params, size):
            return False
        self.params[key] = item
        self.size += size
        return True

    def add_tag(self, item: Document) -> bool:
        key, size = str(item.get("key")), _text_bytes(item)
        if key not in self.tags and not self._has_room(len(self.tags), self.limits.tags, size):
            return False
        if key in self.tags and self.size + size > self.limits.body_bytes:
            return False
        self.tags.pop(key, None)
        self.tags[key] = item
        self.size += size
        return True

    def close(self) -> Batch:
        return Batch(
            metrics=tuple(self.metrics.values()),
            params=tuple(self.params.values()),
            tags=tuple(self.tags.values()),
            done=tuple(self.done),
            first=self.first if self.first is not None else 0,
            last=self.last,
            attempted=self.attempted,
        )


def coalesce(writes: Iterable[Items], limits: BatchLimits) -> Iterator[Batch]:
    """Yield the batches, in order, that equal `writes`. Entries that carry nothing are done with the next batch.

    Lazy: a batch costs nothing before it is asked for, and takes no more of `writes` than it needs.
    """
    draft = _Draft(limits)
    for write in writes:
        # params first, then metrics, then tags: the order in which a server applies one body
        for name, items in (("param", write.params), ("metric", write.metrics), ("tag", write.tags)):
            for item in items:
                if not _add(draft, name, item):
                    yield draft.close()
                    draft = _Draft(limits)
                    _add(draft, name, item)
                draft.carry(write)
        draft.done.append(write.seq)
    last = draft.close()
    if len(last) or last.done:
        yield last


def _add(draft: _Draft, name: str, item: Document) -> bool:
    match name:
        case "param":
            return draft.add_param(item)
        case "metric":
            return draft.add_metric(item)
        case _:
            return draft.add_tag(item)


def halve(batch: Batch) -> tuple[Batch, Batch]:
    """Split a refused batch in two, in the order in which a server applies it; `done` goes with the second half."""
    middle = len(batch) // 2
    kinds: Sequence[tuple[str, Document]] = [
        *(("params", item) for item in batch.params),
        *(("metrics", item) for item in batch.metrics),
        *(("tags", item) for item in batch.tags),
    ]

    def pick(part: Sequence[tuple[str, Document]], kind: str) -> tuple[Document, ...]:
        return tuple(item for name, item in part if name == kind)

    first, second = kinds[:middle], kinds[middle:]
    return (
        replace(batch, metrics=pick(first, "metrics"), params=pick(first, "params"), tags=pick(first, "tags"), done=()),
        replace(batch, metrics=pick(second, "metrics"), params=pick(second, "params"), tags=pick(second, "tags")),
    )
