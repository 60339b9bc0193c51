"""A Databricks secondary as strict as the service: what is over its limits and quotas is recorded, not parked."""

from collections.abc import AsyncIterator

import orjson
import pytest
from aiohttp import ClientSession

from dualtrack.demo.servers import MlflowServer
from dualtrack.emulators.faults import DropAfter, Refuse, Rule
from tests.support.clouds import Cloud, databricks
from tests.support.files import mirror_of
from tests.support.flow import Json, Launcher, Running, Workspace, unique

OVERFLOW = "dualtrack/overflow.json"


@pytest.fixture
async def strict(mlflow_secondary: MlflowServer, session: ClientSession) -> AsyncIterator[Cloud]:
    async with databricks("b", mlflow_secondary, session) as made:
        yield made


@pytest.fixture
async def mirroring(launch: Launcher, a: Workspace, strict: Cloud) -> Running:
    return await launch(a, strict)


async def tags_of(proxy: Running, strict: Cloud, name: str) -> dict[str, str]:
    """The tags of an experiment's mirror, without our marks."""
    url = f"{strict.side.url}/api/2.0/mlflow/experiments/get-by-name?experiment_name=/Shared/mirror/{name}"
    found: Json = (await proxy.call("GET", url)).json["experiment"]
    return {tag["key"]: tag["value"] for tag in found["tags"] if not tag["key"].startswith("dualtrack.")}


async def test_a_run_with_more_params_than_it_may_have(mirroring: Running, strict: Cloud) -> None:
    """1650 of them: 1600 arrive, the rest stands in the run's overflow, and nothing is parked (facts B7)."""
    run_id = await mirroring.create_run(await mirroring.create_experiment())
    for start in range(0, 1650, 50):
        params = [{"key": f"p{number}", "value": str(number)} for number in range(start, start + 50)]
        await mirroring.post("runs/log-batch", run_id=run_id, params=params)
    await mirroring.finish(run_id)
    await mirroring.drained()
    run = await mirror_of(strict, mirroring, run_id)
    kept = orjson.loads((await strict.files(mirroring, run["info"]["run_id"]))[OVERFLOW])["params"]
    there = {param["key"] for param in run["data"]["params"]}

    assert len(there) == 1600
    assert there | kept.keys() == {f"p{number}" for number in range(1650)}
    assert (await mirroring.backend())["parked"] == 0
    assert await mirroring.metric("lossy_total", backend="b", kind="over_limit") == 50


@pytest.mark.parametrize("fault", [None, ("create$", DropAfter()), ("set-experiment-tag$", Refuse(status=503))])
async def test_an_experiment_with_more_tags_than_a_create_takes(
    mirroring: Running, strict: Cloud, fault: tuple[str, DropAfter | Refuse] | None
) -> None:
    """Facts B2: 20 of them. The others are set after it, whatever happens in between."""
    tags = [{"key": f"k{number}", "value": str(number)} for number in range(30)]
    name = unique()
    if fault is not None:
        await strict.control.set_faults(Rule(path=fault[0], first=2, action=fault[1]))
    await mirroring.post("experiments/create", name=name, tags=tags)
    await mirroring.drained()

    assert await tags_of(mirroring, strict, name) == {tag["key"]: tag["value"] for tag in tags}
    assert (await mirroring.backend())["parked"] == 0
