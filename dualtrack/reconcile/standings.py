"""Remembers how the entities stand that were written or compared last; bounded, in memory, lost with the process."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace

from dualtrack.core.ids import EntityKind, Ref, parse_key
from dualtrack.core.standing import Standing, State
from dualtrack.metrics import Metrics

_KEPT = 10_000  # some 5 MiB


class Standings:
    """One row per entity and secondary. The one that was touched longest ago goes first, and what drifts goes last."""

    def __init__(self, metrics: Metrics, kept: int = _KEPT) -> None:
        self._metrics = metrics
        self._kept = kept
        self._rows: OrderedDict[tuple[Ref, str], Standing] = OrderedDict()

    def changed(self, key: str, backend: str, at: float) -> None:
        """Something of an entity arrived."""
        self._put(replace(self._of(parse_key(key), backend), changed_at=at))

    def compared(self, ref: Ref, backend: str, at: float, state: State, *, drift: int = 0, name: str = "") -> None:
        """Hear what a comparison came to. One that had to wait for what is on its way says nothing new."""
        if state is not State.PENDING:
            row = self._of(ref, backend)
            self._put(replace(row, compared_at=at, state=state, drift=drift, name=name or row.name))

    def of(self, ref: Ref, backend: str) -> Standing | None:
        return self._rows.get((ref, backend))

    def recent(self, kind: EntityKind, limit: int) -> Sequence[Ref]:
        """Answer entities of a kind, the one that was touched last first."""
        found: dict[Ref, None] = {}
        for ref, _ in reversed(self._rows):
            if ref.kind is kind:
                found[ref] = None
            if len(found) >= limit:
                break
        return list(found)

    def drifting(self, backend: str | None = None, limit: int = 100) -> Sequence[Standing]:
        """Answer what drifted when it was last compared, the latest first."""
        rows = (row for row in reversed(self._rows.values()) if backend in {None, row.backend})
        return [row for row in rows if row.state is State.DRIFT][:limit]

    def _of(self, ref: Ref, backend: str) -> Standing:
        return self._rows.get((ref, backend)) or Standing(ref=ref, backend=backend)

    def _put(self, row: Standing) -> None:
        key = (row.ref, row.backend)
        self._count(self._rows.pop(key, None), row)
        self._rows[key] = row
        if len(self._rows) > self._kept:
            oldest = next(iter(self._rows))
            gone = next((key for key, each in self._rows.items() if each.state is not State.DRIFT), oldest)
            self._count(self._rows.pop(gone), None)

    def _count(self, before: Standing | None, after: Standing | None) -> None:
        for row, step in ((before, -1), (after, 1)):
            if row is not None and row.state is State.DRIFT:
                self._metrics.drifting.labels(row.backend, row.ref.kind).inc(step)
