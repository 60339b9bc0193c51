"""What the emulated Azure ML enforces beside files: the items of the facts, each with its switch on or off."""

import asyncio
import contextlib
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from aiohttp import ClientSession, TCPConnector

from dualtrack.demo.servers import Emulator, MlflowServer
from dualtrack.emulators import azureml_workspace
from dualtrack.emulators.azureml_scope import AUDIENCE, DEFAULT_SCOPE
from dualtrack.emulators.azureml_throttle import Throttle
from dualtrack.emulators.azureml_workspace import STRICT, Choices, settings_of
from dualtrack.emulators.buckets import Tells
from dualtrack.emulators.faults import Refuse, Rule
from dualtrack.emulators.tokens import Tokens
from tests.support.hands import Hands
from tests.support.identity import certified
from tests.support.servers import Control, emulating

TOKEN = "a-token"
API = "/api/2.0/mlflow"
BASE = f"/mlflow/v2.0{DEFAULT_SCOPE}{API}"
HISTORY = f"/history/v1.0{DEFAULT_SCOPE}"
PATCH = "application/json-patch+json; charset=utf-8"
NOTHING = (404, b"")
MISSING = "RESOURCE_DOES_NOT_EXIST"
LIMITED = Choices(has_limits=True)


@dataclass
class Client:
    """A client of one workspace."""

    url: str
    session: ClientSession

    async def ask(self, method: str, path: str, body: Any = None, headers: Any = None, **query: str) -> tuple[int, Any]:
        """Call any path; give status and document, or bytes if it is none."""
        sent = {"Authorization": f"Bearer {TOKEN}"} | (headers or {})
        async with self.session.request(
            method, self.url + path, json=body, params=query, headers=sent, allow_redirects=False
        ) as answer:
            is_json = answer.content_type == "application/json"
            return answer.status, await answer.json() if is_json else await answer.read()

    async def get(self, path: str, **query: str) -> tuple[int, Any]:
        return await self.ask("GET", f"{BASE}/{path}", **query)

    async def post(self, path: str, body: Any) -> tuple[int, Any]:
        return await self.ask("POST", f"{BASE}/{path}", body)

    async def history(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        return await self.ask(method, HISTORY + path, body, {"Content-Type": PATCH} if body is not None else None)

    async def experiment(self) -> str:
        _, made = await self.post("experiments/create", {"name": unique()})
        return str(made["experiment_id"])

    async def run(self, experiment: str = "", **fields: Any) -> str:
        experiment = experiment or await self.experiment()
        _, made = await self.post("runs/create", {"experiment_id": experiment, **fields})
        return str(made["run"]["info"]["run_id"])


def unique() -> str:
    return f"e{uuid4().hex}"


@asynccontextmanager
async def workspace(
    server: MlflowServer, choices: Choices, scope: str = DEFAULT_SCOPE, tokens: Tokens | None = None
) -> AsyncIterator[Client]:
    settings = settings_of(choices, upstream=server.url, tokens=tokens or Tokens(TOKEN), scope=scope)
    async with emulating(settings) as url, ClientSession() as session:
        yield Client(url, session)


@pytest.fixture
async def strict(mlflow_primary: MlflowServer) -> AsyncIterator[Client]:
    async with workspace(mlflow_primary, STRICT) as client:
        yield client


@pytest.fixture
async def lenient(mlflow_primary: MlflowServer) -> AsyncIterator[Client]:
    async with workspace(mlflow_primary, Choices()) as client:
        yield client


def is_refused(answer: tuple[int, Any], status: int = 400, code: str = "INVALID_PARAMETER_VALUE") -> bool:
    return (answer[0], answer[1]["error_code"]) == (status, code) and "message" not in answer[1]


# ---- 1, 9: where it is, and what it has not -----------------------------------------------------------------------


@pytest.mark.parametrize("version", ["v2.0", "v1.0"])
async def test_both_versions_of_the_api_are_there(strict: Client, version: str) -> None:
    """Clients of mlflow 1 and of later ones use different prefixes."""
    path = f"/mlflow/{version}{DEFAULT_SCOPE}{API}/experiments/get-by-name"

    assert (await strict.ask("GET", path, experiment_name="Default"))[0] == 200


@pytest.mark.parametrize(
    ("old", "new"), [("0001/", "0002/"), ("/dualtrack/", "/other/"), ("/demo", "/demo2"), ("/mlflow/v2.0", "/mlflow")]
)
async def test_another_workspace_is_an_empty_404(strict: Client, old: str, new: str) -> None:
    """Whatever part of the path is wrong, the answer is as empty as for a path that nobody has."""
    path = f"{BASE}/experiments/search".replace(old, new)

    assert await strict.ask("POST", path, {"max_results": 1}) == NOTHING


@pytest.mark.parametrize(("folds", "status"), [(True, 200), (False, 404)])
async def test_words_of_arm_are_taken_in_any_case_unless_told(
    mlflow_primary: MlflowServer, folds: bool, status: int
) -> None:
    """Clients disagree on the case of `resourceGroups` and of the provider; names are compared as they are."""
    path = BASE.replace("resourceGroups", "resourcegroups").replace("Microsoft.Machine", "microsoft.machine")
    async with workspace(mlflow_primary, Choices(folds_case=folds)) as client:
        assert (await client.ask("GET", f"{path}/experiments/get-by-name", experiment_name="Default"))[0] == status
        assert (await client.ask("GET", f"{path.replace('/demo', '/DEMO')}/experiments/get"))[0] == 404


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/api/2.0/mlflow/traces", 403),
        ("POST", "/api/3.0/mlflow/traces/search", 403),
        ("GET", "/api/3.0/mlflow/server-info", 404),
        ("GET", "/api/2.0/mlflow-artifacts/artifacts", 404),
        ("GET", "/api/2.0/mlflow/artifacts/list", 404),
        ("POST", "/api/2.0/mlflow/logged-models/search", 404),
        ("GET", "/version", 404),
        ("GET", "/history/experiments/Default", 404),
    ],
)
async def test_what_the_service_has_not_is_empty(strict: Client, method: str, path: str, status: int) -> None:
    """A refusal without a body, and only for who may enter."""
    full = f"/mlflow/v2.0{DEFAULT_SCOPE}{path}"

    assert await strict.ask(method, full, {} if method == "POST" else None) == (status, b"")
    assert (await strict.ask(method, full, headers={"Authorization": "Bearer other"}))[0] == 401


