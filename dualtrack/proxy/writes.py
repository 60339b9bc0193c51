"""Mirrored writes other than files: a small JSON body, journaled around the primary.

body read ─▶ journal.open ─▶ primary ─▶ journal.settle ─▶ answer
"""

import time

import structlog
from aiohttp import web

from dualtrack.core.exchange import Exchange
from dualtrack.core.routes import Match
from dualtrack.errors import JournalFullError
from dualtrack.metrics import Metrics
from dualtrack.ports import Settlement
from dualtrack.proxy.answers import replaced
from dualtrack.proxy.bracket import Bracket, Mirroring, Opened
from dualtrack.proxy.errors import Refusal, unavailable
from dualtrack.proxy.forward import api_path, read_body
from dualtrack.proxy.primary import Primary, Rules
from dualtrack.proxy.roots import Roots
from dualtrack.translate.document import MalformedError
from dualtrack.translate.operations import made_by, read

log = structlog.get_logger("dualtrack.proxy")


class WriteRoutes:
    """Answers what `core.routes` calls MIRROR. `rewrites` says whether clients see roots of the proxy's own."""

    def __init__(
        self,
        primary: Primary,
        mirroring: Mirroring,
        bracket: Bracket,
        roots: Roots,
        rules: Rules,
        metrics: Metrics,
        *,
        rewrites: bool,
    ) -> None:
        self._primary = primary
        self._intake = mirroring.intake
        self._bracket = bracket
        self._roots = roots
        self._rules = rules
        self._rewrites = rewrites
        self._overhead = metrics.overhead.labels("mirrored")

    async def handle(self, request: web.BaseRequest, match: Match, path: str, query: str) -> web.StreamResponse:
        """Answer one write. Raises `Refusal`, `JournalError`, and what reaching the primary raises."""
        body = await read_body(request, self._rules.max_body, self._rules.body_timeout)
        started = time.perf_counter()
        if self._rewrites:
            body = await self._roots.inward_body(body)
        exchange = Exchange(
            operation=match.route.operation, method=request.method, path=api_path(path), query=query, body=body
        )
        try:
            reading = read(exchange)
        except MalformedError as error:
            raise Refusal(400, "MALFORMED_REQUEST", str(error)) from error
        target = f"{path}?{query}" if query else path
        try:
            entry_id = await self._intake.open(exchange)
        except JournalFullError as error:
            return await self._without_journal(request, target, body, error)
        opened = Opened(entry_id, reading.subject.key if reading.subject is not None else None)
        response = await self._bracket.around(
            opened,
            lambda: self._primary.ask(request, target, body),
            lambda answer: self._settlement(exchange, opened, answer),
        )
        if opened.key is None:
            self._roots.forget_found()  # what was made has a root, whether its answer is read for it or not
        response = await self._shown(response)
        self._overhead.observe(time.perf_counter() - started - opened.upstream_seconds)
        return response

    async def _shown(self, response: web.Response) -> web.Response:
        if self._rewrites and isinstance(response.body, bytes):
            return replaced(response, await self._roots.outward(response.body))
        return response

    def _settlement(self, exchange: Exchange, opened: Opened, response: web.Response) -> Settlement:
        if opened.key is not None:
            return Settlement(entry_id=opened.entry_id, key=opened.key)
        body = response.body
        answered = Exchange(
            operation=exchange.operation,
            method=exchange.method,
            path=exchange.path,
            query=exchange.query,
            body=exchange.body,
            answer=body if isinstance(body, bytes) else b"",
        )
        made = made_by(answered, self._primary.name)
        if made is None:
            raise MalformedError("the primary's answer names no id")
        return Settlement(entry_id=opened.entry_id, key=made.ref.key, exchange=answered, twins=(made,))

    async def _without_journal(
        self, request: web.BaseRequest, target: str, body: bytes, error: JournalFullError
    ) -> web.StreamResponse:
        """The journal is full: refuse, or go on with the primary alone, as the configuration says."""
        if not self._rules.passes_when_full:
            message = f"{error}; store.on_full is `refuse`. `dualtrack status` shows what it waits for"
            raise unavailable(message, retry_after=30) from error
        log.error("proxy.primary_only", error=str(error))
        response = await self._shown(await self._primary.ask(request, target, body))
        self._bracket.lost("journal_full")
        return response
