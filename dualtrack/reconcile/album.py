"""Histories of many runs in few requests, where the primary can do that: open-source MLflow, for its web pages.

One request answers one metric of many runs, where the common route needs one for each run. What does not fit, or cannot
be read this way, is left to the common route. A backend that lacks it is asked once.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlencode

from dualtrack.core.exchange import Call, Document
from dualtrack.ports import Backend
from dualtrack.translate.document import MalformedError, objects, parse, text

RUNS = 50  # of one album; MLflow takes 100 at most
_POINTS = 5_000  # of one answer; one that is as long may be cut
_ALL_POINTS = 20_000  # of an album: they are in memory as objects until their runs are told
_PATH = "/ajax-api/2.0/mlflow/metrics/get-history-bulk"


@dataclass(frozen=True, slots=True, kw_only=True)
class Album:
    """Whole histories by run and metric, as they were when every write up to `upto` had been acknowledged, or later."""

    upto: int
    histories: Mapping[str, Mapping[str, list[Document]]] = field(default_factory=dict)

    def history(self, run_id: str, key: str) -> list[Document]:
        """Answer a history; empty when it is not in here."""
        return self.histories.get(run_id, {}).get(key, [])


class Albums:
    """Reads them from the primary."""

    def __init__(self, primary: Backend) -> None:
        self._primary = primary
        self._is_known = True

    async def read(self, keys: Mapping[str, Sequence[str]], upto: int) -> Album:
        """Read the metrics (`keys` by run) that several of the runs have. Raise `UnreachableError`."""
        histories: dict[str, dict[str, list[Document]]] = defaultdict(dict)
        shared = [key for key, runs in Counter(key for each in keys.values() for key in each).items() if runs > 1]
        total = 0
        for key in shared:
            if not self._is_known or total >= _ALL_POINTS:
                break
            points = await self._read(key, [run_id for run_id, each in keys.items() if key in each])
            total += len(points)
            for point in points:
                run_id = text(point.pop("run_id", ""))
                histories[run_id].setdefault(key, []).append(point)
        return Album(upto=upto, histories=histories)

    async def _read(self, key: str, run_ids: Sequence[str]) -> list[Document]:
        query = [*(("run_id", run_id) for run_id in run_ids), ("metric_key", key), ("max_results", str(_POINTS))]
        call = Call(operation="getMetricHistory", method="GET", target=f"{_PATH}?{urlencode(query)}")
        answer = await self._primary.send(call)
        if not answer.is_success:
            self._is_known = answer.status in {429, 500, 502, 503, 504}
            return []
        try:
            points = objects(parse(answer.body).get("metrics"))
        except MalformedError:
            return []
        return points if len(points) < _POINTS else []
