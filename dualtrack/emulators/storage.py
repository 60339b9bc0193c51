"""Cloud storage behind signed URLs, all four types that Databricks hands out (facts/backends B3).

Decides what a signature allows and what each type wants of a write; what a URL is for, `databricks_files` decides. No
call here may carry an `Authorization` header: one that does is refused, so that a leaked token is noticed. A presigned
URL of S3 or GCS is signed with all its parameters and its method; a SAS takes further parameters.

    AZURE_SAS_URI              PUT comp=block&blockid=…, then PUT comp=blocklist; or one PUT with x-ms-blob-type
    AZURE_ADLS_GEN2_SAS_URI    PUT resource=file, PATCH action=append&position=N, PATCH action=flush&position=<size>
    AWS_PRESIGNED_URL          PUT, with Content-Length and the header that was signed; parts of an upload, and its end
    GCP_SIGNED_URL             PUT

Reads see nothing before a commit, but ADLS's empty file from its creation on. Unverified choices are fields.
"""

import base64
import hmac
import re
import secrets
import time
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from urllib.parse import quote, unquote, urlencode

from aiohttp import web

from dualtrack.emulators.shelf import Part, Shelf

PREFIX = "/__storage__"
CLAIMS = ("sp", "se", "uploadId", "partNumber")
RIGHTS = {"r": {"GET"}, "w": {"PUT", "PATCH"}, "d": {"DELETE"}}
BLOCK = re.compile(r"<(Uncommitted|Committed|Latest)>([^<]*)</\1>")
PART_BYTES_MIN = 5 * 1024 * 1024  # S3's; the last part may be smaller


class Kind(StrEnum):
    """The types of credentials, by their names on the wire."""

    AZURE = "AZURE_SAS_URI"
    ADLS = "AZURE_ADLS_GEN2_SAS_URI"
    AWS = "AWS_PRESIGNED_URL"
    GCP = "GCP_SIGNED_URL"


# what comes with a credential and is to be sent with the write that it fits (which one, and for S3 at all: choices)
HEADERS = {
    Kind.AZURE: {"x-ms-blob-type": "BlockBlob"},
    Kind.ADLS: {"x-ms-blob-type": "BlockBlob"},
    Kind.AWS: {"x-amz-server-side-encryption": "AES256"},
    Kind.GCP: {},
}


