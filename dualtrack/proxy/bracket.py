"""The journal around the primary: an entry is opened before the call and settled with the answer.

    opened ─▶ primary ─┬─ accepted ─▶ settle (synced) ─▶ answer, labelled mirrored
                       ├─ refused  ─▶ forget the entry ─▶ answer
                       └─ unclear  ─▶ the settler finds out; the client gets what there is, and repeats

Every write of the hot path goes through here, whether its body is a small JSON document or a file of many gigabytes.
"""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from aiohttp import web

from dualtrack.core.entry import OpenEntry
from dualtrack.errors import JournalError, UnauthorizedError, UnreachableError
from dualtrack.metrics import Metrics
from dualtrack.ports import Intake, Settlement
from dualtrack.translate.document import MalformedError


class Doubts(Protocol):
    """Takes writes whose outcome at the primary is not known."""

    def take(self, entry: OpenEntry) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirroring:
    """What a proxy with at least one secondary has besides its primary."""

    intake: Intake
    doubts: Doubts
    secondaries: tuple[str, ...]


@dataclass(slots=True)
class Opened:
    """An entry that was opened; `key` is None for a create. `upstream_seconds` is what the primary took."""

    entry_id: int
    key: str | None
    upstream_seconds: float = 0.0


class Bracket:
    """Settles what it opened, whatever happens in between. `passes_when_full`: rather unmirrored than refused."""

    def __init__(self, mirroring: Mirroring, metrics: Metrics, *, passes_when_full: bool) -> None:
        self._intake = mirroring.intake
        self._doubts = mirroring.doubts
        self._secondaries = mirroring.secondaries
        self._metrics = metrics
        self._passes_when_full = passes_when_full

    async def around(
        self,
        opened: Opened,
        ask: Callable[[], Awaitable[web.Response]],
        settlement: Callable[[web.Response], Settlement],
    ) -> web.Response:
        """Ask the primary, and settle the entry with what it says. Raises what `ask` raises."""
        try:
            asked = time.perf_counter()
            response = await ask()
            opened.upstream_seconds = time.perf_counter() - asked
        except UnreachableError as error:
            if error.sent:
                self._doubt(opened)
            else:
                self._intake.refuse(opened.entry_id)
            raise
        except UnauthorizedError:
            self._intake.refuse(opened.entry_id)
            raise
        except BaseException:
            self._doubt(opened)
            raise
        if response.status >= 500:
            self._doubt(opened)
        elif response.status >= 300:
            self._intake.refuse(opened.entry_id)
        else:
            await self._settle(opened, response, settlement)
        return response

    async def _settle(
        self, opened: Opened, response: web.Response, settlement: Callable[[web.Response], Settlement]
    ) -> None:
        try:
            await self._intake.settle(settlement(response))
        except MalformedError:
            # the primary made something and did not say what: that is for the settler to find out
            self._doubt(opened)
        except JournalError:
            self._doubt(opened)
            if not self._passes_when_full:
                raise
            self.lost("journal_full")
            response.headers["X-Dualtrack"] = "primary-only"
            return
        response.headers["X-Dualtrack"] = "mirrored"

    def _doubt(self, opened: Opened) -> None:
        self._doubts.take(self._intake.doubt(opened.entry_id, opened.key))

    def lost(self, reason: str) -> None:
        """Count a write that no secondary will get."""
        for backend in self._secondaries:
            self._metrics.losses.labels(backend, reason).inc()
