"""What an Azure ML workspace holds of a run (facts/backends A7, checklist item 6): a call beyond it is refused whole.

Counts are of what it accepted itself, since its start; runs that were there before count from nothing, and so do the
tags that a run or an experiment was made with.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from dualtrack.emulators.azureml_errors import Objection
from dualtrack.emulators.tracking import Call

JSON: TypeAlias = Any
Item: TypeAlias = Mapping[str, JSON]

ROWS_PER_METRIC = 250  # of one call
METRICS, PARAMS, TAGS = 1000, 100, 100  # of one call
RUN_PARAMS, RUN_TAGS = 200, 50
METRIC_KEY = 255
TAG_KEY, TAG_VALUE = 100, 1000
EXPERIMENT_TAGS = 50
EXPERIMENT_TAG_KEY, EXPERIMENT_TAG_VALUE = 250, 1000


@dataclass
class Quota:
    """Judges calls by their path and body, and remembers which names each run has."""

    params: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    tags: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    experiment_tags: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    def objection(self, call: Call) -> Objection | None:
        """Say why a call is refused; None for one that fits, which counts from now on."""
        why = self.refusal(call.path, call.document)
        return Objection(message=why) if why else None

    def refusal(self, path: str, body: Item) -> str | None:
        """Say why a call is refused, in the service's words; None for one that fits, which counts from now on."""
        match path.rpartition("/mlflow/")[2]:
            case "runs/log-batch" | "runs/log-batch-async":
                return self._batch(body)
            case "runs/create":
                tags = _items(body, "tags")
                return _lengths(tags, "Tags", TAG_KEY, TAG_VALUE) or _over("Tags", RUN_TAGS, len(tags))
            case "runs/set-tag":
                return self._batch({"run_id": body.get("run_id"), "tags": [body]})
            case "runs/log-parameter":
                return self._batch({"run_id": body.get("run_id"), "params": [body]})
            case "experiments/create":
                tags = _items(body, "tags")
                too_long = _lengths(tags, "Tags", EXPERIMENT_TAG_KEY, EXPERIMENT_TAG_VALUE)
                return too_long or _over("Tags", EXPERIMENT_TAGS, len(tags))
            case "experiments/set-experiment-tag":
                return self._experiment_tag(body)
        return None

    def _experiment_tag(self, body: Item) -> str | None:
        experiment_id = str(body.get("experiment_id", ""))
        named = self.experiment_tags[experiment_id] | {str(body.get("key"))}
        refusal = _lengths([body], "Tags", EXPERIMENT_TAG_KEY, EXPERIMENT_TAG_VALUE) or _over(
            "Tags", EXPERIMENT_TAGS, len(named)
        )
        if refusal is None:
            self.experiment_tags[experiment_id] = named
        return refusal

    def _batch(self, body: Item) -> str | None:
        metrics, params, tags = (_items(body, name) for name in ("metrics", "params", "tags"))
        run_id = str(body.get("run_id", ""))
        rows = Counter(str(metric.get("key")) for metric in metrics)
        named_params = self.params[run_id] | {str(param.get("key")) for param in params}
        named_tags = self.tags[run_id] | {str(tag.get("key")) for tag in tags}
        refusal = (
            _over("MetricV2Dto.Value/Count", ROWS_PER_METRIC, max(rows.values(), default=0))
            or _over("Metrics", METRICS, len(metrics))
            or _over("Params", PARAMS, len(params))
            or _over("Tags", TAGS, len(tags))
            or _over("MetricV2Dto.Name", METRIC_KEY, max(map(len, rows), default=0))
            or _lengths(tags, "Tags", TAG_KEY, TAG_VALUE)
            or _over("Parameters", RUN_PARAMS, len(named_params))
            or _over("Tags", RUN_TAGS, len(named_tags))
        )
        if refusal is None:
            self.params[run_id], self.tags[run_id] = named_params, named_tags
        return refusal


def _items(body: Item, name: str) -> list[Item]:
    listed = body.get(name)
    return [item for item in listed if isinstance(item, dict)] if isinstance(listed, list) else []


def _lengths(items: Iterable[Item], name: str, key: int, value: int) -> str | None:
    listed = list(items)
    return _over(f"{name}/Key", key, max((len(str(item.get("key", ""))) for item in listed), default=0)) or _over(
        f"{name}/Value", value, max((len(str(item.get("value", ""))) for item in listed), default=0)
    )


def _over(name: str, limit: int, size: int) -> str | None:
    """The text is the service's for params (azure-sdk-for-python#35685); of the others it is assumed."""
    return f"Exceeded the limit: FieldName={name}, Limit={limit}, Size={size}" if size > limit else None
