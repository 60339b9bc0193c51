"""The artifact routes: files go through here whatever store the primary keeps them in.

    PUT      journal.open ─▶ primary and spool at once ─▶ journal.settle ─▶ answer      (see `bracket`, `upload`)
    DELETE   journal.open ─▶ primary ─▶ journal.settle ─▶ answer
    GET      passed on to the backend's own artifact routes, or read from the store that its root names
    mpu/…, presigned/…   501 in MLflow's own words, after which clients fall back to the above

Only files of runs and logged models are mirrored; others go to the primary alone, and are counted. Files are read from
the backend that the client's path names: the primary, or the registry's backend for a model version there.
"""

import mimetypes
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import parse_qs, quote

import orjson
import structlog
from aiohttp import web

from dualtrack.core.artifact import UnsafePathError, effective
from dualtrack.core.ids import ClientId, EntityKind, Ref
from dualtrack.core.routes import Match
from dualtrack.errors import JournalFullError, RejectedError, SpoolError, UnreachableError
from dualtrack.metrics import Metrics
from dualtrack.ports import ArtifactNote, ArtifactStore, Fetched, Settlement, Spool, SpoolFile, Upstream
from dualtrack.proxy.bracket import Bracket, Mirroring, Opened
from dualtrack.proxy.errors import Refusal, unavailable
from dualtrack.proxy.forward import body_chunks, pass_on, read_body, send
from dualtrack.proxy.primary import Primary, Rules
from dualtrack.proxy.ranges import disposition, requested_range
from dualtrack.proxy.roots import Place, Roots
from dualtrack.proxy.upload import Upload, spool_refused
from dualtrack.translate.files import DELETE, UPLOAD, tell
from dualtrack.translate.roots import is_hostless

log = structlog.get_logger("dualtrack.proxy")

_ROUTE = "/api/2.0/mlflow-artifacts/artifacts"
_OWN = "mlflow-artifacts:/"
# the starts of these messages are what mlflow's client compares before it falls back (mlflow 3.17.2, exceptions.py)
_UNSUPPORTED = {
    "createMultipartUpload": "Multipart upload",
    "completeMultipartUpload": "Multipart upload",
    "abortMultipartUpload": "Multipart upload",
    "getPresignedDownloadUrl": "Multipart download",
    "createPresignedDownloadUrl": "Presigned download",
    "createPresignedUploadUrl": "Presigned upload",
}
_OF_FILES = frozenset({"uploadArtifact", "downloadArtifact"})  # a listing and a delete may be of a whole root


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRules:
    """`direct` acknowledges without a copy what the spool cannot take; `serves_all` refuses what goes around us."""

    on_full: Literal["refuse", "direct"]
    serves_all: bool


