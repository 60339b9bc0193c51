"""What a backend holds of a run, a logged model or an experiment, in one form that can be compared. Pure.

Every id in a view is already said as the client says it, whichever side it was read from (`reconcile/snapshot.py`), so
that two views of one entity are equal where they say the same. A history is kept as a count and a digest, which does
not depend on the order of its points: a million of them cost as much as one. The points themselves are kept only where
somebody asks for them, to tell which of them are missing (`translate/repair.py`).
"""

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from dualtrack.core.exchange import JSON
from dualtrack.core.ids import Ref

LARGEST = 1.7976931348623157e308  # a server keeps infinities as the largest number (facts section 1)
_MODULUS = 1 << 128


def number(value: JSON) -> float | None:
    """Read a number as a server keeps it, however it is spelled; None for NaN."""
    try:
        read = float(value) if isinstance(value, (str, int, float)) else 0.0
    except ValueError:
        return None
    except OverflowError:  # an integer that no float holds
        return None
    return max(-LARGEST, min(LARGEST, read)) if read == read else None  # noqa: PLR0124 - NaN is not itself


def whole(value: JSON) -> int:
    """Read a step or a time, which are 64-bit integers and may be spelled as text or as a float."""
    try:
        return int(value) if isinstance(value, (str, int, float)) else 0
    except (ValueError, OverflowError):
        read = number(value)
        return int(read) if read is not None else 0


@dataclass(frozen=True, slots=True, order=True)
class Point:
    """One point of one history; `value` is None for NaN, and an infinity is the largest number."""

    step: int
    timestamp: int
    value: float | None

    @property
    def digest(self) -> int:
        # 0.0 and -0.0 are one value, and have one text here
        value = "nan" if self.value is None else (self.value + 0.0).hex()
        text = f"{self.step} {self.timestamp} {value}"
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest())


def point(metric: Mapping[str, JSON]) -> Point:
    """Read a point as any backend writes it."""
    return Point(whole(metric.get("step", 0)), whole(metric.get("timestamp", 0)), number(metric.get("value", 0)))


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """A multiset of points: how many, and the sum of their digests. `points` says them, where it was asked for."""

    count: int = 0
    digest: int = 0
    points: Mapping[Point, int] | None = field(default=None, compare=False, hash=False)

    def __str__(self) -> str:
        return f"{self.count} points {self.digest >> 96:08x}"


class Tally:
    """Adds up a history page by page; the points are kept too, unless there are more than `room` for them."""

    def __init__(self, *, room: float = 0) -> None:
        self._count = 0
        self._digest = 0
        self._room = room
        self._points: Counter[Point] | None = Counter() if room > 0 else None

    def add(self, points: Iterable[Point]) -> None:
        for each in points:
            self._count += 1
            self._digest = (self._digest + each.digest) % _MODULUS
            if self._points is not None:
                self._points[each] += 1
        if self._points is not None and len(self._points) > self._room:
            self._points = None

    def history(self) -> History:
        """Say what was added so far."""
        points = dict(self._points) if self._points is not None else None
        return History(count=self._count, digest=self._digest, points=points)


def history(points: Iterable[Point], *, keeps: bool = True) -> History:
    """Answer the history of points that are at hand."""
    tally = Tally(room=math.inf if keeps else 0)
    tally.add(points)
    return tally.history()


@dataclass(frozen=True, slots=True, kw_only=True)
class FileView:
    """A file: its size in bytes and its SHA-256 in hex, each None where nobody knows it.

    An `MLmodel` that was read has `names`: the ids and roots in it, said as the client says them; `sha256` is then that
    of everything else in it, and its size means nothing.
    """

    size: int | None = None
    sha256: str | None = None
    names: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetView:
    """A dataset that went into a run, with the tags of that input, sorted.

    `source`, `schema` and `profile` are for repairs only: a server keeps those of whichever run named the dataset
    first (`_log_inputs_impl` of mlflow 3.17.2), and runs are mirrored in no order among each other.
    """

    name: str
    digest: str
    source_type: str = ""
    tags: tuple[tuple[str, str], ...] = ()
    source: str = field(default="", compare=False)
    schema: str = field(default="", compare=False)
    profile: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """What one history of a logged model is about: the metric, the run that logged it, and the dataset."""

    key: str
    run_id: str = ""
    dataset_name: str = ""
    dataset_digest: str = ""

    def __str__(self) -> str:
        return " ".join(filter(None, (self.key, self.run_id, self.dataset_name, self.dataset_digest)))


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceView:
    """What a trace says of itself; times are as the server writes them."""

    name: str = ""
    state: str = ""
    request_time: str = ""
    duration: str = ""
    request: str = ""
    response: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return " ".join(filter(None, (self.name, self.state, self.request_time)))


Files = Mapping[str, FileView] | None  # by path below the root; None: they were not looked at


@dataclass(frozen=True, slots=True, kw_only=True)
class RunView:
    """A run; times are in milliseconds, None where there is none.

    `inputs` are counted; `outputs` are pairs of a model and a step. `models` are the logged models it is the source
    of; None where they were not looked for, or the backend knows no logged models. So are `traces`, by their ids, which
    clients give and both sides share. `is_upserted`: on a secondary it has the client's id, which only an upsert into
    Azure ML's run history gives (`backends/azureml_runs`).
    """

    ref: Ref
    experiment_id: str = ""
    name: str = ""
    status: str = ""
    start_time: int | None = None
    end_time: int | None = None
    lifecycle_stage: str = "active"
    user: str = ""
    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, History] = field(default_factory=dict)
    inputs: Mapping[DatasetView, int] = field(default_factory=dict)
    model_inputs: frozenset[str] = frozenset()
    outputs: frozenset[tuple[str, int]] = frozenset()
    models: frozenset[str] | None = None
    files: Files = None
    traces: Mapping[str, TraceView] | None = None
    is_upserted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelView:
    """A logged model. Where a backend has none, its files in a run `stand_in` for it, and nothing else is there.

    `deleted_runs` are those of the runs of its metrics that are deleted on this side; only a repair has to know.
    """

    ref: Ref
    experiment_id: str = ""
    name: str = ""
    model_type: str = ""
    status: str = ""
    run_id: str = ""
    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[Series, History] = field(default_factory=dict)
    files: Files = None
    stands_in: bool = False
    deleted_runs: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentView:
    """An experiment. `expected_names` are what a mirror may be called, by its backend's rule; none: anything."""

    ref: Ref
    name: str = ""
    expected_names: tuple[str, ...] = ()
    lifecycle_stage: str = "active"
    tags: Mapping[str, str] = field(default_factory=dict)


View = RunView | ModelView | ExperimentView
