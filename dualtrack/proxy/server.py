"""One catch-all handler: classify, journal what is mirrored, pass everything on.

    mirror     body read ─▶ journal.open ─▶ primary ─▶ journal.settle ─▶ answer     X-Dualtrack: mirrored
    registry   to the one registry, never journaled                                registry
    local      /version                                                            read
    the rest   streamed to the primary; unknown paths too, and counted             read | primary-only

What the client sees never waits for a secondary. A write whose answer from the primary is lost is left open and
handed to the settler; the client gets a 503 and repeats it.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import structlog
from aiohttp import web

from dualtrack.core.entry import OpenEntry
from dualtrack.core.exchange import Exchange
from dualtrack.core.routes import Goes, Kind, Match, classify
from dualtrack.errors import BackendError, JournalError, JournalFullError, UnauthorizedError, UnreachableError
from dualtrack.metrics import Metrics
from dualtrack.ports import Clock, Intake, Settlement, Upstream
from dualtrack.proxy.errors import Refusal, unavailable
from dualtrack.proxy.forward import ClientGoneError, pass_on, read_body, request_headers, response_headers
from dualtrack.proxy.guard import Guard
from dualtrack.proxy.registry import RegistryRelay
from dualtrack.translate.document import MalformedError
from dualtrack.translate.operations import made_by, read

log = structlog.get_logger("dualtrack.proxy")

_RETRY_MIN, _RETRY_MAX = 2.0, 60.0


class Doubts(Protocol):
    """Takes writes whose outcome at the primary is not known."""

    def take(self, entry: OpenEntry) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Bounds and policies of the hot path. Sizes in bytes, times in seconds."""

    max_body: int
    body_timeout: float
    forwards_credentials: bool
    passes_when_full: bool


@dataclass(slots=True)
class Outage:
    """Since when the primary has not answered: a client that repeats waits as long as it has lasted so far."""

    since: float | None = None

    def retry_after(self, now: float) -> float:
        if self.since is None:
            self.since = now
        return min(_RETRY_MAX, max(_RETRY_MIN, now - self.since))

    def is_over(self) -> None:
        self.since = None


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


