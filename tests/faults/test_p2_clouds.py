"""P2 before the clouds: Databricks and Azure ML as strict as they are, either way round, with what goes wrong there.

Rates, lost answers of every kind of write and of files, batches of which a part was stored, answers that tell nothing,
tokens that end. Afterwards both sides hold the same, nothing is parked, and no side was given anything twice.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from email.utils import formatdate
from time import time
from typing import Any

import pytest
from aiohttp import ClientSession

from dualtrack.demo.servers import MlflowServer
from dualtrack.emulators.buckets import Tells
from dualtrack.emulators.databricks import STRICT, Databricks
from dualtrack.emulators.databricks_files import Choices
from dualtrack.emulators.faults import Action, Body, DropAfter, Partial, Refuse, Rule, Spoil, Spoilt
from dualtrack.emulators.storage import Kind
from tests.support.clouds import AZURE, DATABRICKS, Cloud, assert_same_files, azureml, databricks
from tests.support.files import put, run_root
from tests.support.flow import Launcher, Running
from tests.support.steps import STEPS, Place, doubles

MAKERS = {DATABRICKS: databricks, AZURE: azureml}
WAYS = {DATABRICKS: (DATABRICKS, AZURE), AZURE: (AZURE, DATABRICKS)}
CONTENT = b"content" * 1000


class Pair:
    """A proxy before two clouds."""

    def __init__(self, proxy: Running, primary: Cloud, secondary: Cloud) -> None:
        self.proxy = proxy
        self.primary = primary
        self.secondary = secondary

    async def place(self) -> Place:
        experiment = await self.proxy.create_experiment(self.primary.name_experiment())
        place = Place(self.proxy, experiment, await self.proxy.create_run(experiment), self.primary.name_experiment)
        await self.proxy.drained()
        return place

    async def log(self, experiment: str, points: int = 5) -> str:
        """A run of every kind of write, files included."""
        run_id = await self.proxy.create_run(experiment)
        await self.proxy.post(
            "runs/log-batch",
            run_id=run_id,
            params=[{"key": "depth", "value": "3"}],
            metrics=[{"key": f"m{step % 2}", "value": step, "timestamp": 9 + step, "step": step} for step in range(9)],
            tags=[{"key": "stage", "value": "begun"}],
        )
        root = await run_root(self.proxy, run_id)
        for step in range(points):
            await self.proxy.log_metric(run_id, step=step)
        for name in ("a.txt", "b c/d.bin"):
            assert (await put(self.proxy, root, name, CONTENT)).status == 200
        await self.proxy.finish(run_id)
        return run_id

    async def assert_same(self, experiment: str, *runs: str) -> None:
        found = await self.proxy.differences(experiment, self.secondary)
        # by our template, of which the comparison does not know; the first line is a heading
        differences = [line for line in found[1:] if "'/Shared/mirror/" not in line]
        assert differences == [], differences
        for run_id in runs:
            files = await assert_same_files(self.proxy, self.primary, self.secondary, run_id)
            assert files == {"a.txt": CONTENT, "b c/d.bin": CONTENT}
        assert await doubles(self.primary) == await doubles(self.secondary) == {}
        assert not (await self.proxy.admin.call("GET", "/api/v1/parked")).json["parked"]


class Servers:
    """Makes clouds over the two real servers: `a` over the primary's, `b` over the other."""

    def __init__(self, stack: AsyncExitStack, session: ClientSession, **servers: MlflowServer) -> None:
        self._stack = stack
        self._session = session
        self._servers = servers

    async def cloud(self, name: str, kind: str, **options: Any) -> Cloud:
        return await self._stack.enter_async_context(MAKERS[kind](name, self._servers[name], self._session, **options))


@pytest.fixture
async def servers(
    mlflow_primary: MlflowServer, mlflow_secondary: MlflowServer, session: ClientSession
) -> AsyncIterator[Servers]:
    async with AsyncExitStack() as stack:
        yield Servers(stack, session, a=mlflow_primary, b=mlflow_secondary)


@pytest.fixture(params=WAYS)
async def pair(request: pytest.FixtureRequest, servers: Servers, launch: Launcher) -> Pair:
    """Both ways round; `launch` comes after `servers`, so that proxies stop before the clouds do."""
    first, second = WAYS[request.param]
    a, b = await servers.cloud("a", first), await servers.cloud("b", second)
    return Pair(await launch(a, b), a, b)


# --- answers that are lost ------------------------------------------------------------------------------------------

# Azure ML has no logged models, and renames no experiment
PLAIN = [name for name in STEPS if "Model" not in name and name not in {"logOutputs", "updateExperiment"}]


@pytest.mark.parametrize("operation", PLAIN)
async def test_an_answer_that_is_lost_repeats_nothing(pair: Pair, operation: str) -> None:
    """Once per kind of write; the work was done."""
    at = await pair.place()
    before, write = STEPS[operation]
    if before is not None:
        await before(at)
        await pair.proxy.drained()
    await pair.secondary.control.set_faults(Rule(path="mlflow/(runs|experiments)", nth=1, action=DropAfter()))
    await write(at)

    await pair.assert_same(at.experiment)
    assert "drop_after" in {entry["fault"] for entry in await pair.secondary.control.log()}


