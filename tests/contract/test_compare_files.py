"""The comparison's readers of files, each against the protocol of its kind of workspace: all pages, every byte."""

import asyncio
import hashlib
import urllib.request
from collections.abc import Mapping
from urllib.parse import quote

import orjson
import pytest

from dualtrack.demo.compare import File, Side, Snapshot, read
from dualtrack.demo.servers import MlflowServer
from dualtrack.emulators.azureml import DEFAULT_SCOPE, AzureML
from dualtrack.emulators.azureml_artifacts import AzureArtifacts
from dualtrack.emulators.databricks import Databricks
from dualtrack.emulators.databricks_files import Choices, DatabricksFiles
from dualtrack.emulators.faults import Refuse, Rule
from dualtrack.emulators.tracking import Settings
from tests.support.servers import call, emulating

TOKEN = "of-the-workspace"
KEPT = orjson.dumps({"params": {"p": "1"}, "nonsense": 3})
FILES = {"größe ✓/a b.txt": b"one", "größe ✓/deep/er/100%.bin": bytes(range(256)) * 600, "empty": b""}
TREE = {**FILES, "dualtrack/overflow.json": KEPT}


def request(url: str, method: str, body: bytes, **headers: str) -> bytes:
    sent = urllib.request.Request(
        url, data=body, method=method, headers={key.replace("_", "-"): value for key, value in headers.items()}
    )
    with urllib.request.urlopen(sent, timeout=60) as answer:
        return bytes(answer.read())


def bearer(**headers: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {TOKEN}", **headers}


def made(server: MlflowServer) -> tuple[str, str]:
    """A run and a model on the real server, in the default experiment."""
    run = call(server.url, "runs/create", {"experiment_id": "0"})["run"]["info"]["run_id"]
    return str(run), str(
        call(server.url, "logged-models", {"experiment_id": "0", "name": "m"})["model"]["info"]["model_id"]
    )


def held(snapshot: Snapshot, some_id: str) -> dict[str, File]:
    files = {run.run_id: run.files for run in snapshot.runs}
    files |= {model.model_id: model.files for model in snapshot.models}
    return {file.path: file for file in files[some_id]}


def assert_holds(found: Mapping[str, File], tree: Mapping[str, bytes]) -> None:
    assert {path: (file.size, file.sha256) for path, file in found.items()} == {
        path: (len(content), hashlib.sha256(content).hexdigest()) for path, content in tree.items()
    }


async def test_the_files_api_of_databricks(mlflow_primary: MlflowServer) -> None:
    """Folders in folders, over several pages; a run or a model without any file has no folder, and none is missed."""
    site = DatabricksFiles(Choices(rewrites=True, page=1))
    settings = Settings(upstream=mlflow_primary.url, token=TOKEN, dialect=Databricks(), site=site)
    run, model = await asyncio.to_thread(made, mlflow_primary)
    bare, _ = await asyncio.to_thread(made, mlflow_primary)

    def fill(url: str) -> None:
        for what, tree in ((f"Runs/{run}", TREE), (f"LoggedModels/{model}", FILES)):
            for path, content in tree.items():
                target = quote(f"WorkspaceInternal/Mlflow/Artifacts/0/{what}/artifacts/{path}")
                request(f"{url}/api/2.0/fs/files/{target}", "PUT", content, **bearer())

    async with emulating(settings) as url:
        await asyncio.to_thread(fill, url)
        side = Side(name="databricks", kind="databricks", url=url, token=TOKEN)
        found = await asyncio.to_thread(read, side, lambda item: item["experiment_id"] == "0")

    assert_holds(held(found, run), TREE)
    assert_holds(held(found, model), FILES)
    assert_holds(held(found, bare), {})
    (reading,) = (each for each in found.runs if each.run_id == run)
    assert (reading.overflow, reading.root[:5]) == ({"params": {"p": "1"}}, "dbfs:")


async def test_the_history_of_azureml_and_its_signed_urls(mlflow_secondary: MlflowServer) -> None:
    """A path that was registered and never filled is not taken for an empty file."""
    site = AzureArtifacts(DEFAULT_SCOPE, page=2)
    dialect = AzureML(has_logged_models=False)
    settings = Settings(upstream=mlflow_secondary.url, token=TOKEN, dialect=dialect, site=site)
    run, _ = await asyncio.to_thread(made, mlflow_secondary)

    def fill(url: str) -> None:
        base = f"{url}/history/v1.0{DEFAULT_SCOPE}/experimentids/0/runs/{run}/artifacts/batch/metadata"
        asked = orjson.dumps({"paths": [{"path": path} for path in [*TREE, "hollow"]]})
        answer = orjson.loads(request(base, "POST", asked, **bearer(Content_Type="application/json")))
        for path, content in TREE.items():
            signed = answer["artifactContentInformation"][path]["contentUri"]
            request(signed, "PUT", content, x_ms_blob_type="BlockBlob")

    async with emulating(settings) as url:
        await asyncio.to_thread(fill, url)
        side = Side(name="azureml", kind="azureml", url=f"{url}/mlflow/v2.0{DEFAULT_SCOPE}", token=TOKEN)
        found = await asyncio.to_thread(read, side, lambda item: item["experiment_id"] == "0")

    files = held(found, run)
    assert files.pop("hollow").sha256 == "registered, without content"
    assert_holds(files, TREE)
    assert found.models == ()


async def test_a_workspace_that_is_asked_too_fast_is_asked_again(mlflow_secondary: MlflowServer) -> None:
    run, _ = await asyncio.to_thread(made, mlflow_secondary)
    rules = (Rule(action=Refuse(status=429), first=3),)
    async with emulating(
        Settings(upstream=mlflow_secondary.url, token=TOKEN, dialect=Databricks(), rules=rules)
    ) as url:
        side = Side(name="databricks", url=url, token=TOKEN)
        found = await asyncio.to_thread(read, side, lambda _: False)

    assert run in {each.run_id for each in found.runs}


async def test_what_a_workspace_refuses_ends_the_reading(mlflow_secondary: MlflowServer) -> None:
    """Without the right token nothing is read, and that is not an empty workspace."""
    settings = Settings(upstream=mlflow_secondary.url, token=TOKEN, dialect=AzureML())
    async with emulating(settings) as url:
        side = Side(name="azureml", kind="azureml", url=f"{url}/mlflow/v2.0{DEFAULT_SCOPE}", token="wrong")
        with pytest.raises(RuntimeError, match="401"):
            await asyncio.to_thread(read, side, lambda _: True)
        absent = Side(name="azureml", kind="azureml", url=f"{url}/mlflow/v2.0/nobody", token=TOKEN)
        with pytest.raises(RuntimeError, match="not found"):
            await asyncio.to_thread(read, absent, lambda _: True)
