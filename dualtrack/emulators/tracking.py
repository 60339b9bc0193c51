"""A façade over a real `mlflow server`: who may enter, under which names, and what goes wrong on the way.

Forwards everything it does not refuse, streamed both ways, and keeps a log that tests read on the same port. What a
particular cloud does differently is its `Dialect` (`Plain`, `databricks.Databricks`, `azureml.AzureML`). It never keeps
runs or experiments itself: ids and stored data are the real server's. JSON bodies are held in memory, for the log, the
naming rules and the duplicate counters; all others pass in chunks.

    GET    /__emulator__/log?since=N&wait=S   requests with a number above N; waits up to S seconds for one
    DELETE /__emulator__/log                  forget requests and duplicates
    POST   /__emulator__/faults               set the rules (see `faults`); they replace the ones before
    DELETE /__emulator__/faults               no rules; calls in a black hole are dropped
    GET    /__emulator__/duplicates?examples=N  metric points and marked runs, experiments and models, stored twice
    POST   /__emulator__/tokens               take one more: {"token": …, "lifetime": seconds, "who": …}
    DELETE /__emulator__/tokens               end all that were issued
    GET    /__emulator__/identity?resource=R  issue one, as a managed identity's endpoint does (`IDENTITY_ENDPOINT`)
"""

import asyncio
import io
import json
import re
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any, Protocol, TypeAlias, assert_never
from urllib.parse import parse_qsl

from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout, DummyCookieJar, TCPConnector, web

from dualtrack.emulators.faults import (
    BlackHole,
    Body,
    Decision,
    DropAfter,
    DropBefore,
    Partial,
    Refuse,
    Rule,
    Spoil,
    decide,
    name_of,
    parse_rules,
)
from dualtrack.emulators.record import EXAMPLES_MAX, Duplicates, RequestLog, parse_object
from dualtrack.emulators.spoilt import spoil
from dualtrack.emulators.tokens import Tokens

JSON: TypeAlias = Any

