"""The backlog over time: a bounded ring of samples, and the lines that the page draws of it.

Samples are in memory and go with the process; the metrics are for those who want more. `app` runs `Samples.watch`.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from dualtrack.admin.records import Records
from dualtrack.core.wording import age
from dualtrack.errors import JournalError
from dualtrack.ports import Clock

log = structlog.get_logger("dualtrack.admin")

_SAMPLE_SECONDS: Final = 10.0
_KEPT: Final = 361  # an hour
_WINDOWS: Final = (
    (60.0, "minute", "1m ago"),
    (300.0, "5 minutes", "5m ago"),
    (900.0, "15 minutes", "15m ago"),
    (3600.0, "hour", "1h ago"),
)
WIDTH: Final = 600
HEIGHT: Final = 100
_TOP_MIN: Final = 10


class Samples:
    """How many entries waited for each secondary, the oldest first; the oldest goes when there are too many."""

    def __init__(self, kept: int = _KEPT) -> None:
        self._rows: deque[tuple[float, Mapping[str, int]]] = deque(maxlen=kept)

    def add(self, at: float, waiting: Mapping[str, int]) -> None:
        self._rows.append((at, waiting))

    def of(self, backend: str) -> list[tuple[float, int]]:
        return [(at, waiting[backend]) for at, waiting in self._rows if backend in waiting]

    async def watch(self, records: Records, clock: Clock) -> None:
        """Take a sample now and then, for ever."""
        while True:
            try:
                self.add(clock.now(), {each.backend: each.entries for each in await records.backlogs()})
            except JournalError as error:
                log.warning("admin.sample", error=str(error), hint="the chart of the status page has a gap")
            await clock.wait(_SAMPLE_SECONDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A line and the area below it, in a box of `WIDTH` by `HEIGHT`; `words` say what is to be seen."""

    line: str
    area: str
    top: int
    window: str
    ago: str
    words: str


def draw(backend: str, samples: Sequence[tuple[float, int]], now: float, waiting: int) -> Chart:
    """Draw what waited for `backend` until now, in the smallest window that shows all samples of the last hour."""
    longest = _WINDOWS[-1][0]
    # in order, whatever the clock did meanwhile
    seen = [*sorted(sample for sample in samples if now - longest <= sample[0] < now), (now, waiting)]
    seconds, window, ago = next(each for each in _WINDOWS if now - seen[0][0] <= each[0])
    peak_at, peak = max(seen, key=lambda sample: sample[1])
    top = _round_up(peak)

    def place(at: float, value: int) -> str:
        return f"{WIDTH * (1 - (now - at) / seconds):.1f} {HEIGHT * (1 - value / top):.1f}"

    line = "M" + " L".join(place(at, value) for at, value in seen)
    area = f"{line} L{WIDTH} {HEIGHT} L{place(seen[0][0], 0)} Z"
    most = f"; at most {peak:,}, {age(now - peak_at)} ago" if peak > waiting else ""
    words = f"Writes that waited for {backend} over the last {window}: {waiting:,} now{most}."
    return Chart(line=line, area=area, top=top, window=window, ago=ago, words=words)


def _round_up(value: int) -> int:
    """Answer 1, 2 or 5 times a power of ten that is no less, and never a tiny one."""
    power = _TOP_MIN
    while 5 * power < value:
        power *= 10
    return next(factor * power for factor in (1, 2, 5) if factor * power >= value)
