"""Backfills that are asked for while the proxy runs: one at a time, in its own process, because the journal is its own.

The admin listener starts one and tells how far it is. It ends with the process; asked again, it goes on.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Protocol

import structlog

from dualtrack.errors import BackendError, JournalError
from dualtrack.reconcile.backfill import Backfill, Selection, Tally

log = structlog.get_logger("dualtrack.reconcile")


_NOTHING = Tally()


class Order(Protocol):
    """What is asked for (`admin.backfill.Ordered`)."""

    @property
    def target(self) -> str: ...
    @property
    def experiments(self) -> tuple[str, ...]: ...
    @property
    def wanted(self) -> str: ...
    @property
    def since(self) -> float | None: ...
    @property
    def patience(self) -> float: ...
    @property
    def counts(self) -> bool: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The last backfill that was asked for; `error` says why it ended early.

    `total` is how many runs there are to look at, as soon as they are counted, if they are.
    """

    state: Literal["none", "running", "done", "failed"] = "none"
    source: str = ""
    target: str = ""
    tally: Tally = _NOTHING
    total: int | None = None
    error: str = ""


class Backfills:
    """Run with `run`. `make` builds the engine for a target, once."""

    def __init__(self, source: str, targets: Collection[str], make: Callable[[str], Backfill]) -> None:
        self._source = source
        self._targets = tuple(targets)
        self._make = make
        self._engines: dict[str, Backfill] = {}
        self._orders: asyncio.Queue[Order] = asyncio.Queue(1)
        self._last = Asked()

    @property
    def targets(self) -> Sequence[str]:
        return self._targets

    def order(self, ordered: Order) -> bool:
        """Begin one; False when one is under way."""
        if self._last.state == "running":
            return False
        self._last = Asked(state="running", source=self._source, target=ordered.target)
        self._orders.put_nowait(ordered)
        return True

    def shown(self) -> dict[str, Any]:
        return asdict(self._status())

    def _status(self) -> Asked:
        last = self._last
        if last.state != "running" or last.target not in self._engines:
            return last
        engine = self._engines[last.target]
        return replace(last, tally=engine.tally, total=engine.total)

    async def run(self) -> None:
        """Work off what is asked for, for ever."""
        while True:
            order = await self._orders.get()
            if order.target not in self._engines:
                self._engines[order.target] = self._make(order.target)
            engine = self._engines[order.target]
            engine.clear()
            error = await self._work(engine, order)
            state: Literal["done", "failed"] = "failed" if error else "done"
            self._last = replace(self._last, state=state, tally=engine.tally, total=engine.total, error=error)
            log.info("backfill.ended", backend=order.target, state=state, error=error)

    async def _work(self, engine: Backfill, order: Order) -> str:
        """Do it; answer what ended it early."""
        selection = Selection(experiments=order.experiments, wanted=order.wanted, since=order.since)
        try:
            await engine.run(selection, order.patience, counts=order.counts)
        except (BackendError, JournalError) as raised:
            return str(raised)
        except Exception as raised:  # the outermost edge of a backfill: the proxy goes on
            log.exception("backfill.unforeseen", backend=order.target)
            return f"unforeseen: {type(raised).__name__}: {raised}"
        return ""
