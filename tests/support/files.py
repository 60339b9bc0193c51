"""Files of runs and models, as a client puts them and as each server has them."""

import hashlib
import io
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

from tests.support.flow import Client, Json, Reply, Workspace

ROUTE = "/api/2.0/mlflow-artifacts/artifacts"


def target(root: str, path: str) -> str:
    """The request target of a file below a root that a client was given."""
    assert root.startswith("mlflow-artifacts:/"), root
    assert not root.startswith("mlflow-artifacts://"), root
    below = root.removeprefix("mlflow-artifacts:/")
    return f"{ROUTE}/{quote(f'{below}/{path}' if path else below, safe='/=@')}"


async def run_root(client: Client, run_id: str) -> str:
    """Where a client is told to put a run's files."""
    answer = (await client.call("GET", f"runs/get?run_id={run_id}")).json
    return str(answer["run"]["info"]["artifact_uri"])


async def put(client: Client, root: str, path: str, content: bytes = b"content") -> Reply:
    return await client.call("PUT", target(root, path), io.BytesIO(content), Content_Type="text/plain")


async def get(client: Client, root: str, path: str, **headers: str) -> Reply:
    return await client.call("GET", target(root, path), **headers)


async def delete(client: Client, root: str, path: str) -> Reply:
    return await client.call("DELETE", target(root, path))


async def listing(client: Client, root: str, path: str = "") -> list[Json]:
    below = root.removeprefix("mlflow-artifacts:/")
    asked = quote(f"{below}/{path}" if path else below, safe="")
    answer: Json = (await client.call("GET", f"{ROUTE}?path={asked}")).json
    return list(answer.get("files", []))


async def tree(client: Client, root: str, path: str = "") -> dict[str, bytes]:
    """All files below a root, by their paths."""
    found: dict[str, bytes] = {}
    for item in await listing(client, root, path):
        name = f"{path}/{item['path']}" if path else str(item["path"])
        if item["is_dir"]:
            found |= await tree(client, root, name)
        else:
            found[name] = (await get(client, root, name)).body
    return found


def behind(workspace: Workspace, client: Client) -> Client:
    """The server itself, past the façade."""
    return Client(workspace.side.url, client._session)


async def mirror_of(workspace: Workspace, client: Client, run_id: str) -> Json:
    """The mirrored run on a secondary, found by its mark."""
    server = behind(workspace, client)
    experiments = (await server.post("experiments/search", max_results=1000, view_type="ALL"))["experiments"]
    body: Json = {
        "experiment_ids": [item["experiment_id"] for item in experiments],
        "filter": f"tags.`dualtrack.source_run_id` = '{run_id}'",
        "run_view_type": "ALL",
    }
    runs = (await server.post("runs/search", **body)).get("runs", [])
    assert len(runs) == 1, runs
    run: Json = runs[0]
    return run


async def mirrored(workspace: Workspace, client: Client, run_id: str) -> dict[str, bytes]:
    """The files of a run's mirror."""
    run = await mirror_of(workspace, client, run_id)
    return await tree(behind(workspace, client), run["info"]["artifact_uri"])


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


async def trickle(*parts: bytes) -> AsyncIterator[bytes]:
    """A body in chunks."""
    for part in parts:
        yield part


def model_document(**fields: Any) -> Json:
    return {"name": "model", "params": [], "tags": [], **fields}
