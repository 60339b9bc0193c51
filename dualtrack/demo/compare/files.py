"""Where each kind of backend keeps the files of runs and models, and how a client of that vendor reads them.

    mlflow      the server's own routes: `artifacts/list`, `get-artifact`, and their like for models
    databricks  the Files API, below the folder of the run or the model
    azureml     the run history: one flat list, then a signed URL for each file, which is asked without the token

One row of `READERS` each. Written from the vendors' protocols, with nothing of the proxy's own adapters.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from urllib.parse import quote, urlencode

from dualtrack.demo.compare.rest import Side, content, get, pages

MLFLOW_FACADE, HISTORY = "/mlflow/v2.0", "/history/v1.0"  # of Azure ML, before the workspace
FILES_API = "/api/2.0/fs"
FOLDER = "/WorkspaceInternal/Mlflow/Artifacts/{experiment}/{what}/{name}/artifacts"


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """A run or a logged model, by the ids of its side."""

    name: str
    experiment_id: str
    is_model: bool = False


Chunks = Iterator[bytes] | None  # None: it is listed, and there is nothing


@dataclass(frozen=True, slots=True)
class Reader:
    """How to list all files of an owner by their paths, and how to read one."""

    paths: Callable[[Side, Owner], Iterator[str]]
    chunks: Callable[[Side, Owner, str], Chunks]


# ---- an MLflow server --------------------------------------------------------------------------------------------


def _server_paths(side: Side, owner: Owner, folder: str = "") -> Iterator[str]:
    route = f"logged-models/{owner.name}/artifacts/directories" if owner.is_model else "artifacts/list"
    asked = {"artifact_directory_path" if owner.is_model else "path": folder} if folder else {}
    for item in list(pages(side, "GET", route, "files", {**_of(owner), **asked})):
        if item.get("is_dir", False):
            yield from _server_paths(side, owner, item["path"])
        else:
            yield item["path"]


def _server_chunks(side: Side, owner: Owner, path: str) -> Chunks:
    route = f"/ajax-api/2.0/mlflow/logged-models/{owner.name}/artifacts/files" if owner.is_model else "/get-artifact"
    asked = {**_of(owner), "artifact_file_path" if owner.is_model else "path": path}
    return content(f"{side.url.rstrip('/')}{route}?{urlencode(asked)}", side.token)


def _of(owner: Owner) -> Mapping[str, str]:
    return {} if owner.is_model else {"run_id": owner.name}


# ---- Databricks --------------------------------------------------------------------------------------------------


def _files_api(side: Side, what: str, owner: Owner, path: str) -> str:
    kind = "LoggedModels" if owner.is_model else "Runs"
    folder = FOLDER.format(experiment=owner.experiment_id, what=kind, name=owner.name)
    return f"{side.url.rstrip('/')}{FILES_API}/{what}{quote(folder + path)}"


def _folder_paths(side: Side, owner: Owner, folder: str = "") -> Iterator[str]:
    url, token, inner = _files_api(side, "directories", owner, folder), "", []
    while True:
        answer = get(f"{url}?{urlencode({'page_token': token} if token else {})}", side.token, is_optional=True) or {}
        for item in answer.get("contents", ()):
            path = f"{folder}/{item['name']}"
            if item["is_directory"]:
                inner.append(path)
            else:
                yield path.removeprefix("/")
        if not (token := answer.get("next_page_token", "")):
            break
    yield from chain.from_iterable(_folder_paths(side, owner, path) for path in inner)


def _folder_chunks(side: Side, owner: Owner, path: str) -> Chunks:
    return content(_files_api(side, "files", owner, f"/{path}"), side.token)


# ---- Azure ML ----------------------------------------------------------------------------------------------------


def _history(side: Side, owner: Owner) -> str:
    base = side.url.rstrip("/").replace(MLFLOW_FACADE, HISTORY, 1)
    return f"{base}/experimentids/{quote(owner.experiment_id)}/runs/{quote(owner.name)}/artifacts"


def _registered_paths(side: Side, owner: Owner) -> Iterator[str]:
    url = _history(side, owner)
    while url:
        answer = get(url, side.token) or {}
        yield from (item["path"] for item in answer.get("value", ()))
        url = answer.get("nextLink") or ""


def _signed_chunks(side: Side, owner: Owner, path: str) -> Chunks:
    asked = urlencode({"path": path})
    found = get(f"{_history(side, owner)}/contentinfo?{asked}", side.token) or {}
    return content(found["contentUri"])


READERS = {
    "mlflow": Reader(_server_paths, _server_chunks),
    "databricks": Reader(_folder_paths, _folder_chunks),
    "azureml": Reader(_registered_paths, _signed_chunks),
}
