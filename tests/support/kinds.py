"""A backend of each kind as dualtrack has it: the emulated workspace, and the adapters that `app` builds for it."""

import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson
from aiohttp import ClientSession

from dualtrack.app import make_backend, make_clouds, name_rule
from dualtrack.backends.artifacts import Artifacts
from dualtrack.backends.http import HttpBackend
from dualtrack.config import parse
from dualtrack.core.exchange import Answer, Call
from dualtrack.core.limits import BATCH_LIMITS, LENGTHS, BatchLimits, Lengths
from dualtrack.demo.servers import MlflowServer
from dualtrack.emulators.azureml_scope import DEFAULT_SCOPE
from dualtrack.emulators.azureml_workspace import STRICT as AZUREML
from dualtrack.emulators.azureml_workspace import settings_of
from dualtrack.emulators.databricks import STRICT as DATABRICKS
from dualtrack.emulators.databricks import Databricks
from dualtrack.emulators.databricks_doors import Doors, Several
from dualtrack.emulators.databricks_files import Choices, DatabricksFiles
from dualtrack.emulators.databricks_tree import Tree
from dualtrack.emulators.tokens import Tokens
from dualtrack.emulators.tracking import Settings
from dualtrack.metrics import Metrics
from dualtrack.reconcile.reader import Reader
from dualtrack.translate.mlflow import API
from dualtrack.translate.names import NameRule
from tests.support.servers import Control, emulating

TOKEN = "of-this-kind"
KINDS = ("mlflow", "databricks", "azureml")
PAGES = {"mlflow": 25_000, "databricks": 25_000, "azureml": 999}


def _plain(upstream: str, tokens: Tokens) -> Settings:
    return Settings(upstream=upstream, tokens=tokens)


def _databricks(upstream: str, tokens: Tokens) -> Settings:
    tree = Tree(("demo@example.com",))
    site = Several(Doors(tokens, tree, {}), DatabricksFiles(Choices(rewrites=True)))
    # its rates are kept by our own calls, and would make this slow
    dialect = Databricks(terms=replace(DATABRICKS, rates=0.0), tree=tree)
    return Settings(upstream=upstream, tokens=tokens, dialect=dialect, site=site)


def _azureml(upstream: str, tokens: Tokens) -> Settings:
    return settings_of(AZUREML, upstream=upstream, tokens=tokens)


# what the workspace is, as strict as it can be, and its path
FRONTS: dict[str, tuple[Callable[[str, Tokens], Settings], str]] = {
    "mlflow": (_plain, ""),
    "databricks": (_databricks, ""),
    "azureml": (_azureml, f"/mlflow/v2.0{DEFAULT_SCOPE}"),
}
_numbers = itertools.count(1)


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One backend. `rule`, `limits` and `lengths` are what delivery keeps to there."""

    name: str
    backend: HttpBackend
    reader: Reader
    files: Artifacts
    control: Control
    rule: NameRule
    limits: BatchLimits
    lengths: Lengths

    async def post(self, path: str, operation: str = "", **body: Any) -> Answer:
        target = path if path.startswith("/") else f"{API}/{path}"
        return await self.backend.send(
            Call(operation=operation or path, method="POST", target=target, body=orjson.dumps(body))
        )

    async def told(self, path: str, **body: Any) -> Any:
        """POST what has to be accepted."""
        answer = await self.post(path, **body)
        assert answer.is_success, (path, answer)
        return orjson.loads(answer.body or b"{}")

    async def experiment(self) -> str:
        name = f"kinds-{next(_numbers)}-{uuid4().hex[:8]}"
        path = f"/Shared/{name}" if self.name == "databricks" else name
        return str((await self.told("experiments/create", name=path))["experiment_id"])

    async def run(self, **fields: Any) -> tuple[str, str]:
        """A new run and its experiment."""
        experiment_id = await self.experiment()
        made = await self.told("runs/create", **{"experiment_id": experiment_id, "start_time": 1000, **fields})
        return str(made["run"]["info"]["run_id"]), experiment_id


@asynccontextmanager
async def backend_of(kind: str, server: MlflowServer, session: ClientSession) -> AsyncIterator[Kind]:
    settings_for, path = FRONTS[kind]
    settings = settings_for(server.url, Tokens(TOKEN))
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(emulating(settings))
        document = {
            "primary": "one",
            "registry": "one",
            "backends": {
                "one": {"url": f"{url}{path}", "kind": kind, "auth": {"type": "token", "token": "${KIND_TOKEN}"}}
            },
        }
        config = parse(orjson.dumps(document).decode(), {"KIND_TOKEN": TOKEN}, Path.cwd())
        configured = config.backends["one"]
        backend = make_backend("one", config, Metrics())
        stack.push_async_callback(backend.close)
        files = Artifacts(backend, clouds=make_clouds("one", config, backend))
        stack.push_async_callback(files.close)
        yield Kind(
            name=kind,
            backend=backend,
            reader=Reader(backend, "elsewhere", PAGES[kind]),
            files=files,
            control=Control(url, session),
            rule=name_rule(configured, "elsewhere"),
            limits=BATCH_LIMITS[configured.kind],
            lengths=LENGTHS[configured.kind],
        )
