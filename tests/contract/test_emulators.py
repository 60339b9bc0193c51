"""The emulators in front of a real MLflow server: tokens, names, shapes of errors, faults, the log and its counters."""

import asyncio
import errno
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from aiohttp import ClientOSError, ClientSession, ClientTimeout, ServerDisconnectedError

from dualtrack.demo.servers import Emulator, MlflowServer, free_port
from dualtrack.emulators.azureml import DEFAULT_SCOPE, AzureML
from dualtrack.emulators.databricks import Databricks
from dualtrack.emulators.faults import Action, BlackHole, Body, Delay, DropAfter, DropBefore, Refuse, Rule
from dualtrack.emulators.tracking import Settings
from tests.support.servers import Control, emulating

TOKEN = "a-token"
API = "/api/2.0/mlflow"
AZURE = "/mlflow/v2.0" + DEFAULT_SCOPE


class Client:
    """A client of one emulator: the base of the MLflow REST API and a token."""

    def __init__(self, url: str, session: ClientSession, prefix: str = "") -> None:
        self.session = session
        self.control = Control(url, session)
        self.base = url + prefix
        self.headers = {"Authorization": f"Bearer {TOKEN}"}

    async def post(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        async with self.session.post(self.base + path, json=body, headers=self.headers) as answer:
            return answer.status, await answer.json() if answer.content_type == "application/json" else None

    async def create(self, name: str) -> tuple[int, Any]:
        return await self.post(f"{API}/experiments/create", {"name": name})

    async def create_run(self, **fields: Any) -> str:
        _, answer = await self.post(f"{API}/runs/create", {"experiment_id": "0", **fields})
        return str(answer["run"]["info"]["run_id"])

    async def runs_named(self, name: str) -> int:
        query = {"experiment_ids": ["0"], "filter": f"attributes.run_name = '{name}'"}
        _, answer = await self.post(f"{API}/runs/search", query)
        return len(answer.get("runs", []))


@pytest.fixture
async def session() -> AsyncIterator[ClientSession]:
    async with ClientSession(timeout=ClientTimeout(total=30)) as session:
        yield session


@pytest.fixture
async def plain(mlflow_primary: MlflowServer, session: ClientSession) -> AsyncIterator[Client]:
    async with emulating(Settings(upstream=mlflow_primary.url, token=TOKEN)) as url:
        yield Client(url, session)


@pytest.fixture
async def databricks(mlflow_primary: MlflowServer, session: ClientSession) -> AsyncIterator[Client]:
    settings = Settings(upstream=mlflow_primary.url, token=TOKEN, dialect=Databricks(users=("ann@example.com",)))
    async with emulating(settings) as url:
        yield Client(url, session)


@pytest.fixture
async def azureml(mlflow_primary: MlflowServer, session: ClientSession) -> AsyncIterator[Client]:
    async with emulating(Settings(upstream=mlflow_primary.url, token=TOKEN, dialect=AzureML())) as url:
        yield Client(url, session, AZURE)


def unique(prefix: str = "") -> str:
    return f"{prefix}{uuid4().hex}"


# ---- who may enter -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["", "Bearer wrong", f"Basic {TOKEN}", "Bearer größer"])
async def test_only_the_right_token_enters(databricks: Client, given: str) -> None:
    databricks.headers = {"Authorization": given} if given else {}

    status, answer = await databricks.create(unique("/Shared/"))

    assert status == 401
    assert set(answer) == {"error_code", "message"}


async def test_azure_refuses_a_token_in_the_lower_case_shape(azureml: Client) -> None:
    azureml.headers = {}

    status, answer = await azureml.create(unique())

    assert status == 401
    assert answer["error"]["innerError"] == {"code": "AuthorizationError"}
    assert "error_code" not in answer


# ---- Databricks --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "status", "code"),
    [
        ("plain-name", 400, "INVALID_PARAMETER_VALUE"),
        ("", 400, "INVALID_PARAMETER_VALUE"),
        ("/Users/nobody@example.com/work", 404, "RESOURCE_DOES_NOT_EXIST"),
        ("/Shared/missing/work", 404, "RESOURCE_DOES_NOT_EXIST"),
    ],
)
async def test_databricks_refuses_names_outside_of_the_workspace(
    databricks: Client, name: str, status: int, code: str
) -> None:
    answer = await databricks.create(name)

    assert (answer[0], answer[1]["error_code"]) == (status, code)


