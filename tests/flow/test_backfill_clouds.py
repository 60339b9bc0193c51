"""Backfill between workspaces that are as strict as the services: their pages, search words, names, limits."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import orjson
import pytest
from aiohttp import ClientSession

from dualtrack.cli.backfill import bring
from dualtrack.demo.compare import Side
from dualtrack.demo.servers import MlflowServer
from dualtrack.emulators.azureml_scope import DEFAULT_SCOPE
from dualtrack.emulators.azureml_workspace import STRICT, settings_of
from dualtrack.emulators.tokens import Tokens
from dualtrack.reconcile.backfill import Selection
from tests.support.clouds import azureml, databricks
from tests.support.flow import PATIENCE, SECRETS, Client, Json, Launcher, Running, Workspace, configure, unique
from tests.support.journals import lose_journal
from tests.support.servers import Control, call, emulating

Pair = tuple[Workspace, Workspace]


@pytest.fixture(params=["databricks to azureml", "azureml to databricks", "strict azureml to mlflow"])
async def pair(
    request: pytest.FixtureRequest,
    mlflow_primary: MlflowServer,
    mlflow_secondary: MlflowServer,
    session: ClientSession,
    b: Workspace,
) -> AsyncIterator[Pair]:
    async with AsyncExitStack() as stack:
        if request.param == "strict azureml to mlflow":
            settings = settings_of(STRICT, upstream=mlflow_primary.url, tokens=Tokens(SECRETS["TOKEN_A"]))
            host = await stack.enter_async_context(emulating(settings))
            side = Side(name="a", url=mlflow_primary.url)
            url = f"{host}/mlflow/v2.0{DEFAULT_SCOPE}"
            yield Workspace(name="a", url=url, side=side, control=Control(host, session)), b
            return
        first, second = (databricks, azureml) if request.param.startswith("databricks") else (azureml, databricks)
        yield (
            await stack.enter_async_context(first("a", mlflow_primary, session)),
            await stack.enter_async_context(second("b", mlflow_secondary, session)),
        )


async def test_old_runs_come_over_once(tmp_path: Path, session: ClientSession, pair: Pair, launch: Launcher) -> None:
    """Selected by name and by when they began; found again after the journal is lost; equal, marks included."""
    primary, secondary = pair
    name = f"/Shared/{unique()}" if "databricks" in str(primary.backend) else unique()
    old = Client(primary.url, session, Authorization=f"Bearer {SECRETS['TOKEN_A']}")
    experiment = await old.create_experiment(name)
    for number in range(3):
        await old.log_run(experiment, points=number + 1)
    kinds = {"a": {"kind": "azureml"}} if "/mlflow/v2.0" in primary.url else {}
    config = configure(tmp_path, primary, secondary, backends=kinds)

    (young,) = await bring(config, ["b"], Selection(experiments=(name,), since=2.0), PATIENCE)
    (first,) = await bring(config, ["b"], Selection(experiments=(name,)), PATIENCE)
    done = len(await secondary.writes(accepted=True))
    (second,) = await bring(config, ["b"], Selection(experiments=(experiment,), since=0.5), PATIENCE)
    lose_journal(tmp_path)
    (third,) = await bring(config, ["b"], Selection(experiments=(experiment,)), PATIENCE)

    assert (young["found"], first["brought"], second["there"], third["marked"]) == (0, 3, 3, 3)
    assert all(each["complete"] for each in (young, first, second, third)), (young, first, second, third)
    assert len(await secondary.writes(accepted=True)) == done
    assert await drift(await launch.launch(config, primary), experiment) == []
    assert sorted(mirrored(secondary, experiment)) == [("FINISHED", 1.0 / (number + 1), "3") for number in (2, 1, 0)]


async def drift(proxy: Running, experiment: str) -> list[Json]:
    """What `verify` does not explain; all that there is has to be compared."""
    reply = await proxy.admin.call("GET", f"/api/v1/verify?experiment={experiment}")
    *found, summary = [orjson.loads(line) for line in reply.body.splitlines()]
    assert (len(found), summary["error"]) == (4, "")
    return [each for one in found for each in one["differences"] if not each["explanation"]]


def mirrored(secondary: Workspace, experiment: str) -> list[tuple[str, float, str]]:
    """How each run of the mirror ended, its last loss and its depth; read past the workspace, whose ids are its own."""
    listed = call(secondary.side.url, "experiments/search", {"max_results": 1000})["experiments"]
    ids = {tag["value"]: each["experiment_id"] for each in listed for tag in each.get("tags", ())}
    wanted = {"experiment_ids": [ids[experiment]], "max_results": 10}
    return [
        (run["info"]["status"], run["data"]["metrics"][0]["value"], run["data"]["params"][0]["value"])
        for run in call(secondary.side.url, "runs/search", wanted)["runs"]
    ]
