"""Azure Blob storage as far as signed URLs reach: block blobs, block lists, ranges, and refusals in XML.

Decides what a signature allows (`sp`, `se`, facts/backends, Azure ML item 12) and refuses whoever shows a token here
(Both, item 2): a leaked header is noticed. Bytes lie in a temporary folder, names and signatures in memory; a blob is
seen when it is whole. Which letters of `sp` the service hands out is not known: create needs `c` or `w`, replacing `w`.
"""

import base64
import hashlib
import hmac
import re
import secrets
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlencode

from aiohttp import web

PREFIX = "/azureml/"  # the container that a workspace keeps its artifacts in, facts/backends A5
CHUNK_BYTES = 256 * 1024
SINGLE_MAX = 5000 * 1024 * 1024
RANGE = re.compile(r"bytes=(\d+)-(\d*)")
LATEST = re.compile(r"<(?:Latest|Uncommitted)>([^<]+)</")
TIME = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """A whole blob: where its bytes lie."""

    place: Path
    size: int
    etag: str


@dataclass(slots=True)
class _Staged:
    """Blocks that no list has named yet."""

    blocks: dict[str, Path] = field(default_factory=dict)


class Blobs:
    """One storage account. `sas_seconds` is how long a signature lasts from here on."""

    def __init__(self, *, sas_seconds: float = 8 * 3600) -> None:
        self.sas_seconds = sas_seconds
        self.expired_next = 0  # so many signatures are handed out when they are already over
        self._secret = secrets.token_bytes(16)
        self._folder = tempfile.TemporaryDirectory(prefix="emulated-blobs-")
        self._blobs: dict[str, Blob] = {}
        self._staged: dict[str, _Staged] = {}

    def sign(self, origin: str, name: str, rights: str) -> str:
        """Give a URL to a blob that allows `rights`: letters of r, c, w."""
        seconds = self.sas_seconds
        if self.expired_next:
            self.expired_next, seconds = self.expired_next - 1, -60
        path = PREFIX + quote(name, safe="/")
        end = (datetime.now(UTC) + timedelta(seconds=seconds)).strftime(TIME)
        query = {"sv": "2025-11-05", "sr": "b", "sp": rights, "se": end, "sig": self._signature(name, rights, end)}
        return f"{origin}{path}?{urlencode(query)}"

    def _signature(self, name: str, rights: str, end: str) -> str:
        digest = hmac.new(self._secret, f"{name}\n{rights}\n{end}".encode(), hashlib.sha256).digest()
        return base64.b64encode(digest).decode()

    def has(self, name: str) -> bool:
        return name in self._blobs

    def remove(self, name: str) -> None:
        if blob := self._blobs.pop(name, None):
            blob.place.unlink()

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Answer a request to a path below `PREFIX`."""
        path, _, text = request.raw_path.partition("?")
        name = unquote(path.removeprefix(PREFIX))
        query = {key: values[0] for key, values in parse_qs(text).items()}
        if refusal := self._refusal(request, name, query):
            return refusal
        match request.method, query.get("comp", ""):
            case "GET" | "HEAD", "":
                return await self._get(request, name)
            case "PUT", "":
                return await self._put(request, name)
            case "PUT", "block":
                return await self._put_block(request, name, query.get("blockid", ""))
            case "PUT", "blocklist":
                return await self._put_list(request, name)
            case _:
                return error(400, "UnsupportedHttpVerb")

    def _refusal(self, request: web.Request, name: str, query: dict[str, str]) -> web.Response | None:
        rights, end = query.get("sp", ""), query.get("se", "")
        if "Authorization" in request.headers:
            return error(403, "AuthenticationFailed")
        if not hmac.compare_digest(query.get("sig", "").encode(), self._signature(name, rights, end).encode()):
            return error(403, "AuthenticationFailed")
        if datetime.now(UTC) > datetime.strptime(end, TIME).replace(tzinfo=UTC):
            return error(403, "AuthenticationFailed")
        if request.method in {"GET", "HEAD"}:
            return None if "r" in rights else error(403, "AuthorizationPermissionMismatch")
        is_allowed = "w" in rights or ("c" in rights and name not in self._blobs)
        # `If-None-Match` is judged with the write itself: what is there already is the clearer answer
        is_told = "c" in rights and "If-None-Match" in request.headers
        return None if is_allowed or is_told else error(403, "AuthorizationPermissionMismatch")

    async def _get(self, request: web.Request, name: str) -> web.StreamResponse:
        if (blob := self._blobs.get(name)) is None:
            return error(404, "BlobNotFound")
        asked = request.headers.get("x-ms-range", request.headers.get("Range", ""))
        wanted = RANGE.fullmatch(asked)
        first = int(wanted[1]) if wanted else 0
        last = min(int(wanted[2]) if wanted and wanted[2] else blob.size, blob.size - 1)
        if wanted and first >= blob.size:
            return error(416, "InvalidRange")
        headers = {"ETag": blob.etag, "x-ms-blob-type": "BlockBlob", "Content-Type": "application/octet-stream"}
        if wanted:
            headers["Content-Range"] = f"bytes {first}-{last}/{blob.size}"
        response = web.StreamResponse(status=206 if wanted else 200, headers=headers)
        response.content_length = last + 1 - first
        await response.prepare(request)
        if request.method == "GET":
            async for chunk in _chunks(blob.place, first, last + 1):
                await response.write(chunk)
        await response.write_eof()
        return response

    async def _put(self, request: web.Request, name: str) -> web.Response:
        if request.headers.get("x-ms-blob-type") != "BlockBlob":
            return error(400, "MissingRequiredHeader")
        if (request.content_length or 0) > SINGLE_MAX:
            return error(413, "RequestBodyTooLarge")
        place = await self._received(request)
        return self._keep(request, name, place)

    async def _put_block(self, request: web.Request, name: str, block: str) -> web.Response:
        if not block or not request.content_length:
            return error(400, "InvalidQueryParameterValue")
        staged = self._staged.setdefault(name, _Staged()).blocks
        if any(len(block) != len(other) for other in staged):
            return error(400, "InvalidBlobOrBlock")
        place = await self._received(request)
        if before := staged.get(block):
            before.unlink()
        staged[block] = place
        return web.Response(status=201)

    async def _put_list(self, request: web.Request, name: str) -> web.Response:
        staged = self._staged.get(name, _Staged()).blocks
        ids = LATEST.findall(await request.text())
        if not ids or any(each not in staged for each in ids):
            return error(400, "InvalidBlockList")
        place = self._place()
        with place.open("wb") as file:
            for each in ids:
                async for chunk in _chunks(staged[each], 0, staged[each].stat().st_size):
                    file.write(chunk)
        answer = self._keep(request, name, place)
        if answer.status == 201:
            for block in self._staged.pop(name).blocks.values():
                block.unlink()
        return answer

    def _keep(self, request: web.Request, name: str, place: Path) -> web.Response:
        if request.headers.get("If-None-Match") == "*" and name in self._blobs:
            place.unlink()
            return error(409, "BlobAlreadyExists")
        return web.Response(status=201, headers={"ETag": self.keep(name, place).etag})

    def keep(self, name: str, place: Path) -> Blob:
        """Make a file the content of a blob."""
        self.remove(name)
        blob = self._blobs[name] = Blob(place=place, size=place.stat().st_size, etag=f'"0x{secrets.token_hex(8)}"')
        return blob

    def store(self, name: str, content: bytes, *, appends: bool = False) -> None:
        """Set or extend a blob's content without a signature, as the artifact service itself does."""
        before = self._blobs[name].place.read_bytes() if appends and name in self._blobs else b""
        place = self._place()
        place.write_bytes(before + content)
        self.keep(name, place)

    async def _received(self, request: web.Request) -> Path:
        place = self._place()
        with place.open("wb") as file:
            async for chunk in request.content.iter_chunked(CHUNK_BYTES):
                file.write(chunk)
        return place

    def _place(self) -> Path:
        return Path(self._folder.name) / secrets.token_hex(16)

    def close(self) -> None:
        self._folder.cleanup()


def error(status: int, code: str) -> web.Response:
    """Refuse as the storage service does."""
    text = f'<?xml version="1.0" encoding="utf-8"?><Error><Code>{code}</Code><Message>{code}.</Message></Error>'
    return web.Response(
        status=status,
        text="\ufeff" + text,  # the service begins with a byte order mark
        content_type="application/xml",
        headers={"x-ms-error-code": code},
    )


async def _chunks(place: Path, first: int, end: int) -> AsyncIterator[bytes]:
    with place.open("rb") as file:
        file.seek(first)
        while first < end and (chunk := file.read(min(CHUNK_BYTES, end - first))):
            first += len(chunk)
            yield chunk
