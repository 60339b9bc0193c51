"""Tokens that end: kept, renewed before they do, and fetched once however many requests ask.

    none ──asked──▶ flight ──▶ held ──renew_at──▶ held, and a flight in the background ──▶ held
                      │          └──ends_at, or a 401 (`fresh`)──▶ flight: whoever asks waits for it
                      └──▶ refused: said again at once for `_REST` seconds, so that a dead endpoint is not hammered

A flight is one sign-in. It belongs to nobody who waits for it: a cancelled request cancels itself, not the others, and
a request waits no longer than `_WAIT`. The alternative, to ask the vendor's own cache per request, costs a thread per
request on one of them, and neither of them gives a new token when the one it holds was refused.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Protocol

from dualtrack.errors import UnauthorizedError

_WAIT = 30.0  # a client waits 120 s; signing in by command line tools takes up to ten
_REST = 10.0  # between flights that follow a failure, a 401 or a renewal that brought nothing new
_BLIND = 60.0  # for which a token is used that has ended when it comes
_EARLY = 300.0  # azure-identity's own: it gives the token that it holds until then
_LAST = 40.0  # Azure Databricks refuses tokens that end within 30 s (databricks-sdk, `Token.expired`)

log = logging.getLogger("dualtrack.sign_in")


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """Headers that sign a request; instants are seconds since the epoch."""

    headers: Mapping[str, str] = field(repr=False)
    renew_at: float = inf
    ends_at: float = inf


def signature(
    headers: Mapping[str, str], now: float, *, ends_at: float | None, renew_at: float | None = None
) -> Signature:
    """Make a signature whose token ends at `ends_at`, if that is known. Short lives have short margins."""
    if ends_at is None:
        return Signature(headers=headers, renew_at=inf if renew_at is None else renew_at)
    if ends_at <= now:
        # this machine's clock is ahead, or the issuer's behind: the service may take the token all the same
        return Signature(headers=headers, ends_at=now + _BLIND)
    life = ends_at - now
    early = ends_at - min(_EARLY, life / 2)
    return Signature(
        headers=headers,
        renew_at=early if renew_at is None else min(early, renew_at),
        ends_at=ends_at - min(_LAST, life / 10),
    )


class Source(Protocol):
    """Signs in, each time it is asked. `patience` bounds one sign-in, in seconds; `hint` says what to do when it fails.

    `fresh`: the last token was refused, so a token from any cache will not do. Raises `UnauthorizedError`.
    """

    @property
    def patience(self) -> float: ...

    @property
    def hint(self) -> str: ...

    async def fetch(self, *, fresh: bool) -> Signature: ...

    async def close(self) -> None: ...


class Cached:
    """A `SignIn` over a source. Used within one event loop."""

    def __init__(
        self, backend: str, source: Source, *, wait: float = _WAIT, now: Callable[[], float] = time.time
    ) -> None:
        self._backend = backend
        self._source = source
        self._wait = wait
        self._now = now
        self._held: Signature | None = None
        self._refusal: UnauthorizedError | None = None
        self._flight: asyncio.Task[None] | None = None
        self._rests_until = -inf
        self._forced_until = -inf
        self._is_closed = False

    async def headers(self, *, fresh: bool = False) -> Mapping[str, str]:
        """Answer headers, signing in if need be. `fresh` never answers what was held when it was called.

        But for one case: what was itself fetched after a 401, less than `_REST` ago, is as fresh as it gets.
        """
        held, now = self._held, self._now()
        if held is not None and not fresh and now < held.ends_at:
            if now >= held.renew_at and now >= self._rests_until:
                self._take_off(fresh=False)
            return held.headers
        if self._flight is not None:
            await self._landed(self._flight)
        if self._held is held and self._is_due(held, fresh=fresh):
            self._take_off(fresh=fresh)
        if self._held is held and self._flight is not None:
            await self._landed(self._flight)
        return self._said()

    def _is_due(self, held: Signature | None, *, fresh: bool) -> bool:
        now = self._now()
        if fresh:
            return now >= self._forced_until
        is_refused = self._refusal is not None and now < self._rests_until
        return (held is None or now >= held.ends_at) and not is_refused

    def _said(self) -> Mapping[str, str]:
        if self._refusal is not None:
            refusal = self._refusal  # a new one each time: a raised exception grows a traceback
            raise UnauthorizedError(self._backend, refusal.operation, refusal.cause, refusal.hint) from refusal
        if self._held is None:
            raise self._failure("has not ended yet")
        return self._held.headers

    def _take_off(self, *, fresh: bool) -> "asyncio.Task[None]":
        if self._is_closed:
            raise self._failure("was ended")
        if self._flight is None:
            self._forced_until = self._now() + _REST if fresh else self._forced_until
            self._flight = asyncio.get_running_loop().create_task(self._fly(fresh=fresh), name="sign-in")
        return self._flight

    async def _landed(self, flight: "asyncio.Task[None]") -> None:
        done, _ = await asyncio.wait({flight}, timeout=self._wait)
        if not done:
            raise self._failure(f"no answer within {self._wait:.0f} s, and still asking")

    async def _fly(self, *, fresh: bool) -> None:
        try:
            async with asyncio.timeout(self._source.patience):
                self._held = await self._source.fetch(fresh=fresh)
            self._refusal = None
        except TimeoutError:
            self._refuse(self._failure(f"no answer within {self._source.patience:.0f} s"), fresh=fresh)
        except UnauthorizedError as error:
            self._refuse(error, fresh=fresh)
        finally:
            self._rests_until = self._now() + _REST
            self._flight = None

    def _refuse(self, refusal: UnauthorizedError, *, fresh: bool) -> None:
        if not fresh and self._held is not None and self._now() < self._held.ends_at:
            log.warning("a token could not be renewed, and is used until it ends: %s", refusal)
        else:
            self._refusal = refusal

    def _failure(self, cause: str) -> UnauthorizedError:
        return UnauthorizedError(self._backend, "sign-in", cause, self._source.hint)

    async def close(self) -> None:
        """End a flight that is under way, and the source. Whoever waits hears of it."""
        self._is_closed = True
        if self._flight is not None:
            flight = self._flight
            flight.cancel()
            await asyncio.wait({flight})
        await self._source.close()
