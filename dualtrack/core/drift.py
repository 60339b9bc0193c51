"""Whether two backends say the same of one entity: two views in, every difference out, each explained or drift. Pure.

    RunView here ─┐                   Difference(kind, item, here, there, explanation)
    RunView there ├─▶ compare ─▶      explanation "": drift, which `translate/repair.py` plans to mend
    losses        ┘                   otherwise: known, and nothing to do

`here` is the primary, `there` a secondary. `reconcile/verifier.py` reads the views and calls this.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, TypeVar

from dualtrack.core.loss import LossKind
from dualtrack.core.views import ExperimentView, ModelView, RunView


class DriftKind(StrEnum):
    """What differs. The first ones are those of `LossKind`, so that a loss can be held against them."""

    PARAM = "param"
    TAG = "tag"
    METRIC = "metric"
    FILE = "file"
    EXPERIMENT = "experiment"
    RUN = "run"
    MODEL = "model"
    FIELD = "field"  # name, status, times and the like
    INPUT = "input"
    OUTPUT = "output"


class Explanation(StrEnum):
    """Why a difference is no drift; `""` says that it is."""

    NONE = ""
    LOSS = "recorded loss"
    MARK = "our own mark"
    TRANSLATED = "translated name or id"
    SERVER_SET = "set by the server"
    ROUNDED = "rounded by the backend"
    KEPT_ONCE = "an exact repeat is kept once"
    NO_MODELS = "files stand in for a logged model"
    HISTORY_UPSERT = "the run history sets its own times"


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One thing that the sides say differently; None is absent. `item` is named as a loss names it (`core.loss`).

    For a metric the item is the key, and the values say how many points there are. `detail` says which of several
    things of that name it is, and the reason of the loss that explains it.
    """

    kind: DriftKind
    item: str
    here: str | None
    there: str | None
    explanation: Explanation = Explanation.NONE
    detail: str = ""

    @property
    def is_drift(self) -> bool:
        return self.explanation is Explanation.NONE

    @property
    def is_extra(self) -> bool:
        """Say whether only the secondary has it."""
        return self.here is None


class Recorded(Protocol):
    """A loss on record for the entity; `ports.Loss` is one."""

    @property
    def kind(self) -> LossKind: ...
    @property
    def item(self) -> str: ...
    @property
    def reason(self) -> str: ...


AnyView = TypeVar("AnyView", RunView, ModelView, ExperimentView)


def compare(here: AnyView | None, there: AnyView | None, losses: Iterable[Recorded] = ()) -> tuple[Difference, ...]:
    """Answer every difference of one entity, in a fixed order; None is an entity that is not there.

    `losses` are those on record for this entity on the secondary. Metrics are compared by their digests; where both
    histories hold their points, what a backend rounds or keeps once is told from what is missing. So read digests
    first, and read again with the points of the metrics that `metrics_in_doubt` names.
    """
    raise NotImplementedError


def metrics_in_doubt(differences: Iterable[Difference]) -> frozenset[str]:
    """Name the metrics whose points have to be read before drift is certain, and before it can be repaired."""
    return frozenset(each.item for each in differences if each.is_drift and each.kind is DriftKind.METRIC)
