"""One HTTP client per backend: bytes in, bytes out, foreign exceptions renamed, error bodies read once.

`stream` is what a client's request goes through; `exchange` is the short way for small whole ones, and `send` makes
dualtrack's own calls; `transfer` moves its own files. A 401, or what means the same (`refusals`), is answered by one
fresh token, where the request can be sent again. Redirects are never followed: one to a login page is the error that
it is (`login`). A pooled connection is given up after 4 s of rest, because uvicorn, which serves MLflow, closes its
side after 5 s, and a request that meets a closing connection cannot be told from a lost one.
"""

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache

import aiohttp
from multidict import CIMultiDict
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_random_exponential
from yarl import URL

from dualtrack.backends.auth import SignIn
from dualtrack.backends.login import leads_to_login, login_advice, refusal
from dualtrack.backends.pace import Pace
from dualtrack.backends.refusals import as_mlflow, error_of, is_about_token, may_be_about_token
from dualtrack.backends.wire import SilenceError, WireError, WirePool
from dualtrack.core.exchange import Answer, Call
from dualtrack.core.limits import Rate
from dualtrack.errors import UnauthorizedError, UnreachableError
from dualtrack.metrics import Metrics
from dualtrack.ports import Reply, Whole

_KEEPALIVE_SECONDS = 4.0
_MAX_REFUSAL = 64 * 1024
_CLASSES = (2, 3, 4, 5)  # of statuses
_JSON = ("Content-Type", "application/json")
_MAX_ANSWER = 256 * 1024 * 1024  # a page of 50,000 runs is some 100 MB


