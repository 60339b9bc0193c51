"""A secondary that holds less: what does not fit is shortened, kept beside the run or left out, and always recorded."""

from collections.abc import AsyncIterator

import orjson
import pytest
from aiohttp import ClientSession

from dualtrack.demo.compare import Side
from dualtrack.demo.servers import MlflowServer
from dualtrack.emulators.azureml import DEFAULT_SCOPE, AzureML
from dualtrack.emulators.faults import Refuse, Rule
from dualtrack.emulators.tracking import Settings
from tests.support.files import mirror_of, mirrored
from tests.support.flow import SECRETS, Json, Launcher, Running, Workspace, unique
from tests.support.servers import Control, emulating

OVERFLOW = "dualtrack/overflow.json"
MARKS = 2  # tags of our own


@pytest.fixture
async def azure(mlflow_secondary: MlflowServer, session: ClientSession) -> AsyncIterator[Workspace]:
    settings = Settings(upstream=mlflow_secondary.url, token=SECRETS["TOKEN_B"], dialect=AzureML(has_limits=True))
    async with emulating(settings) as url:
        side = Side(name="b", url=mlflow_secondary.url)
        yield Workspace(name="b", url=f"{url}/mlflow/v2.0{DEFAULT_SCOPE}", side=side, control=Control(url, session))


async def launched(launch: Launcher, a: Workspace, azure: Workspace, **options: str) -> Running:
    return await launch(a, azure, backends={"b": {"kind": "azureml", **options}})


async def lossy(proxy: Running, run_id: str) -> dict[tuple[str, str], str]:
    """What the proxy recorded of a run: the reason by what it is."""
    listed: list[Json] = (await proxy.admin.call("GET", f"/api/v1/losses?key=run:{run_id}&limit=1000")).json["losses"]
    assert {item["backend"] for item in listed} <= {"b"}
    return {(item["kind"], item["item"]): item["reason"] for item in listed}


def keys(run: Json, kind: str) -> set[str]:
    return {item["key"] for item in run["data"].get(kind, [])}


async def test_a_run_with_more_than_a_workspace_holds(launch: Launcher, a: Workspace, azure: Workspace) -> None:
    """300 params and 60 tags: 200 and 50 arrive, the rest stands in the run's overflow, nothing is parked."""
    proxy = await launched(launch, a, azure)
    run_id = await proxy.create_run(await proxy.create_experiment())
    for start in range(0, 300, 100):
        params = [{"key": f"p{number:03}", "value": str(number)} for number in range(start, start + 100)]
        await proxy.post("runs/log-batch", run_id=run_id, params=params)
    tags = [{"key": f"t{number:02}", "value": str(number)} for number in range(60)]
    await proxy.post("runs/log-batch", run_id=run_id, tags=tags)
    await proxy.finish(run_id)
    await proxy.drained()
    run = await mirror_of(azure, proxy, run_id)
    kept = orjson.loads((await mirrored(azure, proxy, run_id))[OVERFLOW])
    params_there = keys(run, "params")
    tags_there = {key for key in keys(run, "tags") if key.startswith("t")}

    assert len(params_there) == 200
    assert len(tags_there) + len(kept["tags"]) == 60
    assert params_there | kept["params"].keys() == {f"p{number:03}" for number in range(300)}
    assert tags_there | kept["tags"].keys() == {f"t{number:02}" for number in range(60)}
    assert kept["params"]["p299"] == "299"
    assert run["info"]["status"] == "FINISHED"
    assert (await proxy.backend())["parked"] == 0
    assert await proxy.metric("lossy_total", backend="b", kind="over_limit") == len(kept["params"]) + len(kept["tags"])
    listed = [("param", key) for key in kept["params"]] + [("tag", key) for key in kept["tags"]]
    assert await lossy(proxy, run_id) == dict.fromkeys(listed, "over_limit")
    refused = await proxy.metric("delivery_calls_total", backend="b", operation="logBatch", outcome="400")
    sent = await proxy.metric("delivery_calls_total", backend="b", operation="logBatch", outcome="ok")
    assert (refused, sent <= 6) == (2, True)


async def test_a_run_that_begins_with_too_many_tags(launch: Launcher, a: Workspace, azure: Workspace) -> None:
    """It is made with as many as there may be, those that find it first, and the rest stands in its overflow."""
    proxy = await launched(launch, a, azure)
    tags = [{"key": f"t{number:02}", "value": str(number)} for number in range(60)]
    parent = await proxy.create_run(await proxy.create_experiment())
    given = [*tags, {"key": "mlflow.parentRunId", "value": parent}]
    run_id = await proxy.create_run(await proxy.create_experiment(), tags=given)
    await proxy.drained()
    there = keys(await mirror_of(azure, proxy, run_id), "tags")
    kept = orjson.loads((await mirrored(azure, proxy, run_id))[OVERFLOW])

    assert len(there) == 50
    assert {"dualtrack.source", "dualtrack.source_run_id", "mlflow.parentRunId"} <= there
    assert {key for key in there if key.startswith("t")} | kept["tags"].keys() == {tag["key"] for tag in tags}
    assert await lossy(proxy, run_id) == {("tag", key): "over_limit" for key in kept["tags"]}


