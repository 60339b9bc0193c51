"""How one backend is delivered to: what the configuration says of it, and what it does not."""

from dataclasses import dataclass
from typing import Final

from dualtrack.core.limits import BatchLimits
from dualtrack.core.verdict import RetryPolicy
from dualtrack.translate.fitting import Fitter

PATIENCE: Final = 5  # attempts, for what another lane or a deletion on its way may yet explain
PLACE_SECONDS: Final = 0.5  # until a write in doubt, which keeps its place in the lane, is settled


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How one backend is delivered to. `source` is the primary's name, as the marks carry it."""

    source: str
    limits: BatchLimits
    retry: RetryPolicy
    read_ahead_bytes: int
    linger: float
    fitter: Fitter
    keeps_overflow: bool = False  # what does not fit stands in a file of the run
    copies_at_end: bool = False  # clients write to the primary's storage themselves: files come when a run ends
    since: float = 0.0  # when this process began: what was acknowledged earlier, one before it may have sent