class StorageError(Exception):
    """A refusal, as the storage words it."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(code)
        self.status = status
        self.code = code


@dataclass(slots=True)
class Upload:
    """A multipart upload that is neither complete nor aborted."""

    key: str
    parts: dict[int, Part] = field(default_factory=dict)


class Storage:
    """One account or bucket. `lifetime` is that of a signed URL, in seconds."""

    def __init__(
        self, shelf: Shelf, kind: Kind, *, lifetime: float = 3600, part_bytes_min: int = PART_BYTES_MIN
    ) -> None:
        self.kind = kind
        self.uploads: dict[str, Upload] = {}
        self._shelf = shelf
        self._lifetime = lifetime
        self._part_bytes_min = part_bytes_min
        self._secret = secrets.token_bytes()
        self._blocks: dict[str, dict[str, Part]] = {}
        self._appended: dict[str, dict[int, Part]] = {}

    # --- signing ------------------------------------------------------------------------------------------------

    def sign(self, origin: str, right: str, key: str, **claims: str) -> str:
        """Give a URL that allows `right` (r, w, d) on `key`; its signature holds characters that need encoding."""
        query = {"sp": right, "se": str(int(time.time() + self._lifetime)), **claims}
        signed = urlencode({**query, "sig": self._signature(key, query)})
        return f"{origin}{PREFIX}/{self.kind}/{quote(key, safe='/')}?{signed}"

    def _signature(self, key: str, query: Mapping[str, str]) -> str:
        text = "\n".join([key, *(query.get(claim, "") for claim in CLAIMS)])
        return base64.b64encode(hmac.digest(self._secret, text.encode(), sha256)).decode() + "+/"

    def _check(self, request: web.Request, key: str) -> None:
        query = request.query
        if "Authorization" in request.headers:
            raise StorageError(400 if self.kind is Kind.AWS else 403, "AuthenticationFailed")
        if not hmac.compare_digest(query.get("sig", "").encode(), self._signature(key, query).encode()):
            raise StorageError(403, "SignatureDoesNotMatch")
        if int(query["se"]) <= time.time():
            raise StorageError(403, "RequestExpired")
        if request.method not in RIGHTS[query["sp"]]:
            raise StorageError(403, "AuthorizationPermissionMismatch")
        if self.kind in {Kind.AWS, Kind.GCP} and not set(query) <= {*CLAIMS, "sig"}:
            raise StorageError(403, "SignatureDoesNotMatch")

    # --- calls --------------------------------------------------------------------------------------------------

    async def handle(self, request: web.Request, body: bytes | None) -> web.StreamResponse:
        """Serve one call to a signed URL. `body` is what was read of it already."""
        key = unquote(request.raw_path.partition("?")[0].removeprefix(f"{PREFIX}/{self.kind}/"))
        try:
            self._check(request, key)
            if request.method == "GET":
                return self._read(key)
            return await self._write(request, key, chunks_of(request, body))
        except StorageError as error:
            text = f'<?xml version="1.0" encoding="utf-8"?><Error><Code>{error.code}</Code></Error>'
            return web.Response(status=error.status, text=text, content_type="application/xml")

    def _read(self, key: str) -> web.FileResponse:
        place = self._shelf.file(key)
        if place is None:
            raise StorageError(404, "BlobNotFound")
        return web.FileResponse(place)

    async def _write(self, request: web.Request, key: str, chunks: AsyncIterable[bytes]) -> web.Response:
        match self.kind:
            case Kind.AZURE:
                return await self._azure(request, key, chunks)
            case Kind.ADLS:
                return await self._adls(request, key, chunks)
            case Kind.AWS:
                return await self._aws(request, key, chunks)
            case _:
                self._shelf.commit(key, [await self._shelf.receive(chunks)])
                return web.Response()

    # --- Azure blobs --------------------------------------------------------------------------------------------

    async def _azure(self, request: web.Request, key: str, chunks: AsyncIterable[bytes]) -> web.Response:
        _want(request.method == "PUT", 405, "UnsupportedHttpVerb")
        comp, has_type = request.query.get("comp", ""), "x-ms-blob-type" in request.headers
        if comp == "block":
            await self._stage(key, request.query.get("blockid", ""), chunks)
        elif comp == "blocklist":
            _want(not has_type, 400, "UnsupportedHeader")
            self._commit_blocks(key, b"".join([chunk async for chunk in chunks]).decode())
        else:
            _want(not comp and has_type, 400, "MissingRequiredHeader")
            self._shelf.commit(key, [await self._shelf.receive(chunks)])
        return web.Response(status=201)

    async def _stage(self, key: str, block: str, chunks: AsyncIterable[bytes]) -> None:
        """Keep a block; all ids of a blob have one length, and no block is empty."""
        blocks = self._blocks.setdefault(key, {})
        _want(bool(block) and len({len(block), *map(len, blocks)}) == 1, 400, "InvalidBlobOrBlock")
        part = await self._shelf.receive(chunks)
        _want(part.size > 0, 400, "InvalidHeaderValue")
        blocks[block] = part

    def _commit_blocks(self, key: str, document: str) -> None:
        """Only what was staged since the last commit may be named; the rest of it is dropped."""
        staged, wanted = self._blocks.get(key, {}), BLOCK.findall(document)
        _want("<BlockList>" in document, 400, "InvalidXmlDocument")
        _want(all(kind != "Committed" and block in staged for kind, block in wanted), 400, "InvalidBlockList")
        self._shelf.commit(key, [staged[block] for _, block in wanted])
        for part in self._blocks.pop(key, {}).values():
            part.place.unlink(missing_ok=True)

    # --- ADLS ---------------------------------------------------------------------------------------------------

    async def _adls(self, request: web.Request, key: str, chunks: AsyncIterable[bytes]) -> web.Response:
        query, action = request.query, request.query.get("action")
        _want("x-ms-blob-type" not in request.headers, 400, "UnsupportedHeader")
        if request.method == "PUT" and query.get("resource") == "file":
            self._shelf.commit(key, [])
            self._appended[key] = {}
            return web.Response(status=201)
        _want(request.method == "PATCH" and key in self._appended, 404, "PathNotFound")
        position = int(query.get("position", "-1"))
        if action == "append":
            await self._append(key, position, chunks)
            if query.get("flush") == "true":
                self._flush(key, position + self._appended[key][position].size)
            return web.Response(status=202)
        _want(action == "flush", 400, "InvalidQueryParameterValue")
        self._flush(key, position)
        return web.Response()

    async def _append(self, key: str, position: int, chunks: AsyncIterable[bytes]) -> None:
        """Keep bytes for a position; in any order, as mlflow's threads send them, but none twice."""
        _want(position >= 0, 400, "InvalidQueryParameterValue")
        part = await self._shelf.receive(chunks)
        _want(part.size > 0, 400, "InvalidHeaderValue")
        self._appended[key][position] = part

    def _flush(self, key: str, size: int) -> None:
        """Commit when all bytes up to `size` are there, each once."""
        appended, reached = sorted(self._appended[key].items()), 0
        for position, part in appended:
            _want(position == reached, 400, "InvalidFlushPosition")
            reached += part.size
        _want(reached == size, 400, "InvalidFlushPosition")
        self._shelf.commit(key, [part for _, part in appended])
        self._appended.pop(key)

    # --- S3 -----------------------------------------------------------------------------------------------------

    async def _aws(self, request: web.Request, key: str, chunks: AsyncIterable[bytes]) -> web.Response:
        upload = request.query.get("uploadId")
        if request.method == "DELETE":
            self._upload(upload or "", key)
            self.abort(upload or "")
            return web.Response(status=204)
        _want(request.method == "PUT", 405, "MethodNotAllowed")
        _want("Content-Length" in request.headers, 411, "MissingContentLength")
        if upload is not None:
            part = await self._shelf.receive(chunks)
            self._upload(upload, key).parts[int(request.query["partNumber"])] = part
            return web.Response(headers={"ETag": part.etag})
        signed = HEADERS[Kind.AWS].items()
        _want(all(request.headers.get(name) == value for name, value in signed), 403, "SignatureDoesNotMatch")
        part = await self._shelf.receive(chunks)
        self._shelf.commit(key, [part])
        return web.Response(headers={"ETag": part.etag})

    def begin(self, key: str) -> str:
        """Begin a multipart upload; give its id."""
        upload = secrets.token_urlsafe(16) + "=="
        self.uploads[upload] = Upload(key)
        return upload

    def complete(self, upload: str, key: str, etags: Mapping[int, str]) -> None:
        """Make the parts a file, if they are named in order and as they were answered."""
        parts = self._upload(upload, key).parts
        _want(bool(etags) and list(etags) == sorted(etags), 400, "InvalidPartOrder")
        known = all(number in parts and parts[number].etag == etag for number, etag in etags.items())
        _want(known, 400, "InvalidPart")
        wanted = [parts[number] for number in etags]
        _want(all(part.size >= self._part_bytes_min for part in wanted[:-1]), 400, "EntityTooSmall")
        self._shelf.commit(key, wanted)
        self.abort(upload)

    def abort(self, upload: str) -> None:
        for part in self.uploads.pop(upload).parts.values():
            part.place.unlink(missing_ok=True)

    def _upload(self, upload: str, key: str) -> Upload:
        known = self.uploads.get(upload)
        if known is None or known.key != key:
            raise StorageError(404, "NoSuchUpload")
        return known


def _want(is_so: bool, status: int, code: str) -> None:
    if not is_so:
        raise StorageError(status, code)


async def chunks_of(request: web.Request, body: bytes | None) -> AsyncIterator[bytes]:
    """Read a body, whether or not it was read already."""
    if body is not None:
        yield body
        return
    async for chunk in request.content.iter_any():
        yield chunk