async def test_a_lenient_workspace_has_what_mlflow_has(lenient: Client) -> None:
    """Nothing is missing unless it is asked for."""
    run = await lenient.run(experiment="0")
    full = f"/mlflow/v2.0{DEFAULT_SCOPE}/api/2.0/mlflow-artifacts/artifacts"

    assert (await lenient.ask("GET", full))[0] == 200
    assert (await lenient.ask("GET", f"/mlflow/v2.0{DEFAULT_SCOPE}/health")) == (200, b"OK")
    assert (await lenient.get("artifacts/list", run_id=run))[0] == 200
    assert (await lenient.post("logged-models/search", {"experiment_ids": ["0"]}))[0] == 200
    assert (await lenient.get("metrics/get-history", run_id=run, metric_key="m", max_results="25000"))[0] == 200


# ---- 2: tokens ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("audience", "status"), [("https://management.azure.com/", 200), ("https://ml.azure.com", 401), ("", 200)]
)
@pytest.mark.parametrize("path", [f"{BASE}/experiments/get-by-name", f"{HISTORY}/experiments/Default"])
async def test_a_token_is_for_the_resource_manager(
    mlflow_primary: MlflowServer, audience: str, status: int, path: str
) -> None:
    """One that names another audience is refused; one that names none is a test's own."""
    tokens = Tokens(TOKEN, audiences=(AUDIENCE,))
    token = tokens.issue(audience=audience)
    async with workspace(mlflow_primary, STRICT, tokens=tokens) as client:
        headers = {"Authorization": f"Bearer {token}"}
        said, answer = await client.ask("GET", path, headers=headers, experiment_name="Default")

    assert said == status
    assert status == 200 or answer["error"]["innerError"] == {"code": "AuthorizationError"}


# ---- 4: ids -------------------------------------------------------------------------------------------------------