class Proxy:
    """Answers clients. `registry` relays to a registry on a secondary; None means that the primary is the registry.

    `mirroring` is None when there is one backend alone: then nothing is journaled. `version` answers `/version`.
    """

    def __init__(
        self,
        primary: Upstream,
        guard: Guard,
        rules: Rules,
        clock: Clock,
        metrics: Metrics,
        *,
        version: Callable[[], str],
        mirroring: Mirroring | None = None,
        registry: RegistryRelay | None = None,
    ) -> None:
        self._primary = primary
        self._guard = guard
        self._rules = rules
        self._clock = clock
        self._metrics = metrics
        self._version = version
        self._mirroring = mirroring
        self._registry = registry
        self._outage = Outage()
        self._observed: dict[tuple[str, str], tuple[Callable[[], None], Callable[[float], None]]] = {}
        self._overhead = metrics.overhead.labels("mirrored")

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request, whatever it is."""
        started = time.perf_counter()
        path, _, query = request.raw_path.partition("?")
        while path.startswith("//"):  # servers take leading slashes for one (facts section 1)
            path = path[1:]
        match = classify(request.method, path)
        operation = match.route.operation if match else "unknown"
        try:
            _check_target(request.method, request.raw_path)
            objection = self._guard.objection(request.method, request.headers)
            if objection is not None:
                raise Refusal(*objection)
            response = await self._route(request, match, path, query)
        except Refusal as refusal:
            response = refusal.response()
        except JournalError as error:
            log.error("proxy.journal", operation=operation, error=str(error))
            response = unavailable(f"the write could not be kept: {error}", retry_after=30).response()
        except BackendError as error:
            response = self._unreachable(error, operation).response()
        except ClientGoneError:
            response = web.Response(status=499)  # never sent; counted
        except Exception:  # the outermost edge of a request: whatever nobody foresaw is still an MLflow error
            log.exception("proxy.unforeseen", operation=operation)
            message = "dualtrack failed in a way that nobody foresaw; its log has the traceback"
            response = Refusal(500, "INTERNAL_ERROR", message).response()
        self._observe(operation, response, started)
        return response

    def _observe(self, operation: str, response: web.StreamResponse, started: float) -> None:
        outcome = (
            response.headers.get("X-Dualtrack", "read") if response.status < 400 else f"{response.status // 100}xx"
        )
        cached = self._observed.get((operation, outcome))
        if cached is None:
            count = self._metrics.requests.labels(operation, outcome).inc
            cached = self._observed[operation, outcome] = (
                count,
                self._metrics.request_duration.labels(outcome).observe,
            )
        cached[0]()
        cached[1](time.perf_counter() - started)

    def _unreachable(self, error: BackendError, operation: str) -> Refusal:
        log.warning("proxy.unreachable", backend=error.backend, operation=operation, error=str(error))
        if error.backend != self._primary.name:
            return unavailable(f"the registry {error.backend} cannot be reached: {error.cause}", 10, "registry")
        words = "cannot be signed in to" if isinstance(error, UnauthorizedError) else "cannot be reached"
        retry_after = self._outage.retry_after(self._clock.now())
        return unavailable(f"the primary {error.backend} {words}: {error.cause}", retry_after)

    async def _route(self, request: web.BaseRequest, match: Match | None, path: str, query: str) -> web.StreamResponse:
        target = f"{path}?{query}" if query else path
        if match is None:
            self._metrics.unknown_routes.inc()
            return await self._pass(request, target, "primary-only")
        match match.route.goes:
            case Goes.MIRROR if self._mirroring is not None:
                return await self._mirror(request, match, path, query, self._mirroring)
            case Goes.REGISTRY:
                return await self._to_registry(request, match, path, query)
            case Goes.LOCAL:
                headers = {"X-Dualtrack": "read"}
                return web.Response(text=self._version(), headers=headers)
            case Goes.UNMIRRORED:
                return await self._unmirrored(request, target)
            case _:
                label = "primary-only" if match.route.kind is Kind.WRITE else "read"
                return await self._pass(request, target, label)

    async def _pass(self, request: web.BaseRequest, target: str, label: str) -> web.StreamResponse:
        response = await pass_on(
            request,
            self._primary,
            target,
            label,
            forwards_credentials=self._rules.forwards_credentials,
            body_seconds=self._rules.body_timeout,
        )
        self._outage.is_over()
        return response

    async def _unmirrored(self, request: web.BaseRequest, target: str) -> web.StreamResponse:
        response = await self._pass(request, target, "primary-only")
        if response.status < 400 and self._mirroring is not None:
            for backend in self._mirroring.secondaries:
                self._metrics.losses.labels(backend, "unmirrored_route").inc()
        return response

    async def _to_registry(self, request: web.BaseRequest, match: Match, path: str, query: str) -> web.StreamResponse:
        target = f"{path}?{query}" if query else path
        if self._registry is None:
            return await self._pass(request, target, "registry")
        if match.route.path == "/model-versions/get-artifact":
            return await self._registry.download(request, target)
        body = await read_body(request, self._rules.max_body, self._rules.body_timeout)
        try:
            return await self._registry.relay(request, api_path(path), query, body)
        except Refusal:
            self._metrics.registry_refused.labels("not_arrived").inc()
            raise

    # --- mirrored writes ----------------------------------------------------------------------------------------

    async def _mirror(
        self, request: web.BaseRequest, match: Match, path: str, query: str, mirroring: Mirroring
    ) -> web.StreamResponse:
        body = await read_body(request, self._rules.max_body, self._rules.body_timeout)
        started = time.perf_counter()
        exchange = Exchange(
            operation=match.route.operation, method=request.method, path=api_path(path), query=query, body=body
        )
        try:
            reading = read(exchange)
        except MalformedError as error:
            raise Refusal(400, "MALFORMED_REQUEST", str(error)) from error
        try:
            entry_id = await mirroring.intake.open(exchange)
        except JournalFullError as error:
            return await self._without_journal(request, path, query, body, error, mirroring)
        opened = Opened(entry_id, reading.subject.key if reading.subject is not None else None)
        response = await self._bracketed(request, path, query, exchange, opened, mirroring)
        self._overhead.observe(time.perf_counter() - started - opened.upstream_seconds)
        return response

    async def _bracketed(
        self,
        request: web.BaseRequest,
        path: str,
        query: str,
        exchange: Exchange,
        opened: Opened,
        mirroring: Mirroring,
    ) -> web.StreamResponse:
        """Ask the primary and settle the entry with what it says."""
        intake = mirroring.intake
        try:
            asked = time.perf_counter()
            response = await self._ask(request, path, query, exchange.body)
            opened.upstream_seconds = time.perf_counter() - asked
        except UnreachableError as error:
            if error.sent:
                mirroring.doubts.take(intake.doubt(opened.entry_id, opened.key))
            else:
                intake.refuse(opened.entry_id)
            raise
        except UnauthorizedError:
            intake.refuse(opened.entry_id)
            raise
        except BaseException:
            mirroring.doubts.take(intake.doubt(opened.entry_id, opened.key))
            raise
        if response.status >= 500:
            mirroring.doubts.take(intake.doubt(opened.entry_id, opened.key))
            return response
        if response.status >= 300:
            intake.refuse(opened.entry_id)
            return response
        await self._settle(exchange, opened, response, mirroring)
        return response

    async def _settle(self, exchange: Exchange, opened: Opened, response: web.Response, mirroring: Mirroring) -> None:
        try:
            await mirroring.intake.settle(self._settlement(exchange, opened, response))
        except MalformedError:
            # the primary made something and did not say what: that is for the settler to find out
            mirroring.doubts.take(mirroring.intake.doubt(opened.entry_id, opened.key))
        except JournalError:
            mirroring.doubts.take(mirroring.intake.doubt(opened.entry_id, opened.key))
            if not self._rules.passes_when_full:
                raise
            for backend in mirroring.secondaries:
                self._metrics.losses.labels(backend, "journal_full").inc()
            response.headers["X-Dualtrack"] = "primary-only"
            return
        response.headers["X-Dualtrack"] = "mirrored"

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

    async def _ask(self, request: web.BaseRequest, path: str, query: str, body: bytes) -> web.Response:
        """Send a mirrored write to the primary and read its whole answer, which is small."""
        headers = request_headers(request.headers, forwards_credentials=self._rules.forwards_credentials)
        # a create's answer is read, so it must not come compressed
        headers["Accept-Encoding"] = "identity"
        headers.popall("Content-Length", None)
        target = f"{path}?{query}" if query else path
        reply = await self._primary.exchange(request.method, target, headers, body)
        self._outage.is_over()
        return web.Response(
            status=reply.status,
            reason=reply.reason,
            headers=response_headers(reply.headers, "primary-only"),
            body=reply.body,
        )

    async def _without_journal(
        self,
        request: web.BaseRequest,
        path: str,
        query: str,
        body: bytes,
        error: JournalFullError,
        mirroring: Mirroring,
    ) -> web.StreamResponse:
        """The journal is full: refuse, or go on with the primary alone, as the configuration says."""
        if not self._rules.passes_when_full:
            message = f"{error}; store.on_full is `refuse`. `dualtrack status` shows what it waits for"
            raise unavailable(message, retry_after=30) from error
        log.error("proxy.primary_only", error=str(error))
        response = await self._ask(request, path, query, body)
        for backend in mirroring.secondaries:
            self._metrics.losses.labels(backend, "journal_full").inc()
        return response


def _check_target(method: str, target: str) -> None:
    """Let through only what means the same to us and to a backend: an absolute path, in ASCII, without a fragment."""
    if method in {"CONNECT", "TRACE"}:
        raise Refusal(405, "ENDPOINT_NOT_FOUND", f"{method} is not served here")
    if not target.startswith("/") or "#" in target or not target.isascii():
        message = "a request target is a path that starts with a slash; percent-encode what is not plain ASCII, and #"
        raise Refusal(400, "MALFORMED_REQUEST", message)


def api_path(path: str) -> str:
    """The path as clients other than the UI spell it: `/ajax-api/…` is `/api/…` on every server."""
    return path.replace("/ajax-api/", "/api/", 1) if path.startswith("/ajax-api/") else path


class BoundedServer(web.Server):
    """aiohttp's low-level server with a bound on connections; one too many is closed at once."""

    def __init__(self, proxy: Proxy, *, max_connections: int, max_headers: int, idle_timeout: float) -> None:
        super().__init__(
            proxy.handle,
            access_log=None,
            keepalive_timeout=idle_timeout,
            max_line_size=max_headers,
            max_field_size=max_headers,
            auto_decompress=False,
            lingering_time=2.0,
            read_bufsize=256 * 1024,
        )
        self._max_connections = max_connections

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        if len(self.connections) > self._max_connections:
            log.warning("proxy.too_many_connections", limit=self._max_connections)
            # not at once: aiohttp starts the handler of a connection right after this, and expects it to be open
            asyncio.get_running_loop().call_soon(transport.abort)
