"""The files of a Databricks workspace: Files API, credentials for signed URLs, listings, roots (facts/backends B3).

Decides what lies where and who may ask for what; bytes are on its own shelf, not in the real server, which is asked
only whether a run or a logged model exists, and in which experiment. Where the truth is not known, the choice is a
field of `Choices`. Both protocols show the same files.

    PUT GET HEAD DELETE     /api/2.0/fs/files/…         PUT GET HEAD DELETE   /api/2.0/fs/directories/…
    POST …/mlflow/artifacts/credentials-for-read|write  POST …/create-multipart-upload, …/complete-multipart-upload
    GET  …/artifacts/get-presigned-upload-part-url      GET  …/artifacts/list
    POST …/logged-models/{id}/artifacts/credentials-for-upload|download        GET …/{id}/artifacts/directories
"""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import quote, unquote

from aiohttp import web

from dualtrack.emulators.record import parse_object
from dualtrack.emulators.shelf import Entry, Shelf
from dualtrack.emulators.storage import HEADERS, PART_BYTES_MIN, PREFIX, Kind, Storage, StorageError, chunks_of

JSON: TypeAlias = Any
Ask: TypeAlias = Callable[[str], Awaitable[Mapping[str, JSON]]]  # GET on the real server; {} for what it lacks