async def test_ids_are_uuids_wherever_they_stand(strict: Client) -> None:
    """What was made is found by its id again: in bodies, queries, filters, lists and addresses of files."""
    experiment = await strict.experiment()
    run = await strict.run(experiment)
    _, got = await strict.get("runs/get", run_id=run, run_uuid=run)
    _, found = await strict.post(
        "runs/search", {"experiment_ids": [experiment], "filter": f"attributes.run_id IN ('{run}', '{uuid4()}')"}
    )

    assert str(UUID(run)) == run
    assert str(UUID(experiment)) == experiment
    assert UUID(experiment).version == UUID(run).version == 4
    info = got["run"]["info"]
    assert (info["run_id"], info["run_uuid"], info["experiment_id"]) == (run, run, experiment)
    assert info["artifact_uri"].endswith(f"/experiments/{experiment}/runs/{run}/artifacts")
    assert [each["info"]["run_id"] for each in found["runs"]] == [run]
    assert (await strict.history("GET", f"/experiments/{experiment}/runs/{run}/artifacts"))[0] == 200


async def test_foreign_ids_are_unknown(strict: Client, mlflow_primary: MlflowServer) -> None:
    """Neither the real server's ids nor those of another workspace, even in front of the same server, are taken."""
    run = await strict.run()
    async with workspace(mlflow_primary, STRICT, DEFAULT_SCOPE.replace("demo", "other")) as other:
        path = BASE.replace("/demo/", "/other/")
        _, theirs = await other.ask("GET", f"{path}/experiments/get-by-name", experiment_name="Default")
    foreign = theirs["experiment"]["experiment_id"]

    assert is_refused(await strict.get("runs/get", run_id=UUID(run).hex), 404, MISSING)
    assert is_refused(await strict.get("runs/get", run_id=str(uuid4())), 404, MISSING)
    assert is_refused(await strict.get("experiments/get", experiment_id="0"), 404, MISSING)
    assert is_refused(await strict.get("experiments/get", experiment_id=foreign), 404, MISSING)


async def test_errors_name_the_workspaces_own_ids(strict: Client) -> None:
    """A text of the real server tells nothing of the real server."""
    run = await strict.run()
    for value in ("1", "2"):
        status, answer = await strict.post("runs/log-parameter", {"run_id": run, "key": "p", "value": value})

    assert status == 400
    assert UUID(run).hex not in answer["Error"]["Message"]


async def test_what_a_client_wrote_stays_as_it_was(strict: Client) -> None:
    """Ids in tags are a client's own."""
    parent = await strict.run()
    tags = [{"key": "mlflow.parentRunId", "value": parent}]
    child = await strict.run(tags=tags)
    _, got = await strict.get("runs/get", run_id=child)

    assert tags[0] in got["run"]["data"]["tags"]


# ---- 5: names -----------------------------------------------------------------------------------------------------


async def test_odd_names_are_refused_or_hidden(mlflow_primary: MlflowServer, strict: Client) -> None:
    """The quirk: such an experiment is there by its id alone."""
    name, plain = f"/Shared/{unique()}", unique()
    async with workspace(mlflow_primary, replace(STRICT, takes_odd_names=True)) as quirky:
        await quirky.post("experiments/create", {"name": plain})
        _, made = await quirky.post("experiments/create", {"name": name})
        _, got = await quirky.get("experiments/get", experiment_id=made["experiment_id"])
        _, listed = await quirky.post("experiments/search", {"max_results": 1000})

        assert got["experiment"]["name"] == name
        assert is_refused(await quirky.get("experiments/get-by-name", experiment_name=name), 404, MISSING)
        assert plain in {each["name"] for each in listed["experiments"]}
        assert name not in {each["name"] for each in listed["experiments"]}
        assert is_refused(await quirky.post("experiments/create", {"name": "x/" * 129}))
    assert is_refused(await strict.post("experiments/create", {"name": name}))


async def test_an_experiment_keeps_its_name(strict: Client, lenient: Client) -> None:
    """There is no rename, unless the workspace is to have one."""
    experiment, other = await strict.experiment(), await lenient.experiment()
    refused = await strict.post("experiments/update", {"experiment_id": experiment, "new_name": unique()})

    assert is_refused(refused, 400, "BAD_REQUEST")
    assert (await lenient.post("experiments/update", {"experiment_id": other, "new_name": unique()}))[0] == 200


