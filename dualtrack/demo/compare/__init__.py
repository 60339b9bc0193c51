"""Whether the mirror of an experiment says the same as the original: read both sides, then compare.

Reads the backends directly over plain REST, without any part of the proxy, so that it cannot share its misreadings. The
comparing half (`compare`) is pure: two snapshots in, every difference out. Mirrors are found by their marks alone
(`dualtrack.source_run_id`, `dualtrack.source_model_id`), in whatever experiment of the secondary they stand. Only
the losses are what the proxy itself has on record: each has to explain its difference. Called by the demo and by tests.

The reading half blocks; call it from a thread (`asyncio.to_thread`) when the servers live in the same event loop.
"""

from collections.abc import Iterable

from dualtrack.demo.compare.comparing import compare
from dualtrack.demo.compare.reading import find_experiment, read, read_registry
from dualtrack.demo.compare.rest import HISTORY_PAGE, JSON, Side
from dualtrack.demo.compare.result import Comparison, Difference, ModelComparison, RunComparison
from dualtrack.demo.compare.snapshot import (
    EXPERIMENT_MARK,
    MARKS,
    MODEL_MARK,
    RUN_MARK,
    SOURCE_MARK,
    Experiment,
    File,
    Loss,
    Model,
    ModelVersion,
    Point,
    Registry,
    Run,
    Snapshot,
)

__all__ = [
    "EXPERIMENT_MARK",
    "HISTORY_PAGE",
    "MARKS",
    "MODEL_MARK",
    "RUN_MARK",
    "SOURCE_MARK",
    "Comparison",
    "Difference",
    "Experiment",
    "File",
    "Loss",
    "Model",
    "ModelComparison",
    "ModelVersion",
    "Point",
    "Registry",
    "Run",
    "RunComparison",
    "Side",
    "Snapshot",
    "compare",
    "compare_experiment",
    "find_experiment",
    "read",
    "read_registry",
]


def compare_experiment(
    primary: Side, secondary: Side, primary_experiment_id: str, losses: Iterable[Loss] = ()
) -> Comparison:
    """Read one experiment of the primary and everything that may mirror it, and compare.

    `losses` are what the proxy has on record of the secondary; what they do not explain is a difference.
    """
    ours = read(primary, lambda item: item["experiment_id"] == primary_experiment_id)
    runs = {run.run_id for run in ours.runs if run.experiment_id == primary_experiment_id}
    models = {model.model_id for model in ours.models if model.experiment_id == primary_experiment_id}

    def is_mirror(item: dict[str, JSON]) -> bool:
        return item["tags"].get(RUN_MARK) in runs or item["tags"].get(MODEL_MARK) in models

    return compare(ours, read(secondary, is_mirror), primary_experiment_id, losses)
