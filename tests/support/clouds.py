"""Two workspaces as strict as the services are, either of them the primary: Databricks and Azure ML, files included."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from aiohttp import ClientSession

import tests.support.vendors  # noqa: F401 - before anybody waits for it
from dualtrack.demo.compare import Side
from dualtrack.demo.servers import MlflowServer
from dualtrack.emulators import azureml_workspace
from dualtrack.emulators.azureml_scope import AUDIENCE, DEFAULT_SCOPE
from dualtrack.emulators.databricks import STRICT, Databricks, Terms
from dualtrack.emulators.databricks_doors import APPLICATION, Doors, Several
from dualtrack.emulators.databricks_files import Choices, DatabricksFiles
from dualtrack.emulators.databricks_ids import long_ids
from dualtrack.emulators.tokens import Tokens
from dualtrack.emulators.tracking import Dialect, Settings
from tests.support.files import mirror_of
from tests.support.flow import SECRETS, Json, Running, Workspace, unique
from tests.support.servers import Control, emulating

CLIENT, CLIENT_SECRET = "a-client", "s3cr3t-of-the-client"
AZURE, DATABRICKS = "azureml", "databricks"


@dataclass(frozen=True, kw_only=True)
class Cloud(Workspace):
    """One emulated workspace. `host` is where its emulator listens; `auth` how the proxy signs in, if not by token."""

    kind: str
    host: str
    tokens: Tokens = field(repr=False)
    rules: Dialect
    auth: Json | None = None

    @property
    def backend(self) -> Json:
        named: Json = {"rule": "template", "template": "/Shared/mirror/{name}"} if self.kind == DATABRICKS else {}
        told = {"kind": self.kind, **({"experiment_names": named} if named and self.name == "b" else {})}
        return super().backend | told | ({"auth": self.auth} if self.auth is not None else {})

    def name_experiment(self) -> str:
        return f"/Shared/{unique()}" if self.kind == DATABRICKS else unique()

    async def files(self, proxy: Running, run_id: str) -> dict[str, bytes]:
        """What the workspace itself has of a run, read by dualtrack's store; `run_id` is the real server's."""
        if self.kind == AZURE and self.name == "b":
            run_id = str(UUID(run_id))
        token = f"Bearer {SECRETS[f'TOKEN_{self.name.upper()}']}"
        reply = await proxy.call("GET", f"{self.url}/api/2.0/mlflow/runs/get?run_id={run_id}", Authorization=token)
        root = str(reply.json["run"]["info"]["artifact_uri"])
        return {path: await self._read(proxy, root, path) for path in await self._paths(proxy, root)}

    async def _paths(self, proxy: Running, root: str, folder: str = "") -> list[str]:
        found: list[str] = []
        for item in await proxy.app.stores[self.name].list(root, folder):
            found += await self._paths(proxy, root, item.path) if item.is_dir else [item.path]
        return found

    async def _read(self, proxy: Running, root: str, path: str) -> bytes:
        async with proxy.app.stores[self.name].fetch(root, path) as fetched:
            assert fetched is not None
            return b"".join([chunk async for chunk in fetched.chunks])


# how a proxy signs in by the vendors' own libraries; `signing_in` lets them find who they are
SIGN_IN: dict[str, Json] = {
    DATABRICKS: {"type": "databricks"},
    AZURE: {"type": "azure", "credential": "ManagedIdentityCredential"},
}


def signing_in(monkeypatch: pytest.MonkeyPatch, home: Path, identity_of: Cloud) -> None:
    """Give this machine the client of a Databricks workspace, and the identity of an Azure ML workspace."""
    for name in nobody_signed_in():
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("IDENTITY_ENDPOINT", f"{identity_of.host}/__emulator__/identity")
    monkeypatch.setenv("IDENTITY_HEADER", "x")
    monkeypatch.setenv("DATABRICKS_CLIENT_ID", CLIENT)
    monkeypatch.setenv("DATABRICKS_CLIENT_SECRET", CLIENT_SECRET)


@asynccontextmanager
async def databricks(
    name: str,
    server: MlflowServer,
    session: ClientSession,
    *,
    terms: Terms = STRICT,
    choices: Choices | None = None,
    **cloud: Any,
) -> AsyncIterator[Cloud]:
    """A workspace by `terms`; OAuth for machines has one client. A secondary has long ids, as in `azureml`."""
    tokens = cloud.pop("tokens", None) or Tokens(audiences=[APPLICATION])
    rules = Databricks(terms=terms)
    site = Several(
        Doors(tokens, rules.tree, {CLIENT: CLIENT_SECRET}), DatabricksFiles(choices or Choices(rewrites=True))
    )
    chain = (long_ids,) if name == "b" else ()
    settings = Settings(upstream=server.url, tokens=tokens, dialect=rules, site=site, middlewares=chain)
    async with _serving(name, DATABRICKS, server, session, settings, tokens, cloud) as made:
        yield made


@asynccontextmanager
async def azureml(name: str, server: MlflowServer, session: ClientSession, **cloud: Any) -> AsyncIterator[Cloud]:
    """A workspace as the service is. A primary has the ids of the real server, which the tests read past it."""
    tokens = cloud.pop("tokens", None) or Tokens(audiences=[AUDIENCE])
    choices = replace(azureml_workspace.STRICT, has_dashed_ids=name == "b")
    settings = azureml_workspace.settings_of(choices, upstream=server.url, tokens=tokens)
    async with _serving(name, AZURE, server, session, settings, tokens, cloud) as made:
        yield made


@asynccontextmanager
async def _serving(
    name: str,
    kind: str,
    server: MlflowServer,
    session: ClientSession,
    settings: Settings,
    tokens: Tokens,
    cloud: Json,
) -> AsyncIterator[Cloud]:
    tokens.add(SECRETS[f"TOKEN_{name.upper()}"])  # the proxy's, unless it signs in; and that of the tests
    async with emulating(settings) as host:
        yield Cloud(
            name=name,
            kind=kind,
            host=host,
            url=f"{host}/mlflow/v2.0{DEFAULT_SCOPE}" if kind == AZURE else host,
            side=Side(name=name, url=server.url),
            control=Control(host, session),
            tokens=tokens,
            rules=settings.dialect,
            **cloud,
        )


def nobody_signed_in() -> list[str]:
    """The variables by which this machine could sign in anywhere."""
    return [name for name in os.environ if name.startswith(("AZURE_", "ARM_", "DATABRICKS_", "IDENTITY_", "MSI_"))]


async def assert_same_files(proxy: Running, primary: Cloud, secondary: Cloud, run_id: str) -> dict[str, bytes]:
    """Fail unless both workspaces have the same files of a run; give them."""
    mirror = (await mirror_of(secondary, proxy, run_id))["info"]["run_id"]
    ours, theirs = await primary.files(proxy, run_id), await secondary.files(proxy, mirror)
    assert theirs == ours
    return ours
