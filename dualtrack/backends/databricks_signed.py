"""Files of runs and logged models through signed URLs of a Databricks workspace (facts/backends B3, protocol 2).

The workspace is asked, signed in, for a credential to one path; the bytes then go to the storage by `signed`, with the
URL's own signature and nothing of ours. A storage that refuses a credential is asked once more with a new one: a URL
may end in the middle of a large file, so that is done for each block and part, not for the whole.

    AZURE_SAS_URI              blocks of 10 MiB, seen when their list is put; an empty file is an empty list
    AZURE_ADLS_GEN2_SAS_URI    an empty file first, and its content when it is flushed: the one type where a reader
                               may meet an empty file in place of the old one
    AWS_PRESIGNED_URL          one PUT; above 500 MiB parts, that are aborted when anything goes wrong
    GCP_SIGNED_URL             one PUT

There is no way to delete. Sizes and the order of calls are those of mlflow 3.17.2's own client.
"""

import asyncio
import base64
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeVar, cast
from urllib.parse import quote, urlencode
from uuid import uuid4

import orjson

from dualtrack.backends.answers import Answers, fetched
from dualtrack.backends.http import HttpBackend
from dualtrack.backends.signed import ExpiredUrlError, MissingError, SignedStorage, steadily
from dualtrack.core.artifact import Listed
from dualtrack.core.exchange import JSON, Document
from dualtrack.errors import BackendError, RejectedError
from dualtrack.ports import Fetched, Reply, Whole

_T = TypeVar("_T")

