"""Tokens that end: in the middle of a client's calls and of deliveries, at both clouds at once, and nobody notices.

The vendors' own libraries sign in at the emulated workspaces: databricks-sdk by OAuth for machines or with a personal
token, azure-identity as a managed identity.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from dualtrack.app import check_online
from dualtrack.demo.servers import MlflowServer
from dualtrack.emulators.databricks import BAD_TOKEN, Databricks
from tests.support.clouds import (
    AZURE,
    CLIENT,
    DATABRICKS,
    SIGN_IN,
    Cloud,
    assert_same_files,
    azureml,
    databricks,
    signing_in,
)
from tests.support.files import put, run_root
from tests.support.flow import Launcher, Running, configure
from tests.support.steps import doubles

LIFE = 5.0  # a token is used until a tenth of it is left: what is on its way then has to arrive in that time


@pytest.fixture
async def clouds(
    mlflow_primary: MlflowServer,
    mlflow_secondary: MlflowServer,
    session: ClientSession,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> AsyncIterator[dict[str, Cloud]]:
    """Both clouds, by kind; this machine has the identity of one and the client of the other."""
    async with AsyncExitStack() as stack:
        a = await stack.enter_async_context(databricks("a", mlflow_primary, session, auth=SIGN_IN[DATABRICKS]))
        b = await stack.enter_async_context(azureml("b", mlflow_secondary, session, auth=SIGN_IN[AZURE]))
        signing_in(monkeypatch, tmp_path, b)
        yield {DATABRICKS: a, AZURE: b}


async def log_for(proxy: Running, run_id: str, seconds: float, step: int = 0) -> int:
    """Log points from `step` on, and files, until the time is over; each call has to be answered with 200."""
    root = await run_root(proxy, run_id)
    until = asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < until:
        await proxy.log_metric(run_id, step=step)
        if step % 10 == 0:
            assert (await put(proxy, root, f"{step}.txt", b"x" * 1000)).status == 200
        step += 1
        await asyncio.sleep(0.03)
    return step


async def assert_complete(proxy: Running, clouds: dict[str, Cloud], experiment: str, run_id: str) -> None:
    primary, secondary = clouds[DATABRICKS], clouds[AZURE]
    assert await proxy.differences(experiment, secondary) == []
    assert await assert_same_files(proxy, primary, secondary, run_id)
    assert await doubles(primary) == await doubles(secondary) == {}
    assert (await proxy.backend())["parked"] == 0


async def refusals(cloud: Cloud) -> list[Any]:
    """The calls that were refused for their token."""
    return [entry for entry in await cloud.control.log() if entry["status"] in {400, 401, 403}]


async def test_tokens_end_and_nobody_notices(clouds: dict[str, Cloud], launch: Launcher) -> None:
    """They are renewed before they do, again and again: no call is ever refused, neither a client's nor ours."""
    for cloud in clouds.values():
        cloud.tokens.lifetime = LIFE
    proxy = await launch(*clouds.values())
    experiment = await proxy.create_experiment(clouds[DATABRICKS].name_experiment())
    run_id = await proxy.create_run(experiment)
    steps = await log_for(proxy, run_id, 3 * LIFE)

    await assert_complete(proxy, clouds, experiment, run_id)
    assert steps > 20
    assert all(cloud.tokens.issued >= 3 for cloud in clouds.values())
    assert [await refusals(cloud) for cloud in clouds.values()] == [[], []]


@pytest.mark.parametrize("status", BAD_TOKEN)
async def test_tokens_that_are_taken_back_are_replaced(clouds: dict[str, Cloud], launch: Launcher, status: int) -> None:
    """Nothing says so beforehand: one call of each side is refused, and repeated with a new token.

    However Databricks says it: by 401, or by 403 or 400 with words that mean it.
    """
    rules = clouds[DATABRICKS].rules
    assert isinstance(rules, Databricks)
    rules.terms = replace(rules.terms, bad_token=status)
    proxy = await launch(*clouds.values())
    experiment = await proxy.create_experiment(clouds[DATABRICKS].name_experiment())
    run_id = await proxy.create_run(experiment)
    steps = await log_for(proxy, run_id, 0.5)
    await proxy.drained()
    for cloud in clouds.values():
        cloud.tokens.revoke()
    await log_for(proxy, run_id, 0.5, steps)

    await assert_complete(proxy, clouds, experiment, run_id)
    assert [cloud.tokens.issued for cloud in clouds.values()] == [2, 2]
    assert all([await refusals(cloud) for cloud in clouds.values()])


async def test_a_personal_token_that_somebody_replaces(
    clouds: dict[str, Cloud], launch: Launcher, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It is read from the profile again when the one before it is refused."""
    a, profile = clouds[DATABRICKS], tmp_path / ".databrickscfg"
    monkeypatch.delenv("DATABRICKS_CLIENT_ID")
    monkeypatch.delenv("DATABRICKS_CLIENT_SECRET")
    monkeypatch.setenv("DATABRICKS_CONFIG_FILE", str(profile))
    a.tokens.add("dapi-1")
    a.tokens.add("dapi-2")
    profile.write_text(f"[here]\nhost = {a.url}\ntoken = dapi-1\n")
    signed = replace(a, auth={"type": "databricks", "profile": "here"})
    proxy = await launch(signed, clouds[AZURE])
    experiment = await proxy.create_experiment(a.name_experiment())
    run_id = await proxy.create_run(experiment)
    profile.write_text(f"[here]\nhost = {a.url}\ntoken = dapi-2\n")
    steps = await log_for(proxy, run_id, 0.5)
    a.tokens.add("dapi-1", lifetime=0)
    await log_for(proxy, run_id, 0.5, steps)

    await assert_complete(proxy, clouds, experiment, run_id)
    assert len(await refusals(a)) == 1


async def test_check_says_who_one_is_at_both(clouds: dict[str, Cloud], tmp_path: Path) -> None:
    """`check --online` against the workspaces themselves: a client of one, an identity at the other."""
    reports = await check_online(configure(tmp_path, *clouds.values()))

    assert [(report.ok, report.who) for report in reports] == [(True, CLIENT), (True, "object demo-identity")]
