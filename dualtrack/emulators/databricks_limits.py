"""What a Databricks workspace takes in one call and holds of a run (facts/backends B7, checklist items 3, 6 and 7).

A call that is over is refused whole; that a failing one may have stored a part is a fault (`faults.Partial`). Counts
are of what it accepted itself since its start. A quota's words are the service's own for the metrics of a logged model
(issue mlflow#20715), taken to be the same for runs; of the others only the code of a batch is known.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from dualtrack.emulators.databricks_tree import Refusal

JSON: TypeAlias = Any
Item: TypeAlias = Mapping[str, JSON]

BODY_BYTES = 1_000_000  # of log-batch
ITEMS, METRICS, PARAMS, TAGS = 1000, 1000, 100, 100  # of one call
RUN_PARAMS, RUN_TAGS = 1600, 1600
HISTORY_PAGE, SEARCH_PAGE = 25_000, 50_000
EXPERIMENT_TAGS = 20  # of a create (B2)


@dataclass
class Limits:
    """Judges calls, and remembers which names each run has."""

    params: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    tags: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    def refusal(self, path: str, body: Item, query: Mapping[str, str], size: int) -> Refusal | None:
        """Say why a call is refused; None for one that fits, which counts from now on."""
        match path.rpartition("/mlflow/")[2]:
            case "runs/log-batch":
                return _over("request body bytes", BODY_BYTES, size) or self._batch(body)
            case "runs/set-tag":
                return self._batch({"run_id": body.get("run_id"), "tags": [body]})
            case "runs/log-parameter":
                return self._batch({"run_id": body.get("run_id"), "params": [body]})
            case "experiments/create":
                return _over("tags of a new experiment", EXPERIMENT_TAGS, len(_items(body, "tags")))
            case "metrics/get-history":
                return _over("max_results", HISTORY_PAGE, _number(query.get("max_results")))
            case "runs/search":
                return _over("max_results", SEARCH_PAGE, _number(body.get("max_results")))
        return None

    def _batch(self, body: Item) -> Refusal | None:
        metrics, params, tags = (_items(body, name) for name in ("metrics", "params", "tags"))
        run_id = str(body.get("run_id") or body.get("run_uuid") or "")
        named_params = self.params[run_id] | {str(param.get("key")) for param in params}
        named_tags = self.tags[run_id] | {str(tag.get("key")) for tag in tags}
        refusal = (
            _over("items of a batch", ITEMS, len(metrics) + len(params) + len(tags))
            or _over("metrics of a batch", METRICS, len(metrics))
            or _over("params of a batch", PARAMS, len(params))
            or _over("tags of a batch", TAGS, len(tags))
            or _over_quota("params", run_id, RUN_PARAMS, len(named_params))
            or _over_quota("tags", run_id, RUN_TAGS, len(named_tags))
        )
        if refusal is None:
            self.params[run_id], self.tags[run_id] = named_params, named_tags
        return refusal


def _items(body: Item, name: str) -> list[Item]:
    listed = body.get(name)
    return [item for item in listed if isinstance(item, dict)] if isinstance(listed, list) else []


def _number(given: JSON) -> int:
    return int(given) if str(given or "").isdecimal() else 0


def _over(what: str, limit: int, size: int) -> Refusal | None:
    if size <= limit:
        return None
    message = f"Exceeded the limit of {what}: at most {limit}, got {size}"
    return Refusal(status=400, code="INVALID_PARAMETER_VALUE", message=message)


def _over_quota(what: str, run_id: str, limit: int, size: int) -> Refusal | None:
    if size <= limit:
        return None
    message = (
        f"Unable to log new or update existing {what} for run {run_id}, exceeded maximum allowed number of {what} per "
        f"run: {limit}. To raise this quota please contact the Databricks support team."
    )
    return Refusal(status=400, code="BAD_REQUEST", message=message)