BLOBS = "^/azureml/"  # the container of a workspace's files
ENDED = Refuse(status=403, body=Body.XML)
# who keeps the files, by which protocol; the call that meets the trouble, and which of them
FILES: list[tuple[str, Kind | None, str, int, Action]] = [
    (DATABRICKS, None, "/fs/files/", 1, DropAfter()),
    (DATABRICKS, None, "/fs/files/", 2, Spoil(body=Spoilt.HTML)),
    *((DATABRICKS, kind, "credentials-for-write$", 1, DropAfter()) for kind in (Kind.AZURE, Kind.AWS)),
    *(
        (DATABRICKS, kind, "^/__storage__/", nth, DropAfter())
        for nth, kind in ((1, Kind.AZURE), (2, Kind.ADLS), (1, Kind.AWS), (2, Kind.GCP))
    ),
    (DATABRICKS, Kind.AZURE, "^/__storage__/", 2, DropAfter()),
    (DATABRICKS, Kind.ADLS, "^/__storage__/", 1, DropAfter()),
    *((DATABRICKS, kind, "^/__storage__/", 1, ENDED) for kind in Kind),
    (AZURE, None, "artifacts/batch/metadata$", 1, DropAfter()),
    (AZURE, None, "artifacts/batch/metadata$", 1, Spoil(body=Spoilt.TRUNCATED)),
    (AZURE, None, "artifacts/batch/metadata$", 1, Refuse(status=429)),
    (AZURE, None, BLOBS, 1, DropAfter()),
    (AZURE, None, BLOBS, 1, ENDED),
    (AZURE, None, BLOBS, 2, Refuse(status=503, body=Body.XML)),
]


@pytest.mark.parametrize(("kind", "storage", "path", "nth", "action"), FILES)
async def test_trouble_with_files_repeats_and_loses_nothing(
    servers: Servers, launch: Launcher, kind: str, storage: Kind | None, path: str, nth: int, action: Action
) -> None:
    """Registered and not there, there and not told, a URL that has ended: the file arrives, whole, and once."""
    options = {} if storage is None else {"choices": Choices(rewrites=True, refuses=403, kind=storage)}
    a = await servers.cloud("a", AZURE if kind == DATABRICKS else DATABRICKS)
    b = await servers.cloud("b", kind, **options)
    pair = Pair(await launch(a, b), a, b)
    at = await pair.place()
    await b.control.set_faults(Rule(path=path, nth=nth, action=action))
    run_id = await pair.log(at.experiment, points=1)

    await pair.assert_same(at.experiment, run_id)
    assert [entry for entry in await b.control.log() if entry["fault"]]


# --- rates ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tells", Tells)
async def test_a_workspace_that_throttles_gets_everything_once(
    servers: Servers, launch: Launcher, tells: Tells
) -> None:
    """Its rates, scaled down until they are felt; a refusal says when to come back, by seconds or date, or does not."""
    a = await servers.cloud("a", AZURE)
    b = await servers.cloud("b", DATABRICKS, terms=replace(STRICT, rates=0.05, tells=tells))
    pair = Pair(await launch(a, b), a, b)
    at = await pair.place()
    runs = [await pair.log(at.experiment) for _ in range(3)]
    await pair.proxy.drained()

    await pair.assert_same(at.experiment, *runs)
    assert isinstance(b.rules, Databricks)
    assert b.rules.buckets is not None
    assert b.rules.buckets.refused > 0


# --- answers that tell nothing, and parts -----------------------------------------------------------------------------

WRITES = ("experiments/create$", "runs/create$", "log-batch$", "runs/update$")


def at_once(action: Action, *paths: str) -> list[Rule]:
    """The first call of each; or the first two: of an experiment's two creates, one only tells of the folder."""
    first = 2 if isinstance(action, Spoil) else 1
    return [Rule(path=path, first=first, action=action) for path in paths]


SOON = "a date that is soon"


def dated(rule: Rule) -> Rule:
    """Let a refusal name a date that is soon now, and was not when the tests were collected."""
    if not isinstance(rule.action, Refuse) or rule.action.retry_after != SOON:
        return rule
    return replace(rule, action=replace(rule.action, retry_after=formatdate(time() + 2, usegmt=True)))


TROUBLE = {
    "429": at_once(Refuse(status=429), "get-by-name$", *WRITES),
    "429 with seconds": at_once(Refuse(status=429, retry_after="1"), "log-batch$"),
    "503 with a date": at_once(Refuse(status=503, retry_after=SOON), "log-batch$"),
    "empty": at_once(Spoil(body=Spoilt.EMPTY), "get-by-name$", *WRITES),
    "200 OK": at_once(Spoil(body=Spoilt.TEXT), "get-by-name$", *WRITES),
    "a page": at_once(Spoil(body=Spoilt.HTML), "get-by-name$", *WRITES),
    "truncated": at_once(Spoil(body=Spoilt.TRUNCATED), "get-by-name$", *WRITES),
    "slow": at_once(Spoil(body=Spoilt.SLOW, seconds=0.3), "get-by-name$", *WRITES),
    "502 as a page": at_once(Refuse(status=502, body=Body.HTML), *WRITES),
    "a part, then 500": at_once(Partial(status=500), "log-batch$"),
    "a part, then 503, thrice": [Rule(path="log-batch$", first=3, action=Partial(status=503))],
    "a part, then 400": at_once(Partial(status=400), "log-batch$"),
    "params alone, then 500": at_once(Partial(status=500, keeps="params"), "log-batch$"),
}


@pytest.mark.parametrize("rules", TROUBLE.values(), ids=TROUBLE.keys())
async def test_trouble_repeats_nothing_and_loses_nothing(pair: Pair, rules: list[Rule]) -> None:
    """Each call meets it once, and the work may have been done, whole or in part."""
    await pair.secondary.control.set_faults(*map(dated, rules))
    experiment = await pair.proxy.create_experiment(pair.primary.name_experiment())
    run_id = await pair.log(experiment)

    await pair.assert_same(experiment, run_id)
    met = {entry["path"] for entry in await pair.secondary.control.log() if entry["fault"]}
    assert len(met) >= len(rules)
