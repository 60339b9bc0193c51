"""What an emulator remembers: the requests that it saw, and the writes that reached its store twice.

Decides what counts as a duplicate and never talks to anything; `tracking` feeds it, tests read it. Memory is bounded:
the oldest requests and the tails of long bodies go first (the counters stay right).
"""

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from itertools import chain, islice
from typing import Any, TypeAlias

JSON: TypeAlias = Any

# which field of the report counts what is made with this mark twice: (path, mark)
MARKS = {
    "runs": ("/runs/create", "dualtrack.source_run_id"),
    "experiments": ("/experiments/create", "dualtrack.source_experiment_id"),
    "models": ("/logged-models", "dualtrack.source_model_id"),
}
REQUESTS_MAX = 20_000
BODY_BYTES_MAX = 64 * 1024
EXAMPLES_MAX = 20


def parse_object(body: bytes | None) -> dict[str, JSON]:
    """Read a JSON object as MLflow does: anything else counts as an empty one."""
    try:
        document = json.loads(body or b"")  # noqa: TID251 - emulators import the standard library and aiohttp only
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One request. `status` is what the façade decided or its upstream said; None while there is none."""

    number: int
    at: str
    method: str
    path: str
    query: str
    header_names: tuple[str, ...]
    body: str = ""
    body_bytes: int = 0
    status: int | None = None
    fault: str = ""


class RequestLog:
    """The requests in the order of their arrival, numbered from 1."""

    def __init__(self) -> None:
        self._seen: dict[int, Seen] = {}
        self._last = 0

    def open(self, method: str, path: str, query: str, header_names: tuple[str, ...]) -> int:
        self._last += 1
        self._seen[self._last] = Seen(
            number=self._last,
            at=datetime.now(UTC).isoformat(),
            method=method,
            path=path,
            query=query,
            header_names=header_names,
        )
        if len(self._seen) > REQUESTS_MAX:
            del self._seen[next(iter(self._seen))]
        return self._last

    def note(self, number: int, **known: JSON) -> None:
        if number in self._seen:
            self._seen[number] = replace(self._seen[number], **known)

    def note_body(self, number: int, body: bytes) -> None:
        self.note(number, body=body[:BODY_BYTES_MAX].decode("utf-8", "replace"), body_bytes=len(body))

    def since(self, number: int) -> list[dict[str, JSON]]:
        return [asdict(seen) for seen in self._seen.values() if seen.number > number]

    def clear(self) -> None:
        self._seen.clear()


class Duplicates:
    """Counts what one honest delivery would not have sent twice; fed with writes that the store accepted."""

    def __init__(self) -> None:
        self._points: Counter[tuple[str, ...]] = Counter()
        self._made: dict[str, Counter[str]] = {kind: Counter() for kind in MARKS}

    def accept(self, path: str, body: Mapping[str, JSON]) -> None:
        for kind, (end, mark) in MARKS.items():
            if path.endswith(end):
                self._made[kind].update(_marks(body, mark))
        if path.endswith(("/runs/log-metric", "/runs/log-batch")):
            self._points.update(set(_points(path, body)))  # twice inside one request is the client's own doing

    def report(self, examples: int = EXAMPLES_MAX) -> dict[str, JSON]:
        """Count them; of the points as many are named as `examples` says, each as often as it came too often."""
        points = [key for key, count in self._points.items() if count > 1]
        made = {kind: [mark for mark, count in marks.items() if count > 1] for kind, marks in self._made.items()}
        return {
            "metric_points": sum(self._points[key] - 1 for key in points),
            **{kind: sum(self._made[kind][mark] - 1 for mark in marks) for kind, marks in made.items()},
            "metric_point_examples": [list(key) for key in islice(self._surplus(), examples)],
            **{f"{kind.removesuffix('s')}_examples": marks[:EXAMPLES_MAX] for kind, marks in made.items()},
        }

    def _surplus(self) -> Iterator[tuple[str, ...]]:
        return chain.from_iterable([key] * (count - 1) for key, count in self._points.items())

    def clear(self) -> None:
        self._points.clear()
        for marks in self._made.values():
            marks.clear()


def _marks(body: Mapping[str, JSON], mark: str) -> list[str]:
    return [str(tag.get("value")) for tag in body.get("tags") or () if tag.get("key") == mark]


def _points(path: str, body: Mapping[str, JSON]) -> Iterator[tuple[str, ...]]:
    """Name each point: run, key, step, timestamp, value, model. The model counts: log_model repeats a run's metrics."""
    run_id = str(body.get("run_id") or body.get("run_uuid"))
    for metric in (body,) if path.endswith("log-metric") else body.get("metrics") or ():
        yield (
            run_id,
            str(metric.get("key")),
            str(int(metric.get("step") or 0)),
            str(metric.get("timestamp")),
            _same(metric.get("value")),
            str(metric.get("model_id") or ""),
        )


def _same(value: JSON) -> str:
    """Write equal numbers alike: 1 and 1.0, NaN and "NaN"."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return str(value)
    return "NaN" if math.isnan(number) else repr(number)