class ArtifactRoutes:
    """Answers what `core.routes` calls FILES. `stores` and `upstreams` are every backend's, by its name."""

    def __init__(
        self,
        primary: Primary,
        roots: Roots,
        mirroring: Mirroring,
        bracket: Bracket,
        spool: Spool,
        stores: Mapping[str, ArtifactStore],
        upstreams: Mapping[str, Upstream],
        rules: Rules,
        file_rules: FileRules,
        metrics: Metrics,
    ) -> None:
        self._primary = primary
        self._roots = roots
        self._mirroring = mirroring
        self._bracket = bracket
        self._spool = spool
        self._stores = stores
        self._upstreams = upstreams
        self._rules = rules
        self._file_rules = file_rules
        self._metrics = metrics
        self._is_copying = True

    async def handle(self, request: web.BaseRequest, match: Match, path: str, query: str) -> web.StreamResponse:
        """Answer one request. Raises `Refusal`, and what reaching a backend raises."""
        target = f"{path}?{query}" if query else path
        operation = match.route.operation
        if operation in _UNSUPPORTED:
            if not self._file_rules.serves_all:
                return await self._primary.pass_on(request, target, "read")
            what = _UNSUPPORTED[operation]
            message = f"{what} is not supported for the current artifact repository: files pass through dualtrack"
            raise Refusal(501, "NOT_IMPLEMENTED", message)
        if operation == "uploadUiArtifact":
            return await self._upload_from_ui(request, target, query)
        named = match.params.get("artifact_path", "")
        if operation == "listProxiedArtifacts":
            named = next(iter(parse_qs(query).get("path", [""])), "")
        place = await self._place(named, is_file=operation in _OF_FILES)
        match operation:
            case "uploadArtifact":
                return await self._upload(request, place, target, is_file=not named.endswith("/") and bool(place.path))
            case "deleteArtifact":
                return await self._delete(request, place, target)
            case "listProxiedArtifacts":
                return await self._list(request, place, target)
            case _:
                return await self._download(request, place, target)

    async def _place(self, named: str, *, is_file: bool) -> Place:
        try:
            path = effective(named)
        except UnsafePathError as error:
            raise Refusal(400, "INVALID_PARAMETER_VALUE", str(error)) from error
        place = await self._roots.find(path, is_file=is_file)
        if place is None:
            message = f"no artifact root that a backend named lies above {path!r}; ask for its run or model first"
            raise Refusal(404, "RESOURCE_DOES_NOT_EXIST", message)
        return place

    def _is_passed(self, place: Place) -> bool:
        """Say whether the primary's own artifact routes serve it: then bytes pass as they are."""
        return place.backend == self._primary.name and is_hostless(place.root)

    # --- writes -------------------------------------------------------------------------------------------------

    async def _upload(
        self, request: web.BaseRequest, place: Place, target: str, *, is_file: bool
    ) -> web.StreamResponse:
        self._check_writable(place)
        if place.owner is None or not is_file:
            return await self._unowned(request, place, target)
        if self._is_passed(place):
            return await self._mirror(request, place.owner, place.path, target)
        return await self._mirror(request, place.owner, place.path, target, into=place)

    async def _upload_from_ui(self, request: web.BaseRequest, target: str, query: str) -> web.StreamResponse:
        """The UI names run and path in the query; the primary finds the place by itself, and the checks are its own."""
        fields = parse_qs(query)
        run_id, named = (next(iter(fields.get(name, [""])), "") for name in ("run_uuid", "path"))
        try:
            path = effective(named)
        except UnsafePathError as error:
            raise Refusal(400, "INVALID_PARAMETER_VALUE", str(error)) from error
        if not run_id or not path:
            return await self._primary.pass_on(request, target, "primary-only")
        return await self._mirror(request, Ref(EntityKind.RUN, ClientId(run_id)), path, target)

    def _check_writable(self, place: Place) -> None:
        if place.backend != self._primary.name:
            message = f"files are written below roots of {self._primary.name}, the primary; {place.backend} gets copies"
            raise Refusal(403, "PERMISSION_DENIED", message)

    async def _unowned(self, request: web.BaseRequest, place: Place, target: str) -> web.StreamResponse:
        """Below no run and no logged model there is nothing that a secondary could know it by."""
        if self._is_passed(place):
            return await self._primary_only(request, target, None, "unowned_file")
        if place.owner is not None:
            raise Refusal(400, "INVALID_PARAMETER_VALUE", f"{place.uri} names a folder: name a file in it")
        return await self._primary_only(request, target, place, "unowned_file")

    async def _primary_only(
        self, request: web.BaseRequest, target: str, place: Place | None, reason: str
    ) -> web.StreamResponse:
        """Write or delete on the primary and nowhere else; `place` is where, if its own routes do not serve it."""
        if place is None:
            response = await self._primary.pass_on(request, target, "primary-only")
        else:
            response = await self._alone(request, place)
        if response.status < 400:
            self._bracket.lost(reason)
        return response

    async def _alone(self, request: web.BaseRequest, place: Place) -> web.StreamResponse:
        store = self._stores[place.backend]
        if not place.path:
            raise Refusal(400, "INVALID_PARAMETER_VALUE", f"{place.uri} is a whole artifact root: name a file below it")
        try:
            if request.method == "DELETE":
                await store.delete(place.root, place.path)
                return web.json_response({}, headers=_ALONE)
            upload = self._upload_of(request, needs_copy=True, transient=True)
            try:
                spooled = await upload.kept()
                await store.put(place.root, place.path, self._spool.path(spooled.name))
            finally:
                await upload.abandon(self._spool)
        except RejectedError as error:
            raise _refused(error) from error
        return web.Response(status=200, headers=_ALONE)

    async def _mirror(
        self, request: web.BaseRequest, owner: Ref, path: str, target: str, into: Place | None = None
    ) -> web.StreamResponse:
        """Send a body to the primary and to the spool. `into` is where it goes when the primary does not take files."""
        needs_copy = into is not None or self._file_rules.on_full == "refuse"
        upload = self._upload_of(request, needs_copy=needs_copy)
        try:
            entry_id = await self._mirroring.intake.open(tell(UPLOAD, owner, path), upload.name)
        except JournalFullError as error:
            await upload.abandon(self._spool)
            return await self._without_journal(request, target, into, error)
        except BaseException:
            await upload.abandon(self._spool)
            raise
        is_kept = False
        try:
            response = await self._bracket.around(
                Opened(entry_id, owner.key),
                lambda: self._send(request, target, upload, into),
                lambda _: Settlement(entry_id=entry_id, key=owner.key, artifact=_note(path, upload)),
            )
            is_kept = response.headers.get("X-Dualtrack") == "mirrored"
        finally:
            if not is_kept:
                await upload.abandon(self._spool)
        if is_kept:
            self._metrics.artifact_bytes.labels(self._primary.name).inc(upload.size)
            self._note_copy(has_one=upload.spooled is not None)
        return response

    def _note_copy(self, *, has_one: bool) -> None:
        """Tell the operator when files begin to go without a copy, and when that is over."""
        if not has_one:
            self._metrics.uncopied.inc()
        if has_one is self._is_copying:
            return
        self._is_copying = has_one
        used, capacity = self._spool.used_bytes, self._spool.capacity_bytes
        if has_one:
            log.info("proxy.files_copied_again", used_bytes=used, capacity_bytes=capacity)
        else:
            hint = "until a secondary has them the primary has them alone; `spool.max_size` allows more"
            log.warning("proxy.files_without_copy", used_bytes=used, capacity_bytes=capacity, hint=hint)

    def _upload_of(self, request: web.BaseRequest, *, needs_copy: bool, transient: bool = False) -> Upload:
        copy = self._begin(request.content_length, needs_copy=needs_copy, transient=transient)
        body = body_chunks(request, self._rules.body_timeout)
        return Upload(body, request.content_length, copy, needs_copy=needs_copy)

    def _begin(self, size: int | None, *, needs_copy: bool, transient: bool) -> SpoolFile | None:
        try:
            return self._spool.begin(size, transient=transient)
        except SpoolError as error:
            if needs_copy:
                raise spool_refused(error) from error
            return None

    async def _send(self, request: web.BaseRequest, target: str, upload: Upload, into: Place | None) -> web.Response:
        if into is None:
            if upload.is_small:
                body = b"".join([chunk async for chunk in upload.chunks()])
                response = await self._primary.ask(request, target, body)
            else:
                response = await self._primary.upload(request, target, upload.chunks())
            if response.status < 300 and not upload.is_whole:
                raise UnreachableError(self._primary.name, target, "it accepted a file before it had all of it")
            if response.status < 300:
                await upload.complete()
            return response
        spooled = await upload.kept()
        try:
            await self._stores[into.backend].put(into.root, into.path, self._spool.path(spooled.name))
        except RejectedError as error:
            raise _refused(error) from error
        return web.Response(status=200)

    async def _delete(self, request: web.BaseRequest, place: Place, target: str) -> web.StreamResponse:
        self._check_writable(place)
        if place.owner is None:
            return await self._unowned(request, place, target)
        owner = place.owner
        body = await read_body(request, self._rules.max_body, self._rules.body_timeout)
        try:
            entry_id = await self._mirroring.intake.open(tell(DELETE, owner, place.path))
        except JournalFullError as error:
            return await self._without_journal(request, target, None if self._is_passed(place) else place, error)
        gone = ArtifactNote(path=place.path, size=0, sha256="", spool="")
        return await self._bracket.around(
            Opened(entry_id, owner.key),
            lambda: self._remove(request, place, target, body),
            lambda _: Settlement(entry_id=entry_id, key=owner.key, artifact=gone),
        )

    async def _remove(self, request: web.BaseRequest, place: Place, target: str, body: bytes) -> web.Response:
        if self._is_passed(place):
            return await self._primary.ask(request, target, body)
        try:
            await self._stores[place.backend].delete(place.root, place.path)
        except RejectedError as error:
            raise _refused(error) from error
        return web.json_response({})

    async def _without_journal(
        self, request: web.BaseRequest, target: str, place: Place | None, error: JournalFullError
    ) -> web.StreamResponse:
        if not self._rules.passes_when_full:
            message = f"{error}; store.on_full is `refuse`. `dualtrack status` shows what it waits for"
            raise unavailable(message, retry_after=30) from error
        return await self._primary_only(request, target, place, "journal_full")

    # --- reads --------------------------------------------------------------------------------------------------

    async def _list(self, request: web.BaseRequest, place: Place, target: str) -> web.StreamResponse:
        if self._is_passed(place):
            return await self._primary.pass_on(request, target, "read")
        try:
            listed = await self._stores[place.backend].list(place.root, place.path)
        except RejectedError as error:
            raise _refused(error) from error
        prefix = f"{place.path}/" if place.path else ""
        files = [
            {"path": item.path.removeprefix(prefix), "is_dir": item.is_dir}
            | ({"file_size": item.size} if item.size is not None else {})
            for item in listed
        ]
        return web.Response(body=orjson.dumps({"files": files}), content_type="application/json", headers=_READ)

    async def _download(self, request: web.BaseRequest, place: Place, target: str) -> web.StreamResponse:
        if self._is_passed(place):
            return await self._primary.pass_on(request, target, "read")
        if is_hostless(place.root):
            path = quote(effective(place.uri.removeprefix(_OWN)), safe="/")
            return await pass_on(request, self._upstreams[place.backend], f"{_ROUTE}/{path}", "registry")
        try:
            async with self._stores[place.backend].fetch(place.root, place.path) as fetched:
                if fetched is None:
                    message = f"there is no file {place.path!r} below its artifact root"
                    raise Refusal(404, "RESOURCE_DOES_NOT_EXIST", message)
                return await self._serve(request, place, fetched)
        except RejectedError as error:
            raise _refused(error) from error

    async def _serve(self, request: web.BaseRequest, place: Place, fetched: Fetched) -> web.StreamResponse:
        """Send a file as MLflow's server would; a range of it if one was asked for."""
        name = place.path.rpartition("/")[2]
        headers = {
            "X-Dualtrack": "read",
            "Content-Type": mimetypes.guess_type(name)[0] or "application/octet-stream",
            "Content-Disposition": disposition(name),
            "X-Content-Type-Options": "nosniff",
            "Accept-Ranges": "bytes",
        }
        if fetched.etag:
            headers["ETag"] = fetched.etag
        if fetched.etag and fetched.etag in request.headers.get("If-None-Match", ""):
            return web.Response(status=304, headers={"ETag": fetched.etag, **_READ})
        is_same = request.headers.get("If-Range", fetched.etag) == fetched.etag
        span = requested_range(request.headers.get("Range", ""), fetched.size) if is_same else None
        response = web.StreamResponse(status=206 if span else 200, headers=headers)
        if span is not None:
            response.headers["Content-Range"] = f"bytes {span.start}-{span.stop - 1}/{fetched.size}"
            response.content_length = len(span)
        elif fetched.size is not None:
            response.content_length = fetched.size
        return await send(request, response, _cut(fetched.chunks, span))


_READ = {"X-Dualtrack": "read"}
_ALONE = {"X-Dualtrack": "primary-only"}


async def _cut(chunks: AsyncIterator[bytes], span: range | None) -> AsyncIterator[bytes]:
    at = 0
    async for chunk in chunks:
        if span is None:
            yield chunk
            continue
        if at >= span.stop:
            return
        part = chunk[max(0, span.start - at) : span.stop - at]
        at += len(chunk)
        if part:
            yield part


def _note(path: str, upload: Upload) -> ArtifactNote:
    spool = upload.spooled.name if upload.spooled is not None else ""
    return ArtifactNote(path=path, size=upload.size, sha256=upload.sha256, spool=spool)


def _refused(error: RejectedError) -> Refusal:
    return Refusal(400, "INVALID_PARAMETER_VALUE", str(error))
