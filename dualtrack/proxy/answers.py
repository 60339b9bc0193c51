"""Reads whose answers name artifact roots, and how each is read on its way back.

ONE    names an entity that a client may write files to next: always read, so that its root is known
MANY   may be a large page: read only when it holds a root that has to be rewritten; its entities' roots are learned
SHOWN  the same, and nothing is learned: what it says may be what a client wrote
FLAGS  what the server can do with files: nothing that goes around us
"""

from enum import StrEnum

from aiohttp import web

from dualtrack.proxy.roots import Roots, Teaching
from dualtrack.translate.document import MalformedError, parse, write


class Reading(StrEnum):
    ONE = "one"
    MANY = "many"
    SHOWN = "shown"
    FLAGS = "flags"


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
_TEACHING = {
    Reading.ONE: Teaching.ALWAYS,
    Reading.MANY: Teaching.IF_READ,
    Reading.SHOWN: Teaching.NEVER,
}
_MULTIPART = ("multipart_uploads_enabled", "multipart_downloads_enabled")


async def read_back(response: web.Response, reading: Reading, roots: Roots, *, rewrites: bool) -> web.Response:
    """Answer what the client gets. `rewrites` is false where clients reach the primary's storage themselves."""
    body = response.body
    if response.status >= 300 or not isinstance(body, bytes) or not body:
        return response
    if reading is Reading.FLAGS:
        return replaced(response, _without_multipart(body)) if rewrites else response
    teaching = _TEACHING[reading]
    return replaced(response, await roots.outward(body, teaching=teaching, rewrites=rewrites))


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
