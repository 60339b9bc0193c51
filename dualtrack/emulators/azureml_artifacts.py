"""The artifacts of an Azure ML workspace: what is registered, under which run, and the signed URLs to the bytes.

Two APIs over one set of entries (facts/backends A5): the run history's, `/history/v1.0{WS}/experiments/{exp}/runs/{run}
/artifacts…`, and the generic one, `/artifact/v2.0{WS}/artifacts/{origin}/{container}/…`, where a run is the container
`dcid.<run>` of the origin `ExperimentRun`. A path is registered before any byte arrives and cannot be registered twice;
that conflict is told inside an answer 200. Listings go on by `nextLink`, which is what the vendor's plugin follows.
Runs are the real server's. Not known and chosen here: `write` answers as `contentinfo` does; deleting an entry leaves
its blob unless `hardDelete=true`; containers other than runs are made at their first use.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, TypeAlias
from urllib.parse import parse_qs, unquote, urlencode
from uuid import uuid4

from aiohttp import web

from dualtrack.emulators.azureml_errors import refused_lower
from dualtrack.emulators.azureml_scope import Scope
from dualtrack.emulators.blobs import PREFIX, Blobs
from dualtrack.emulators.record import parse_object

JSON: TypeAlias = Any
Ask: TypeAlias = Callable[[str], Awaitable[Mapping[str, JSON]]]  # GET of a path of the real server; {} for a refusal

BATCH_MAX = 100  # paths per registration, facts/backends A5
PATH_MAX = 5000  # letters, A7
ORIGIN = "ExperimentRun"
RUN_ARTIFACTS = re.compile(r"/(experiments|experimentids)/([^/]+)/runs/([^/]+)/artifacts(?:/(.*))?")
HISTORY, ARTIFACT, MLFLOW = "/history/v1.0", "/artifact/v2.0", ("/mlflow/v2.0", "/mlflow/v1.0")
ABSENT = "/api/2.0/mlflow-artifacts"  # MLflow's own artifact routes
GENERIC = re.compile(r"/artifacts/([^/]+)/([^/]+)/(.+)")


@dataclass(frozen=True, slots=True)
class Container:
    """The entries of one run, or of one upload."""

    origin: str
    name: str
    entries: dict[str, dict[str, JSON]] = field(default_factory=dict)

    def blob(self, path: str) -> str:
        return f"{self.origin}/{self.name}/{path}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A call to one container: what is asked of it, and the host that it was asked at."""

    method: str
    verb: str
    query: Mapping[str, str]
    document: Mapping[str, JSON]
    origin: str
    url: str

    @property
    def path(self) -> str:
        return self.query.get("path", "")