async def test_databricks_takes_names_in_folders_that_exist(databricks: Client) -> None:
    folder = unique("/Shared/")

    assert (await databricks.create(unique("/Shared/")))[0] == 200
    assert (await databricks.create(unique("/Users/ann@example.com/")))[0] == 200
    assert (await databricks.create(f"{folder}/deep/work")) == (
        404,
        {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": f"Parent directory {folder}/deep does not exist."},
    )
    for _ in range(2):  # idempotent
        assert (await databricks.post("/api/2.0/workspace/mkdirs", {"path": f"{folder}/deep"})) == (200, {})
    assert (await databricks.create(f"{folder}/deep/work"))[0] == 200
    assert (await databricks.create(f"{folder}/beside"))[0] == 200


@pytest.mark.parametrize(
    ("path", "code"), [("Shared/x", "INVALID_PARAMETER_VALUE"), ("/Users/x/y", "DIRECTORY_PROTECTED")]
)
async def test_databricks_refuses_folders(databricks: Client, path: str, code: str) -> None:
    status, answer = await databricks.post("/api/2.0/workspace/mkdirs", {"path": path})

    assert (status, answer["error_code"]) == (400, code)


async def test_databricks_checks_a_rename_too(databricks: Client) -> None:
    _, made = await databricks.create(unique("/Shared/"))
    body = {"experiment_id": made["experiment_id"], "new_name": "plain"}

    status, _ = await databricks.post(f"{API}/experiments/update", body)

    assert status == 400


async def test_the_default_experiment_passes(databricks: Client) -> None:
    assert len(await databricks.create_run()) == 32


# ---- Azure ML ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["/Shared/x", "-x", "a b", "ä", "x" * 256, ""])
async def test_azure_refuses_names_in_its_own_shape(azureml: Client, name: str) -> None:
    status, answer = await azureml.create(name)

    assert status == answer["statusCode"] == 400
    assert answer["error_code"] == "INVALID_PARAMETER_VALUE"
    assert answer["Error"]["Code"] == "ValidationError"
    assert "message" not in answer


async def test_azure_takes_flat_names(azureml: Client) -> None:
    assert (await azureml.create(unique("my_experiment-")))[0] == 200


async def test_azure_shapes_the_errors_of_the_real_server(azureml: Client) -> None:
    status, answer = await azureml.post(f"{API}/runs/update", {"run_id": "0" * 32, "status": "FINISHED"})

    assert status == 404
    assert answer["error_code"] == "RESOURCE_DOES_NOT_EXIST"
    assert "0" * 32 in answer["Error"]["Message"]


@pytest.mark.parametrize("prefix", ["", "/mlflow/v2.0", AZURE + "x", "/mlflow/v3.0" + DEFAULT_SCOPE])
async def test_azure_knows_no_other_path(azureml: Client, prefix: str) -> None:
    base = azureml.base.removesuffix(AZURE)

    async with azureml.session.get(f"{base}{prefix}{API}/experiments/get", headers=azureml.headers) as answer:
        assert (answer.status, await answer.read()) == (404, b"")


LOGGED_MODEL_CALLS = (
    ("POST", "logged-models"),
    ("POST", "logged-models/search"),
    ("GET", "logged-models/m-1"),
    ("PATCH", "logged-models/m-1"),
    ("DELETE", "logged-models/m-1"),
    ("POST", "logged-models/m-1/params"),
    ("PATCH", "logged-models/m-1/tags"),
    ("GET", "logged-models/m-1/artifacts/directories"),
    ("POST", "runs/outputs"),
)


@pytest.mark.parametrize(("method", "path"), LOGGED_MODEL_CALLS)
async def test_azure_can_be_without_logged_models(
    mlflow_primary: MlflowServer, session: ClientSession, method: str, path: str
) -> None:
    """Every verb of theirs is a 404 with nothing in it, and only to those who may enter."""
    settings = Settings(upstream=mlflow_primary.url, token=TOKEN, dialect=AzureML(has_logged_models=False))
    async with emulating(settings) as url:
        client = Client(url, session, AZURE)
        target = f"{client.base}{API}/{path}"
        async with session.request(method, target, json={}, headers=client.headers) as answer:
            assert (answer.status, await answer.read()) == (404, b"")
        async with session.request(method, target, json={}) as answer:
            assert answer.status == 401
        assert len(await client.create_run()) == 32


async def test_azure_has_logged_models_unless_told_otherwise(azureml: Client) -> None:
    status, answer = await azureml.post(f"{API}/logged-models", {"experiment_id": "0", "name": "m"})

    assert status == 200
    assert answer["model"]["info"]["name"] == "m"


# ---- what passes -------------------------------------------------------------------------------------------------


async def test_bodies_stream_both_ways(plain: Client) -> None:
    """A chunked upload with an odd name arrives byte for byte and comes back so."""
    content = bytes(range(256)) * 4096
    path = f"{plain.base}/api/2.0/mlflow-artifacts/artifacts/0/{unique()}/a%20b%2Bc.bin"

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(content), 100_000):
            yield content[start : start + 100_000]

    async with plain.session.put(path, data=chunks(), headers=plain.headers) as stored:
        assert stored.status == 200
    async with plain.session.get(path, headers=plain.headers) as answer:
        assert await answer.read() == content