_MLFLOW: Final = "/api/2.0/mlflow"
_MIB: Final = 1024 * 1024
_PIECES_MAX: Final = 10_000  # Amazon S3, "Multipart upload limits"; a block blob takes 50,000
_ABORT_SECONDS: Final = 10.0
_NUMBERS: Final = {
    "1": "AZURE_SAS_URI",
    "2": "AWS_PRESIGNED_URL",
    "3": "GCP_SIGNED_URL",
    "4": "AZURE_ADLS_GEN2_SAS_URI",
}
# headers of a credential that fit the one PUT of a blob only (mlflow 3.17.2, azure/client.py)
_BLOB_ONLY: Final = {"x-ms-blob-type"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Above `whole_bytes`, a model's above `model_whole_bytes`, a file goes to S3 in parts.

    `part_bytes` is the size of a part, of a block, of an append.
    """

    whole_bytes: int = 500 * _MIB
    model_whole_bytes: int = 5 * 1024**3  # what S3 takes in one PUT
    part_bytes: int = 10 * _MIB


@dataclass(frozen=True, slots=True)
class Entity:
    """A run or a logged model, by its id in the workspace."""

    name: str
    is_model: bool = False


@dataclass(frozen=True, slots=True)
class Credential:
    """What may be done with one path for a while. The URL is a secret."""

    kind: str
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)


class _Ticket:
    """The credential in use; `use` gets a new one, once, when the storage takes it no more."""

    def __init__(self, credential: Credential, renew: Callable[[], Awaitable[Credential]]) -> None:
        self.credential = credential
        self._renew = renew

    async def use(self, work: Callable[[Credential], Awaitable[_T]]) -> _T:
        with suppress(ExpiredUrlError):
            return await work(self.credential)
        self.credential = await self._renew()
        try:
            return await work(self.credential)
        except ExpiredUrlError as error:
            raise error.again() from error


class SignedFiles:
    """The files of runs and models of one workspace; paths are relative to the entity's artifact root."""

    def __init__(self, backend: HttpBackend, storage: SignedStorage, sizes: Sizes) -> None:
        self._backend = backend
        self._storage = storage
        self._sizes = sizes
        self._answers = Answers(backend.name)

    # --- writing ------------------------------------------------------------------------------------------------

    async def put(self, entity: Entity, path: str, source: str, operation: str) -> None:
        """Store a local file; what was there is replaced."""
        with self._answers.opened(source, operation) as file:
            size = os.fstat(file.fileno()).st_size
        ticket = await self._ticket(entity, path, operation, writes=True)
        match ticket.credential.kind:
            case "AZURE_SAS_URI":
                await self._put_blocks(ticket, source, size)
            case "AZURE_ADLS_GEN2_SAS_URI":
                await self._put_appended(ticket, source, size)
            case "AWS_PRESIGNED_URL" if size > self._most(entity):
                await self._put_parts(entity, path, source, size, operation)
            case "AWS_PRESIGNED_URL" | "GCP_SIGNED_URL":
                await ticket.use(lambda to: self._storage.put_object(to.url, to.headers, source))
            case kind:
                cause = f"a credential of the type {kind or 'none'}"
                raise RejectedError(self._backend.name, operation, cause, "dualtrack knows no storage of that type")

    async def _put_blocks(self, ticket: _Ticket, source: str, size: int) -> None:
        names = list[str]()
        for piece in self._pieces(size):
            names.append(base64.b64encode(uuid4().hex.encode()).decode())
            await self._send(ticket, "PUT", {"comp": "block", "blockid": names[-1]}, source, piece)
        await ticket.use(
            lambda to: self._storage.request(
                "PUT", _with(to.url, {"comp": "blocklist"}), _fitting(to.headers), _block_list(names)
            )
        )

    async def _put_appended(self, ticket: _Ticket, source: str, size: int) -> None:
        async def ask(method: str, query: Mapping[str, str]) -> object:
            return await ticket.use(
                lambda to: self._storage.request(method, _with(to.url, query), _fitting(to.headers))
            )

        await ask("PUT", {"resource": "file"})
        for offset, length in self._pieces(size):
            query = {"action": "append", "position": str(offset)}
            await self._send(ticket, "PATCH", query, source, (offset, length))
        await ask("PATCH", {"action": "flush", "position": str(size)})

    async def _put_parts(self, entity: Entity, path: str, source: str, size: int, operation: str) -> None:
        pieces = list(self._pieces(size))
        place: Document = {"run_id": entity.name, "path": path}
        call = f"{_MLFLOW}/artifacts/create-multipart-upload"
        begun = await self._ask("POST", call, operation, {**place, "num_parts": len(pieces)})
        upload = str(begun.get("upload_id") or "")
        infos = cast("Sequence[Document]", begun.get("upload_credential_infos") or [])
        try:
            if len(infos) != len(pieces):
                cause = f"{len(infos)} credentials for {len(pieces)} parts"
                raise self._answers.unreachable(operation, cause, "is it a Databricks workspace?")
            urls = [_credential(info) for info in infos]
            etags = list[JSON]()
            for number, (url, piece) in enumerate(zip(urls, pieces, strict=True), 1):
                part = {**place, "upload_id": upload, "part_number": number}
                ticket = _Ticket(url, partial(self._part_credential, part, operation))
                etag = await self._send(ticket, "PUT", {}, source, piece)
                etags.append({"part_number": number, "etag": etag})
            await self._complete({**place, "upload_id": upload, "part_etags": etags}, operation)
        except BaseException:
            await self._abort(begun)
            raise

    async def _send(
        self, ticket: _Ticket, method: str, query: Mapping[str, str], source: str, piece: tuple[int, int]
    ) -> str:
        """Send a piece and answer its ETag."""
        offset, length = piece

        async def send(to: Credential) -> Whole:
            url, headers = _with(to.url, query), _fitting(to.headers)
            async for attempt in steadily():
                with attempt:
                    return await self._storage.send_file(method, url, headers, source, offset=offset, length=length)
            raise AssertionError("tenacity raises or returns")

        # a refusal of two credentials is no hiccup, so what is repeated is inside
        return (await ticket.use(send)).header("ETag")

    async def _abort(self, begun: Document) -> None:
        """Take the parts back; what cannot be taken back, the bucket's own rules clean up."""
        info = _credential(cast("Document", begun.get("abort_credential_info") or {}))
        with suppress(BackendError, TimeoutError):
            async with asyncio.timeout(_ABORT_SECONDS):
                await self._storage.request("DELETE", info.url, info.headers)

    def _most(self, entity: Entity) -> int:
        """What S3 gets whole. Parts are documented for runs; for models mlflow's client sends their id as a run's."""
        return self._sizes.model_whole_bytes if entity.is_model else self._sizes.whole_bytes

    def _pieces(self, size: int) -> Iterator[tuple[int, int]]:
        return _cut(size, max(self._sizes.part_bytes, -(-size // _PIECES_MAX)))

    # --- reading ------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def fetch(self, entity: Entity, path: str, operation: str) -> AsyncIterator[Fetched | None]:
        """Read a file; None when there is none."""
        async with AsyncExitStack() as stack:
            reply = await self._opened(stack, entity, path, operation)
            yield fetched(reply) if reply is not None else None

    async def _opened(self, stack: AsyncExitStack, entity: Entity, path: str, operation: str) -> Reply | None:
        for may_renew in (True, False):
            credential = await self._found(entity, path, operation)
            if credential is None:
                return None
            try:
                return await stack.enter_async_context(self._storage.fetch(credential.url, credential.headers))
            except MissingError:
                return None
            except ExpiredUrlError as error:
                # S3 says so of a missing file too, to those who may not list the bucket
                if not may_renew and await self._is_file(entity, path, operation):
                    raise error.again() from error
        return None

    async def _found(self, entity: Entity, path: str, operation: str) -> Credential | None:
        try:
            return await self._credentials(entity, path, operation, writes=False)
        except RejectedError as error:
            if not _is_missing(error):
                raise
        return None

    async def is_there(self, entity: Entity, path: str, operation: str) -> bool:
        """Say whether there is a file, or a folder with something in it."""
        return await self._is_file(entity, path, operation) or bool(await self.list(entity, path, operation))

    async def _is_file(self, entity: Entity, path: str, operation: str) -> bool:
        files = await self._listed(entity, path, operation)
        return bool(path) and [(file.path, file.is_dir) for file in files] == [(path, False)]

    async def _listed(self, entity: Entity, path: str, operation: str) -> list[Listed]:
        files, tokens = list[Listed](), [""]
        while True:
            try:
                page = await self._ask("GET", _listing(entity, path, tokens[-1]), operation)
            except RejectedError as error:
                if _is_missing(error):
                    return files
                raise
            files += [_file(file) for file in cast("Sequence[Document]", page.get("files", []))]
            token = str(page.get("next_page_token") or "")
            if not token or token in tokens:
                return files
            tokens.append(token)

    async def list(self, entity: Entity, path: str, operation: str) -> list[Listed]:
        """Answer what is directly below a folder, sorted; empty for a file, which lists as itself."""
        files = await self._listed(entity, path, operation)
        is_itself = bool(path) and [(file.path, file.is_dir) for file in files] == [(path, False)]
        return [] if is_itself else sorted(files, key=lambda file: file.path)

    # --- credentials --------------------------------------------------------------------------------------------

    async def _ticket(self, entity: Entity, path: str, operation: str, *, writes: bool) -> _Ticket:
        def renew() -> Awaitable[Credential]:
            return self._credentials(entity, path, operation, writes=writes)

        return _Ticket(await renew(), renew)

    async def _credentials(self, entity: Entity, path: str, operation: str, *, writes: bool) -> Credential:
        """Ask for a credential for one path."""
        if entity.is_model:
            call = f"logged-models/{quote(entity.name, safe='')}/artifacts/credentials-for-"
            target, body = call + ("upload" if writes else "download"), Document(paths=[path])
        else:
            target = f"artifacts/credentials-for-{'write' if writes else 'read'}"
            body = Document(run_id=entity.name, path=[path])
        answer = await self._ask("POST", f"{_MLFLOW}/{target}", operation, body)
        infos = cast("Sequence[Document]", answer.get("credentials" if entity.is_model else "credential_infos") or [])
        if len(infos) != 1:
            cause = f"{len(infos)} credentials for one path"
            raise self._answers.unreachable(operation, cause, "is it a Databricks workspace?")
        info = cast("Document", infos[0].get("credential_info") or {}) if entity.is_model else infos[0]
        return _credential(info)

    async def _part_credential(self, part: Document, operation: str) -> Credential:
        query = urlencode({key: str(value) for key, value in part.items()})
        answer = await self._ask("GET", f"{_MLFLOW}/artifacts/get-presigned-upload-part-url?{query}", operation)
        return _credential(cast("Document", answer.get("upload_credential_info") or {}))

    async def _complete(self, upload: Document, operation: str) -> None:
        """Make the parts a file. What a write answers is `{}`, nothing, or `200 OK` in plain text (facts B6)."""
        async with self._call("POST", f"{_MLFLOW}/artifacts/complete-multipart-upload", upload) as reply:
            if not 200 <= reply.status < 300:
                raise await self._answers.refusal(reply, operation)

    async def _ask(self, method: str, target: str, operation: str, document: Document | None = None) -> Document:
        async with self._call(method, target, document) as reply:
            return await self._answers.document(reply, operation)

    def _call(self, method: str, target: str, document: Document | None) -> AbstractAsyncContextManager[Reply]:
        if document is None:
            return self._backend.transfer(method, target, {})
        body = orjson.dumps(document)
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body))}
        return self._backend.transfer(method, target, headers, lambda: _once(body))


async def _once(body: bytes) -> AsyncIterator[bytes]:
    yield body


def _cut(size: int, length: int) -> Iterator[tuple[int, int]]:
    """The pieces of a file: offset and length of each; none of an empty one."""
    for offset in range(0, size, length):
        yield offset, min(length, size - offset)


def _credential(info: Document) -> Credential:
    kind = str(info.get("type") or "")
    headers = cast("Sequence[Document]", info.get("headers") or [])
    named = {str(header["name"]): str(header.get("value") or "") for header in headers}
    return Credential(_NUMBERS.get(kind, kind), str(info.get("signed_uri") or ""), named)


def _fitting(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers of a credential without those that only fit a whole blob."""
    return {name: value for name, value in headers.items() if name.lower() not in _BLOB_ONLY}


def _with(url: str, query: Mapping[str, str]) -> str:
    """Add parameters to a signed URL; what is there stays byte for byte, or the signature would not fit."""
    return f"{url}{'&' if '?' in url else '?'}{urlencode(query)}" if query else url


def _block_list(names: Sequence[str]) -> bytes:
    blocks = "".join(f"<Uncommitted>{name}</Uncommitted>" for name in names)
    return f'<?xml version="1.0" encoding="utf-8"?><BlockList>{blocks}</BlockList>'.encode()


def _listing(entity: Entity, path: str, token: str) -> str:
    named = {"artifact_directory_path": path} if entity.is_model else {"run_id": entity.name, "path": path}
    query = urlencode({key: value for key, value in {**named, "page_token": token}.items() if value}, quote_via=quote)
    if entity.is_model:
        return f"{_MLFLOW}/logged-models/{quote(entity.name, safe='')}/artifacts/directories?{query}"
    return f"{_MLFLOW}/artifacts/list?{query}"


def _file(file: Document) -> Listed:
    size, is_dir = file.get("file_size"), bool(file.get("is_dir"))
    return Listed(path=str(file["path"]), is_dir=is_dir, size=None if is_dir or size is None else int(str(size)))


def _is_missing(error: BackendError) -> bool:
    return error.cause.startswith("HTTP 404")
