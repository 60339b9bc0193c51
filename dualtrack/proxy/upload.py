"""A request body on its way to two places at once: to the primary, and to the spool for the secondaries.

    client ──chunk──▶ spool (gathered, hashed) ──chunk──▶ primary
                        │ full: by policy, refuse the upload or go on without the copy

Memory is a few chunks, whatever the size; what is small goes on in one piece. What ends the reading early (a client
that hangs up, a silence, a full spool) ends the upload to the primary too, in the middle of its body, so that a server
stores nothing of it.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator

import structlog

from dualtrack.errors import SpoolError, SpoolFullError
from dualtrack.ports import Spool, Spooled, SpoolFile
from dualtrack.proxy.errors import unavailable

log = structlog.get_logger("dualtrack.proxy")

_SMALL = 256 * 1024  # bytes; sent in one piece, as streaming costs more than copying here
_RETRY_SECONDS = 30.0  # a full spool empties as fast as a secondary takes files


class Upload:
    """One body, read once with `chunks`, of `expected` bytes if the client said so.

    `is_whole` when all of it was read; `spooled`, after `complete`, when a copy is safe as well.
    """

    def __init__(
        self, body: AsyncIterator[bytes], expected: int | None, copy: SpoolFile | None, *, needs_copy: bool
    ) -> None:
        self._body = body
        self._expected = expected
        self._copy = copy
        self._needs_copy = needs_copy
        self._hash = hashlib.sha256() if copy is None else None
        self._finishing: asyncio.Task[Spooled] | None = None
        self.size = 0
        self.is_whole = False
        self.spooled: Spooled | None = None

    @property
    def name(self) -> str:
        """Of the copy in the spool, empty if there is none."""
        return self._copy.name if self._copy is not None else ""

    @property
    def is_small(self) -> bool:
        """Say whether it may be held in memory whole."""
        return self._expected is not None and self._expected <= _SMALL

    @property
    def sha256(self) -> str:
        """The hash of the whole body, empty where it is not known."""
        if self.spooled is not None:
            return self.spooled.sha256
        return self._hash.hexdigest() if self._hash is not None and self.is_whole else ""

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body; each chunk is with the spool before it goes on. Raises `Refusal` for a full spool."""
        async for chunk in self._body:
            self.size += len(chunk)
            if self._hash is not None:
                self._hash.update(chunk)
            await self._keep(chunk)
            self._note_end(self._expected == self.size)
            yield chunk
        self._note_end(True)

    def _note_end(self, is_end: bool) -> None:
        """All bytes are here: sync the copy while the primary is at work."""
        if is_end and not self.is_whole:
            self.is_whole = True
            if self._copy is not None:
                self._finishing = asyncio.get_running_loop().create_task(self._copy.finish())

    async def _keep(self, chunk: bytes) -> None:
        if self._copy is not None:
            try:
                await self._copy.write(chunk)
            except SpoolError as error:
                await self._go_without(error)

    async def complete(self) -> None:
        """Wait until the copy is safe. Raises `Refusal` where it has to be, and could not be made so."""
        if self._finishing is not None:
            try:
                self.spooled = await self._finishing
            except SpoolError as error:
                await self._go_without(error)

    async def kept(self) -> Spooled:
        """Read all of it into the spool alone, for who needs it as a file. Raises `Refusal` for a full spool."""
        async for _ in self.chunks():
            pass
        await self.complete()
        assert self.spooled is not None, "needs_copy was said"
        return self.spooled

    async def _go_without(self, error: SpoolError) -> None:
        assert self._copy is not None
        await self._copy.abandon()
        self._copy = None
        if self._needs_copy:
            raise spool_refused(error) from error
        log.warning("proxy.upload_without_copy", reason=str(error))

    async def abandon(self, spool: Spool) -> None:
        """The upload came to nothing: leave nothing of it here."""
        if self._finishing is not None:
            self._finishing.cancel()
            (ended,) = await asyncio.gather(self._finishing, return_exceptions=True)
            if isinstance(ended, Spooled):
                await self._remove(spool, ended.name)
        if self._copy is not None:
            await self._copy.abandon()

    async def _remove(self, spool: Spool, name: str) -> None:
        try:
            await spool.remove(name)
        except SpoolError as error:
            log.warning("proxy.spool_not_cleared", error=str(error))  # the next sweep tries again


def spool_refused(error: SpoolError) -> Exception:
    """What a client is told when its file cannot be kept; the same request may pass once there is room."""
    advice = ". `dualtrack status` shows what it waits for" if isinstance(error, SpoolFullError) else ""
    return unavailable(f"the file cannot be kept for the secondaries: {error}{advice}", _RETRY_SECONDS)
