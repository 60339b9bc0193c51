"""Files where one side is an Azure ML workspace that keeps them as the service does: either side, whole road."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from aiohttp import ClientSession

from dualtrack.demo.compare import Side
from dualtrack.demo.servers import MlflowServer
from dualtrack.emulators.azureml import DEFAULT_SCOPE, AzureML
from dualtrack.emulators.azureml_artifacts import AzureArtifacts, root_of
from dualtrack.emulators.faults import Refuse, Rule
from dualtrack.emulators.tracking import Settings
from tests.support.files import get, listing, mirror_of, put, run_root, target
from tests.support.flow import SECRETS, Json, Launcher, Running, Workspace
from tests.support.servers import Control, emulating

NAMES = ("plain.txt", "a b/c d.txt", "100%.txt", "größe/a+b.csv")


@dataclass(frozen=True, kw_only=True)
class AzureWorkspace(Workspace):
    """An Azure ML workspace of the whole road."""

    host: str

    @property
    def backend(self) -> Json:
        return {**super().backend, "kind": "azureml"}


@asynccontextmanager
async def azure(name: str, server: MlflowServer, session: ClientSession) -> AsyncIterator[AzureWorkspace]:
    settings = Settings(
        upstream=server.url,
        token=SECRETS[f"TOKEN_{name.upper()}"],
        dialect=AzureML(),
        site=AzureArtifacts(DEFAULT_SCOPE, page=2),
    )
    async with emulating(settings) as url:
        yield AzureWorkspace(
            name=name,
            url=f"{url}/mlflow/v2.0{DEFAULT_SCOPE}",
            host=url.removeprefix("http://"),
            side=Side(name=name, url=server.url),
            control=Control(url, session),
        )


async def files_of(proxy: Running, workspace: AzureWorkspace, run: Json) -> dict[str, bytes]:
    """What the workspace holds for a run, read by dualtrack's own store."""
    info = run["info"]
    root = root_of(workspace.host, DEFAULT_SCOPE, info["experiment_id"], info["run_id"])
    return {path: await _read(proxy, workspace, root, path) for path in await _paths(proxy, workspace, root)}


async def _paths(proxy: Running, workspace: AzureWorkspace, root: str, folder: str = "") -> list[str]:
    paths: list[str] = []
    for item in await proxy.app.stores[workspace.name].list(root, folder):
        paths += await _paths(proxy, workspace, root, item.path) if item.is_dir else [item.path]
    return paths


async def _read(proxy: Running, workspace: AzureWorkspace, root: str, path: str) -> bytes:
    async with proxy.app.stores[workspace.name].fetch(root, path) as fetched:
        assert fetched is not None, path
        return b"".join([chunk async for chunk in fetched.chunks])


async def test_a_secondary_gets_files_into_its_own_storage(
    launch: Launcher, a: Workspace, mlflow_secondary: MlflowServer, session: ClientSession
) -> None:
    async with azure("b", mlflow_secondary, session) as b:
        proxy = await launch(a, b)
        run_id = await proxy.create_run(await proxy.create_experiment())
        root = await run_root(proxy, run_id)
        for name in NAMES:
            await put(proxy, root, name, name.encode())
        await put(proxy, root, NAMES[0], b"replaced")
        await put(proxy, root, "gone.txt")
        await proxy.call("DELETE", target(root, "gone.txt"))
        await proxy.emptied()

        expected = {name: name.encode() for name in NAMES} | {NAMES[0]: b"replaced"}
        assert await files_of(proxy, b, await mirror_of(b, proxy, run_id)) == expected
        await proxy.stop()


@pytest.mark.parametrize("name", NAMES)
async def test_a_primary_serves_its_files_through_the_proxy(
    launch: Launcher, mlflow_primary: MlflowServer, b: Workspace, session: ClientSession, name: str
) -> None:
    async with azure("a", mlflow_primary, session) as a:
        proxy = await launch(a, b)
        run_id = await proxy.create_run(await proxy.create_experiment())
        root = await run_root(proxy, run_id)
        reply = await put(proxy, root, name, b"this")
        folder = name.rpartition("/")[0]
        await proxy.drained()

        assert (reply.status, reply.headers["X-Dualtrack"]) == (200, "mirrored")
        assert (await get(proxy, root, name)).body == b"this"
        assert [item["path"] for item in await listing(proxy, root, folder)] == [name.rpartition("/")[2]]
        assert (await proxy.call("DELETE", target(root, name))).status == 200
        assert (await get(proxy, root, name)).status == 404
        await proxy.stop()


async def test_many_small_files_are_registered_together(
    launch: Launcher, a: Workspace, mlflow_secondary: MlflowServer, session: ClientSession
) -> None:
    """They waited for the secondary, so they are there at once: a call registers as many as are sent side by side."""
    async with azure("b", mlflow_secondary, session) as b:
        proxy = await launch(a, b)
        run_id = await proxy.create_run(await proxy.create_experiment())
        root = await run_root(proxy, run_id)
        await proxy.drained()
        await b.control.set_faults(Rule(action=Refuse(status=503)))
        await proxy.log_metric(run_id)  # what is in trouble is this, so that the files behind it go side by side
        contents = {f"d/{number}.txt": b"%d" % number for number in range(60)}
        for path, content in contents.items():
            await put(proxy, root, path, content)
        await b.control.clear_faults()
        await proxy.drained()
        mirror = await mirror_of(b, proxy, run_id)
        calls = [seen for seen in await b.control.log() if seen["path"].endswith("/batch/metadata")]

        assert await files_of(proxy, b, mirror) == contents
        assert len(calls) < 20
        assert (await proxy.backend())["parked"] == 0


async def test_a_storage_whose_firewall_was_closed_gets_its_files_later(
    launch: Launcher, a: Workspace, mlflow_secondary: MlflowServer, session: ClientSession
) -> None:
    """A new signed URL is refused as well, which says nothing about the file: it waits, and is not parked."""
    async with azure("b", mlflow_secondary, session) as b:
        proxy = await launch(a, b)
        run_id = await proxy.create_run(await proxy.create_experiment())
        root = await run_root(proxy, run_id)
        await proxy.drained()
        await b.control.set_faults(
            Rule(method="PUT", path="/azureml/ExperimentRun/", first=8, action=Refuse(status=403))
        )
        await put(proxy, root, "a.txt", b"some")
        await proxy.drained()

        assert await files_of(proxy, b, await mirror_of(b, proxy, run_id)) == {"a.txt": b"some"}
        assert (await proxy.backend())["parked"] == 0
