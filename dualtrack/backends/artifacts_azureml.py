"""Files of Azure ML runs: registered with the workspace, their bytes behind signed URLs of its storage account.

    put ─▶ register (gathered, ≤ 100 paths a call) ─▶ PUT to the signed URL
             └─ conflict: it was there, or a crash left it without bytes ─▶ a writable URL ─▶ PUT over it

For roots `azureml://<host>/mlflow/…{WS}/experiments/<exp>/runs/<run>/artifacts` and the older
`azureml://experiments/<name>/runs/<run>/artifacts`. The run history API answers beside MLflow's on the backend's own
host; nothing is ever asked of the host that a root names, so a root of another workspace is refused and the token stays
home. Facts A5. Registration is not idempotent, which is why nothing here relies on it: every upload replaces what is
there, and may be repeated after a crash at any step. Until the bytes are there a registered file lists, and reads as
missing.

The service tells no sizes and lists a whole run, flat. The emulated one was driven by the vendor's own plugin too
(azureml-mlflow 1.62.0.post6 with mlflow 3.15.0, 2026-11): uploads, blocks, listings, downloads, the conflict. Not
verified on the real service: that `write` gives a URL for runs made through MLflow (without one the entry is deleted
and registered anew), and that `hardDelete` removes the bytes.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final, TypeAlias, cast
from urllib.parse import parse_qs, quote, unquote, urlsplit

import orjson

from dualtrack.backends.answers import fetched
from dualtrack.backends.azureml_api import PORTS, RUN_ID, SCOPE, WorkspaceApi
from dualtrack.backends.http import HttpBackend
from dualtrack.backends.refusals import error_of
from dualtrack.backends.signed import ExpiredUrlError, MissingError, SignedStorage
from dualtrack.core.artifact import Listed, UnsafePathError, effective
from dualtrack.core.exchange import Document
from dualtrack.errors import BackendError, RejectedError, UnreachableError
from dualtrack.ports import Fetched, Reply

BATCH_MAX: Final = 100  # paths per registration; the service refuses more, facts A5
_GATHERING_SECONDS: Final = 0.005
# what the vendor's plugin sends with each blob (facts A5): never the real type
_OF_BLOBS: Final = {"x-ms-version": "2025-11-05", "Content-Type": "application/octet-stream"}
_OF_RUN: Final = re.compile(r"/(experiments|experimentids)/([^/]+)/runs/([^/]+)/artifacts(?:/(.*))?", re.DOTALL)

Url: TypeAlias = str


@dataclass(frozen=True, slots=True)
class _Run:
    """A run by its place in the run history API, `inside` the folder of it that the root names."""

    kind: str
    experiment: str
    id: str
    inside: str = field(default="", compare=False)


@dataclass(slots=True)
class _Batch:
    """Paths of one run that wait for one registration; `done` holds what became of them."""

    paths: list[str]
    done: "asyncio.Future[dict[str, Url | None] | BackendError]"


class AzureArtifacts:
    """An `ArtifactStore` of the roots of one workspace. `close` closes the storage, and leaves the backend open."""

    def __init__(self, backend: HttpBackend, storage: SignedStorage) -> None:
        self._name = backend.name
        self._storage = storage
        self._api = WorkspaceApi(backend)
        self._waiting: dict[_Run, _Batch] = {}

    async def close(self) -> None:
        await self._storage.close()

    async def put(self, root: str, path: str, source: str) -> None:
        operation = f"put {path}"
        run, place = self._place(operation, root, path)
        await asyncio.to_thread(self._check_source, operation, source)  # an entry without a file would stay
        url = await self._registered(run, place) or await self._writable(operation, run, place)
        with suppress(ExpiredUrlError):
            return await self._storage.put_blob(url, _OF_BLOBS, source)
        url = await self._writable(operation, run, place)
        try:
            await self._storage.put_blob(url, _OF_BLOBS, source)
        except ExpiredUrlError as error:
            raise error.again() from error

    async def _registered(self, run: _Run, path: str) -> Url | None:
        """Register one file, together with what else of its run comes within some milliseconds.

        The first one calls for all. If it is cancelled, the others begin anew: they may find a conflict, which is fine.
        """
        while True:
            batch = self._waiting.get(run)
            if batch is None or len(batch.paths) >= BATCH_MAX or path in batch.paths:
                return await self._lead(run, path)
            batch.paths.append(path)
            await asyncio.wait([batch.done])
            if not batch.done.cancelled():
                return self._outcome(batch.done.result(), path)

    async def _lead(self, run: _Run, path: str) -> Url | None:
        batch = self._waiting[run] = _Batch([path], asyncio.get_running_loop().create_future())
        try:
            await asyncio.sleep(_GATHERING_SECONDS)
            self._close(run, batch)
            batch.done.set_result(await self._register(run, batch.paths))
        except BackendError as error:
            batch.done.set_result(error)
        finally:
            self._close(run, batch)
            batch.done.cancel()  # nothing, unless this was cut short
        return self._outcome(batch.done.result(), path)

    def _close(self, run: _Run, batch: _Batch) -> None:
        if self._waiting.get(run) is batch:
            del self._waiting[run]

    def _outcome(self, answered: dict[str, Url | None] | BackendError, path: str) -> Url | None:
        if isinstance(answered, BackendError):
            raise answered
        return answered[path]

    async def _register(self, run: _Run, paths: Sequence[str]) -> dict[str, Url | None]:
        operation = f"register {len(paths)} files"
        target = self._history(run, "/batch/metadata")
        document = await self._api.ask(operation, "POST", target, {"paths": [{"path": path} for path in paths]})
        if document is None:
            raise self._rejected(operation, f"run {run.id} is not there", "was it deleted?")
        urls = cast("dict[str, Document]", document.get("artifactContentInformation") or {})
        errors = cast("dict[str, Document]", document.get("errors") or {})
        return {path: self._either(f"put {path}", urls.get(path), errors.get(path)) for path in paths}

    def _either(self, operation: str, content: Document | None, error: Document | None) -> Url | None:
        """Take one path's part of a registration: its URL, or None for one that was there before."""
        if content is not None:
            return self._url(operation, content)
        code, message = error_of(orjson.dumps(error or {}))
        if "conflict" in message.lower() or "already exists" in message.lower():
            return None
        if error is None:
            raise self._unreachable(operation, "the registration says nothing of it", "is it the service's answer?")
        raise self._rejected(operation, f"{code}: {message[:300]}", "rename the file, or look at the run's limits")

    async def _writable(self, operation: str, run: _Run, path: str) -> Url:
        """Get a URL to write over what is registered; register it anew where the service gives none."""
        answer = await self._api.ask(operation, "GET", self._api.artifact(run.id, "write", path), accepts_refusal=True)
        if answer is not None:
            return self._url(operation, answer)
        await self._forget(operation, run, path)
        url = (await self._register(run, [path]))[path]
        if url is None:
            hint = "delete the file in the workspace, or let the identity write artifacts"
            raise self._rejected(operation, "it exists, and the service gives no URL to replace it", hint)
        return url

    @asynccontextmanager
    async def fetch(self, root: str, path: str) -> AsyncIterator[Fetched | None]:
        operation = f"fetch {path}"
        run, place = self._place(operation, root, path)
        async with AsyncExitStack() as stack:
            reply = await self._opened(operation, run, place, stack)
            yield fetched(reply) if reply else None

    async def _opened(self, operation: str, run: _Run, path: str, stack: AsyncExitStack) -> Reply | None:
        with suppress(ExpiredUrlError):
            return await self._read(operation, run, path, stack)
        try:
            return await self._read(operation, run, path, stack)
        except ExpiredUrlError as error:
            raise error.again() from error

    async def _read(self, operation: str, run: _Run, path: str, stack: AsyncExitStack) -> Reply | None:
        """Begin to read; None when nothing is registered, or registered without bytes."""
        target = f"{self._history(run, '/contentinfo')}?path={quote(path, safe='')}"
        answer = await self._api.ask(operation, "GET", target)
        if answer is None:
            return None
        try:
            return await stack.enter_async_context(self._storage.fetch(self._url(operation, answer), {}))
        except MissingError:
            return None

    async def list(self, root: str, path: str) -> list[Listed]:
        run, folder = self._place(f"list {path}", root, path)
        prefix = f"{folder}/" if folder else ""
        found: set[tuple[str, bool]] = set()
        async for name in self._names(f"list {path}", run):
            if name.startswith(prefix):
                first, _, rest = name.removeprefix(prefix).partition("/")
                found.add((f"{path}/{first}" if path else first, bool(rest)))
        return [Listed(path=name, is_dir=is_dir) for name, is_dir in sorted(found)]

    async def delete(self, root: str, path: str) -> None:
        operation = f"delete {path}"
        run, place = self._place(operation, root, path)
        prefix = f"{place}/" if place else ""
        doomed = [name async for name in self._names(operation, run) if name == place or name.startswith(prefix)]
        for name in doomed:
            await self._forget(operation, run, name)

    async def _names(self, operation: str, run: _Run) -> AsyncIterator[str]:
        """All that is registered for a run, page by page."""
        token = ""
        while True:
            after = f"?continuationToken={quote(token, safe='')}" if token else ""
            page = await self._api.ask(operation, "GET", self._history(run, after)) or {}
            for entry in cast("Sequence[Document]", page.get("value") or []):
                yield str(entry["path"])
            last, token = token, _token_of(page)
            if not token:
                return
            if token == last:
                raise self._unreachable(operation, "the listing does not go on", "is it the service's answer?")

    async def _forget(self, operation: str, run: _Run, path: str) -> None:
        await self._api.ask(operation, "DELETE", f"{self._api.artifact(run.id, 'metadata', path)}&hardDelete=true")

    def _url(self, operation: str, content: Document) -> Url:
        """Take the signed URL out of an answer; a plain one only from a workspace that is itself plain."""
        url = str(content.get("contentUri") or "")
        if urlsplit(url).scheme not in {"https", self._api.scheme}:
            raise self._unreachable(operation, "the service gives no https URL for it", "is it the service's answer?")
        return url

    def _place(self, operation: str, root: str, path: str) -> tuple[_Run, str]:
        """Take a root apart; refuse one of another workspace."""
        run = self._run(operation, root)
        try:
            return run, effective(f"{run.inside}/{path}".strip("/"))
        except UnsafePathError as error:
            raise self._rejected(operation, f"{root} with {path!r} is no safe path", "rename the file") from error

    def _run(self, operation: str, root: str) -> _Run:
        place = urlsplit(root)
        rest = f"/experiments{place.path}" if place.netloc == "experiments" else self._below_scope(operation, root)
        found = _OF_RUN.fullmatch(rest)
        if found is None or not RUN_ID.fullmatch(unquote(found[3])) or unquote(found[2]) in {".", ".."}:
            raise self._rejected(operation, f"{root} is no artifact root of a run", "what does the backend answer?")
        return _Run(found[1], unquote(found[2]), unquote(found[3]), unquote(found[4] or ""))

    def _below_scope(self, operation: str, root: str) -> str:
        place = urlsplit(root)
        found = SCOPE.search(place.path)
        try:
            host = (place.hostname, place.port or PORTS.get(self._api.scheme))
        except ValueError as error:
            raise self._rejected(operation, f"{root} is no URI", "what does the backend answer?") from error
        if (
            not self._api.scope
            or found is None
            or (host, found[0].lower()) != (self._api.host, self._api.scope.lower())
        ):
            hint = "give that workspace a backend of its own, or correct the backend's url"
            raise self._rejected(operation, f"{root} lies in another workspace than the backend's", hint)
        return place.path[found.end() :]

    def _history(self, run: _Run, rest: str) -> str:
        return self._api.run(run.kind, run.experiment, run.id, f"/artifacts{rest}")

    def _check_source(self, operation: str, source: str) -> None:
        self._api.answers.opened(source, operation).close()

    def _rejected(self, operation: str, cause: str, hint: str) -> RejectedError:
        return RejectedError(self._name, operation, cause, hint)

    def _unreachable(self, operation: str, cause: str, hint: str, retry_after: float | None = None) -> UnreachableError:
        return UnreachableError(self._name, operation, cause, hint, retry_after=retry_after)


def _token_of(page: Document) -> str:
    """Where a listing goes on. The vendor's plugin follows the link; here its token counts, its host never."""
    if token := page.get("continuationToken"):
        return str(token)
    return parse_qs(urlsplit(str(page.get("nextLink") or "")).query).get("continuationToken", [""])[0]