class AzureArtifacts:
    """The artifacts and the storage of one workspace, the `Site` of its emulator.

    Without it files are the real server's. `page` entries make a listing, then comes a continuation token;
    `storage_origin` is where signed URLs lead, if not to the emulator itself.
    """

    def __init__(self, scope: str | Scope, *, page: int = 500, storage_origin: str = "") -> None:
        self.blobs = Blobs()
        self._scope = scope if isinstance(scope, Scope) else Scope(scope)
        self._page = page
        self._storage_origin = storage_origin
        self._containers: dict[tuple[str, str], Container] = {}

    async def serve(self, request: web.Request, body: bytes | None, ask: Ask, *, is_signed_in: bool) -> "Served":
        """Answer what belongs to artifacts and storage; None is for somebody else, False for nobody without a token."""
        path = request.raw_path.partition("?")[0]
        if path.startswith(PREFIX):
            return await self.blobs.serve(request)
        history, generic = self._scope.below(HISTORY, path), self._scope.below(ARTIFACT, path)
        of_run = RUN_ARTIFACTS.fullmatch(history or "")
        is_absent = any((self._scope.below(prefix, path) or "").startswith(ABSENT) for prefix in MLFLOW)
        if not (of_run or is_absent or generic is not None):
            return None
        if not is_signed_in:
            return False
        if is_absent:
            return web.Response(status=404)
        asked = _asked(request, body, self._storage_origin)
        if of_run:
            return await self._of_run(of_run, asked, ask)
        if found := GENERIC.fullmatch(generic or ""):
            return await self._generic(found, asked, ask, request)
        return web.Response(status=404)

    def rewrite(self, host: str, document: JSON) -> JSON:
        return with_own_roots(document, host, self._scope.text)

    def close(self) -> None:
        self.blobs.close()

    async def _of_run(self, found: re.Match[str], asked: Asked, ask: Ask) -> web.Response:
        kind, experiment, run = found[1], unquote(found[2]), unquote(found[3])
        if not await _is_run_of(run, kind, experiment, ask):
            return error(404, f"Run {run} not found.")
        return self._answer(self._container(ORIGIN, f"dcid.{run}"), _with_verb(asked, found[4] or ""))

    async def _generic(self, found: re.Match[str], asked: Asked, ask: Ask, request: web.Request) -> web.Response:
        origin, name = unquote(found[1]), unquote(found[2])
        if origin == ORIGIN and not (name.startswith("dcid.") and await _run(name.removeprefix("dcid."), ask)):
            return error(404, f"Container {name} not found.")
        container = self._container(origin, name)
        if (asked.method, found[3]) == ("POST", "content"):
            return self._store(container, asked, await request.read())
        return self._answer(container, _with_verb(asked, found[3]))

    def _container(self, origin: str, name: str) -> Container:
        return self._containers.setdefault((origin, name), Container(origin, name))

    def _answer(self, container: Container, asked: Asked) -> web.Response:
        match asked.method, asked.verb:
            case "POST", "batch/metadata":
                return self._register(container, asked)
            case "POST", "batch/metadata:delete":
                return self._delete(container, [str(each) for each in asked.document.get("paths") or ()], hard=False)
            case "DELETE", "metadata":
                hard = asked.query.get("hardDelete", "").lower() == "true"
                return self._delete(container, [asked.path], hard=hard)
            case "GET", "":
                return self._list(list(container.entries.values()), asked)
            case "GET", "path":
                below = [each for path, each in container.entries.items() if _is_below(path, asked.path)]
                return self._list(below, asked)
            case "GET", "prefix/contentinfo":
                found = [path for path in container.entries if _is_below(path, asked.path)]
                return self._list([self._content(container, path, asked, "r") for path in found], asked)
            case "GET", "metadata" | "contentinfo" | "write" as verb:
                return self._one(container, asked, verb)
            case _:
                return web.Response(status=404)

    def _one(self, container: Container, asked: Asked, verb: str) -> web.Response:
        entry = container.entries.get(asked.path)
        if entry is None:
            return error(404, f"Artifact {container.blob(asked.path)} not found.")
        if verb == "metadata":
            return web.json_response(entry)
        rights = "cw" if verb == "write" else "r"
        return web.json_response(self._content(container, asked.path, asked, rights))

    def _register(self, container: Container, asked: Asked) -> web.Response:
        wanted = [str(each.get("path", "")) for each in asked.document.get("paths") or ()]
        if not wanted or len(wanted) > BATCH_MAX:
            return error(400, f"Between 1 and {BATCH_MAX} paths are registered at once, not {len(wanted)}.")
        errors: dict[str, JSON] = {}
        for path in wanted:
            if why := self._objection(container, path):
                errors[path] = {"error": {"code": "UserError", "message": why}}
            else:
                container.entries[path] = _entry(container, path)
        made = [path for path in wanted if path not in errors]
        return web.json_response(
            {
                "artifacts": {path: container.entries[path] for path in made},
                "artifactContentInformation": {path: self._content(container, path, asked, "cw") for path in made},
                "errors": errors,
            }
        )

    def _objection(self, container: Container, path: str) -> str:
        if not path or len(path) > PATH_MAX:
            return f"The path has {len(path)} letters; 1 to {PATH_MAX} are allowed."
        if path in container.entries:
            return f"Resource Conflict: ArtifactId {container.blob(path)} already exists."
        return ""

    def _store(self, container: Container, asked: Asked, content: bytes) -> web.Response:
        """Take a whole file in one call, which may replace what is there."""
        overwrites = asked.query.get("allowOverwrite", "").lower() == "true"
        appends = asked.query.get("append", "").lower() == "true"
        why = self._objection(container, asked.path)
        if why and not ((overwrites or appends) and asked.path in container.entries):
            return error(409 if asked.path in container.entries else 400, why)
        container.entries.setdefault(asked.path, _entry(container, asked.path))
        self.blobs.store(container.blob(asked.path), content, appends=appends)
        return web.json_response(container.entries[asked.path])

    def _delete(self, container: Container, paths: list[str], *, hard: bool) -> web.Response:
        if len(paths) == 1 and paths[0] not in container.entries:
            return error(404, f"Artifact {container.blob(paths[0])} not found.")
        for path in paths:
            container.entries.pop(path, None)
            if hard:
                self.blobs.remove(container.blob(path))
        return web.json_response({})

    def _list(self, entries: list[dict[str, JSON]], asked: Asked) -> web.Response:
        start = int(asked.query.get("continuationToken") or 0)
        end = start + self._page
        token = str(end) if end < len(entries) else None
        # the vendor's plugin follows the link, and knows nothing of the token
        link = f"{asked.url}?{urlencode({**asked.query, 'continuationToken': token})}" if token else None
        return web.json_response({"value": entries[start:end], "continuationToken": token, "nextLink": link})

    def _content(self, container: Container, path: str, asked: Asked, rights: str) -> dict[str, JSON]:
        return {
            "contentUri": self.blobs.sign(asked.origin, container.blob(path), rights),
            "origin": container.origin,
            "container": container.name,
            "path": path,
            "tags": None,
        }