MLFLOW = "/api/2.0/mlflow/"
FILES, FOLDERS = "/api/2.0/fs/files/", "/api/2.0/fs/directories/"
ARTIFACTS = "WorkspaceInternal/Mlflow/Artifacts"
TRACKING = "dbfs:/databricks/mlflow-tracking"
OF_MODEL = re.compile(r"logged-models/([^/]+)/artifacts/(credentials-for-upload|credentials-for-download|directories)")
REAL_ROOT = re.compile(
    r"mlflow-artifacts:/(?P<experiment>\d+)/(?:models/(?P<model>m-\w+)|(?P<run>\w+))/artifacts(?P<below>(?:/.*)?)"
)
PATHS_MAX, PARTS_MAX = 2000, 10_000  # a credentials request [docs]; a multipart upload of S3's
CODES = {
    400: "INVALID_PARAMETER_VALUE",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ALREADY_EXISTS",
    501: "NOT_IMPLEMENTED",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What differs between workspaces, or is not known. `refuses` is a status for all of WorkspaceInternal, 0 for none.

    `lifetime` is that of a signed URL in seconds; `page` the entries of a listing, `credentials` those of an answer
    with credentials; `terse` the body of a write that has nothing to say; `rewrites` turns the real server's roots
    into those of a workspace.
    """

    kind: Kind = Kind.AZURE
    refuses: int = 0
    rewrites: bool = False
    lifetime: float = 3600
    page: int = 1000
    credentials: int = 1000
    part_bytes_min: int = PART_BYTES_MIN
    terse: bytes = b"{}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the files of a run or a model lie: its id, its root as it is told, the key of its folder."""

    name: str
    root: str
    key: str


@dataclass(frozen=True, slots=True)
class Owner:
    """What is asked of the real server about a run or a model, and what its folders are called, in roots and keys."""

    word: str
    call: str
    document: str
    root: str
    key: str

    def place(self, name: str, experiment: str) -> Place:
        return Place(
            name=name,
            root=f"{TRACKING}/{experiment}/{self.root}{name}/artifacts",
            key=f"{ARTIFACTS}/{experiment}/{self.key}{name}/artifacts",
        )


RUN = Owner("Run", "runs/get?run_id=", "run", "", "Runs/")
MODEL = Owner("Logged model", "logged-models/", "model", "logged_models/", "LoggedModels/")


class RefusalError(Exception):
    """An answer in the workspace's shape of errors."""

    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.code = code or CODES[status]


class DatabricksFiles:
    """The files of one workspace."""

    def __init__(self, choices: Choices | None = None) -> None:
        self._choices = choices or Choices()
        self.shelf = Shelf()
        self.storage = Storage(
            self.shelf,
            self._choices.kind,
            lifetime=self._choices.lifetime,
            part_bytes_min=self._choices.part_bytes_min,
        )

    def close(self) -> None:
        self.shelf.close()

    async def serve(
        self, request: web.Request, body: bytes | None, ask: Ask, *, is_signed_in: bool
    ) -> web.StreamResponse | bool | None:
        """Answer a call about files; None for any other, False when it needs a token. The storage wants none."""
        path = unquote(request.raw_path.partition("?")[0])
        if path.startswith(f"{PREFIX}/"):
            return await self.storage.handle(request, body)
        if not self._is_ours(path):
            return None
        return await self._answer(request, path, body, ask) if is_signed_in else False

    def _is_ours(self, path: str) -> bool:
        is_served = self._choices.rewrites and path.startswith("/api/2.0/mlflow-artifacts/")
        is_known = path.startswith(("/api/2.0/fs/", f"{MLFLOW}artifacts/"))
        return is_served or is_known or OF_MODEL.fullmatch(path.removeprefix(MLFLOW)) is not None

    async def _answer(self, request: web.Request, path: str, body: bytes | None, ask: Ask) -> web.StreamResponse | None:
        try:
            if path.startswith((FILES, FOLDERS)):
                return await self._by_path(request, path, body)
            if path.startswith(MLFLOW):
                return await self._by_entity(request, path.removeprefix(MLFLOW), parse_object(body), ask)
        except RefusalError as error:
            return _error(error.status, error.code, str(error))
        except StorageError as error:
            return _error(400, "INVALID_PARAMETER_VALUE", error.code)
        return _error(404, "ENDPOINT_NOT_FOUND", f"No API found for '{request.method} {path}'")

    # --- Files API ----------------------------------------------------------------------------------------------

    async def _by_path(self, request: web.Request, path: str, body: bytes | None) -> web.StreamResponse:
        key = path.removeprefix(FILES).removeprefix(FOLDERS)
        if any(part in {"", ".", ".."} for part in key.rstrip("/").split("/")):
            raise RefusalError(400, f"Invalid path: /{key}")
        if self._choices.refuses and key.startswith("WorkspaceInternal/"):
            raise RefusalError(self._choices.refuses, f"No access to /{key}")
        key = key.rstrip("/")
        if path.startswith(FOLDERS):
            return self._folder(request, key)
        if request.method == "PUT":
            return await self._put(request, key, body)
        place = self.shelf.file(key)
        if place is None:
            raise RefusalError(404, f"The file /{key} does not exist.")
        if request.method == "DELETE":
            self.shelf.remove(key)
            return web.Response(status=204)
        return web.FileResponse(place, headers={"Content-Type": "application/octet-stream"})

    async def _put(self, request: web.Request, key: str, body: bytes | None) -> web.Response:
        if self.shelf.is_folder(key) or self.shelf.has_file_above(key):
            raise RefusalError(400, f"/{key} is a directory, or below a file.")
        if self.shelf.file(key) is not None and request.query.get("overwrite") != "true":
            raise RefusalError(409, f"The file /{key} exists.")
        part = await self.shelf.receive(chunks_of(request, body))
        self.shelf.make_folder(key.rpartition("/")[0])
        self.shelf.commit(key, [part])
        return web.Response(status=204)

    def _folder(self, request: web.Request, key: str) -> web.Response:
        if request.method == "PUT":
            self.shelf.make_folder(key)
            return web.Response(status=204)
        if not self.shelf.is_folder(key):
            raise RefusalError(404, f"The directory /{key} does not exist.")
        if request.method == "DELETE":
            if self.shelf.children(key):
                raise RefusalError(400, f"The directory /{key} is not empty.", "DIRECTORY_NOT_EMPTY")
            self.shelf.remove_folder(key)
            return web.Response(status=204)
        page, token = _page(self.shelf.children(key), self._choices.page, request.query.get("page_token"))
        return web.json_response(_without_none({"contents": [_content(entry) for entry in page]} | token))

    # --- by run and model ---------------------------------------------------------------------------------------

    async def _by_entity(
        self, request: web.Request, path: str, document: Mapping[str, JSON], ask: Ask
    ) -> web.Response | None:
        model = OF_MODEL.fullmatch(path)
        if model is not None:
            place = await self._place(MODEL, model[1], ask)
            if model[2] == "directories":
                return self._list(request, place, request.query.get("artifact_directory_path", ""))
            right = "w" if model[2].endswith("upload") else "r"
            paths = document.get("paths") or []
            infos, token = self._credentials(request, place, right, paths, document.get("page_token"))
            credentials = [{"model_id": model[1], "credential_info": info} for info in infos]
            return web.json_response({"credentials": credentials} | token)
        given = document if request.method == "POST" else request.query
        name = str(given.get("run_id") or given.get("run_uuid") or "")
        # mlflow 3.17.2 names a model in the run's place when it uploads in parts [unverified that this is taken]
        place = await self._place(MODEL if name.startswith("m-") and "upload" in path else RUN, name, ask)
        return self._of_run(request, path.removeprefix("artifacts/"), place, given)

    def _of_run(self, request: web.Request, call: str, place: Place, given: Mapping[str, JSON]) -> web.Response | None:
        match call:
            case "list":
                return self._list(request, place, str(given.get("path", "")))
            case "credentials-for-read" | "credentials-for-write":
                right = "r" if call.endswith("read") else "w"
                infos, token = self._credentials(
                    request, place, right, given.get("path") or [], given.get("page_token")
                )
                return web.json_response({"credential_infos": infos} | token)
            case "create-multipart-upload":
                return web.json_response(self._begin(request, place, given))
            case "complete-multipart-upload":
                etags = {int(part["part_number"]): str(part["etag"]) for part in given.get("part_etags") or []}
                self.storage.complete(str(given["upload_id"]), self._key(place, given["path"]), etags)
                return web.Response(body=self._choices.terse, content_type="application/json")
            case "get-presigned-upload-part-url":
                info = self._part(request, place, given, str(given["upload_id"]), int(given["part_number"]))
                return web.json_response({"upload_credential_info": info})
            case _:
                return None

    def _credentials(
        self, request: web.Request, place: Place, right: str, paths: Sequence[str], token: str | None
    ) -> tuple[list[JSON], dict[str, str]]:
        if not 0 < len(paths) <= PATHS_MAX:
            raise RefusalError(400, f"Between 1 and {PATHS_MAX} paths, not {len(paths)}")
        page, more = _page(paths, self._choices.credentials, token)
        headers = HEADERS[self.storage.kind] if right == "w" else {}
        return [self._info(request, place, path, right, headers) for path in page], more

    def _begin(self, request: web.Request, place: Place, given: Mapping[str, JSON]) -> JSON:
        if self.storage.kind is not Kind.AWS or not 0 < int(given["num_parts"]) <= PARTS_MAX:
            raise RefusalError(400, "Multipart uploads are for S3, with 1 to 10000 parts")
        upload = self.storage.begin(self._key(place, given["path"]))
        parts = range(1, int(given["num_parts"]) + 1)
        return {
            "upload_id": upload,
            "upload_credential_infos": [self._part(request, place, given, upload, number) for number in parts],
            "abort_credential_info": self._info(request, place, given["path"], "d", {}, uploadId=upload),
        }

    def _part(self, request: web.Request, place: Place, given: Mapping[str, JSON], upload: str, number: int) -> JSON:
        claims = {"uploadId": upload, "partNumber": str(number)}
        return self._info(request, place, given["path"], "w", {}, **claims)

    def _info(
        self, request: web.Request, place: Place, path: str, right: str, headers: Mapping[str, str], **claims: str
    ) -> JSON:
        origin = f"{request.scheme}://{request.host}"
        return {
            "run_id": place.name,
            "path": path,
            "signed_uri": self.storage.sign(origin, right, self._key(place, path), **claims),
            "type": self.storage.kind,
            "headers": [{"name": name, "value": value} for name, value in headers.items()],
        }

    def _key(self, place: Place, path: str) -> str:
        if not path or path.startswith("/") or ".." in path.split("/"):
            raise RefusalError(400, f"Invalid path: {path}")
        return f"{place.key}/{path}"

    def _list(self, request: web.Request, place: Place, path: str) -> web.Response:
        """List a folder by paths relative to the root; a file lists as itself."""
        folder = self._key(place, path.rstrip("/")) if path else place.key
        entries = [self.shelf.entry(folder)] if self.shelf.file(folder) else self.shelf.children(folder)
        page, token = _page(entries, self._choices.page, request.query.get("page_token"))
        files = [_file(entry, len(place.key) + 1) for entry in page]
        return web.json_response(_without_none({"root_uri": place.root, "files": files or None} | token))

    async def _place(self, owner: Owner, name: str, ask: Ask) -> Place:
        answer = await ask(f"{MLFLOW}{owner.call}{quote(name)}")
        if not answer:
            raise RefusalError(404, f"{owner.word} '{name}' not found", "RESOURCE_DOES_NOT_EXIST")
        return owner.place(name, answer[owner.document]["info"]["experiment_id"])

    # --- roots --------------------------------------------------------------------------------------------------

    def rewrite(self, host: str, document: JSON) -> JSON:
        """Name roots as a workspace does; those that somebody chose stay."""
        if not self._choices.rewrites:
            return document
        if isinstance(document, list):
            return [self.rewrite(host, item) for item in document]
        if not isinstance(document, dict):
            return document
        return {key: _root(document, key, self.rewrite(host, value)) for key, value in document.items()}


def _root(holder: Mapping[str, JSON], key: str, value: JSON) -> JSON:
    if not isinstance(value, str) or not value.startswith("mlflow-artifacts:"):
        return value
    if "experiment_id" not in holder:
        return _of_version(value) if key == "artifact_uri" else value
    experiment = f"{TRACKING}/{holder['experiment_id']}"
    match key, holder:
        case "artifact_location", _:
            return experiment
        case "artifact_uri", {"model_id": model}:
            return f"{experiment}/logged_models/{model}/artifacts"
        case "artifact_uri", {"run_id": run}:
            return f"{experiment}/{run}/artifacts"
        case _:
            return value


def _of_version(root: str) -> str:
    """Where a model version is downloaded from: the answer holds nothing but the real server's root."""
    found = REAL_ROOT.fullmatch(root)
    if found is None:
        return root
    owner = f"logged_models/{found['model']}" if found["model"] else found["run"]
    return f"{TRACKING}/{found['experiment']}/{owner}/artifacts{found['below']}"


def _page(items: Sequence[Any], size: int, token: str | None) -> tuple[Sequence[Any], dict[str, str]]:
    """The page that a token names, and the token of the next one, if there is one."""
    start = int(token) if token else 0
    end = start + size
    return items[start:end], {"next_page_token": str(end)} if end < len(items) else {}


def _content(entry: Entry) -> JSON:
    name = entry.path.rpartition("/")[2]
    told = {"path": f"/{entry.path}", "name": name, "is_directory": entry.is_dir}
    return told if entry.is_dir else told | {"file_size": entry.size, "last_modified": entry.at}


def _file(entry: Entry, cut: int) -> JSON:
    told = {"path": entry.path[cut:], "is_dir": entry.is_dir}
    return told if entry.is_dir else told | {"file_size": entry.size}


def _without_none(document: dict[str, JSON]) -> dict[str, JSON]:
    return {key: value for key, value in document.items() if value is not None}


def _error(status: int, code: str, message: str) -> web.Response:
    return web.json_response({"error_code": code, "message": message}, status=status)
