"""One file per scenario: what is compared, and the issue's targets for it."""

from collections.abc import Callable, Mapping

from bench.report import Report
from bench.scenarios import artifact_memory, artifacts, backfill, delivery, latency, memory, mlflow, throughput
from bench.settings import Settings

SCENARIOS: Mapping[str, Callable[[Settings], Report]] = {
    "latency": latency.run,
    "throughput": throughput.run,
    "mlflow": mlflow.run,
    "delivery": delivery.run,
    "backfill": backfill.run,
    "memory": memory.run,
    "artifacts": artifacts.run,
    "artifact-memory": artifact_memory.run,
}