async def test_a_name_is_taken_once(strict: Client) -> None:
    """A second experiment of the same name is told apart from other refusals."""
    name = unique()
    await strict.post("experiments/create", {"name": name})

    assert is_refused(await strict.post("experiments/create", {"name": name}), 400, "RESOURCE_ALREADY_EXISTS")


# ---- 6: limits ----------------------------------------------------------------------------------------------------


def points(count: int) -> list[dict[str, Any]]:
    return [{"key": "m", "value": 1, "timestamp": 1, "step": step} for step in range(count)]


def pairs(count: int, prefix: str = "k") -> list[dict[str, str]]:
    return [{"key": f"{prefix}{number}", "value": "v"} for number in range(count)]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"metrics": points(251)}, "FieldName=MetricV2Dto.Value/Count, Limit=250, Size=251"),
        ({"metrics": [{**each, "key": f"m{each['step']}"} for each in points(1001)]}, "Limit=1000, Size=1001"),
        ({"params": pairs(101)}, "Limit=100, Size=101"),
        ({"tags": pairs(51)}, "Limit=50, Size=51"),
        ({"tags": [{"key": "k" * 101, "value": "v"}]}, "Limit=100, Size=101"),
        ({"tags": [{"key": "k", "value": "v" * 1001}]}, "Limit=1000, Size=1001"),
    ],
)
@pytest.mark.parametrize("path", ["mlflow/runs/log-batch", "preview/mlflow/runs/log-batch-async"])
async def test_a_batch_over_a_limit_stores_nothing(
    mlflow_primary: MlflowServer, body: dict[str, Any], says: str, path: str
) -> None:
    """Refused whole, with the limit and the size in the text."""
    async with workspace(mlflow_primary, LIMITED) as client:
        run = await client.run(experiment="0")
        full = f"/mlflow/v2.0{DEFAULT_SCOPE}/api/2.0/{path}"
        answer = await client.ask("POST", full, {"run_id": run, "params": pairs(1, "kept"), **body})
        _, got = await client.get("runs/get", run_id=run)

    assert is_refused(answer)
    assert says in answer[1]["Error"]["Message"]
    assert "params" not in got["run"]["data"]


async def test_an_experiment_has_fifty_tags(mlflow_primary: MlflowServer) -> None:
    """The fifty-first is refused; one that is there can still be changed."""
    async with workspace(mlflow_primary, LIMITED) as client:
        experiment = await client.experiment()
        tags = [{"experiment_id": experiment, **pair} for pair in pairs(51)]
        said = [(await client.post("experiments/set-experiment-tag", tag))[0] for tag in (*tags, tags[0])]

        assert said == [200] * 50 + [400, 200]
        assert is_refused(await client.post("experiments/create", {"name": unique(), "tags": pairs(51)}))


# ---- 7, 8: reading ------------------------------------------------------------------------------------------------


async def test_histories_come_in_short_pages(strict: Client) -> None:
    """What MLflow's client asks for is refused; shorter pages go on by their tokens."""
    run = await strict.run()
    await strict.post("runs/log-batch", {"run_id": run, "metrics": points(3)})
    asked = {"run_id": run, "metric_key": "m"}
    refused = await strict.get("metrics/get-history", **asked, max_results="1000")
    _, first = await strict.get("metrics/get-history", **asked, max_results="2")
    _, rest = await strict.get("metrics/get-history", **asked, max_results="2", page_token=first["next_page_token"])

    assert is_refused(refused, 400, "BAD_REQUEST")
    assert [each["step"] for each in first["metrics"] + rest["metrics"]] == [0, 1, 2]


async def test_a_search_is_refused_or_answered(strict: Client) -> None:
    """What the service documents as unsupported is a 400, and its own dialect is understood."""
    experiment = await strict.experiment()
    run = await strict.run(experiment, start_time=5)
    body = {"experiment_ids": [experiment]}

    assert is_refused(await strict.post("runs/search", {**body, "order_by": ["metrics.m DESC"]}))
    assert is_refused(await strict.post("runs/search", {**body, "filter": "tags.a != 'b'"}))
    _, found = await strict.post(
        "runs/search",
        {**body, "filter": "attributes.start_time < '9' and attributes.status = 'Running'", "order_by": ["start_time"]},
    )
    assert [each["info"]["run_id"] for each in found["runs"]] == [run]


