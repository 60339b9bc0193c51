"""Delivers files to a backend, one by one or side by side, and lets their copies go. `files.py` moves the bytes."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from dualtrack.core.entry import Entry
from dualtrack.delivery.answers import Answers
from dualtrack.delivery.files import FILE_GONE, Files
from dualtrack.delivery.outcome import Done, Later, Outcome
from dualtrack.delivery.plan import FilesStep, SingleStep, Step
from dualtrack.delivery.policy import PATIENCE, PLACE_SECONDS
from dualtrack.delivery.resolver import Known, Resolver, absences
from dualtrack.errors import BackendError, SpoolError
from dualtrack.ports import Lane, Loss
from dualtrack.translate.files import FileWrite, file_write

_TRANSFERS: Final = 16  # files sent side by side, of all lanes: a chunk of 1 MiB each in memory


class Uploads:
    """Those to one backend."""

    def __init__(self, resolver: Resolver, files: Files, answers: Answers) -> None:
        self._resolver = resolver
        self._files = files
        self._answers = answers
        self._transfers = asyncio.Semaphore(_TRANSFERS)

    async def side_by_side(self, lane: Lane, step: FilesStep) -> Done | None:
        """Deliver all files of a step at once; None when any of them has to be looked at by itself."""
        try:
            known = await self._resolver.find(lane, step.steps[0])
        except BackendError:
            return None
        if not isinstance(known, Known):
            return None
        delivered = await asyncio.gather(
            *(self._deliver(single, known) for single in step.steps), return_exceptions=True
        )
        losses = absences(lane, known)
        for outcome in delivered:
            if isinstance(outcome, (BackendError, SpoolError)):
                return None
            if isinstance(outcome, BaseException):
                raise outcome
            if _is_gone(outcome):
                return None
            losses += outcome
        self._answers.went_well()
        return Done(losses=losses)

    async def one(
        self, step: SingleStep, told: FileWrite, known: Known, losses: tuple[Loss, ...], attempt: int
    ) -> Outcome:
        """Do what `told` says, an upload or another write to a file. `losses` are recorded with it."""
        told = _in_doubt(step, told)
        delivered = await self._files.deliver(told, step.entry.spool, known.twins[told.ref])
        if _is_gone(delivered) and attempt <= PATIENCE:
            # its deletion may be on its way to us: the primary has done it, and the journal is told a moment later
            return Later(wait=PLACE_SECONDS, reason="looks again for a file that is gone", is_backend=False)
        self._answers.went_well()
        return Done(losses=losses + delivered)

    async def release(self, step: Step) -> None:
        """Let go of the copies that a step needed, once its outcome is recorded."""
        for entry in _entries_of(step):
            if entry.spool:
                await self._files.release(entry.spool)

    async def _deliver(self, step: SingleStep, known: Known) -> tuple[Loss, ...]:
        told = file_write(step.reading)
        assert told is not None, "a FilesStep holds uploads"
        async with self._transfers:
            return await self._files.deliver(_in_doubt(step, told), step.entry.spool, known.twins[told.ref])


def _in_doubt(step: SingleStep, told: FileWrite) -> FileWrite:
    """A retried write says no more what its file is: that side gets what the primary has now."""
    return replace(told, in_doubt=told.in_doubt or step.entry.attempted)


def _is_gone(losses: Iterable[Loss]) -> bool:
    return any(loss.reason == FILE_GONE for loss in losses)


def _entries_of(step: Step) -> Sequence[Entry]:
    match step:
        case FilesStep(steps=steps):
            return [single.entry for single in steps]
        case SingleStep(entry=entry):
            return [entry]
        case _:
            return []
