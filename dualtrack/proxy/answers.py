"""Reads whose answers name artifact roots, and how each is read on its way back.

ONE    names an entity that a client may write files to next: always read, so that its root is known
MANY   may be a large page: read only when it holds a root that has to be rewritten
FLAGS  what the server can do with files: nothing that goes around us
"""

from enum import StrEnum

from aiohttp import web

from dualtrack.proxy.roots import Roots
from dualtrack.translate.document import MalformedError, parse, write


class Reading(StrEnum):
    ONE = "one"
    MANY = "many"
    FLAGS = "flags"


READINGS = {
    "getRun": Reading.ONE,
    "getLoggedModel": Reading.ONE,
    "getExperiment": Reading.ONE,
    "getExperimentByName": Reading.ONE,
    "searchRuns": Reading.MANY,
    "searchExperiments": Reading.MANY,
    "searchLoggedModels": Reading.MANY,
    "listArtifacts": Reading.MANY,
    "listLoggedModelArtifacts": Reading.MANY,
    "searchTraces": Reading.MANY,
    "getTraceInfo": Reading.MANY,
    "searchTracesV3": Reading.MANY,
    "getTraceInfoV3": Reading.MANY,
    "getTrace": Reading.MANY,
    "batchGetTraces": Reading.MANY,
    "batchGetTraceInfos": Reading.MANY,
    "graphql": Reading.MANY,
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
    return replaced(response, await roots.outward(body, learns=reading is Reading.ONE, rewrites=rewrites))


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