# ---- 10: asynchronous logging -------------------------------------------------------------------------------------


async def log_later(client: Client, body: dict[str, Any]) -> tuple[int, Any]:
    path = f"/mlflow/v2.0{DEFAULT_SCOPE}/api/2.0/preview/mlflow/runs/log-batch-async"
    return await client.ask("POST", path, body)


async def status(client: Client, **query: str) -> tuple[int, Any]:
    path = f"/mlflow/v2.0{DEFAULT_SCOPE}/api/2.0/preview/mlflow/runs/get-run-data-status"
    return await client.ask("GET", path, **query)


async def test_deferred_metrics_are_there_when_they_are_said_to_be(mlflow_primary: MlflowServer) -> None:
    """Params and tags are stored at once, metrics after so many questions."""
    async with workspace(mlflow_primary, replace(STRICT, polls=2)) as client:
        run = await client.run()
        said, later = await log_later(
            client, {"run_id": run, "metrics": points(2), "params": pairs(1), "tags": pairs(1, "t")}
        )
        seen, complete = [], []
        for _ in range(4):
            _, got = await client.get("runs/get", run_id=run)
            seen.append("metrics" in got["run"]["data"])
            complete.append((await status(client, run_id=run, batch_tracking_id=later["batch_tracking_id"]))[1])

    assert said == 200
    assert got["run"]["data"]["params"] == pairs(1)
    assert pairs(1, "t")[0] in got["run"]["data"]["tags"]
    assert [each["is_complete"] for each in complete] == [False, False, True, True]
    assert seen == [False, False, False, True]


async def test_a_batch_without_metrics_has_nothing_to_wait_for(strict: Client) -> None:
    """Its id is empty, and a status needs both ids of a batch that is there."""
    run = await strict.run()

    assert await log_later(strict, {"run_id": run, "params": pairs(1)}) == (200, {"batch_tracking_id": ""})
    assert is_refused(await status(strict, run_id=run, batch_tracking_id=""))
    assert is_refused(await status(strict, run_id=run, batch_tracking_id="none"), 404, MISSING)
    assert is_refused(await log_later(strict, {"run_id": str(uuid4()), "metrics": points(1)}), 404, MISSING)


async def test_deferred_metrics_can_be_refused(mlflow_primary: MlflowServer) -> None:
    """What the store does not take is said to who asks, not to who logged."""
    async with workspace(mlflow_primary, replace(STRICT, polls=0)) as client:
        run = await client.run()
        _, later = await log_later(client, {"run_id": run, "metrics": [{**points(1)[0], "key": "no $ name"}]})

        assert is_refused(await status(client, run_id=run, batch_tracking_id=later["batch_tracking_id"]))


# ---- 15: run history ----------------------------------------------------------------------------------------------


async def test_a_client_chooses_the_id_of_a_run(strict: Client) -> None:
    """The run is MLflow's too, under that id, and a repeat changes it."""
    name, run = unique(), f"job_{uuid4().hex}.1"
    _, experiment = await strict.history("POST", f"/experiments/{name}", {})
    body = {"runId": run, "displayName": "first", "tags": {"a": "1"}, "properties": {"p": "q"}, "parentRunId": "up"}
    made = await strict.history("PATCH", f"/experiments/{name}/runs/{run}", body)
    by_id = f"/experimentids/{experiment['experimentId']}/runs/{run}"
    again = await strict.history("PATCH", by_id, {"runId": run, "displayName": "second", "tags": {"b": "2"}})
    _, got = await strict.get("runs/get", run_id=run)
    _, found = await strict.post("runs/search", {"experiment_ids": [experiment["experimentId"]]})

    assert made[0] == again[0] == 200
    assert (made[1]["status"], made[1]["displayName"], made[1]["properties"]) == ("NotStarted", "first", {"p": "q"})
    assert (again[1]["displayName"], again[1]["properties"]) == ("second", {"p": "q"})
    assert {tag["key"]: tag["value"] for tag in got["run"]["data"]["tags"]}.items() >= {
        ("a", "1"),
        ("b", "2"),
        ("mlflow.parentRunId", "up"),
    }
    assert [each["info"]["run_id"] for each in found["runs"]] == [run] == [got["run"]["info"]["run_id"]]
    assert await strict.history("GET", by_id) == (200, again[1])


