"""An emulated Databricks workspace with a run and a logged model in it, and the store that reaches its files."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from aiohttp import ClientSession

from dualtrack.backends.artifacts import Artifacts
from dualtrack.backends.artifacts_databricks import DatabricksArtifacts
from dualtrack.backends.auth import bearer
from dualtrack.backends.databricks_signed import Sizes
from dualtrack.backends.http import HttpBackend
from dualtrack.backends.signed import SignedStorage
from dualtrack.demo.servers import MlflowServer
from dualtrack.emulators.databricks import Databricks
from dualtrack.emulators.databricks_files import Choices, DatabricksFiles
from dualtrack.emulators.storage import Kind
from dualtrack.emulators.tracking import Settings
from dualtrack.metrics import Metrics
from tests.support.servers import Control, emulating

TOKEN = "a-token"
AGENT = "dualtrack/test"
# what a root is of, and how its files are reached: each once
ROADS = {
    "databricks run": ("run", Choices(rewrites=True)),
    "databricks model": ("model", Choices(rewrites=True)),
    "databricks volume": ("volume", Choices(refuses=404)),
    "databricks azure": ("run", Choices(rewrites=True, refuses=403, kind=Kind.AZURE)),
    "databricks adls": ("run", Choices(rewrites=True, refuses=404, kind=Kind.ADLS)),
    "databricks aws": ("run", Choices(rewrites=True, refuses=403, kind=Kind.AWS)),
    "databricks gcp": ("run", Choices(rewrites=True, refuses=404, kind=Kind.GCP)),
    "databricks azure model": ("model", Choices(rewrites=True, refuses=404, kind=Kind.AZURE)),
    "databricks legacy": ("legacy", Choices(kind=Kind.ADLS)),
}
# those where signed URLs are all there is, so nothing can be deleted
SIGNED = {name for name, (_, choices) in ROADS.items() if choices.refuses and "volume" not in name} | {
    "databricks legacy"
}


@dataclass
class Workspace:
    """The emulator, what reads its log, and the store that reaches it."""

    url: str
    emulator: DatabricksFiles
    files: Artifacts
    session: ClientSession
    control: Control

    async def post(self, path: str, body: Any) -> Any:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with self.session.post(f"{self.url}/api/2.0/mlflow/{path}", json=body, headers=headers) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    async def root(self, of: str) -> str:
        """A root of a new run or model, as the workspace names it, or one in a volume."""
        if of == "model":
            answer = await self.post("logged-models", {"experiment_id": "0", "name": "m"})
            model = answer["model"]["info"]["model_id"]
            return f"dbfs:/databricks/mlflow-tracking/0/logged_models/{model}/artifacts"
        run = (await self.post("runs/create", {"experiment_id": "0"}))["run"]["info"]["run_id"]
        return {
            "run": f"dbfs:/databricks/mlflow-tracking/0/{run}/artifacts",
            "legacy": f"dbfs:/databricks/mlflow/0/{run}/artifacts",
            "volume": f"dbfs:/Volumes/main/default/files/{run}/artifacts",
        }[of]

    async def calls(self, path: str = "") -> list[str]:
        """What arrived so far, as method and path."""
        return [f"{seen['method']} {seen['path']}" for seen in await self.control.log() if path in seen["path"]]


@asynccontextmanager
async def workspace(server: MlflowServer, choices: Choices, sizes: Sizes | None = None) -> AsyncIterator[Workspace]:
    emulator = DatabricksFiles(replace(choices, page=3))
    settings = Settings(upstream=server.url, token=TOKEN, dialect=Databricks(), site=emulator)
    async with emulating(settings) as url, reaching(url, sizes) as files, ClientSession() as session:
        yield Workspace(url, emulator, files, session, Control(url, session))


@asynccontextmanager
async def reaching(url: str, sizes: Sizes | None = None) -> AsyncIterator[Artifacts]:
    """The files of the workspace at `url`."""
    backend = HttpBackend(
        "databricks",
        url,
        bearer(TOKEN),
        Metrics(),
        connect_timeout=5.0,
        read_timeout=30.0,
        call_timeout=30.0,
        connections=4,
        tls=True,
        user_agent=AGENT,
    )
    storage = SignedStorage("databricks", connect_timeout=5.0, read_timeout=30.0, tls=True, user_agent=AGENT)
    files = Artifacts(backend, clouds={"dbfs": DatabricksArtifacts(backend, storage, sizes)})
    try:
        yield files
    finally:
        await files.close()
        await backend.close()
