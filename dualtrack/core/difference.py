"""One thing that two backends say differently, as a value. `drift.compare` finds them, `explaining` explains them."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from dualtrack.core.loss import LossKind


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
    TRACE = "trace"


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
    NOT_MIRRORED = "not mirrored by this release"
    HISTORY_UPSERT = "the run history sets its own times"


# with no more than these, a mirror is what it should be
_OF_ANY_MIRROR = frozenset({Explanation.MARK, Explanation.TRANSLATED, Explanation.SERVER_SET})


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One thing that the sides say differently; None is absent. `item` is named as a loss names it (`core.loss`).

    For a metric the item is the key, and the values say how many points there are. `detail` says which of several
    things of that name it is, or the reason of the loss that explains it.
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
    def is_of_any_mirror(self) -> bool:
        """Say whether every mirror differs so: by our marks, by that side's own ids and names."""
        return self.explanation in _OF_ANY_MIRROR

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