async def test_events_move_the_status(strict: Client) -> None:
    """A start and an end; other events are heard and change nothing."""
    run, experiment = unique(), await strict.experiment()
    path = f"/experimentids/{experiment}/runs/{run}"
    await strict.history("PATCH", path, {"runId": run})
    seen = []
    for event in ("Start", "Heartbeat", "Completed"):
        body = {"timestamp": "2026-11-21T12:00:00Z", "name": f"Microsoft.MachineLearning.Run.{event}", "data": {}}
        assert (await strict.ask("POST", f"{HISTORY}{path}/events", body))[0] == 200
        seen.append((await strict.get("runs/get", run_id=run))[1]["run"]["info"]["status"])
    _, told = await strict.history("GET", path)

    assert seen == ["RUNNING", "RUNNING", "FINISHED"]
    assert (told["status"], told["endTimeUtc"]) == ("Completed", "2026-11-21T12:00:00+00:00")


async def test_an_event_is_of_now_unless_it_says_when(strict: Client) -> None:
    """A time that cannot be read is no reason to lose the end of a run."""
    run, experiment = unique(), await strict.experiment()
    path = f"/experimentids/{experiment}/runs/{run}"
    await strict.history("PATCH", path, {"runId": run, "status": "Running"})
    began = datetime.now(UTC)
    await strict.history("POST", f"{path}/events", {"timestamp": "?", "name": "Microsoft.MachineLearning.Run.Failed"})
    _, told = await strict.history("GET", path)

    assert told["status"] == "Failed"
    assert abs(datetime.fromisoformat(told["endTimeUtc"]) - began) < timedelta(minutes=1)


async def test_a_chosen_id_works_for_all_that_a_run_has(lenient: Client, mlflow_primary: MlflowServer) -> None:
    """Writes, filters and files too; also where ids are the real server's."""
    async with workspace(mlflow_primary, Choices(has_own_files=True)) as client:
        run = f"job-{uuid4().hex}"
        assert (await client.history("PATCH", f"/experiments/Default/runs/{run}", {"status": "Running"}))[0] == 200
        assert (await client.post("runs/log-metric", {"run_id": run, "key": "m", "value": 1, "timestamp": 1}))[0] == 200
        _, found = await client.post("runs/search", {"experiment_ids": ["0"], "filter": f"run_id = '{run}'"})
        files = f"/experiments/0/runs/{run}/artifacts"
        _, made = await client.ask("POST", f"{HISTORY}{files}/batch/metadata", {"paths": [{"path": "a"}]})

    info = found["runs"][0]["info"]
    assert (info["run_id"], info["status"]) == (run, "RUNNING")
    assert info["artifact_uri"].endswith(files)
    assert made["artifacts"]["a"]["container"] == f"dcid.{run}"


async def test_two_who_choose_the_same_id_make_one_run(strict: Client) -> None:
    """Also at the same time."""
    run, experiment = unique(), await strict.experiment()
    path = f"/experimentids/{experiment}/runs/{run}"
    made = await asyncio.gather(*(strict.history("PATCH", path, {"runId": run}) for _ in range(5)))
    _, found = await strict.post("runs/search", {"experiment_ids": [experiment]})

    assert {each[0] for each in made} == {200}
    assert len(found["runs"]) == 1


