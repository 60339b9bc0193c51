"""What one run of the benchmark was asked to do."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    rounds: int
    seconds: float
    warmup: float
    runs: int
    """How many runs the load of `throughput` writes to, in turn."""
    backlog_bytes: int
    backfill_runs: int
    """How many runs `backfill` copies."""
    serve: tuple[str, ...]
    """The command that `serve --config FILE` is appended to."""
    folder: Path
    """Journals, databases and logs of this run; removed at its end."""