Served: TypeAlias = "web.StreamResponse | bool | None"


def root_of(host: str, scope: str, experiment: str, run: str) -> str:
    """The artifact root of a run, as the service names it (facts/backends A5)."""
    return f"azureml://{host}/mlflow/v2.0{scope}/experiments/{experiment}/runs/{run}/artifacts"


def with_own_roots(document: JSON, host: str, scope: str) -> JSON:
    """Put the workspace's own roots into an answer of the real server."""
    if isinstance(document, list):
        return [with_own_roots(each, host, scope) for each in document]
    if not isinstance(document, dict):
        return document
    changed = {key: with_own_roots(value, host, scope) for key, value in document.items()}
    if {"artifact_uri", "run_id", "experiment_id"} <= changed.keys():
        changed["artifact_uri"] = root_of(host, scope, str(changed["experiment_id"]), str(changed["run_id"]))
    return changed


def error(status: int, message: str) -> web.Response:
    """Refuse in the lower-case shape of these APIs (facts/backends A6)."""
    return refused_lower(status, message).to_response()


def _asked(request: web.Request, body: bytes | None, storage_origin: str) -> Asked:
    path, _, text = request.raw_path.partition("?")
    return Asked(
        method=request.method,
        verb="",
        query={key: values[0] for key, values in parse_qs(text, keep_blank_values=True).items()},
        document=parse_object(body),
        origin=storage_origin or f"{request.scheme}://{request.host}",
        url=f"{request.scheme}://{request.host}{path}",
    )


def _with_verb(asked: Asked, verb: str) -> Asked:
    return replace(asked, verb=verb)


def _entry(container: Container, path: str) -> dict[str, JSON]:
    return {
        "artifactId": container.blob(path),
        "origin": container.origin,
        "container": container.name,
        "path": path,
        "etag": uuid4().hex,
        "createdTime": datetime.now(UTC).isoformat(),
        "dataPath": None,
        "tags": None,
    }


def _is_below(path: str, folder: str) -> bool:
    return not folder or path.startswith(folder.rstrip("/") + "/")


async def _run(run: str, ask: Ask) -> Mapping[str, JSON]:
    answer = await ask(f"/api/2.0/mlflow/runs/get?run_id={run}") if re.fullmatch(r"[\w.\-]+", run) else {}
    info = answer.get("run", {}).get("info", {})
    return info if isinstance(info, dict) else {}


async def _is_run_of(run: str, kind: str, experiment: str, ask: Ask) -> bool:
    """Whether the run belongs there; `experiments/` takes the id in the name's place (facts/backends A5)."""
    experiment_id = (await _run(run, ask)).get("experiment_id")
    if experiment_id is None or experiment_id == experiment or kind == "experimentids":
        return experiment_id is not None and experiment_id == experiment
    answer = await ask(f"/api/2.0/mlflow/experiments/get?experiment_id={experiment_id}")
    return bool(answer.get("experiment", {}).get("name") == experiment)
