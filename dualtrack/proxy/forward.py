"""Pass a request to a backend and its answer back: bytes in, bytes out, streamed both ways.

Only what HTTP wants dropped is dropped: hop-by-hop headers, Host, Origin, and the client's credentials, which are for
the proxy and not for a backend. Everything else is passed as it came.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping

import structlog
from aiohttp import web
from multidict import CIMultiDict

from dualtrack.errors import BackendError
from dualtrack.ports import Reply, Upstream
from dualtrack.proxy.errors import Refusal

log = structlog.get_logger("dualtrack.proxy")

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
_NOT_PASSED_ON = HOP_BY_HOP | {"host", "origin", "expect", "authorization", "cookie"}
_WHOLE = 64 * 1024  # answers up to this size go out in one write


class ClientGoneError(Exception):
    """The client hung up: nobody's fault, and not the backend's."""


def request_headers(headers: Mapping[str, str], *, forwards_credentials: bool) -> CIMultiDict[str]:
    """The headers of a client's request that go on to a backend."""
    named = _named_by_connection(headers)
    passed: CIMultiDict[str] = CIMultiDict()
    for name, value in headers.items():
        lower = name.lower()
        if lower in named or (lower in _NOT_PASSED_ON and not (forwards_credentials and lower == "authorization")):
            continue
        passed.add(name, value)
    return passed


def response_headers(headers: Iterable[tuple[str, str]], label: str) -> CIMultiDict[str]:
    """The headers of a backend's answer that go back, and ours."""
    listed = list(headers)
    named = _named_by_connection(dict(listed))
    passed: CIMultiDict[str] = CIMultiDict()
    for name, value in listed:
        lower = name.lower()
        if lower not in HOP_BY_HOP and lower not in named:
            passed.add(name, value)
    passed["X-Dualtrack"] = label
    return passed


def _named_by_connection(headers: Mapping[str, str]) -> frozenset[str]:
    value = headers.get("Connection")
    if not value:
        return frozenset()
    return frozenset(name.strip().lower() for name in value.split(",")) - {"close", "keep-alive"}


def has_body(request: web.BaseRequest) -> bool:
    return request.body_exists


async def read_body(request: web.BaseRequest, max_bytes: int, seconds: float) -> bytes:
    """Read a bounded body in bounded time; refuse what is larger, slower or cut off before anything is journaled."""
    if not has_body(request):
        return b""
    length = request.content_length
    if length is not None and length > max_bytes:
        raise _too_large(max_bytes)
    content = request.content
    if content.is_eof() and content.exception() is None:  # it came with the head, as small bodies do
        body = content.read_nowait()
        if len(body) > max_bytes:
            raise _too_large(max_bytes)
        return body
    await _continue(request)
    chunks, size = [], 0
    try:
        async with asyncio.timeout(seconds):
            async for chunk in content.iter_any():
                size += len(chunk)
                if size > max_bytes:
                    raise _too_large(max_bytes)
                chunks.append(chunk)
    except TimeoutError as error:
        message = f"the request body did not arrive within {seconds:.0f} s; limits.body_timeout allows more"
        raise Refusal(408, "DEADLINE_EXCEEDED", message) from error
    except (web.RequestPayloadError, OSError) as error:
        raise Refusal(400, "MALFORMED_REQUEST", f"the request body ended early: {error}") from error
    return b"".join(chunks)


def _too_large(max_bytes: int) -> Refusal:
    return Refusal(
        413, "INVALID_PARAMETER_VALUE", f"the request body is over {max_bytes} bytes; limits.max_body allows more"
    )


async def _continue(request: web.BaseRequest) -> None:
    if request.headers.get("Expect", "").lower() == "100-continue" and request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


async def body_chunks(request: web.BaseRequest, seconds: float) -> AsyncIterator[bytes]:
    """A body as it arrives; each silence is bounded. Raises `Refusal` for a silence, `ClientGoneError` for a cut."""
    if not has_body(request):
        return
    await _continue(request)
    content = request.content
    while True:
        try:
            async with asyncio.timeout(seconds):
                chunk = await content.readany()
        except TimeoutError as error:
            message = f"the request body stopped for {seconds:.0f} s; limits.body_timeout allows more"
            raise Refusal(408, "DEADLINE_EXCEEDED", message) from error
        except (web.RequestPayloadError, OSError) as error:
            raise ClientGoneError(str(error)) from error
        if not chunk:
            return
        yield chunk


async def pass_on(
    request: web.BaseRequest,
    upstream: Upstream,
    target: str,
    label: str,
    *,
    forwards_credentials: bool = False,
    body_seconds: float = 60.0,
) -> web.StreamResponse:
    """Stream a request to `upstream` and its answer back."""
    headers = request_headers(request.headers, forwards_credentials=forwards_credentials)
    body: AsyncIterator[bytes] | None = None
    if has_body(request):
        body = body_chunks(request, body_seconds)
    else:
        headers.pop("Content-Length", None)
    async with upstream.stream(request.method, target, headers, body) as reply:
        return await _answer(request, reply, label)


async def _answer(request: web.BaseRequest, reply: Reply, label: str) -> web.StreamResponse:
    headers = response_headers(reply.headers, label)
    length = reply.header("Content-Length")
    if request.method != "HEAD" and length.isdigit() and int(length) <= _WHOLE:
        body = b"".join([chunk async for chunk in reply.body])
        return web.Response(status=reply.status, reason=reply.reason, headers=headers, body=body)
    response = web.StreamResponse(status=reply.status, reason=reply.reason, headers=headers)
    return await send(request, response, reply.body)


async def send(
    request: web.BaseRequest, response: web.StreamResponse, chunks: AsyncIterator[bytes]
) -> web.StreamResponse:
    """Send a head, and `chunks` as they come; nothing after the head for HEAD. Raises `ClientGoneError`.

    Once the head is out, a cut connection is the only way left to say that this is not all: no second answer follows.
    """
    try:
        await response.prepare(request)
        if request.method == "HEAD":
            return response
        async for chunk in chunks:
            await response.write(chunk)
        await response.write_eof()
    except BackendError as error:
        log.warning("proxy.answer_cut", backend=error.backend, error=str(error))
        _abort(request)
    except OSError as error:
        _abort(request)
        raise ClientGoneError(str(error)) from error
    except BaseException:
        _abort(request)
        raise
    return response


def _abort(request: web.BaseRequest) -> None:
    if request.transport is not None:
        request.transport.abort()


def api_path(path: str) -> str:
    """The path as clients other than the UI spell it: `/ajax-api/…` is `/api/…` on every server."""
    return path.replace("/ajax-api/", "/api/", 1) if path.startswith("/ajax-api/") else path
