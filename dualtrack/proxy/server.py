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

import structlog
from aiohttp import web

from dualtrack.core.routes import Goes, Kind, Match, classify
from dualtrack.errors import BackendError, JournalError, UnauthorizedError
from dualtrack.metrics import Metrics
from dualtrack.proxy.answers import READINGS, read_back
from dualtrack.proxy.artifacts import ArtifactRoutes
from dualtrack.proxy.bracket import Bracket
from dualtrack.proxy.errors import Refusal, unavailable
from dualtrack.proxy.forward import ClientGoneError, api_path, read_body
from dualtrack.proxy.guard import Guard
from dualtrack.proxy.lacking import check_registry, within_pages
from dualtrack.proxy.primary import Primary, Rules
from dualtrack.proxy.registry import RegistryRelay
from dualtrack.proxy.roots import Reading, Roots
from dualtrack.proxy.writes import WriteRoutes

log = structlog.get_logger("dualtrack.proxy")

_DOWNLOAD = "getModelVersionArtifact"
# why a registry call is refused
_UNITY_CATALOG, _NOT_ARRIVED = "unity_catalog", "not_arrived"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirrored:
    """What a proxy with at least one secondary has besides its primary. `rewrites`: clients see roots of its own."""

    writes: WriteRoutes
    files: ArtifactRoutes
    roots: Roots
    bracket: Bracket
    rewrites: bool


class Proxy:
    """Answers clients. `registry` relays to a registry on a secondary; None means that the primary is the registry.

    `mirrored` is None when there is one backend alone: then nothing is journaled. `version` answers `/version`.
    """

    def __init__(
        self,
        primary: Primary,
        guard: Guard,
        rules: Rules,
        metrics: Metrics,
        *,
        version: Callable[[], str],
        mirrored: Mirrored | None = None,
        registry: RegistryRelay | None = None,
    ) -> None:
        self._primary = primary
        self._guard = guard
        self._rules = rules
        self._metrics = metrics
        self._version = version
        self._mirrored = mirrored
        self._registry = registry
        metrics.at_zero(metrics.registry_refused, (_UNITY_CATALOG, _NOT_ARRIVED))
        self._observed: dict[tuple[str, str], tuple[Callable[[], None], Callable[[float], None]]] = {}

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
        return unavailable(f"the primary {error.backend} {words}: {error.cause}", self._primary.retry_after())

    async def _route(self, request: web.BaseRequest, match: Match | None, path: str, query: str) -> web.StreamResponse:
        target = f"{path}?{query}" if query else path
        if match is None:
            self._check_registry(path)
            self._metrics.unknown_routes.inc()
            return await self._primary.pass_on(request, target, "primary-only")
        goes, mirrored = match.route.goes, self._mirrored
        if goes is Goes.LOCAL:
            return web.Response(text=self._version(), headers={"X-Dualtrack": "read"})
        if goes is Goes.REGISTRY:
            return await self._to_registry(request, match, path, query)
        if mirrored is not None:
            match goes:
                case Goes.MIRROR:
                    return await mirrored.writes.handle(request, match, path, query)
                case Goes.FILES:
                    return await mirrored.files.handle(request, match, path, query)
                case Goes.UNMIRRORED:
                    return await self._unmirrored(request, target, mirrored)
                case _:
                    reading = READINGS.get(match.route.operation)
                    if reading is not None:
                        return await self._rooted(request, path, query, reading, mirrored, "read")
        label = "primary-only" if match.route.kind is Kind.WRITE else "read"
        query = within_pages(match.route.operation, query, self._rules.history_page)
        return await self._primary.pass_on(request, f"{path}?{query}" if query else path, label)

    def _check_registry(self, path: str) -> None:
        try:
            check_registry(path)
        except Refusal:
            self._metrics.registry_refused.labels(_UNITY_CATALOG).inc()
            raise

    async def _unmirrored(self, request: web.BaseRequest, target: str, mirrored: Mirrored) -> web.StreamResponse:
        response = await self._primary.pass_on(request, target, "primary-only")
        if response.status < 400:
            mirrored.bracket.lost("unmirrored_route")
        return response

    async def _rooted(
        self,
        request: web.BaseRequest,
        path: str,
        query: str,
        reading: Reading,
        mirrored: Mirrored,
        label: str,
    ) -> web.StreamResponse:
        """Pass on a call in which artifact roots are named, with those that the primary knows, and translate back."""
        body = await read_body(request, self._rules.max_body, self._rules.body_timeout)
        if mirrored.rewrites:
            body, query = await mirrored.roots.inward_body(body), await mirrored.roots.inward_query(query)
        response = await self._primary.ask(request, f"{path}?{query}" if query else path, body, label)
        return await read_back(response, reading, mirrored.roots, rewrites=mirrored.rewrites)

    async def _to_registry(self, request: web.BaseRequest, match: Match, path: str, query: str) -> web.StreamResponse:
        target = f"{path}?{query}" if query else path
        mirrored = self._mirrored
        is_download = match.route.operation == _DOWNLOAD
        if self._registry is None or mirrored is None:
            if mirrored is None or is_download:
                return await self._primary.pass_on(request, target, "registry")
            return await self._rooted(request, path, query, Reading.SHOWN, mirrored, "registry")
        if is_download:
            return await self._registry.download(request, target)
        body = await read_body(request, self._rules.max_body, self._rules.body_timeout)
        if mirrored.rewrites:
            body, query = await mirrored.roots.inward_body(body), await mirrored.roots.inward_query(query)
        try:
            return await self._registry.relay(request, match, api_path(path), query, body)
        except Refusal:
            self._metrics.registry_refused.labels(_NOT_ARRIVED).inc()
            raise


def _check_target(method: str, target: str) -> None:
    """Let through only what means the same to us and to a backend: an absolute path, in ASCII, without a fragment."""
    if method in {"CONNECT", "TRACE"}:
        raise Refusal(405, "ENDPOINT_NOT_FOUND", f"{method} is not served here")
    if not target.startswith("/") or "#" in target or not target.isascii():
        message = "a request target is a path that starts with a slash; percent-encode what is not plain ASCII, and #"
        raise Refusal(400, "MALFORMED_REQUEST", message)


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
