"""A secondary as strict as the emulated Azure ML can be: what a plain script logs arrives there whole."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from aiohttp import ClientSession

from dualtrack.core.ids import EntityKind
from dualtrack.demo.compare import Side
from dualtrack.demo.servers import MlflowServer
from dualtrack.emulators.azureml_artifacts import AzureArtifacts
from dualtrack.emulators.azureml_scope import DEFAULT_SCOPE
from dualtrack.emulators.azureml_workspace import STRICT, settings_of
from dualtrack.emulators.faults import DropAfter, Rule
from dualtrack.emulators.tokens import Tokens
from dualtrack.translate.document import field, objects
from tests.support.files import put, run_root
from tests.support.flow import SECRETS, Json, Launcher, Workspace
from tests.support.servers import Control, emulating


@dataclass(frozen=True, kw_only=True)
class Strict(Workspace):
    """The workspace, and what keeps its files."""

    site: AzureArtifacts

    @property
    def backend(self) -> Json:
        return {**super().backend, "kind": "azureml"}

    def files(self) -> dict[str, bytes]:
        """What is stored so far, by the path in its run."""
        blobs = self.site.blobs._blobs
        return {name.split("/", 2)[2]: blob.place.read_bytes() for name, blob in blobs.items()}


@pytest.fixture
async def azure(mlflow_secondary: MlflowServer, session: ClientSession) -> AsyncIterator[Strict]:
    settings = settings_of(STRICT, upstream=mlflow_secondary.url, tokens=Tokens(SECRETS["TOKEN_B"]))
    assert isinstance(settings.site, AzureArtifacts)
    async with emulating(settings) as url:
        yield Strict(
            name="b",
            url=f"{url}/mlflow/v2.0{DEFAULT_SCOPE}",
            side=Side(name="b", url=mlflow_secondary.url),
            control=Control(url, session),
            site=settings.site,
        )


async def test_a_run_arrives_whole(launch: Launcher, a: Workspace, azure: Strict) -> None:
    """More points than a call takes, under ids of another shape; nothing is refused but the first look."""
    proxy = await launch(a, azure)
    experiment = await proxy.create_experiment()
    await proxy.log_run(experiment, points=300)

    assert await proxy.differences(experiment, azure) == []
    assert [each["status"] for each in await azure.control.log() if each["status"] >= 400] == [404]


@pytest.mark.parametrize("path", ["experiments/create$", "runs/create$", "log-batch$", "batch/metadata$"])
async def test_a_lost_answer_is_made_up_for(launch: Launcher, a: Workspace, azure: Strict, path: str) -> None:
    """Whether a write was done is found out in the workspace's own words, whatever it was."""
    await azure.control.set_faults(Rule(action=DropAfter(), path=path, first=2))
    proxy = await launch(a, azure)
    experiment = await proxy.create_experiment()
    run_id = await proxy.log_run(experiment)
    found = await proxy.differences(experiment, azure)
    await put(proxy, await run_root(proxy, run_id), "f/a.txt", b"content")
    await proxy.drained()
    doubles = await azure.control.duplicates()

    assert found == []
    assert azure.files() == {"f/a.txt": b"content"}
    assert (await proxy.backend())["parked"] == 0
    assert doubles["runs"] == 0


SAME: Json = {"backends": {"b": {"kind": "azureml", "run_ids": "same"}}}


@pytest.mark.parametrize("path", ["", r"/runs/[^/]+$", r"/events$", r"runs/get$"], ids=str)
async def test_a_run_has_the_primary_s_id_if_it_is_told_to(
    launch: Launcher, a: Workspace, azure: Strict, path: str
) -> None:
    """Made through the workspace's run history, with its name, its start and its parent; repeated, it is one run."""
    proxy = await launch(a, azure, **SAME)
    experiment_id = await proxy.create_experiment()
    await proxy.drained()
    if path:
        await azure.control.set_faults(Rule(path=path, first=2, action=DropAfter()))
    parent = await proxy.create_run(experiment_id, run_name="above", start_time=5000)
    tags = [{"key": "mlflow.parentRunId", "value": parent}]
    child = await proxy.create_run(experiment_id, run_name="below", tags=tags)
    await proxy.log_metric(child)
    await put(proxy, await run_root(proxy, child), "a.txt", b"1")
    await proxy.finish(child)
    await proxy.drained()
    await azure.control.clear_faults()
    there = proxy.app.readers["b"]
    above, below = [await there.get(EntityKind.RUN, run_id) for run_id in (parent, child)]
    assert above is not None
    assert below is not None

    assert field(above, "run", "info", "run_name") == "above"
    assert field(above, "run", "info", "start_time") == 5000
    assert field(below, "run", "info", "status") == "FINISHED"
    assert {"key": "mlflow.parentRunId", "value": parent} in objects(field(below, "run", "data", "tags"))
    assert [item["key"] for item in objects(field(below, "run", "data", "metrics"))] == ["loss"]
    assert list(azure.files()) == ["a.txt"]
    assert not [seen for seen in await azure.control.log() if seen["path"].endswith("/runs/create")]
    assert (await azure.control.duplicates())["runs"] == 0
    assert (await proxy.backend())["parked"] == 0


@pytest.mark.parametrize("start_time", [10**18, -(10**17), 2**63 - 1])
async def test_a_run_whose_start_no_calendar_has_arrives_without_it(
    launch: Launcher, a: Workspace, azure: Strict, start_time: int
) -> None:
    """A client may say any number; the rest of the run does not wait for it."""
    proxy = await launch(a, azure, **SAME)
    run_id = await proxy.create_run(await proxy.create_experiment(), run_name="odd", start_time=start_time)
    await proxy.log_metric(run_id)
    await proxy.drained()
    there = await proxy.app.readers["b"].get(EntityKind.RUN, run_id)

    assert field(there, "run", "info", "run_name") == "odd"
    assert [item["key"] for item in objects(field(there, "run", "data", "metrics"))] == ["loss"]
    assert (await proxy.backend())["parked"] == 0