CHUNK_BYTES = 64 * 1024
JSON_BYTES_MAX = 64 * 1024 * 1024
# uvicorn closes idle connections after 5 s; a POST on a connection that just went is not ours to repeat.
KEEPALIVE_SECONDS = 2
AT_ONCE = struct.pack("ii", 1, 0)  # of SO_LINGER: a close sends RST
# calls that middlewares see; the files among them, and all of the UI, are no JSON and stream
OF_API, OF_FILES = re.compile(r"/api/|[a-z]+:"), "/mlflow-artifacts/"
HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
# The real server checks Host and Origin, and has no use for the façade's token.
NOT_FORWARDED = HOP_BY_HOP | {"host", "origin", "authorization", "cookie", "expect"}
CODES = {
    400: "BAD_REQUEST",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "RESOURCE_DOES_NOT_EXIST",
    409: "RESOURCE_CONFLICT",
    429: "REQUEST_LIMIT_EXCEEDED",
    500: "INTERNAL_ERROR",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request as a dialect sees it: `path` on the real server, the JSON body as an object and its size in bytes."""

    method: str
    path: str
    document: Mapping[str, JSON] = field(default_factory=dict)
    query: Mapping[str, JSON] = field(default_factory=dict)
    size: int = 0

    def asked(self, name: str) -> str:
        """What the query says of a name, or else the body; nothing is an empty text."""
        return str(self.query.get(name) or self.document.get(name) or "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer of the façade's own; `document` None is an empty body."""

    status: int
    document: JSON = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def to_response(self, headers: Mapping[str, str] | None = None) -> web.Response:
        told = {**self.headers, **(headers or {})}
        if self.document is None:
            return web.Response(status=self.status, headers=told)
        return web.json_response(self.document, status=self.status, headers=told)


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """A call goes on to the real server with another JSON body."""

    document: Mapping[str, JSON]


class Dialect(Protocol):
    """What one kind of backend does differently."""

    def locate(self, path: str) -> str | None:
        """Give the path on the real server, or None for a path that this backend does not have."""

    def unknown(self) -> Reply:
        """Answer a path that this backend does not have."""

    def unauthorized(self) -> Reply:
        """Answer a call without the right token."""

    def answer(self, call: Call) -> Reply | Changed | None:
        """Refuse a call, answer it in the real server's place, or change it; None lets it through."""

    def error(self, status: int, code: str, message: str) -> Reply:
        """Put an error into this backend's shape."""


Ask: TypeAlias = Callable[[str], Awaitable[Mapping[str, JSON]]]


class Site(Protocol):
    """What a backend serves beside MLflow's API, and where its files lie."""

    async def serve(
        self, request: web.Request, body: bytes | None, ask: Ask, *, is_signed_in: bool
    ) -> web.StreamResponse | bool | None:
        """Answer a call; None is for MLflow's API, False for nobody without a token. `ask` reads the real server."""

    def rewrite(self, host: str, document: JSON) -> JSON:
        """Put the site's own addresses into an answer of the real server."""

    def close(self) -> None: ...


# What reaches the real server, or one middleware less than before, and what comes back.
Send: TypeAlias = Callable[[Call], Awaitable[Reply]]
# One on the way there: changes the call or the answer, or answers itself. MLflow's JSON calls pass here, files do not.
Middleware: TypeAlias = Callable[[Call, Send], Awaitable[Reply]]


class Plain:
    """A plain MLflow server behind a token."""

    def locate(self, path: str) -> str | None:
        return path

    def unknown(self) -> Reply:
        return self.error(404, "ENDPOINT_NOT_FOUND", "No such endpoint.")

    def unauthorized(self) -> Reply:
        return self.error(401, "UNAUTHENTICATED", "Credential was not sent or is not valid.")

    def answer(self, call: Call) -> Reply | Changed | None:  # noqa: ARG002 - the protocol's
        return None

    def error(self, status: int, code: str, message: str) -> Reply:
        return Reply(status=status, document={"error_code": code, "message": message})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One emulator. `token` is good for ever; `tokens` are given instead where some end, or are issued elsewhere.

    `rules` are the faults that it begins with.
    """

    upstream: str
    token: str = field(default="", repr=False)
    dialect: Dialect = field(default_factory=Plain)
    site: Site | None = None
    middlewares: tuple[Middleware, ...] = ()  # the first is the outermost
    tokens: Tokens | None = field(default=None, repr=False)
    rules: tuple[Rule, ...] = ()


def named_experiment(call: Call) -> str | None:
    """Give the experiment name that a call asks for: the new one of a create or a rename."""
    if call.method != "POST":
        return None
    if call.path.endswith("/experiments/create"):
        return str(call.document.get("name", ""))
    if call.path.endswith("/experiments/update"):
        return str(call.document.get("new_name", ""))
    return None


def make_app(settings: Settings) -> web.Application:
    """Build the façade as an aiohttp application; serve it on a loopback address."""
    emulator = _Emulator(settings)
    app = web.Application(client_max_size=JSON_BYTES_MAX)
    app.router.add_get("/__emulator__/log", emulator.show_log)
    app.router.add_delete("/__emulator__/log", emulator.clear_log)
    app.router.add_post("/__emulator__/faults", emulator.set_faults)
    app.router.add_delete("/__emulator__/faults", emulator.clear_faults)
    app.router.add_get("/__emulator__/duplicates", emulator.show_duplicates)
    app.router.add_post("/__emulator__/tokens", emulator.add_token)
    app.router.add_delete("/__emulator__/tokens", emulator.revoke_tokens)
    app.router.add_get("/__emulator__/identity", emulator.issue_token)
    app.router.add_route("*", "/{path:.*}", emulator.handle)
    app.cleanup_ctx.append(emulator.connect)
    app.on_shutdown.append(emulator.release)
    return app


class _Emulator:
    """One façade: its rules, its memory, its connection to the real server."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._dialect = settings.dialect
        self._log = RequestLog()
        self._duplicates = Duplicates()
        self._tokens = settings.tokens or Tokens(*filter(None, [settings.token]))
        self._rules = settings.rules
        self._counts = (0,) * len(settings.rules)
        self._released = asyncio.Event()
        self._changed = asyncio.Event()
        self._session: ClientSession
        self._send: Send = self._deliver
        for middleware in reversed(settings.middlewares):
            self._send = _behind(middleware, self._send)

    async def connect(self, _app: web.Application) -> AsyncIterator[None]:
        self._session = ClientSession(
            connector=TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_SECONDS),
            cookie_jar=DummyCookieJar(),
            timeout=ClientTimeout(total=None),
            auto_decompress=False,
        )
        async with self._session:
            yield
        if self._settings.site is not None:
            self._settings.site.close()

    async def release(self, _app: web.Application) -> None:
        """Let go of the calls in a black hole, so that a stop does not wait for them."""
        self._released.set()
        self._wake()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        path, _, query = request.raw_path.partition("?")
        number = self._log.open(request.method, path, query, tuple(request.headers.keys()))
        is_json = request.content_type in {"application/json", "application/json-patch+json"}
        body = await request.read() if is_json else None
        self._log.note_body(number, body or b"")
        decision = decide(self._rules, self._counts, request.method, path)
        self._counts = decision.counts
        self._wake()  # from here on, what the rules say is settled for this call
        try:
            return await self._suffer(request, number, body, decision)
        finally:
            self._wake()

    async def _suffer(
        self, request: web.Request, number: int, body: bytes | None, decision: Decision
    ) -> web.StreamResponse:
        """Do what the fault decision says, or else the work."""
        if decision.action is not None:
            self._log.note(number, fault=name_of(decision.action))
        released = self._released
        await asyncio.sleep(decision.delay)
        match decision.action:
            case None:
                return await self._serve(request, number, body)
            case Spoil() as fault:
                return await spoil(request, await self._serve(request, number, body, is_kept=True), fault)
            case Partial() as fault:
                return await self._half_do(request, number, body, fault)
            case Refuse() as refusal:
                self._log.note(number, status=refusal.status)
                return self._refuse(refusal)
            case DropBefore(resets=resets):
                return _drop(request, resets=resets)
            case BlackHole():
                await released.wait()
                return _drop(request)
            case DropAfter(resets=resets):
                await self._serve(request, number, body, is_kept=True)
                return _drop(request, resets=resets)
            case other:
                assert_never(other)

    async def _half_do(self, request: web.Request, number: int, body: bytes | None, fault: Partial) -> web.Response:
        document = parse_object(body)
        if document.get(fault.keeps):
            kept = {key: document[key] for key in ("run_id", "run_uuid", fault.keeps) if key in document}
            await self._serve(request, number, json.dumps(kept).encode(), is_kept=True)
        self._log.note(number, status=fault.status)
        return self._refuse(Refuse(status=fault.status, code=fault.code))

    async def _serve(
        self, request: web.Request, number: int, body: bytes | None, *, is_kept: bool = False
    ) -> web.StreamResponse:
        """Do the work. `is_kept`: the answer comes whole, not sent, for whoever decides what becomes of it."""
        if (served := await self._beside(request, body)) is not None:
            self._log.note(number, status=served.status)
            return served
        path = self._dialect.locate(request.raw_path.partition("?")[0])
        call = None if path is None else _call(request, path, body)
        reply = self._judge(request, call)
        if isinstance(reply, Changed) and call is not None:
            body, call, reply = json.dumps(reply.document).encode(), replace(call, document=reply.document), None
        if reply is None and call is not None:
            if not self._settings.middlewares or OF_FILES in call.path or not OF_API.match(call.path):
                return await self._forward(request, number, call.path, body, is_kept=is_kept)
            reply = await self._pass(request, call)
        if isinstance(reply, Changed) or reply is None:
            reply = self._dialect.unknown()
        self._log.note(number, status=reply.status)
        return reply.to_response()

    async def _pass(self, request: web.Request, call: Call) -> Reply:
        """Let the middlewares and the real server answer, in this backend's own shapes and addresses."""
        reply = await self._send(call)
        if reply.status >= 400 or reply.document is None or self._settings.site is None:
            return reply
        return replace(reply, document=self._settings.site.rewrite(request.host, reply.document))

    async def _deliver(self, call: Call) -> Reply:
        """Ask the real server; its errors come in the dialect's shape, and anything but JSON as an empty body."""
        try:
            async with self._session.request(
                call.method,
                self._settings.upstream.rstrip("/") + call.path,
                params=call.query,
                json=call.document if call.document or call.method != "GET" else None,
            ) as answer:
                document = parse_object(await answer.read()) if answer.content_type == "application/json" else None
        except ClientError as exc:
            return self._dialect.error(503, "TEMPORARILY_UNAVAILABLE", f"upstream: {exc}")
        if answer.status < 300:
            self._duplicates.accept(call.path, call.document)
        if answer.status >= 400 and document:
            return self._dialect.error(
                answer.status, str(document.get("error_code", "")), str(document.get("message", ""))
            )
        return Reply(status=answer.status, document=document)

    async def _beside(self, request: web.Request, body: bytes | None) -> web.StreamResponse | None:
        """Let the site answer what is its own."""
        if self._settings.site is None:
            return None
        served = await self._settings.site.serve(request, body, self._ask, is_signed_in=self._is_signed_in(request))
        if isinstance(served, bool):
            return self._dialect.unauthorized().to_response()
        return served

    async def _ask(self, path: str) -> Mapping[str, JSON]:
        path, _, query = path.partition("?")
        reply = await self._send(Call(method="GET", path=path, query=dict(parse_qsl(query))))
        return reply.document if reply.status == 200 and isinstance(reply.document, dict) else {}

    def _is_signed_in(self, request: web.Request) -> bool:
        return self._tokens.grant(request.headers.get("Authorization", "")) is not None

    def _judge(self, request: web.Request, call: Call | None) -> Reply | Changed | None:
        """Answer what never reaches the real server."""
        if call is None:
            return self._dialect.unknown()
        if not self._is_signed_in(request):
            return self._dialect.unauthorized()
        return self._dialect.answer(call)

    async def _forward(
        self, request: web.Request, number: int, path: str, body: bytes | None, *, is_kept: bool
    ) -> web.StreamResponse:
        query = request.raw_path.partition("?")[2]
        target = self._settings.upstream.rstrip("/") + path + (f"?{query}" if query else "")
        read = io.BytesIO(body) if body is not None else None  # aiohttp wants no large bytes
        payload = request.content if read is None and request.can_read_body else read
        try:
            async with self._session.request(
                request.method,
                type(request.url)(target, encoded=True),  # aiohttp's URL type; the path goes on as it came
                headers=_without(request.headers, NOT_FORWARDED | ({"content-length"} if read is not None else set())),
                data=payload,
                allow_redirects=False,
                skip_auto_headers=("Content-Type", "User-Agent", "Accept", "Accept-Encoding"),
            ) as answer:
                self._log.note(number, status=answer.status)
                if answer.status < 300:
                    self._duplicates.accept(path, parse_object(body))
                return await self._relay(request, answer, is_kept=is_kept)
        except ClientError as exc:
            reply = self._dialect.error(503, "TEMPORARILY_UNAVAILABLE", f"upstream: {exc}")
            self._log.note(number, status=reply.status)
            return reply.to_response()

    async def _relay(self, request: web.Request, answer: ClientResponse, *, is_kept: bool) -> web.StreamResponse:
        if answer.status >= 400:
            return self._reshape(answer, await answer.read())
        if self._settings.site is not None and answer.content_type == "application/json":
            return self._rewritten(self._settings.site, request, answer, await answer.read())
        if is_kept:
            headers = _without(answer.headers, HOP_BY_HOP | {"content-length"})
            return web.Response(status=answer.status, headers=headers, body=await answer.read())
        response = web.StreamResponse(status=answer.status, headers=_without(answer.headers, HOP_BY_HOP))
        await response.prepare(request)
        async for chunk in answer.content.iter_chunked(CHUNK_BYTES):
            await response.write(chunk)
        await response.write_eof()
        return response

    def _rewritten(self, site: Site, request: web.Request, answer: ClientResponse, body: bytes) -> web.Response:
        headers = _without(answer.headers, HOP_BY_HOP | {"content-length", "content-type"})
        document = site.rewrite(request.host, parse_object(body))
        return web.json_response(document, status=answer.status, headers=headers)

    def _reshape(self, answer: ClientResponse, body: bytes) -> web.Response:
        """Put the real server's JSON error into the dialect's shape; leave other bodies alone."""
        document = parse_object(body)
        if "error_code" in document:
            return self._dialect.error(
                answer.status, str(document["error_code"]), str(document.get("message", ""))
            ).to_response()
        headers = _without(answer.headers, HOP_BY_HOP | {"content-length"})
        return web.Response(status=answer.status, headers=headers, body=body)

    def _refuse(self, refusal: Refuse) -> web.Response:
        headers = {"Retry-After": refusal.retry_after} if refusal.retry_after else {}
        match refusal.body:
            case Body.JSON:
                code = refusal.code or CODES.get(refusal.status, "TEMPORARILY_UNAVAILABLE")
                reply = self._dialect.error(refusal.status, code, "A fault that a test asked for.")
                return reply.to_response(headers)
            case Body.HTML:
                text = f"<html><body><h1>{refusal.status}</h1></body></html>"
                return web.Response(status=refusal.status, headers=headers, text=text, content_type="text/html")
            case Body.EMPTY:
                return web.Response(status=refusal.status, headers=headers)
            case Body.XML:
                text = f"<Error><Code>{refusal.code or 'AuthenticationFailed'}</Code></Error>"
                return web.Response(status=refusal.status, headers=headers, text=text, content_type="application/xml")
            case other:
                assert_never(other)

    async def show_log(self, request: web.Request) -> web.Response:
        since = int(request.query.get("since", "0"))
        deadline = asyncio.get_running_loop().time() + float(request.query.get("wait", "0"))
        while not (seen := self._log.since(since)) and not self._released.is_set():
            try:
                async with asyncio.timeout_at(deadline):
                    await self._changed.wait()
            except TimeoutError:
                break
        return web.json_response({"requests": seen})

    async def clear_log(self, _request: web.Request) -> web.Response:
        self._log.clear()
        self._duplicates.clear()
        return web.json_response({})

    async def set_faults(self, request: web.Request) -> web.Response:
        try:
            self._rules = parse_rules(await request.json())
        except ValueError as exc:
            return web.json_response({"message": str(exc)}, status=400)
        self._counts = (0,) * len(self._rules)
        return web.json_response({"rules": len(self._rules)})

    async def clear_faults(self, _request: web.Request) -> web.Response:
        self._rules = self._counts = ()
        self._released.set()
        self._released = asyncio.Event()
        return web.json_response({"rules": 0})

    async def show_duplicates(self, request: web.Request) -> web.Response:
        return web.json_response(self._duplicates.report(int(request.query.get("examples", EXAMPLES_MAX))))

    async def add_token(self, request: web.Request) -> web.Response:
        given = parse_object(await request.read())
        lifetime = float(given.get("lifetime", inf))
        self._tokens.add(str(given["token"]), lifetime=lifetime, who=str(given.get("who", "")))
        return web.json_response({})

    async def revoke_tokens(self, _request: web.Request) -> web.Response:
        self._tokens.revoke()
        return web.json_response({})

    async def issue_token(self, request: web.Request) -> web.Response:
        """Issue a token for a resource, in the words of App Service's endpoint for managed identities."""
        resource = request.query.get("resource", "")
        if "X-IDENTITY-HEADER" not in request.headers:
            return web.json_response({"error": "invalid_request"}, status=400)
        token, ends_at = self._tokens.issue(who="demo-identity", audience=resource), time.time() + self._tokens.lifetime
        told = {"access_token": token, "token_type": "Bearer", "resource": resource, "expires_on": str(int(ends_at))}
        return web.json_response(told)

    def _wake(self) -> None:
        """Tell whoever waits for the log; the next one waits for a fresh event."""
        self._changed.set()
        self._changed = asyncio.Event()


def _call(request: web.Request, path: str, body: bytes | None) -> Call:
    document = parse_object(body)
    return Call(method=request.method, path=path, document=document, query=request.query, size=len(body or b""))


def _behind(middleware: Middleware, send: Send) -> Send:
    async def passed(call: Call) -> Reply:
        return await middleware(call, send)

    return passed


def _drop(request: web.Request, *, resets: bool = False) -> web.StreamResponse:
    """Close the connection with no answer, or break it; what is returned finds nobody to read it."""
    if request.transport is not None:
        if resets:
            request.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
        request.transport.abort()
    return web.Response(status=500)


def _without(headers: Mapping[str, str], names: frozenset[str] | set[str]) -> list[tuple[str, str]]:
    return [(name, value) for name, value in headers.items() if name.lower() not in names]