class HttpBackend:
    """A backend behind `base_url`. Times are seconds; `read_timeout` bounds each silence, not a whole transfer.

    `rates` are kept by our own calls, those of `send` and `transfer`. `rewords` says refusals in MLflow's shape, for a
    service that has one of its own.
    """

    def __init__(  # noqa: PLR0913 - each is a setting of its own
        self,
        name: str,
        base_url: str,
        sign_in: SignIn,
        metrics: Metrics,
        *,
        connect_timeout: float,
        read_timeout: float,
        call_timeout: float,
        connections: int,
        tls: ssl.SSLContext | bool,
        user_agent: str,
        rates: Sequence[Rate] = (),
        rewords: bool = False,
    ) -> None:
        self.name = name
        self.base_url = base_url
        self.sign_in = sign_in
        self._metrics = metrics
        self._pace = Pace(rates)
        self._rewords = rewords
        self._call_timeout = call_timeout
        self._read_timeout = read_timeout
        self._user_agent = user_agent
        self._answered = {number: metrics.upstream_calls.labels(name, f"{number}xx").inc for number in _CLASSES}
        self._unanswered = metrics.upstream_calls.labels(name, "unanswered").inc
        self._throttled = metrics.throttled.labels(name)
        self._waited = metrics.upstream_duration.labels(name)
        self._session = aiohttp.ClientSession(
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            connector=aiohttp.TCPConnector(limit=connections, keepalive_timeout=_KEEPALIVE_SECONDS, ssl=tls),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout, sock_read=read_timeout),
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            read_bufsize=256 * 1024,
        )
        self._wire = WirePool(
            base_url,
            tls=tls if isinstance(tls, ssl.SSLContext) else None,
            connect_timeout=connect_timeout,
            read_timeout=read_timeout,
            keepalive=_KEEPALIVE_SECONDS,
            limit=connections,
            max_body=_MAX_ANSWER,
        )
        self.is_up: bool | None = None
        self._signs = False
        self._is_signed_in: bool | None = None
        # nearly all writes go to a handful of targets; building a URL is a tenth of the cost of a call
        self._url = lru_cache(maxsize=256)(lambda target: _url_of(base_url, target))

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes | AsyncIterator[bytes] | None,
    ) -> AsyncIterator[Reply]:
        """Pass one request on. `headers` win over the backend's own sign-in where both name one.

        What reading `body` raises is raised here as it is: it is not the backend's fault.
        """
        own = await self._signature()
        watched = Watched(body) if isinstance(body, AsyncIterator) else None
        small = body if isinstance(body, bytes) else None
        response = await self._watched(method, target, _over(own, headers), watched, small)
        said = await self._said(response, method)
        if is_about_token(response.status, said):
            try:
                renewed = await self._renewed(own, headers)
            except BaseException:
                response.close()
                raise
            if renewed is not None and watched is None:  # a streamed body is gone; the token is there for the next one
                response.release()
                response = await self._watched(method, target, renewed, None, small)
                said = await self._said(response, method)
        self._judged(401 if is_about_token(response.status, said) else response.status)
        async with response:
            yield self._refused_login(response) or await self._as_told(self._reply(response, method, said), method)

    async def _renewed(self, own: Mapping[str, str], headers: Mapping[str, str]) -> CIMultiDict[str] | None:
        """After a 401: sign again; None when that changes nothing, or the credentials are the client's own."""
        if any(name.lower() == "authorization" for name in headers):
            return None
        fresh = await self._signature(fresh=True)
        return _over(fresh, headers) if fresh != own else None

    def _refused_login(self, response: aiohttp.ClientResponse) -> Reply | None:
        location = response.headers.get("Location", "")
        if not leads_to_login(response.status, location):
            return None
        whole = refusal(self.name, location)
        return Reply(status=whole.status, reason=whole.reason, headers=whole.headers, body=_once(whole.body))

    async def _as_told(self, reply: Reply, method: str) -> Reply:
        is_read = self._rewords and reply.status >= 400 and method != "HEAD" and _is_plain(reply)
        return await self._reworded(reply) if is_read else reply

    async def _reworded(self, reply: Reply) -> Reply:
        """A refusal, read whole and said in MLflow's shape; headers that told of its body are told anew."""
        body = b""
        async for chunk in reply.body:
            body += chunk
            if len(body) > _MAX_REFUSAL:
                break
        said = as_mlflow(self.name, reply.status, body)
        if said is None:
            return replace(reply, body=_once(body))
        return replace(reply, headers=(*_without_body(reply.headers), _JSON), body=_once(said))

    @asynccontextmanager
    async def transfer(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: Callable[[], AsyncIterator[bytes]] | None = None,
        *,
        from_root: bool = False,
    ) -> AsyncIterator[Reply]:
        """Make a call of our own whose body or answer may be large; after a 401 once more, with a fresh token.

        `from_root`: the target is a path of the host, for its other APIs, not one below the base url.
        A body of which nothing is taken for `read_timeout` ends the call as well: the session counts only from its
        end on. What the caller raises inside the block is the caller's, and travels on as it is.
        """
        sent = {"User-Agent": self._user_agent, **headers}

        async def once(own: Mapping[str, str]) -> aiohttp.ClientResponse:
            await self._pace.turn(target)
            watched = Watched(body()) if body is not None else None
            return await self._watched(method, target, {**own, **sent}, watched, from_root=from_root)

        response = await once(await self._signature())
        said = await self._said(response, method)
        if is_about_token(response.status, said):
            async with response:
                fresh = await self._signature(fresh=True)
            response = await once(fresh)
            said = await self._said(response, method)
        self._judged(401 if is_about_token(response.status, said) else response.status)
        async with response:
            yield self._reply(response, method, said)

    async def _watched(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        watched: "Watched | None",
        small: bytes | None = None,
        *,
        from_root: bool = False,
    ) -> aiohttp.ClientResponse:
        try:
            async with asyncio.timeout(None) as silence:
                data = watched.taken_within(self._read_timeout, silence) if watched is not None else small
                url = _url_of(str(URL(self.base_url).origin()), target) if from_root else self._url(target)
                return await self._begin(method, url, headers, data)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            if watched is not None and watched.error is not None:
                raise watched.error from None
            raise self._renamed(error, method, target, self._read_timeout) from error

    async def _begin(
        self, method: str, url: URL, headers: Mapping[str, str], body: bytes | AsyncIterator[bytes] | None
    ) -> aiohttp.ClientResponse:
        started = time.perf_counter()
        response = await self._session.request(method, url, headers=headers, data=body, allow_redirects=False)
        self._waited.observe(time.perf_counter() - started)
        self._saw(response.status)
        return response

    async def _said(self, response: aiohttp.ClientResponse, method: str) -> bytes:
        """Read what a refusal begins with, if it may be about the token; `_reply` passes it on."""
        said = b""
        if may_be_about_token(response.status):
            try:
                async for chunk in self._chunks(response, method):
                    said += chunk
                    if len(said) >= _MAX_REFUSAL:
                        break
            except BaseException:
                response.close()
                raise
        return said

    def _reply(self, response: aiohttp.ClientResponse, method: str, said: bytes = b"") -> Reply:
        """Answer what came; `said` is what was read of it already. A refusal of the token has one status here."""
        is_token = is_about_token(response.status, said)
        return Reply(
            status=401 if is_token else response.status,
            reason="Unauthorized" if is_token else response.reason or "",
            headers=tuple(response.headers.items()),
            body=self._chunks(response, method, said),
        )

    async def _chunks(self, response: aiohttp.ClientResponse, method: str, said: bytes = b"") -> AsyncIterator[bytes]:
        if said:
            yield said
        try:
            async for chunk in response.content.iter_any():
                yield chunk
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._renamed(error, method, str(response.url.path), self._read_timeout) from error

    async def send(self, call: Call) -> Answer:
        """Make one call. A read is repeated at once, twice, when its connection breaks; a write never is here."""
        if call.method != "GET":
            return await self._signed(call)
        async for attempt in AsyncRetrying(
            stop=stop_after_attempt(3),
            wait=wait_random_exponential(multiplier=0.05, max=0.5),
            retry=retry_if_exception(_is_broken),
            reraise=True,
        ):
            with attempt:
                return await self._signed(call)
        raise AssertionError("tenacity raises or returns")

    async def _signed(self, call: Call) -> Answer:
        headers = {"Content-Type": "application/json", "User-Agent": self._user_agent}
        answer = await self._ask(call, headers)
        if answer.status == 401:
            headers |= await self._signature(fresh=True)
            answer = await self._ask(call, headers)
        self._judged(answer.status)
        return answer

    async def exchange(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Whole:
        """Send one small request and read its whole answer; like `stream` otherwise."""
        own = await self._signature()
        whole = await self._exchanged(method, target, _over(own, headers), body)
        if whole.status == 401 and (renewed := await self._renewed(own, headers)) is not None:
            whole = await self._exchanged(method, target, renewed, body)
        self._judged(whole.status)
        if 300 <= whole.status < 400 and leads_to_login(whole.status, location := whole.header("Location")):
            return refusal(self.name, location)
        return whole

    async def _exchanged(self, method: str, target: str, headers: CIMultiDict[str], body: bytes) -> Whole:
        started = time.perf_counter()
        try:
            answer = await self._wire.exchange(method, target, headers.items(), body)
        except WireError as error:
            silent = self._read_timeout if isinstance(error, SilenceError) else 0.0
            raise self._unreachable(error, str(error), method, target, sent=error.sent, silent=silent) from error
        self._waited.observe(time.perf_counter() - started)
        self._saw(answer.status)
        status = 401 if is_about_token(answer.status, answer.body) else answer.status
        reason = answer.reason if status == answer.status else "Unauthorized"
        whole = Whole(status=status, reason=reason, headers=answer.headers, body=answer.body)
        if not self._rewords or method == "HEAD" or not _is_plain(whole):
            return whole
        said = as_mlflow(self.name, status, answer.body)
        return replace(whole, headers=(*_without_body(answer.headers), _JSON), body=said) if said else whole

    async def _ask(self, call: Call, headers: Mapping[str, str]) -> Answer:
        await self._pace.turn(call.target)
        try:
            async with asyncio.timeout(self._call_timeout):
                signed = _over(await self._signature(), headers)
                reply = await self._exchanged(call.method, call.target, signed, call.body)
        except TimeoutError as error:
            raise self._renamed(error, call.method, call.target, self._call_timeout) from error
        return self._read(call, reply)

    def _read(self, call: Call, reply: Whole) -> Answer:
        body = reply.body
        retry_after = parse_retry_after(reply.header("Retry-After"))
        if 200 <= reply.status < 300:
            if body.lstrip()[:1] == b"<":
                raise UnreachableError(
                    self.name,
                    call.operation,
                    f"HTTP {reply.status} with a web page instead of JSON",
                    "is the url that of an MLflow API?",
                )
            return Answer(status=reply.status, body=body)
        if 300 <= reply.status < 400:
            location = reply.header("Location")
            raise UnreachableError(
                self.name,
                call.operation,
                f"HTTP {reply.status} redirects to {location.partition('?')[0]}",
                login_advice(location) if leads_to_login(reply.status, location) else "check url and network access",
            )
        code, message = error_of(body)
        return Answer(status=reply.status, body=body, error_code=code, message=message, retry_after=retry_after)

    def _saw(self, status: int) -> None:
        self._answered[min(max(status // 100, 2), 5)]()  # some servers make statuses up
        self._mark(is_up=status < 500)
        if status == 429:
            self._throttled.inc()

    def _mark(self, *, is_up: bool) -> None:
        if is_up is not self.is_up:
            self.is_up = is_up
            self._metrics.backend_up.labels(self.name).set(1 if is_up else 0)

    async def _signature(self, *, fresh: bool = False) -> Mapping[str, str]:
        try:
            signature = await self.sign_in.headers(fresh=fresh)
        except UnauthorizedError:
            self._mark_signed_in(is_signed_in=False)
            raise
        self._signs = bool(signature)
        return signature

    def _judged(self, status: int) -> None:
        """Note what a last answer says of our signature; where clients sign (`forward`), or nobody, there is none."""
        is_signed_in = status != 401
        if status < 500 and is_signed_in is not self._is_signed_in and self._signs:
            self._mark_signed_in(is_signed_in=is_signed_in)

    def _mark_signed_in(self, *, is_signed_in: bool) -> None:
        self._is_signed_in = is_signed_in
        self._metrics.signed_in.labels(self.name).set(1 if is_signed_in else 0)

    def _renamed(self, error: Exception, method: str, target: str, patience: float) -> UnreachableError:
        sent = not isinstance(error, (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError))
        cause = "no answer in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
        silent = patience if sent and isinstance(error, TimeoutError) else 0.0
        return self._unreachable(error, cause, method, target, sent=sent, silent=silent)

    def _unreachable(
        self, error: Exception, cause: str, method: str, target: str, *, sent: bool, silent: float
    ) -> UnreachableError:
        self._unanswered()
        self._mark(is_up=False)
        operation = f"{method} {target.partition('?')[0]}"
        silent = 0.0 if method == "GET" else silent  # what is read takes no effect later
        return UnreachableError(self.name, operation, cause, _next_step(error), sent=sent, silent=silent)

    async def close(self) -> None:
        self._wire.close()
        await self._session.close()
        await self.sign_in.close()


class Watched:
    """A body on its way out: `error` is what reading it raised, which aiohttp wraps into an error of the connection."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks
        self.error: Exception | None = None

    async def taken_within(self, seconds: float, silence: asyncio.Timeout) -> AsyncIterator[bytes]:
        """Pass the chunks on; `silence` ends when one of them is not taken in time: sock_read counts only after it."""
        loop = asyncio.get_running_loop()
        while (chunk := await self._read()) is not None:
            with suppress(RuntimeError):  # answered before all was sent: nobody waits any more
                silence.reschedule(loop.time() + seconds)
            yield chunk
            with suppress(RuntimeError):
                silence.reschedule(None)

    async def _read(self) -> bytes | None:
        try:
            return await anext(self._chunks, None)
        except Exception as error:
            self.error = error
            raise


def _over(own: Mapping[str, str], headers: Mapping[str, str]) -> CIMultiDict[str]:
    """The backend's own sign-in, under what the caller sends."""
    signed = CIMultiDict(own)
    signed.update(headers)
    return signed


def _next_step(error: Exception) -> str:
    """What to do about a connection that could not be made, by what stood in its way."""
    cause = error.__cause__ or error
    if isinstance(cause, socket.gaierror):
        return "this machine does not know the host's name: check url, DNS, and the zone of a private link"
    if isinstance(cause, ssl.SSLCertVerificationError):
        return "its certificate is not trusted here: name your authority's file as `ca_file`, or check the host's name"
    if isinstance(cause, ssl.SSLError):
        return "it does not speak TLS as this machine does: check http:// or https://, the port, and proxies in between"
    return "is it up, and reachable from here?"


def _is_plain(reply: Reply | Whole) -> bool:
    return reply.header("Content-Encoding") in {"", "identity"}


async def _once(body: bytes) -> AsyncIterator[bytes]:
    if body:
        yield body


def _without_body(headers: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Headers without those that are about a body."""
    told = {"content-type", "content-length", "content-encoding", "transfer-encoding", "etag"}
    return ((name, value) for name, value in headers if name.lower() not in told)


def _url_of(base_url: str, target: str) -> URL:
    """Join base and target; never to another host than the base's, because the request is signed for that one."""
    url = URL(base_url + target, encoded=True)
    if not target.startswith("/") or url.origin() != URL(base_url).origin():
        raise ValueError(f"{target!r} is no path on {base_url}")
    return url


def _is_broken(error: BaseException) -> bool:
    """A connection that broke before the whole answer came; not one that could not be made, and no silence."""
    cause = error.__cause__
    is_silence = isinstance(cause, SilenceError)
    return isinstance(error, UnreachableError) and error.sent and isinstance(cause, WireError) and not is_silence


def parse_retry_after(value: str) -> float | None:
    """Read seconds or an HTTP date; None for anything else."""
    if not value:
        return None
    if value.strip().isascii() and value.strip().isdigit():
        return float(value)
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (at - datetime.now(UTC)).total_seconds()) if at.tzinfo else None
