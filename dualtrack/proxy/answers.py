"""Reads whose answers name artifact roots, how each is read (`Reading`), and what the server says that it can do."""

from aiohttp import web

from dualtrack.proxy.roots import Reading, Roots
from dualtrack.translate.document import MalformedError, parse, write

READINGS = {
    "getRun": Reading.ONE,
    "getLoggedModel": Reading.ONE,
    "getExperiment": Reading.ONE,
    "getExperimentByName": Reading.ONE,
    "searchRuns": Reading.MANY,
    "searchExperiments": Reading.MANY,
    "searchLoggedModels": Reading.MANY,
    "listArtifacts": Reading.SHOWN,
    "listLoggedModelArtifacts": Reading.SHOWN,
    "searchTraces": Reading.SHOWN,
    "getTraceInfo": Reading.SHOWN,
    "searchTracesV3": Reading.SHOWN,
    "getTraceInfoV3": Reading.SHOWN,
    "getTrace": Reading.SHOWN,
    "batchGetTraces": Reading.SHOWN,
    "batchGetTraceInfos": Reading.SHOWN,
    "graphql": Reading.SHOWN,
    "serverInfo": Reading.FLAGS,
}
_MULTIPART = ("multipart_uploads_enabled", "multipart_downloads_enabled")


async def read_back(response: web.Response, reading: Reading, roots: Roots, *, rewrites: bool) -> web.Response:
    """Answer what the client gets. `rewrites` is false where clients reach the primary's storage themselves."""
    body = response.body
    if response.status >= 300 or not isinstance(body, bytes) or not body:
        return response
    if reading is Reading.FLAGS:
        return replaced(response, _without_multipart(body)) if rewrites else response
    return replaced(response, await roots.outward(body, reading, rewrites=rewrites))


def replaced(response: web.Response, body: bytes) -> web.Response:
    if body is not response.body:
        response.headers.popall("Content-Length", None)
        response.body = body
    return response


def _without_multipart(body: bytes) -> bytes:
    try:
        document = parse(body)
    except MalformedError:
        return body
    named = {name: False for name in _MULTIPART if name in document}
    return write({**document, **named}) if named else body
