"""Leaves a link on each side of a run: a tag with the address of its page on the other one.

The secondary's is a journal entry like any write there; a run that refuses it, as a deleted one does, goes without
(`worker`). The primary's is a call of our own, the only one that changes anything there, and the one thing that is best
effort: after some attempts it is left out and logged, and a process that dies takes what it still owed along. Runs
only; off unless the configuration wants it (`links`).
"""

import asyncio
from collections.abc import Callable, Mapping

import structlog

from dualtrack.core.exchange import Call
from dualtrack.core.ids import EntityKind, Ref, Twin, parse_key
from dualtrack.core.links import MIRROR_URL, SOURCE_URL
from dualtrack.core.standing import Occasion
from dualtrack.core.verdict import RetryPolicy, describe, wait_before
from dualtrack.errors import BackendError, JournalError
from dualtrack.ports import Backend, Clock, Queue
from dualtrack.translate.linking import link_call, link_exchange

log = structlog.get_logger("dualtrack.delivery")

_OWED = 10_000  # links; beyond it they are left out
_ATTEMPTS = 8
_POLICY = RetryPolicy(wait_min=1.0, wait_max=60.0)


class Linker:
    """Run with `run`. `pages` say for each backend where the page of a twin is; "" when nobody knows."""

    def __init__(
        self,
        journal: Queue,
        primary: Backend,
        pages: Mapping[str, Callable[[Twin], str]],
        clock: Clock,
        *,
        on_primary: bool,
    ) -> None:
        self._journal = journal
        self._primary = primary
        self._pages = pages
        self._clock = clock
        self._on_primary = on_primary
        self._owed: asyncio.Queue[tuple[Ref, str]] = asyncio.Queue(_OWED)

    def tell(self, backend: str, key: str, occasion: Occasion) -> None:
        """Hear of a delivery; a run that was made owes its links. Never waits."""
        if occasion is not Occasion.MADE or parse_key(key).kind is not EntityKind.RUN:
            return
        if self._owed.full():
            log.warning("delivery.link_left_out", backend=backend, entity=key, reason="too many are owed")
            return
        self._owed.put_nowait((parse_key(key), backend))

    async def run(self) -> None:
        """Link for ever, one run after the other."""
        while True:
            ref, backend = await self._owed.get()
            try:
                await self._link(ref, backend)
            except JournalError as error:
                log.warning("delivery.link_left_out", backend=backend, entity=ref.key, reason=str(error))

    async def _link(self, ref: Ref, backend: str) -> None:
        here = await self._journal.twin(ref, self._primary.name)
        there = await self._journal.twin(ref, backend)
        if here is not None and (url := self._pages[self._primary.name](here)):
            await self._journal.append(backend, ref.key, [link_exchange(ref.client_id, SOURCE_URL, url)])
        if self._on_primary and there is not None and (url := self._pages[backend](there)):
            await self._send(link_call(ref.client_id, f"{MIRROR_URL}{backend}", url), ref)

    async def _send(self, call: Call, ref: Ref) -> None:
        """Ask the primary, more than once if it must be."""
        reason = ""
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                answer = await self._primary.send(call)
            except BackendError as error:
                reason = str(error)
            else:
                if answer.is_success:
                    return
                reason = describe(answer)
                if answer.status < 500 and answer.status != 429:
                    break
            await self._clock.wait(wait_before(attempt, _POLICY, self._clock.chance()))
        log.warning("delivery.link_left_out", backend=self._primary.name, entity=ref.key, reason=reason)
