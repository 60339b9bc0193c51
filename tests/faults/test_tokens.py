"""Tokens that end: in the middle of a client's calls and of deliveries, at both clouds at once, and nobody notices.

The vendors' own libraries sign in at the emulated workspaces: databricks-sdk by OAuth for machines or with a personal
token, azure-identity as a managed identity.
"""

import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from dualtrack.app import check_online
from dualtrack.backends.auth import Cached
from dualtrack.demo.servers import MlflowServer
from dualtrack.emulators.azureml_scope import AUDIENCE
from dualtrack.emulators.databricks import BAD_TOKEN, Databricks
from dualtrack.emulators.databricks_doors import APPLICATION
from dualtrack.emulators.tokens import Tokens
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

LIFE = 5.0
LEEWAY = 3600.0
SOME = 12  # points


class Lenient(Tokens):
    """Takes a token for longer than it says: what is on its way when one ends may be as slow as the machine is."""

    def issue(self, *, who: str = "", audience: str = "") -> str:
        token = super().issue(who=who, audience=audience)
        self._grants[token] = replace(self._grants[token], ends_at=self._grants[token].ends_at + LEEWAY)
        return token

    def left(self, headers: Mapping[str, str]) -> list[float]:
        """The seconds until the token of these headers ends, by its own words; nothing for one of somebody else."""
        grant = self._grants.get(headers["Authorization"].removeprefix("Bearer "))
        return [grant.ends_at - LEEWAY - time.time()] if grant is not None else []


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
        of_a, of_b = (Lenient(audiences=[audience]) for audience in (APPLICATION, AUDIENCE))
        a = await stack.enter_async_context(
            databricks("a", mlflow_primary, session, auth=SIGN_IN[DATABRICKS], tokens=of_a)
        )
        b = await stack.enter_async_context(azureml("b", mlflow_secondary, session, auth=SIGN_IN[AZURE], tokens=of_b))
        signing_in(monkeypatch, tmp_path, b)
        yield {DATABRICKS: a, AZURE: b}


async def log_until(proxy: Running, run_id: str, is_over: Callable[[int], bool], step: int = 0) -> int:
    """Log points from `step` on, and files, until it is over; each call has to be answered with 200."""
    root = await run_root(proxy, run_id)
    while not is_over(step):
        await proxy.log_metric(run_id, step=step)
        if step % 10 == 0:
            assert (await put(proxy, root, f"{step}.txt", b"x" * 1000)).status == 200
        step += 1
    return step


async def log_some(proxy: Running, run_id: str, step: int = 0) -> int:
    return await log_until(proxy, run_id, lambda at: at >= step + SOME, step)


async def assert_complete(proxy: Running, clouds: dict[str, Cloud], experiment: str, run_id: str) -> None:
    primary, secondary = clouds[DATABRICKS], clouds[AZURE]
    assert await proxy.differences(experiment, secondary) == []
    assert await assert_same_files(proxy, primary, secondary, run_id)
    assert await doubles(primary) == await doubles(secondary) == {}
    assert (await proxy.backend())["parked"] == 0


async def refusals(cloud: Cloud) -> list[Any]:
    """The calls that were refused for their token."""
    return [entry for entry in await cloud.control.log() if entry["status"] in {400, 401, 403}]


async def test_tokens_end_and_nobody_notices(
    clouds: dict[str, Cloud], launch: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are renewed before they do, again and again: no call is signed with one that has ended, nor refused."""
    issuers = [cloud.tokens for cloud in clouds.values()]
    left: list[float] = []
    headers = Cached.headers

    async def noted(sign_in: Cached, *, fresh: bool = False) -> Mapping[str, str]:
        given = await headers(sign_in, fresh=fresh)
        left.extend(seconds for issuer in issuers if isinstance(issuer, Lenient) for seconds in issuer.left(given))
        return given

    monkeypatch.setattr(Cached, "headers", noted)
    for issuer in issuers:
        issuer.lifetime = LIFE
    proxy = await launch(*clouds.values())
    experiment = await proxy.create_experiment(clouds[DATABRICKS].name_experiment())
    run_id = await proxy.create_run(experiment)
    await log_until(proxy, run_id, lambda _: all(issuer.issued >= 6 for issuer in issuers))

    await assert_complete(proxy, clouds, experiment, run_id)
    assert len(left) > 20
    assert 0 < min(left) < LIFE / 2  # each was used for a good part of its life, and none at its end
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
    steps = await log_some(proxy, run_id)
    await proxy.drained()
    for cloud in clouds.values():
        cloud.tokens.revoke()
    await log_some(proxy, run_id, steps)

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
    steps = await log_some(proxy, run_id)
    a.tokens.add("dapi-1", lifetime=0)
    await log_some(proxy, run_id, steps)

    await assert_complete(proxy, clouds, experiment, run_id)
    assert len(await refusals(a)) == 1


async def test_check_says_who_one_is_at_both(clouds: dict[str, Cloud], tmp_path: Path) -> None:
    """`check --online` against the workspaces themselves: a client of one, an identity at the other."""
    reports = await check_online(configure(tmp_path, *clouds.values()))

    assert [(report.ok, report.who) for report in reports] == [(True, CLIENT), (True, "object demo-identity")]
