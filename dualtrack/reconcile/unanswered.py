"""Finds what creates made at the primary whose answer was lost: a run, a model, an experiment that nobody has claimed.

    listed, alike, unclaimed ─▶ what was under way meanwhile is answered ─▶ still nobody's, and nobody else's rather

A run is listed a moment before its answer says whose it is, and the create that repeats a lost one looks just like it:
taken for it, one run would be mirrored for both, and the other by nobody.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from dualtrack.core.exchange import Document
from dualtrack.core.ids import BackendId, EntityKind, Ref
from dualtrack.errors import RejectedError
from dualtrack.ports import Journal
from dualtrack.reconcile.reader import Reader
from dualtrack.translate.document import MalformedError, field, objects, parse, text
from dualtrack.translate.evidence import likeness, pick
from dualtrack.translate.mlflow import experiment_by_name, search_created, started_before
from dualtrack.translate.operations import Reading, made_id, read

_PAGES = 20  # of 100 runs or 50 models, the newest first: others in doubt wait meanwhile; the rest is for `backfill`


class UndecidedError(Exception):
    """It cannot be said yet: what was under way when it was looked for has not been answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """What was alike, and nobody's; what is acknowledged after number `since` may claim it.

    All that can have made it was opened up to number `upto`.
    """

    alike: tuple[Document, ...]
    since: int
    upto: int


class Unanswered:
    """Creates in doubt, by their entries' numbers. `primary` is the primary's name."""

    def __init__(self, journal: Journal, reader: Reader, primary: str) -> None:
        self._journal = journal
        self._reader = reader
        self._primary = primary
        self._readings: dict[int, Reading | None] = {}  # None: not read yet
        self._found: dict[int, _Found] = {}

    def add(self, entry_id: int) -> None:
        """Know of a create in doubt, so that no other one takes what it made."""
        self._readings.setdefault(entry_id, None)

    def remove(self, entry_id: int) -> None:
        """Forget it: it is settled."""
        self._readings.pop(entry_id, None)
        self._found.pop(entry_id, None)

    async def find(self, entry_id: int, reading: Reading) -> Document | None:
        """Answer what a create made, in the shape of its answer; None if there is no such thing now.

        Raise `UndecidedError`, `BackendError`, `JournalError`, and `MalformedError` for an answer that tells nothing.
        """
        if reading.operation.about is EntityKind.EXPERIMENT:
            return await self._named(reading)
        self._readings[entry_id] = reading
        earlier = self._found.pop(entry_id, None)
        chosen = await self._choose(entry_id, reading, earlier) if earlier is not None else None
        return chosen or await self._choose(entry_id, reading, await self._look(reading))

    async def _choose(self, entry_id: int, reading: Reading, found: _Found) -> Document | None:
        if found.alike and self._journal.is_under_way(found.upto, reading.exchange.operation):
            self._found[entry_id] = found
            raise UndecidedError
        left = [each for each in found.alike if not await self._is_claimed(each, reading, found.since)]
        return pick(reading, left, await self._others(entry_id))

    async def _named(self, reading: Reading) -> Document | None:
        name = text(reading.document.get("name"))
        answer = await self._reader.ask(experiment_by_name(name)) if name else None
        experiment = field(parse(answer.body), "experiment") if answer is not None else None
        return {"experiment_id": field(experiment, "experiment_id")} if experiment else None

    async def _look(self, reading: Reading) -> _Found:
        # nor at this number: that may be on its way into the map, and another doubt's settling gives no new one
        since = self._journal.last_seq() - 1
        alike: list[Document] = []
        async for page in self._listed(reading):
            like = [each for each in page if likeness(reading, each) is not None]
            alike += [each for each in like if await self._owner(each, reading) is None]
            # each create in doubt takes one of them at most
            if len(alike) >= len(self._readings):
                break
        return _Found(alike=tuple(alike), since=since, upto=self._journal.last_seq())

    async def _listed(self, reading: Reading) -> AsyncIterator[list[Document]]:
        token, by_start = "", True
        for _ in range(_PAGES):
            try:
                answer = await self._reader.ask(search_created(reading, token, by_start=by_start))
            except RejectedError:
                if not by_start or token:
                    raise
                by_start = False
                answer = await self._reader.ask(search_created(reading, by_start=False))
            page = parse(answer.body) if answer is not None else {}
            runs = objects(page.get("runs"))
            candidates: list[Document] = [{"run": run} for run in runs]
            yield candidates + [{"model": model} for model in objects(page.get("models"))]
            token = text(page.get("next_page_token"))
            if not token or (not by_start and started_before(reading, runs)):
                return

    async def _owner(self, candidate: Document, reading: Reading) -> Ref | None:
        kind = reading.operation.about
        return await self._journal.client_ref(kind, self._primary, BackendId(made_id(kind, candidate)))

    async def _is_claimed(self, candidate: Document, reading: Reading, since: int) -> bool:
        """Say whether a create that was answered made it. One that was only brought over, to one side, is nobody's."""
        ref = await self._owner(candidate, reading)
        return ref is not None and self._journal.has_grown(ref.key, since)

    async def _others(self, entry_id: int) -> list[Reading]:
        for number in [number for number, reading in self._readings.items() if reading is None]:
            exchange = await self._journal.opened(number)
            try:
                self._readings[number] = read(exchange) if exchange is not None else None
            except MalformedError:
                continue
        return [reading for number, reading in self._readings.items() if number != entry_id and reading is not None]