async def test_run_history_refuses_in_lower_case(strict: Client) -> None:
    """An odd id, another one in the body, an experiment, run, status or tag that cannot be, a token that is missing."""
    experiment, run = await strict.experiment(), unique()
    place = f"/experimentids/{experiment}/runs"
    refused = [
        await strict.history("PATCH", f"{place}/a%20b", {"runId": "a b"}),
        await strict.history("PATCH", f"{place}/{run}", {"runId": "other"}),
        await strict.history("PATCH", f"/experiments/{unique()}/runs/{run}", {"runId": run}),
        await strict.history("PATCH", f"{place}/{run}", {"runId": run, "status": "Odd"}),
        await strict.history("PATCH", f"{place}/{run}", {"runId": run, "tags": {"no $ name": "x"}}),
        await strict.history("GET", f"{place}/{uuid4()}"),
        await strict.history("POST", f"{place}/{uuid4()}/events", {"name": "x"}),
        await strict.history("POST", "/experiments/a%2Fb", {}),
        await strict.ask("GET", f"{HISTORY}{place}/{run}", headers={"Authorization": ""}),
    ]

    assert [each[0] for each in refused] == [400, 400, 404, 400, 400, 404, 404, 400, 401]
    assert all("error_code" not in each[1] and each[1]["error"]["code"] == "UserError" for each in refused)
    assert await strict.history("GET", f"{place}/{run}/other") == NOTHING


async def test_a_run_of_mlflow_is_in_the_history(strict: Client) -> None:
    """Below its own experiment, by name or id, and below no other."""
    experiment, other = await strict.experiment(), await strict.experiment()
    run = await strict.run(experiment, run_name="mine")
    _, named = await strict.get("experiments/get", experiment_id=experiment)

    for place in (f"experiments/{named['experiment']['name']}", f"experiments/{experiment}"):
        said, told = await strict.history("GET", f"/{place}/runs/{run}")
        assert (said, told["runId"], told["displayName"], told["status"]) == (200, run, "mine", "Running")
    assert (await strict.history("GET", f"/experimentids/{other}/runs/{run}"))[0] == 404


# ---- 16: registry -------------------------------------------------------------------------------------------------


async def test_versions_come_from_this_workspace(strict: Client) -> None:
    """A run's artifacts, or an uploaded folder; nothing from elsewhere."""
    name, run = unique(), await strict.run()
    _, got = await strict.get("runs/get", run_id=run)
    root = got["run"]["info"]["artifact_uri"]
    await strict.post("registered-models/create", {"name": name})

    async def version(source: str) -> tuple[int, Any]:
        return await strict.post("model-versions/create", {"name": name, "source": source, "run_id": run})

    for source in (
        f"{root}/model",
        f"azureml://experiments/x/runs/{run}/artifacts/m",
        "azureml://artifacts/LocalUpload/c/m",
        f"runs:/{run}/m",
    ):
        assert (await version(source))[0] == 200
    for source in (
        "s3://b/m",
        f"runs:/{uuid4()}/m",
        f"{root}/model".replace("/demo/", "/other/"),
        f"{root}".replace(run, str(uuid4())),
    ):
        assert is_refused(await version(source))
    _, found = await strict.get("model-versions/search", filter=f"run_id = '{run}'")
    assert [each["run_id"] for each in found["model_versions"]] == [run] * 4
    assert f"runs:/{run}/m" in {each["source"] for each in found["model_versions"]}


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "registered-models/rename", {"new_name": "other"}),
        ("DELETE", "registered-models/delete", {}),
        ("POST", "registered-models/set-tag", {"key": "a:b", "value": "c"}),
        ("POST", "model-versions/set-tag", {"version": "1", "key": "a:b", "value": "c"}),
        ("POST", "registered-models/create", {"tags": [{"key": "a:b", "value": "c"}]}),
    ],
)
async def test_the_registry_refuses(strict: Client, method: str, path: str, body: dict[str, Any]) -> None:
    """No new names, no end of a model, and no colons in tags."""
    name = unique()
    if not path.endswith("create"):
        await strict.post("registered-models/create", {"name": name})

    assert (await strict.ask(method, f"{BASE}/{path}", {"name": name, **body}))[0] == 400
    assert (await strict.get("registered-models/get", name=name))[0] == (404 if path.endswith("create") else 200)


async def test_a_registry_can_be_without_renames(mlflow_primary: MlflowServer) -> None:
    """Which of the two refusals is the service's is not known."""
    async with workspace(mlflow_primary, replace(STRICT, says_why=False)) as client:
        name = unique()
        await client.post("registered-models/create", {"name": name})

        assert await client.post("registered-models/rename", {"name": name, "new_name": "other"}) == NOTHING
        assert await client.ask("DELETE", f"{BASE}/registered-models/delete", {"name": name}) == NOTHING


