"""What one side holds, as values: nothing here reads or compares. Values are text: what is compared is what was stored.

Filled by `reading`, compared by `comparing`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

MARKS = "dualtrack."
RUN_MARK = "dualtrack.source_run_id"
SOURCE_MARK = "dualtrack.source"
EXPERIMENT_MARK = "dualtrack.source_experiment_id"
MODEL_MARK = "dualtrack.source_model_id"
OVERFLOW = "dualtrack/overflow.json"  # the file of a run with what the run could not hold


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """One file of a run or a model; `path` is below its root, `size` in bytes.

    An `MLmodel` names ids of the side that it lies on. Those lines are `names`, and `sha256` is that of all the others.
    """

    path: str
    size: int
    sha256: str
    names: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One metric value as stored; `value` is text, so that NaN equals NaN. `run_id` is told for a model's metrics."""

    key: str
    step: int
    timestamp: int
    value: str
    model_id: str = ""
    run_id: str = ""
    dataset: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run; `overflow` is what its overflow file keeps, by key below `params`, `tags` and `metrics`."""

    run_id: str
    experiment_id: str
    root: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    points: tuple[Point, ...] = ()
    inputs: tuple[str, ...] = ()
    outputs: tuple[tuple[str, str], ...] = ()
    files: tuple[File, ...] = ()
    overflow: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.fields.get("run_name", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A logged model; `run_id` is the run that made it, or ""."""

    model_id: str
    experiment_id: str
    run_id: str = ""
    root: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    points: tuple[Point, ...] = ()
    files: tuple[File, ...] = ()

    @property
    def name(self) -> str:
        return self.fields.get("name", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """What the proxy says that the secondary could not hold: of `key` (`run:ID` and the like), `item` of that kind.

    Ids are the primary's; an empty item is the whole.
    """

    key: str
    kind: str
    item: str
    reason: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.item or '(whole)'} of {self.key}: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    experiment_id: str
    name: str
    lifecycle_stage: str = "active"
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    experiments: tuple[Experiment, ...]
    runs: tuple[Run, ...]
    models: tuple[Model, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelVersion:
    name: str
    version: str
    run_id: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    models: tuple[str, ...]
    versions: tuple[ModelVersion, ...]

    @property
    def is_empty(self) -> bool:
        return not self.models and not self.versions
