"""What a backend takes, per kind: in one log-batch call, of names and values, in a second.

Each number has its source beside it.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLimits:
    """Bounds of one log-batch call: item counts, and the estimated size of its body in bytes."""

    metrics: int = 1000
    params: int = 100
    tags: int = 100
    total: int = 1000
    rows_per_metric: int = 1000
    body_bytes: int = 900_000


# MLflow: `_validate_batch_log_limits` of mlflow 3.17.2 (1000 metrics, 100 params, 100 tags, 1000 in all); the nominal
# body is 1 MB, which an open-source server does not enforce. Measured 2026-11.
MLFLOW = BatchLimits()

# Databricks, REST reference "Log a batch": at most 1 MB, 1000 items, 1000 metrics, 100 params, 100 tags.
DATABRICKS = BatchLimits()

# Azure ML: 250 rows of one metric per call by the service's message; older services failed above 200 metrics in a
# call, so 200 is the safe batch (mlflow#11462, mlflow#2441).
AZUREML = BatchLimits(metrics=200, total=200, rows_per_metric=200)

BATCH_LIMITS: dict[str, BatchLimits] = {"mlflow": MLFLOW, "databricks": DATABRICKS, "azureml": AZUREML}


# Tags that the create of an experiment may have (Databricks: facts B2); more are set after it. None: no bound is known.
CREATE_TAGS: dict[str, int | None] = {"mlflow": None, "databricks": 20, "azureml": None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """How many characters a backend takes of names and values; None where no bound is known."""

    tag_key: int | None = None
    tag_value: int | None = None
    param_key: int | None = None
    param_value: int | None = None
    metric_key: int | None = None
    experiment_tag_key: int | None = None
    experiment_tag_value: int | None = None


# Facts A7 (Azure ML, "Service limits") and B7 (Databricks: keys as documented, values as mlflow's client has them). A
# plain server takes what the primary took.
LENGTHS: dict[str, Lengths] = {
    "mlflow": Lengths(),
    "databricks": Lengths(
        tag_key=250, tag_value=8000, param_key=250, param_value=6000, metric_key=250, experiment_tag_key=250
    ),
    "azureml": Lengths(tag_key=100, tag_value=1000, metric_key=255, experiment_tag_key=250, experiment_tag_value=1000),
}


# How many tags a run may have. Facts A7 (Azure ML, "Service limits"); B7 (Databricks, "Resource limits"). A run begins
# without params, and a backend says how many it takes when there are too many.
RUN_TAGS: dict[str, int | None] = {"mlflow": None, "databricks": 1600, "azureml": 50}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """Calls a second that a service takes of one class of endpoints: those whose path `pattern` is found in."""

    pattern: str
    per_second: float


# Databricks, per workspace (facts B7: an older page of its REST reference, and a digest of 2026 with 120 and 7); the
# first row that fits counts. Azure ML publishes no rates, and an MLflow server has none.
RATES: dict[str, tuple[Rate, ...]] = {
    "mlflow": (),
    "databricks": (
        Rate(pattern=r"/mlflow/experiments/(list|search|update|delete|restore)$", per_second=7),
        Rate(pattern=r"/mlflow/runs/search$", per_second=7),
        Rate(pattern=r"/mlflow/runs/log-batch$", per_second=47),
        Rate(pattern=r"/mlflow/", per_second=120),
    ),
    "azureml": (),
}
