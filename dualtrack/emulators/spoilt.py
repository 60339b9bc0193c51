"""Answers that go wrong on their way back: the work was done, and what tells of it does not arrive as it was.

Decides how a spoilt answer looks (`faults.Spoil` says which); the status stays. Files that a site sends from its disk
pass whole. `tracking` calls it with an answer that nobody has begun to send.
"""

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import web

from dualtrack.emulators.faults import Spoil, Spoilt

PIECES = 8
PAGE = "<html><body><h1>Just a moment</h1></body></html>"


async def spoil(request: web.Request, answer: web.StreamResponse, fault: Spoil) -> web.StreamResponse:
    """Send `answer` as the fault wants it; a refusal is cut or slow at most, for it tells that nothing was done."""
    if answer.status >= 300 and fault.body not in WAYS:
        return answer
    body = answer.body if isinstance(answer, web.Response) else None
    if body is not None and not isinstance(body, bytes):
        return answer
    match fault.body:
        case Spoilt.EMPTY:
            return web.Response(status=answer.status)
        case Spoilt.TEXT:  # what Databricks was seen to say (facts B6)
            return web.Response(status=answer.status, text="200 OK")
        case Spoilt.HTML:
            return web.Response(status=answer.status, text=PAGE, content_type="text/html")
        case kind if isinstance(answer, web.Response):
            return await WAYS[kind](request, answer, body or b"", fault)
        case _:
            return answer


async def _truncated(request: web.Request, answer: web.Response, body: bytes, _: Spoil) -> web.StreamResponse:
    """Announce the whole, send a half, close."""
    begun = await _begun(request, answer, len(body) or 1)
    await begun.write(body[: len(body) // 2])
    if request.transport is not None:
        request.transport.close()
    return begun


async def _slow(request: web.Request, answer: web.Response, body: bytes, fault: Spoil) -> web.StreamResponse:
    begun = await _begun(request, answer, len(body))
    size = -(-len(body) // PIECES) or 1
    for start in range(0, len(body), size):
        await asyncio.sleep(fault.seconds / PIECES)
        await begun.write(body[start : start + size])
    await begun.write_eof()
    return begun


async def _begun(request: web.Request, answer: web.Response, size: int) -> web.StreamResponse:
    begun = web.StreamResponse(status=answer.status, headers=answer.headers)
    begun.content_length = size
    await begun.prepare(request)
    return begun


Way = Callable[[web.Request, web.Response, bytes, Spoil], Awaitable[web.StreamResponse]]
WAYS: dict[Spoilt, Way] = {Spoilt.TRUNCATED: _truncated, Spoilt.SLOW: _slow}