async def test_a_run_whose_overflow_cannot_be_kept_yet_is_made_once(
    launch: Launcher, a: Workspace, azure: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files are refused after the run is made, and a search shows nothing yet: what was made is known all the same."""
    proxy = await launched(launch, a, azure)

    async def find_nothing(*_: object) -> None:
        return None

    monkeypatch.setattr(proxy.app.readers["b"], "find_mirror", find_nothing)
    await azure.control.set_faults(Rule(path="(?i)artifact", action=Refuse(status=503)))
    tags = [{"key": "long", "value": "v" * 3000}]
    run_id = await proxy.create_run(await proxy.create_experiment(), tags=tags)
    await proxy.failing("503")
    await proxy.log_metric(run_id)
    await azure.control.clear_faults()
    await proxy.drained()
    kept = orjson.loads((await mirrored(azure, proxy, run_id))[OVERFLOW])

    assert len(await azure.writes("runs/create")) == 1
    assert kept == {"tags": {"long": "v" * 3000}}
    assert await lossy(proxy, run_id) == {("tag", "long"): "shortened"}


async def test_values_that_are_there_already_take_no_room(launch: Launcher, a: Workspace, azure: Workspace) -> None:
    """A full run takes new values of the tags that it has; of a batch with others too, those alone are left out."""
    proxy = await launched(launch, a, azure)
    run_id = await proxy.create_run(await proxy.create_experiment())
    for value in ("old", "new"):
        tags = [{"key": f"t{number:02}", "value": value} for number in range(48 if value == "old" else 60)]
        await proxy.post("runs/log-batch", run_id=run_id, tags=tags)
        await proxy.drained()
    run = await mirror_of(azure, proxy, run_id)
    kept = orjson.loads((await mirrored(azure, proxy, run_id))[OVERFLOW])

    there = {tag["key"]: tag["value"] for tag in run["data"]["tags"] if tag["key"].startswith("t")}
    assert {value for key, value in there.items() if key < "t48"} == {"new"}
    assert kept["tags"].keys() == {f"t{number}" for number in range(48, 60)} - there.keys()
    assert set(kept["tags"].values()) == {"new"}


async def test_what_is_too_long_is_shortened_and_kept_whole(launch: Launcher, a: Workspace, azure: Workspace) -> None:
    """By default: a tag is found by the beginning of its name, and read whole in the overflow."""
    proxy = await launched(launch, a, azure)
    long_key, long_value, history = "k" * 200, "v" * 3000, orjson.dumps([{"n": n} for n in range(400)]).decode()
    tags = [{"key": "in the create", "value": long_value}]
    run_id = await proxy.create_run(await proxy.create_experiment(), tags=tags)
    await proxy.set_tag(run_id, long_key, "named")
    await proxy.set_tag(run_id, "json", history)
    await proxy.log_metric(run_id, key="m" * 250)
    await proxy.set_tag(run_id, "short", "stays")
    await proxy.drained()
    run = await mirror_of(azure, proxy, run_id)
    kept = orjson.loads((await mirrored(azure, proxy, run_id))[OVERFLOW])
    there = {tag["key"]: tag["value"] for tag in run["data"]["tags"]}
    recorded = await lossy(proxy, run_id)

    assert kept == {"tags": {"in the create": long_value, long_key: "named", "json": history}}
    assert there["in the create"].startswith("v" * 900)
    assert len(there["in the create"]) == 1000
    assert [value for key, value in there.items() if key.startswith("k" * 90)] == ["named"]
    assert there["short"] == "stays"
    assert "json" not in there
    assert recorded == {
        ("tag", "in the create"): "shortened",
        ("tag", long_key): "shortened",
        ("tag", "json"): "skipped",
    }

    await proxy.post("runs/delete-tag", run_id=run_id, key=long_key)
    await proxy.drained()
    assert not [key for key in keys(await mirror_of(azure, proxy, run_id), "tags") if key.startswith("kkk")]


@pytest.mark.parametrize(("policy", "length"), [("shorten", 1000), ("skip", 0)])
async def test_the_policy_is_chosen(launch: Launcher, a: Workspace, azure: Workspace, policy: str, length: int) -> None:
    proxy = await launched(launch, a, azure, on_limit=policy)
    run_id = await proxy.create_run(await proxy.create_experiment())
    await proxy.set_tag(run_id, "long", "v" * 3000)
    await proxy.drained()
    there = {tag["key"]: tag["value"] for tag in (await mirror_of(azure, proxy, run_id))["data"]["tags"]}

    assert len(there.get("long", "")) == length
    assert await mirrored(azure, proxy, run_id) == {}
    assert len(await lossy(proxy, run_id)) == 1


async def test_an_experiment_s_tags_fit_too(launch: Launcher, a: Workspace, azure: Workspace) -> None:
    proxy = await launched(launch, a, azure)
    name = unique()
    experiment_id = (await proxy.post("experiments/create", name=name, tags=[{"key": "k", "value": "v" * 3000}]))[
        "experiment_id"
    ]
    await proxy.post("experiments/set-experiment-tag", experiment_id=experiment_id, key="later", value="w" * 3000)
    await proxy.drained()
    found = await proxy.call("GET", f"{azure.side.url}/api/2.0/mlflow/experiments/get-by-name?experiment_name={name}")
    there = {tag["key"]: len(tag["value"]) for tag in found.json["experiment"]["tags"]}

    assert (there["k"], there["later"]) == (1000, 1000)
    assert await proxy.metric("lossy_total", backend="b", kind="shortened") == 2
    assert (await proxy.backend())["parked"] == 0
