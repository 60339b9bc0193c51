"""Brings over what no proxy ever saw: experiments and runs of the primary, with their models and files.

    experiments ─▶ each gets its place, undeleted ─▶ its runs, oldest first ─▶ its models ─▶ deleted, if it is that
     (page by page)                                    │ (page by page)
                        known there, nothing queued ─▶ there already
                        nowhere ─▶ the adopter: finds its mark, or reads it whole and queues it ─▶ awaited

It never writes to a backend: the adopter queues journal entries, and whoever runs the workers delivers them. So it can
be killed at any instant. What was queued is delivered by the next one; what was not is found missing again, because the
id map says what is there. A second pass finds all of it in the map and writes nothing.

At most `room` runs are between their reading and their arrival, so neither memory nor the journal grows with what there
is to bring. A run that names one that comes later (a child its parent) makes delivery adopt that one first.

Runs that are themselves mirrors of something on the target are there by that, and are left out.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

import structlog

from dualtrack.core.exchange import Document, Exchange
from dualtrack.core.ids import ClientId, EntityKind, Ref, Twin
from dualtrack.errors import BackendError, RejectedError
from dualtrack.ports import Clock, Journal
from dualtrack.reconcile import album
from dualtrack.reconcile.adopter import Adopted, Terms, WholeAdopter
from dualtrack.reconcile.album import Album, Albums
from dualtrack.reconcile.arrivals import Arrivals
from dualtrack.reconcile.lister import Lister
from dualtrack.reconcile.patience import Patience
from dualtrack.reconcile.reader import Reader
from dualtrack.translate.adoption import deletion, restoration
from dualtrack.translate.document import field, objects, text
from dualtrack.translate.listing import mirrors

log = structlog.get_logger("dualtrack.reconcile")

ROOM = 32  # runs under way at once
_READING = 6  # runs read whole at once: their points are in memory
_EXPERIMENTS = 4  # at once, so that many small ones go as fast as a large one
_TRIES = 5
_TOLD = 20  # problems that are kept in words
_ID = {EntityKind.RUN: "run_id", EntityKind.MODEL: "model_id"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What to bring over. Empty is everything; `wanted` is MLflow's search language; `since` is when a run began."""

    experiments: tuple[str, ...] = ()
    wanted: str = ""
    since: float | None = None

    @property
    def is_of_runs(self) -> bool:
        """Say whether runs are chosen: then an experiment without any of them is left alone."""
        return bool(self.wanted) or self.since is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """How far it is. Runs `found` are `there`, `marked` (found again by their marks), `brought`, `stuck` or `failed`.

    Stuck ones wait for something parked. `models` were brought over as well.
    """

    experiments: int = 0
    found: int = 0
    there: int = 0
    marked: int = 0
    brought: int = 0
    stuck: int = 0
    failed: int = 0
    models: int = 0
    problems: tuple[str, ...] = ()

    @property
    def settled(self) -> int:
        """Runs about which nothing is left to do now."""
        return self.there + self.marked + self.brought + self.stuck + self.failed


@dataclass(frozen=True, slots=True, kw_only=True)
class _Home:
    """An experiment that is being brought over; `upto` is the newest write that its listing may contain."""

    ref: Ref
    upto: int
    is_deleted: bool
    is_mirror: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Missing:
    """An entity that the target lacks, or all of which has not arrived. `source_run` is what a model came out of."""

    ref: Ref
    is_known: bool
    source_run: Ref
    metrics: tuple[str, ...]