async def test_a_delete_keeps_its_body_and_a_foreign_origin_does_not_hurt(plain: Client) -> None:
    name = unique("model-")
    await plain.post(f"{API}/registered-models/create", {"name": name})
    headers = {**plain.headers, "Origin": "https://elsewhere.example.com"}

    url = f"{plain.base}{API}/registered-models/delete"
    async with plain.session.delete(url, json={"name": name}, headers=headers) as answer:
        assert answer.status == 200


async def test_an_upstream_that_is_gone_is_a_503(session: ClientSession) -> None:
    async with emulating(Settings(upstream=f"http://127.0.0.1:{free_port()}", token=TOKEN)) as url:
        status, answer = await Client(url, session).create("x")

    assert (status, answer["error_code"]) == (503, "TEMPORARILY_UNAVAILABLE")


# ---- faults ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("action", "runs"), [(DropBefore(), 0), (DropAfter(), 1)])
async def test_a_drop_loses_the_call_or_only_its_answer(plain: Client, action: Action, runs: int) -> None:
    name = unique()
    await plain.control.set_faults(Rule(action=action, method="POST", path="runs/create$", nth=1))

    with pytest.raises((ServerDisconnectedError, ConnectionResetError)):
        await plain.create_run(run_name=name)

    assert await plain.runs_named(name) == runs
    await plain.create_run(run_name=name)
    assert await plain.runs_named(name) == runs + 1


@pytest.mark.parametrize(("action", "runs"), [(DropBefore(resets=True), 0), (DropAfter(resets=True), 1)])
async def test_a_drop_may_reset_the_connection(plain: Client, action: Action, runs: int) -> None:
    name = unique()
    await plain.control.set_faults(Rule(action=action, method="POST", path="runs/create$", nth=1))

    with pytest.raises(ClientOSError) as told:
        await plain.create_run(run_name=name)

    assert told.value.errno == errno.ECONNRESET
    assert await plain.runs_named(name) == runs


@pytest.mark.parametrize(
    ("refusal", "content_type", "start"),
    [
        (Refuse(status=429, retry_after="7"), "application/json", b'{"error_code": "REQUEST_LIMIT_EXCEEDED"'),
        (Refuse(status=503, code="X"), "application/json", b'{"error_code": "X"'),
        (Refuse(status=502, body=Body.HTML), "text/html", b"<html>"),
        (Refuse(status=500, body=Body.EMPTY), "application/octet-stream", b""),
    ],
)
async def test_a_refusal_answers_in_the_wanted_shape(
    plain: Client, refusal: Refuse, content_type: str, start: bytes
) -> None:
    await plain.control.set_faults(Rule(action=refusal))

    async with plain.session.get(f"{plain.base}{API}/experiments/get", headers=plain.headers) as answer:
        assert (answer.status, answer.content_type) == (refusal.status, content_type)
        assert answer.headers.get("Retry-After", "") == refusal.retry_after
        body = await answer.read()

    assert body.startswith(start)
    assert bool(body) == bool(start)


async def test_azure_throttles_in_its_own_shape(azureml: Client) -> None:
    await azureml.control.set_faults(Rule(action=Refuse(status=429), first=1))

    status, answer = await azureml.create(unique())

    assert (status, answer["Error"]["Code"]) == (429, "RequestThrottled")
    assert (await azureml.create(unique()))[0] == 200


async def test_a_delay_passes_the_call_on_later(plain: Client) -> None:
    await plain.control.set_faults(Rule(action=Delay(seconds=0.2)))
    began = asyncio.get_running_loop().time()

    status, _ = await plain.create(unique())

    assert status == 200
    assert asyncio.get_running_loop().time() - began >= 0.2


async def test_a_black_hole_holds_a_call_until_it_is_closed(plain: Client) -> None:
    name = unique()
    await plain.control.set_faults(Rule(action=BlackHole(), path="runs/create$"))

    async with asyncio.TaskGroup() as group:
        held = group.create_task(_held(plain, name))
        seen = await plain.control.arrived("runs/create$")
        assert seen["fault"] == "black_hole"
        assert not held.done()
        await plain.control.clear_faults()

    assert await plain.runs_named(name) == 0


async def _held(client: Client, name: str) -> None:
    with pytest.raises((ServerDisconnectedError, ConnectionResetError)):
        await client.create_run(run_name=name)


