"""Backfills that are asked for while the proxy runs: one at a time, in its own process, because the journal is its own.

The admin listener starts one and tells how far it is. It ends with the process; asked again, it goes on.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import structlog

from dualtrack.errors import BackendError, JournalError
from dualtrack.reconcile.backfill import Backfill, Selection, Tally

log = structlog.get_logger("dualtrack.reconcile")


_NOTHING = Tally()


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The last backfill that was asked for; `error` says why it ended early."""

    state: Literal["none", "running", "done", "failed"] = "none"
    source: str = ""
    target: str = ""
    tally: Tally = _NOTHING
    error: str = ""


class Backfills:
    """Run with `run`. `make` builds the engine for a target, once."""

    def __init__(self, source: str, targets: Collection[str], make: Callable[[str], Backfill]) -> None:
        self._source = source
        self._targets = tuple(targets)
        self._make = make
        self._engines: dict[str, Backfill] = {}
        self._orders: asyncio.Queue[tuple[str, Selection]] = asyncio.Queue(1)
        self._last = Asked()

    @property
    def targets(self) -> Sequence[str]:
        return self._targets

    def order(self, target: str, experiments: tuple[str, ...], wanted: str, since: float | None) -> bool:
        """Begin one; False when one is under way."""
        if self._last.state == "running":
            return False
        self._last = Asked(state="running", source=self._source, target=target)
        self._orders.put_nowait((target, Selection(experiments=experiments, wanted=wanted, since=since)))
        return True

    def shown(self) -> dict[str, Any]:
        return asdict(self._status())

    def _status(self) -> Asked:
        last = self._last
        if last.state != "running" or last.target not in self._engines:
            return last
        return Asked(state="running", source=last.source, target=last.target, tally=self._engines[last.target].tally)

    async def run(self) -> None:
        """Work off what is asked for, for ever."""
        while True:
            target, selection = await self._orders.get()
            if target not in self._engines:
                self._engines[target] = self._make(target)
            engine, error = self._engines[target], ""
            engine.tally = Tally()
            try:
                await engine.run(selection)
            except (BackendError, JournalError) as raised:
                error = str(raised)
            except Exception as raised:  # the outermost edge of a backfill: the proxy goes on
                log.exception("backfill.unforeseen", backend=target)
                error = f"unforeseen: {type(raised).__name__}: {raised}"
            state: Literal["done", "failed"] = "failed" if error else "done"
            self._last = Asked(state=state, source=self._source, target=target, tally=engine.tally, error=error)
            log.info("backfill.ended", backend=target, state=state, error=error)