@pytest.mark.parametrize("text", ["name LIKE 'a%'", "name ilike 'a'", "tags.a = 'b'", "tag.a = 'b'"])
async def test_models_are_searched_by_name_alone(strict: Client, text: str) -> None:
    """Neither by a pattern nor by tags."""
    assert is_refused(await strict.get("registered-models/search", filter=text))
    assert (await strict.get("registered-models/search", filter="name = 'x'"))[0] == 200


# ---- 17: throttled ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", ["", "3"])
async def test_it_throttles(strict: Client, after: str) -> None:
    """In its own words, with and without a time to wait."""
    await Control(strict.url, strict.session).set_faults(Rule(action=Refuse(status=429, retry_after=after)))
    headers = {"Authorization": f"Bearer {TOKEN}"}

    async with strict.session.get(f"{strict.url}{BASE}/runs/get", headers=headers) as answer:
        assert (answer.status, answer.headers.get("Retry-After", "")) == (429, after)
        assert (await answer.json())["Error"]["Code"] == "RequestThrottled"


@pytest.mark.parametrize("tells", Tells)
async def test_it_can_have_a_rate(mlflow_primary: MlflowServer, tells: Tells, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many calls at once pass, the next is told to wait, in the way that was chosen."""
    monkeypatch.setattr(azureml_workspace, "Throttle", partial(Throttle, now=Hands().now))
    async with workspace(mlflow_primary, replace(STRICT, rate=0.1, tells=tells)) as client:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        assert (await client.get("experiments/get-by-name", experiment_name="Default"))[0] == 200
        async with client.session.get(f"{client.url}{BASE}/runs/get", headers=headers) as answer:
            assert answer.status == 429
            assert (await answer.json())["Error"]["Code"] == "RequestThrottled"
            said = answer.headers.get("Retry-After", "")

    assert (said == "") == (tells is Tells.NOTHING)
    assert (said == "10") == (tells is Tells.SECONDS)


# ---- as a process -------------------------------------------------------------------------------------------------


async def test_a_process_can_be_strict(mlflow_primary: MlflowServer, tmp_path: Path) -> None:
    """One flag turns on all that the service does."""
    emulator = Emulator("azureml", "--strict", upstream=mlflow_primary.url, token=TOKEN, log_path=tmp_path / "log")
    try:
        await asyncio.to_thread(emulator.wait_ready)
        async with ClientSession() as session:
            client = Client(emulator.url, session)
            run = await client.run()
            _, got = await client.get("runs/get", run_id=run)
            assert got["run"]["info"]["artifact_uri"].startswith("azureml://")
            assert run.count("-") == 4
            assert await client.post("logged-models/search", {}) == NOTHING
            assert is_refused(await client.post("runs/search", {"order_by": ["metrics.m"]}))
    finally:
        await asyncio.to_thread(emulator.stop)


async def test_a_process_can_speak_tls(mlflow_primary: MlflowServer, tmp_path: Path) -> None:
    """By a certificate that is made for the test, and with signed URLs that lead to a host of the cloud."""
    _, trusting = certified(tmp_path)
    storage = "https://account.blob.core.windows.net"
    options = ("--strict", "--tls", str(tmp_path / "both.pem"), "--storage-origin", storage)
    emulator = Emulator("azureml", *options, upstream=mlflow_primary.url, token=TOKEN, log_path=tmp_path / "log")
    url = emulator.url.replace("http://127.0.0.1", "https://localhost")

    def is_up() -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/__emulator__/log", context=trusting):
            return True
        return False

    try:
        await asyncio.to_thread(emulator.process.wait_ready, is_up)
        async with ClientSession(connector=TCPConnector(ssl=trusting)) as session:
            client = Client(url, session)
            experiment = await client.experiment()
            files = f"{HISTORY}/experiments/{experiment}/runs/{await client.run(experiment)}/artifacts"
            _, made = await client.ask("POST", f"{files}/batch/metadata", {"paths": [{"path": "a"}]})
            assert made["artifactContentInformation"]["a"]["contentUri"].startswith(f"{storage}/azureml/")
    finally:
        await asyncio.to_thread(emulator.stop)