async def test_a_stop_does_not_wait_for_a_black_hole(mlflow_primary: MlflowServer, session: ClientSession) -> None:
    settings = Settings(upstream=mlflow_primary.url, token=TOKEN)
    async with asyncio.timeout(10), asyncio.TaskGroup() as group, emulating(settings) as url:
        client = Client(url, session)
        await client.control.set_faults(Rule(action=BlackHole()))
        group.create_task(_held(client, unique()))
        await client.control.arrived("runs/create$")


async def test_wrong_rules_are_refused(plain: Client) -> None:
    async with plain.session.post(f"{plain.base}/__emulator__/faults", json={"action": 1}) as answer:
        assert answer.status == 400
        assert "action needs a kind" in (await answer.json())["message"]


# ---- the log and the counters ------------------------------------------------------------------------------------


async def test_the_log_tells_what_arrived_and_never_a_token(plain: Client) -> None:
    await plain.control.set_faults(Rule(action=Refuse(status=503), path="runs/create", nth=1))
    await plain.post(f"{API}/runs/create?x=1", {"experiment_id": "0"})
    await plain.create("x" * 70_000)

    first, second = await plain.control.log()

    assert (first["number"], first["method"], first["path"]) == (1, "POST", f"{API}/runs/create")
    assert (first["query"], first["status"], first["fault"]) == ("x=1", 503, "refuse")
    assert first["body"] == '{"experiment_id": "0"}'
    assert "Authorization" in first["header_names"]
    assert TOKEN not in str(first)
    assert (second["status"], second["fault"]) == (400, "")
    assert second["body_bytes"] > len(second["body"]) == 64 * 1024
    assert await plain.control.log(since=2) == []


async def test_the_log_can_be_waited_for(plain: Client) -> None:
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(plain.control.log(since=0, wait=20))
        await plain.create(unique())

    assert len(waiting.result()) == 1


async def test_writes_that_were_stored_twice_are_counted(plain: Client) -> None:
    run_id = await plain.create_run()
    metric = {"key": "m", "value": 1, "timestamp": 5, "step": 2}
    batch = [{**metric, "value": 1.0}, {**metric, "key": "other"}, {"key": "nan", "value": "NaN", "timestamp": 1}]

    await plain.post(f"{API}/runs/log-metric", {"run_id": run_id, **metric})
    assert (await plain.control.duplicates())["metric_points"] == 0
    await plain.post(f"{API}/runs/log-batch", {"run_id": run_id, "metrics": [*batch, *batch]})
    assert (await plain.control.duplicates())["metric_points"] == 1
    await plain.post(f"{API}/runs/log-batch", {"run_id": run_id, "metrics": batch})

    counted = await plain.control.duplicates()
    assert counted["metric_points"] == 4
    examples = counted["metric_point_examples"]
    assert (len(examples), examples.count([run_id, "m", "2", "5", "1.0", ""])) == (4, 2)
    assert (await plain.control.duplicates(examples=3))["metric_point_examples"] == examples[:3]


async def test_a_mirror_that_was_made_twice_is_counted_also_when_its_answer_was_lost(plain: Client) -> None:
    mark = unique()
    tags = [{"key": "dualtrack.source_run_id", "value": mark}]
    await plain.control.set_faults(
        Rule(action=DropAfter(), path="runs/create$", nth=1), Rule(action=DropBefore(), path="runs/create$", nth=2)
    )
    for _ in range(2):
        with pytest.raises((ServerDisconnectedError, ConnectionResetError)):
            await plain.create_run(tags=tags)
    assert (await plain.control.duplicates())["runs"] == 0

    await plain.create_run(tags=tags)

    counted = await plain.control.duplicates()
    assert (counted["runs"], counted["run_examples"]) == (1, [mark])


# ---- as a process ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "prefix"), [("plain", ""), ("databricks", ""), ("azureml", AZURE)])
async def test_an_emulator_runs_as_a_process(
    mlflow_primary: MlflowServer, session: ClientSession, tmp_path: Path, kind: str, prefix: str
) -> None:
    emulator = Emulator(kind, "--no-logged-models", upstream=mlflow_primary.url, token=TOKEN, log_path=tmp_path / "log")
    try:
        await asyncio.to_thread(emulator.wait_ready)
        client = Client(emulator.url, session, prefix)
        assert len(await client.create_run()) == 32
        status, _ = await client.post(f"{API}/logged-models", {"experiment_id": "0", "name": "m"})
        assert status == (404 if kind == "azureml" else 200)
    finally:
        await asyncio.to_thread(emulator.stop)

    assert emulator.process.returncode is not None
