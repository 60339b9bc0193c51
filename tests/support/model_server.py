"""The state of one run as an MLflow server keeps it, small enough to be seen to be right (facts sections 4 to 6).

A body is applied params first, then metrics, then metrics of models, then tags; limits and params are checked before
anything is stored. A server that was not told otherwise adds nothing of its own, so two of these are equal when the
same was logged to them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from dualtrack.core.coalesce import Batch, Items
from dualtrack.core.exchange import JSON, Document
from dualtrack.core.limits import BatchLimits

Row: TypeAlias = tuple[JSON, ...]

_ROW = ("key", "step", "timestamp", "value")
_MODEL_ROW = ("model_id", "dataset_name", "dataset_digest", *_ROW)


class RefusedError(Exception):
    """HTTP 400: the server does not take the body."""


@dataclass
class ModelServer:
    limits: BatchLimits = field(default_factory=BatchLimits)
    params: dict[JSON, JSON] = field(default_factory=dict)
    metrics: set[Row] = field(default_factory=set)
    model_metrics: set[Row] = field(default_factory=set)
    tags: dict[JSON, JSON] = field(default_factory=dict)

    def log_batch(
        self, metrics: Sequence[Document] = (), params: Sequence[Document] = (), tags: Sequence[Document] = ()
    ) -> None:
        """Apply one body, or raise `RefusedError`."""
        self._check_limits(metrics, params, tags)
        if len({param["key"] for param in params}) < len(params):
            raise RefusedError("duplicate params in one body")
        for param in params:
            if self.params.get(param["key"], param["value"]) != param["value"]:
                raise RefusedError(f"param {param['key']} has another value")
        self.params |= {param["key"]: param["value"] for param in params}
        self.metrics |= {_row(metric, _ROW) for metric in metrics}
        self._log_model_metrics(metrics)
        self.tags |= {tag["key"]: tag["value"] for tag in tags}

    def apply(self, writes: Items | Batch) -> None:
        self.log_batch(writes.metrics, writes.params, writes.tags)

    def copy(self) -> "ModelServer":
        return ModelServer(self.limits, dict(self.params), set(self.metrics), set(self.model_metrics), dict(self.tags))

    def state(self) -> tuple[object, ...]:
        """All that a reader can see."""
        return self.params, self.metrics, self.model_metrics, self.tags

    def _check_limits(self, metrics: Sequence[Document], params: Sequence[Document], tags: Sequence[Document]) -> None:
        limits = self.limits
        sizes = (len(metrics), len(params), len(tags))
        bounds = (limits.metrics, limits.params, limits.tags)
        if sum(sizes) > limits.total or any(size > bound for size, bound in zip(sizes, bounds, strict=True)):
            raise RefusedError(f"{sizes} items in one body")

    def _log_model_metrics(self, metrics: Sequence[Document]) -> None:
        of_models = [metric for metric in metrics if metric.get("model_id") is not None]
        # points that differ in their own run_id alone are two for the server, and one for its primary key
        distinct = {_row(metric, ("run_id", *_MODEL_ROW)) for metric in of_models}
        rows = {_row(metric, _MODEL_ROW) for metric in of_models}
        if len(distinct) > len(rows):
            raise RefusedError("UNIQUE constraint failed: logged_model_metrics")
        self.model_metrics |= rows


def _row(metric: Document, names: Sequence[str]) -> Row:
    return tuple(_number(metric[name]) if name == "value" else metric.get(name) for name in names)


def _number(value: JSON) -> JSON:
    """A value as it is stored: numbers may be sent as text; NaN is one value, not a new one each time."""
    return "NaN" if value == "NaN" else float(str(value))