class Backfill:
    """From `primary` to `backend`. One `run` at a time; `tally` can be read meanwhile.

    `total` is how many runs there are to look at, once they are counted.
    """

    def __init__(
        self,
        journal: Journal,
        source: str,
        primary: Reader,
        albums: Albums,
        backend: str,
        secondary: Reader,
        adopter: WholeAdopter,
        clock: Clock,
        *,
        is_up: Callable[[], bool | None],
    ) -> None:
        self._journal = journal
        self._source = source
        self._primary = primary
        self._albums = albums
        self._backend = backend
        self._secondary = secondary
        self._adopter = adopter
        self._patience = Patience(clock, 0.0)  # each `run` says how much of it there is
        self._there = Lister(primary, source, self._patience)
        self._here = Lister(secondary, backend, self._patience)
        self.arrivals = Arrivals(journal, backend, clock, is_up, self._patience)
        self._room = asyncio.Semaphore(ROOM)
        self._reading = asyncio.Semaphore(_READING)
        self._homes = asyncio.Semaphore(_EXPERIMENTS)
        self.clear()

    def clear(self) -> None:
        """Forget how far the last one came."""
        self.tally = Tally()
        self.total: int | None = None

    def _count(self, name: str, by: int = 1) -> None:
        self.tally = replace(self.tally, **{name: getattr(self.tally, name) + by})

    def _note(self, problem: str) -> None:
        log.warning("backfill.problem", backend=self._backend, reason=problem)
        if len(self.tally.problems) < _TOLD:
            self.tally = replace(self.tally, problems=(*self.tally.problems, problem))

    async def run(
        self, selection: Selection, patience: float, *, is_alone: bool = False, counts: bool = False
    ) -> Tally:
        """Bring over all that is selected, and wait until it has arrived; go on through `patience` seconds of trouble.

        `counts` lists the runs ahead, for `total`. `is_alone` says that no client writes meanwhile: then wait for what
        came along, too, until nothing is queued.
        Raise `RejectedError` for a selection that the primary does not understand, `UnreachableError` and
        `UnauthorizedError` when a backend was in trouble for too long.
        """
        self.clear()
        self._patience.seconds = patience
        try:
            async with asyncio.TaskGroup() as group:
                aside = [group.create_task(self.arrivals.run(), name="backfill arrivals")]
                if counts:
                    aside.append(group.create_task(self._count_all(selection), name="backfill total"))
                await self._all(selection, group)
                if is_alone:
                    await self.arrivals.of_all()
                for task in aside:
                    task.cancel()
        except BaseExceptionGroup as raised:
            raise _first(raised) from raised
        return self.tally

    async def _count_all(self, selection: Selection) -> None:
        total = 0
        try:
            async for listed, _ in self._experiments(selection):
                async for page in self._there.runs(_id(listed), wanted=selection.wanted, since=selection.since):
                    total += len(page)
        except BackendError:
            return  # the work itself asks the same, and says so; without a total it goes on
        self.total = total

    async def _all(self, selection: Selection, group: asyncio.TaskGroup) -> None:
        under_way: set[asyncio.Task[None]] = set()
        async for listed, upto in self._experiments(selection):
            await self._homes.acquire()
            home = _Home(
                ref=Ref(EntityKind.EXPERIMENT, ClientId(_id(listed))),
                upto=upto,
                is_deleted=listed.get("lifecycle_stage") == "deleted",
                is_mirror=mirrors(EntityKind.EXPERIMENT, listed, self._backend),
            )
            task = group.create_task(self._experiment(home, selection, group), name=f"backfill {home.ref.key}")
            under_way.add(task)
            task.add_done_callback(under_way.discard)
            task.add_done_callback(lambda _: self._homes.release())
        if under_way:
            await asyncio.wait(under_way)

    async def _experiments(self, selection: Selection) -> AsyncIterator[tuple[Document, int]]:
        """List what is selected, each with the newest write that the listing may contain."""
        if selection.experiments:
            for name in dict.fromkeys(selection.experiments):
                upto = self._journal.last_seq()
                found = await self._there.experiment(name)
                if found is None:
                    raise RejectedError(self._source, "backfill", f"there is no experiment {name!r}")
                yield found, upto
            return
        upto = self._journal.last_seq()
        async for page in self._there.experiments():
            for listed in page:
                yield listed, upto
            upto = self._journal.last_seq()

    # --- one experiment -----------------------------------------------------------------------------------------

    async def _experiment(self, home: _Home, selection: Selection, group: asyncio.TaskGroup) -> None:
        try:
            await _Visit(self, home, selection, group).go()
        except RejectedError as error:
            if selection.wanted:
                raise
            self._note(f"{home.ref.key}: {error}")
        self._count("experiments")

    async def place(self, home: _Home) -> Twin | None:
        """Bring the experiment over, undeleted; None when it cannot be there without a person."""
        for _ in range(_TRIES):
            twin = await self._journal.twin(home.ref, self._backend)
            if twin is not None:
                return twin
            adopted = await self._bring(home.ref, Terms(deletion=False))
            if adopted.ref is None or not await self.arrivals.of(home.ref.key):
                break
        self._note(f"{home.ref.key} has no place on {self._backend}: see `dualtrack parked list`")
        return None

    async def restore(self, home: _Home, place: Twin) -> bool:
        """Restore it there; False when that takes a person."""
        return await self._change(home, restoration(home.ref.client_id), lambda: self._is_deleted_there(place))

    async def delete(self, home: _Home, place: Twin) -> None:
        """Delete it there if it still is to be: a client may have restored it."""

        async def is_due() -> bool:
            return not await self._is_deleted_there(place) and await self._is_deleted_here(home)

        await self._change(home, deletion(home.ref.client_id), is_due)

    async def _is_deleted_there(self, place: Twin) -> bool:
        return _is_deleted(await self._patience(lambda: self._secondary.get(EntityKind.EXPERIMENT, place.backend_id)))

    async def _is_deleted_here(self, home: _Home) -> bool:
        return _is_deleted(await self._patience(lambda: self._primary.get(EntityKind.EXPERIMENT, home.ref.client_id)))

    async def has_mirrors(self, place: Twin) -> bool:
        return await self._here.has_mirrors(place.backend_id, self._source)

    async def _change(self, home: _Home, exchange: Exchange, is_due: Callable[[], Awaitable[bool]]) -> bool:
        """Queue a change of the experiment behind all that was acknowledged of it, and await it, if it is due then."""
        key = home.ref.key
        for _ in range(_TRIES):
            if not await self.arrivals.of(key):
                break
            upto = self._journal.last_seq()
            if not await is_due():
                return True
            # between this and the first line of `append`, which takes the numbers, nothing is awaited
            if not self._journal.has_grown(key, upto):
                await self._journal.append(self._backend, key, [exchange])
                return await self.arrivals.of(key)
        hint = "see `dualtrack parked list`, or bring it over again"
        self._note(f"{key}: {exchange.operation} waits on {self._backend} for its other writes: {hint}")
        return False

    async def _bring(self, ref: Ref, terms: Terms) -> Adopted:
        async with self._reading:
            return await self._patience(lambda: self._adopter.bring(ref, self._backend, terms=terms))

    # --- runs and models ----------------------------------------------------------------------------------------

    def runs(self, home: _Home, selection: Selection) -> AsyncIterator[list[Document]]:
        return self._there.runs(home.ref.client_id, wanted=selection.wanted, since=selection.since)

    def models(self, home: _Home) -> AsyncIterator[list[Document]]:
        return self._there.models(home.ref.client_id)

    async def missing(self, kind: EntityKind, page: list[Document]) -> list[_Missing]:
        """Answer what of a page has not arrived whole; a run that has is counted."""
        found: list[_Missing] = []
        for listed in page:
            if not mirrors(kind, listed, self._backend):
                info = field(listed, "info")
                ref = Ref(kind, ClientId(text(field(info, _ID[kind]))))
                source_run = Ref(EntityKind.RUN, ClientId(text(field(info, "source_run_id"))))
                metrics = tuple(text(each.get("key")) for each in objects(field(listed, "data", "metrics")))
                is_known = await self.is_known(ref)
                found.append(_Missing(ref=ref, is_known=is_known, source_run=source_run, metrics=metrics))
        waiting = await self._journal.waiting(self._backend, [each.ref.key for each in found if each.is_known])
        left = [each for each in found if not each.is_known or each.ref.key in waiting]
        if kind is EntityKind.RUN:
            self._count("found", len(page))
            self._count("there", len(page) - len(left))
        return left

    def pass_over(self, missing: _Missing, *, is_discarded: bool) -> None:
        """Count what cannot be brought, because its experiment has no place; what an operator discarded is settled."""
        if missing.ref.kind is EntityKind.RUN:
            self._count("there" if is_discarded else "stuck")

    async def album(self, missing: Sequence[_Missing]) -> Album:
        """Read at once what can be read at once of runs that are to be brought."""
        upto = self._journal.last_seq()
        keys = {str(each.ref.client_id): each.metrics for each in missing if not each.is_known}
        return await self._patience(lambda: self._albums.read(keys, upto))

    async def is_known(self, ref: Ref) -> bool:
        return await self._journal.twin(ref, self._backend) is not None

    async def start(self, missing: _Missing, terms: Terms, group: asyncio.TaskGroup) -> asyncio.Task[None]:
        """Begin to bring one over, as soon as there is room."""
        await self._room.acquire()
        task = group.create_task(self._one(missing, terms), name=f"backfill {missing.ref.key}")
        task.add_done_callback(lambda _: self._room.release())
        return task

    async def _one(self, missing: _Missing, terms: Terms) -> None:
        try:
            outcome = await self._arrive(missing, terms)
        except RejectedError as error:
            self._note(f"{missing.ref.key}: {error}")
            outcome = "failed"
        if missing.ref.kind is EntityKind.RUN:
            self._count(outcome)
        elif outcome == "brought":
            self._count("models")
        elif outcome == "stuck":
            self._note(f"{missing.ref.key} waits for something parked")

    async def _arrive(self, missing: _Missing, terms: Terms) -> str:
        ref = missing.ref
        for _ in range(_TRIES):
            adopted = Adopted(ref=ref) if missing.is_known else await self._bring(ref, terms)
            if adopted.ref is None:
                return "there"  # deleted for good since it was listed
            if adopted.was_there:
                return "marked"
            if not await self.arrivals.of(adopted.ref.key):
                return "stuck"
            if adopted.ref == ref:
                return "brought"
        return "stuck"


