"""An emulated Azure ML workspace with artifacts of its own, and a run in it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import ClientSession

from dualtrack.demo.servers import MlflowServer
from dualtrack.emulators.azureml import DEFAULT_SCOPE, AzureML
from dualtrack.emulators.azureml_artifacts import AzureArtifacts
from dualtrack.emulators.tracking import Settings
from tests.support.servers import Control, call, emulating

TOKEN = "a-token"
PAGE = 2  # entries per listing, so that every listing of the tests goes on


@dataclass
class Workspace:
    """One workspace, the root of a run in it, and what its emulator saw."""

    url: str
    root: str
    run_id: str
    site: AzureArtifacts
    control: Control

    @property
    def base_url(self) -> str:
        return f"{self.url}/mlflow/v2.0{DEFAULT_SCOPE}"

    async def seen(self, method: str, part: str) -> list[dict[str, Any]]:
        """The requests so far of one method whose path and query hold `part`."""
        log = await self.control.log()
        return [each for each in log if each["method"] == method and part in f"{each['path']}?{each['query']}"]


@asynccontextmanager
async def workspace(server: MlflowServer) -> AsyncIterator[Workspace]:
    site = AzureArtifacts(DEFAULT_SCOPE, page=PAGE)
    settings = Settings(upstream=server.url, token=TOKEN, dialect=AzureML(), site=site)
    async with emulating(settings) as url, ClientSession() as session:
        base = f"{url}/mlflow/v2.0{DEFAULT_SCOPE}"
        made = await asyncio.to_thread(call, base, "runs/create", {"experiment_id": "0"}, TOKEN)
        info = made["run"]["info"]
        yield Workspace(url, str(info["artifact_uri"]), str(info["run_id"]), site, Control(url, session))