class _Visit:
    """One experiment's turn. Opened (placed, and restored if it is deleted there) for the first thing it lacks."""

    def __init__(self, backfill: Backfill, home: _Home, selection: Selection, group: asyncio.TaskGroup) -> None:
        self._backfill = backfill
        self._home = home
        self._selection = selection
        self._group = group
        self._place: Twin | None = None
        self._is_new = False  # brought here by this visit, undeleted
        self._is_open: bool | None = None
        self._marks = True
        self._under_way: set[asyncio.Task[None]] = set()

    async def go(self) -> None:
        if not (self._selection.is_of_runs or self._home.is_mirror):
            self._place = await self._placed()
        async for page in self._backfill.runs(self._home, self._selection):
            left = await self._backfill.missing(EntityKind.RUN, page)
            for start in range(0, len(left), album.RUNS):
                await self._begin_runs(left[start : start + album.RUNS])
        await self._arrived()
        async for page in self._backfill.models(self._home):
            for missing in await self._backfill.missing(EntityKind.MODEL, page):
                if not self._selection.is_of_runs or await self._backfill.is_known(missing.source_run):
                    await self._begin(missing)
        await self._arrived()
        await self._delete()

    async def _placed(self) -> Twin | None:
        self._is_new = not await self._backfill.is_known(self._home.ref)
        return await self._backfill.place(self._home)

    async def _begin_runs(self, some: Sequence[_Missing]) -> None:
        read = await self._backfill.album(some)
        for missing in some:
            await self._begin(missing, read)

    async def _begin(self, missing: _Missing, read: Album | None = None) -> None:
        if self._is_open is None:
            self._is_open = await self._open()
        if not self._is_open:
            self._backfill.pass_over(missing, is_discarded=self._place is not None)
            return
        terms = Terms(marks=self._marks, models=False, album=read)
        task = await self._backfill.start(missing, terms, self._group)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _open(self) -> bool:
        place = self._place = self._place or await self._placed()
        if place is None or place.is_discarded:
            return False
        if self._home.is_deleted and not await self._backfill.restore(self._home, place):
            return False
        # asked once: from here on whatever is made there is known to the id map, or has its lane
        self._marks = await self._backfill.has_mirrors(place)
        return True

    async def _arrived(self) -> None:
        if self._under_way:
            await asyncio.wait(self._under_way)

    async def _delete(self) -> None:
        place = self._place
        if place is None or place.is_discarded:
            return
        # one that was brought may be deleted by now, and its deletion among what it came in the place of
        if self._home.is_deleted or self._is_new:
            await self._backfill.delete(self._home, place)


def _id(listed: Document) -> str:
    return text(listed.get("experiment_id"))


def _is_deleted(found: Document | None) -> bool:
    return field(found, "experiment", "lifecycle_stage") == "deleted"


def _first(raised: BaseExceptionGroup[BaseException]) -> BaseException:
    """What went wrong first; the rest was cancelled for it."""
    found = raised.exceptions[0]
    return _first(found) if isinstance(found, BaseExceptionGroup) else found
