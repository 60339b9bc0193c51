"""The emulated workspace in front of a real MLflow server: its doors, its table of names, its limits, its registry."""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson
import pytest
from aiohttp import ClientPayloadError, ClientSession, ClientTimeout, ServerDisconnectedError

from dualtrack.demo.servers import Emulator, MlflowServer
from dualtrack.emulators.azureml import DEFAULT_SCOPE, AzureML
from dualtrack.emulators.buckets import Buckets, Tells
from dualtrack.emulators.databricks import STRICT, Databricks, Registry, Terms
from dualtrack.emulators.databricks_doors import APPLICATION, LOGIN, PROOFS, Doors, Several
from dualtrack.emulators.databricks_files import Choices, DatabricksFiles
from dualtrack.emulators.databricks_ids import long_ids
from dualtrack.emulators.faults import Body, DropAfter, Partial, Refuse, Rule, Spoil, Spoilt
from dualtrack.emulators.tokens import Tokens
from dualtrack.emulators.tracking import Dialect, Middleware, Settings, Site
from tests.support.hands import Hands
from tests.support.servers import Control, emulating

TOKEN, CLIENT, SECRET = "dapi-1", "a-client", "s3cr3t"
API = "/api/2.0/mlflow/"


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def code(self) -> tuple[int, str]:
        return self.status, str(self.json.get("error_code", ""))


@dataclass(slots=True)
class Place:
    """One emulated workspace and a client of it."""

    url: str
    session: ClientSession
    tokens: Tokens
    control: Control
    token: str = TOKEN

    async def call(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        target = self.url + (path if path.startswith("/") else API + path)
        signed = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        async with self.session.request(
            method, target, json=body, headers={**signed, **headers}, allow_redirects=False
        ) as got:
            return Answer(got.status, got.headers.copy(), await got.read())

    async def post(self, path: str, **body: Any) -> Answer:
        return await self.call("POST", path, body)

    async def create_run(self) -> str:
        made = await self.post("runs/create", experiment_id="0")
        return str(made.json["run"]["info"]["run_id"])

    async def issue(self, **form: str) -> Answer:
        """Ask for a token as the SDK does."""
        data = {"grant_type": "client_credentials", "scope": "all-apis", **form}
        pair = base64.b64encode(f"{CLIENT}:{form.get('secret', SECRET)}".encode()).decode()
        headers = {"Authorization": f"Basic {pair}"}
        async with self.session.post(f"{self.url}/oidc/v1/token", data=data, headers=headers) as got:
            return Answer(got.status, got.headers.copy(), await got.read())


@asynccontextmanager
async def place(
    server: MlflowServer,
    terms: Terms | None = None,
    *,
    tokens: Tokens | None = None,
    files: Site | None = None,
    dialect: Dialect | None = None,
    middlewares: tuple[Middleware, ...] = (),
    **doors: bool,
) -> AsyncIterator[Place]:
    made = Databricks(terms=terms)
    kept = tokens or Tokens(TOKEN)
    front = Doors(kept, made.tree, {CLIENT: SECRET}, **doors)
    site = Several(front, files) if files is not None else front
    settings = Settings(upstream=server.url, tokens=kept, dialect=dialect or made, site=site, middlewares=middlewares)
    async with emulating(settings) as url, ClientSession(timeout=ClientTimeout(total=30)) as session:
        yield Place(url, session, kept, Control(url, session))


def unique() -> str:
    return f"/Shared/{uuid4().hex}"


# --- doors ----------------------------------------------------------------------------------------------------------


async def test_the_sdk_finds_where_tokens_are_issued(mlflow_primary: MlflowServer) -> None:
    """Without a token: its first question has an empty answer, the second leads to the third."""
    async with place(mlflow_primary) as at:
        at.token = ""
        config = await at.call("GET", "/.well-known/databricks-config")
        told = await at.call("GET", "/oidc/.well-known/oauth-authorization-server")
        issued = await at.issue()
        at.token = issued.json["access_token"]
        search = await at.call("GET", "experiments/search?max_results=1")

        assert (config.status, config.json) == (200, {})
        assert told.json["token_endpoint"] == f"{at.url}/oidc/v1/token"
        assert (issued.json["token_type"], issued.json["expires_in"]) == ("Bearer", 3600)
        assert search.status == 200


@pytest.mark.parametrize(
    ("form", "status"),
    [({"secret": "wrong"}, 401), ({"scope": "some"}, 400), ({"grant_type": "password"}, 400)],
)
async def test_a_wrong_request_gets_no_token(mlflow_primary: MlflowServer, form: dict[str, str], status: int) -> None:
    async with place(mlflow_primary) as at:
        refused = await at.issue(**form)
        async with at.session.post(f"{at.url}/oidc/v1/token", headers={"Authorization": "Basic %"}) as bare:
            assert bare.status == 401

    assert refused.status == status
    assert "error_description" in refused.json


async def test_tokens_end_and_others_go_on(mlflow_primary: MlflowServer) -> None:
    """An issued token counts from its issue; what is taken back ends at once; a standing one stays."""
    clock = Hands()
    tokens = Tokens(TOKEN, lifetime=60, now=clock.now)
    async with place(mlflow_primary, tokens=tokens) as at:
        at.token = (await at.issue()).json["access_token"]
        first = await at.call("GET", "experiments/search?max_results=1")
        clock.at += 61
        ended = await at.call("GET", "experiments/search?max_results=1")
        at.token = (await at.issue()).json["access_token"]
        again = await at.call("GET", "experiments/search?max_results=1")
        await at.call("DELETE", "/__emulator__/tokens")
        revoked = await at.call("GET", "experiments/search?max_results=1")
        await at.call("POST", "/__emulator__/tokens", {"token": "dapi-2"})
        at.token = "dapi-2"
        added = await at.call("GET", "experiments/search?max_results=1")
        at.token = TOKEN
        stands = await at.call("GET", "experiments/search?max_results=1")

    assert [each.status for each in (first, ended, again, revoked, added, stands)] == [200, 401, 200, 401, 200, 200]
    assert ended.code == (401, "UNAUTHENTICATED")


async def test_an_identity_gets_tokens_for_a_resource(mlflow_primary: MlflowServer) -> None:
    """As App Service issues them; a token for another service is not taken here."""
    async with place(mlflow_primary, tokens=Tokens(TOKEN, audiences=[APPLICATION])) as at:
        statuses = []
        for resource in (APPLICATION, "https://management.azure.com"):
            path = f"/__emulator__/identity?resource={resource}&api-version=2019-08-01"
            issued = await at.call("GET", path, **{"X-IDENTITY-HEADER": "x"})
            at.token = issued.json["access_token"]
            statuses.append((await at.call("GET", "experiments/search?max_results=1")).status)
        bare = await at.call("GET", "/__emulator__/identity?resource=x")

    assert statuses == [200, 401]
    assert bare.status == 400


async def test_it_says_who_one_is(mlflow_primary: MlflowServer) -> None:
    async with place(mlflow_primary) as at:
        person = await at.call("GET", "/api/2.0/preview/scim/v2/Me")
        at.token = (await at.issue()).json["access_token"]
        machine = await at.call("GET", "/api/2.0/preview/scim/v2/Me")
        at.token = ""
        nobody = await at.call("GET", "/api/2.0/preview/scim/v2/Me")

    assert [each.json["userName"] for each in (person, machine)] == ["demo@example.com", CLIENT]
    assert nobody.code == (401, "UNAUTHENTICATED")


async def test_it_says_what_is_at_a_path(mlflow_primary: MlflowServer) -> None:
    name = unique()
    async with place(mlflow_primary) as at:
        made = (await at.post("experiments/create", name=name)).json["experiment_id"]
        folder = await at.call("GET", "/api/2.0/workspace/get-status?path=/Workspace/Shared")
        experiment = await at.call("GET", f"/api/2.0/workspace/get-status?path={name}")
        nothing = await at.call("GET", f"/api/2.0/workspace/get-status?path={name}x")
        await at.post("experiments/delete", experiment_id=made)
        deleted = await at.call("GET", f"/api/2.0/workspace/get-status?path={name}")
        of_folder = await at.call("GET", f"experiments/get?experiment_id={folder.json['object_id']}")

    assert folder.json["object_type"] == "DIRECTORY"
    assert (experiment.json["object_type"], experiment.json["object_id"]) == ("MLFLOW_EXPERIMENT", int(made))
    assert [each.code for each in (nothing, deleted)] == [(404, "RESOURCE_DOES_NOT_EXIST")] * 2
    assert of_folder.code == (400, "INVALID_PARAMETER_VALUE")


async def test_behind_a_private_link_everybody_is_sent_away(mlflow_primary: MlflowServer) -> None:
    async with place(mlflow_primary, is_private=True) as at:
        for path in ("experiments/search", "/oidc/v1/token", "/api/2.0/fs/files/x"):
            sent = await at.call("GET", path)
            assert (sent.status, sent.headers["Location"]) == (302, LOGIN)


async def test_who_is_no_member_shows_both_headers(mlflow_primary: MlflowServer) -> None:
    """With each call, those about files included."""
    proofs = dict.fromkeys(PROOFS, "x")
    async with place(mlflow_primary, needs_proof=True, files=DatabricksFiles()) as at:
        for path in ("experiments/search?max_results=1", "/api/2.0/fs/directories/x"):
            none = await at.call("GET", path)
            one = await at.call("GET", path, **{PROOFS[0]: "x"})
            both = await at.call("GET", path, **proofs)
            assert none.code == one.code == (403, "PERMISSION_DENIED")
            assert both.status in {200, 404}
        at.token = ""
        nobody = await at.call("GET", "experiments/search?max_results=1", **proofs)

    assert nobody.status == 401


# --- paths, names, limits, rates ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/ajax-api/2.0/mlflow/experiments/search",
        "/api/2.0/mlflow-artifacts/artifacts/x",
        "/api/3.0/mlflow/server-info",
        "/api/4.0/mlflow/traces/location/tr-1/info",
        "/api/2.0/mlflow/unheard-of",
        "/version",
    ],
)
async def test_what_databricks_does_not_have(mlflow_primary: MlflowServer, path: str) -> None:
    async with place(mlflow_primary, STRICT) as at:
        answer = await at.call("GET", path)

    assert answer.code == (404, "ENDPOINT_NOT_FOUND")


async def test_what_a_strict_workspace_has(mlflow_primary: MlflowServer) -> None:
    """Runs, logged models from pending to ready, traces of version 3, files: all of it behind the same doors."""
    async with place(mlflow_primary, STRICT, files=DatabricksFiles(Choices(rewrites=True))) as at:
        experiment = (await at.post("experiments/create", name=unique())).json["experiment_id"]
        run = (await at.post("runs/create", experiment_id=experiment)).json["run"]["info"]
        model = (await at.post("logged-models", experiment_id=experiment, name="m")).json["model"]["info"]
        body = {"model_id": model["model_id"], "status": "LOGGED_MODEL_READY"}
        ready = await at.call("PATCH", f"logged-models/{model['model_id']}", body)
        found = await at.post("logged-models/search", experiment_ids=[experiment])
        place_of = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": experiment}}
        traces = await at.call("POST", "/api/3.0/mlflow/traces/search", {"locations": [place_of]})

    assert run["artifact_uri"] == f"dbfs:/databricks/mlflow-tracking/{experiment}/{run['run_id']}/artifacts"
    assert (model["status"], ready.json["model"]["info"]["status"]) == ("LOGGED_MODEL_PENDING", "LOGGED_MODEL_READY")
    assert [each["info"]["model_id"] for each in found.json["models"]] == [model["model_id"]]
    assert traces.status == 200


async def test_the_workspace_prefix_is_no_part_of_a_name(mlflow_primary: MlflowServer) -> None:
    """The first create works, the name is not found by that spelling, and a second create finds it taken (B2)."""
    name = unique()
    async with place(mlflow_primary) as at:
        first = await at.post("experiments/create", name=f"/Workspace{name}", tags=[{"key": "k", "value": "v"}])
        missed = await at.call("GET", f"experiments/get-by-name?experiment_name=/Workspace{name}")
        second = await at.post("experiments/create", name=f"/Workspace{name}")
        found = await at.call("GET", f"experiments/get-by-name?experiment_name={name}")
        body = {"experiment_id": first.json["experiment_id"], "new_name": f"/Workspace{name}-2"}
        await at.post("experiments/update", **body)
        renamed = await at.call("GET", f"experiments/get-by-name?experiment_name={name}-2")

    assert first.status == 200
    assert missed.code == (404, "RESOURCE_DOES_NOT_EXIST")
    assert second.code == (400, "RESOURCE_ALREADY_EXISTS")
    assert [each.json["experiment"]["experiment_id"] for each in (found, renamed)] == [first.json["experiment_id"]] * 2
    assert found.json["experiment"]["tags"] == [{"key": "k", "value": "v"}]


async def test_a_deleted_experiment_keeps_its_name(mlflow_primary: MlflowServer) -> None:
    name = unique()
    async with place(mlflow_primary) as at:
        made = await at.post("experiments/create", name=name)
        await at.post("experiments/delete", **made.json)
        again = await at.post("experiments/create", name=name)

    assert again.code == (400, "RESOURCE_ALREADY_EXISTS")


async def test_a_batch_that_is_too_large_is_refused_whole(mlflow_primary: MlflowServer) -> None:
    async with place(mlflow_primary, Terms(has_limits=True)) as at:
        run = await at.create_run()
        params = [{"key": f"p{number}", "value": "1"} for number in range(101)]
        refused = await at.post("runs/log-batch", run_id=run, params=params)
        large = await at.post("runs/log-batch", run_id=run, tags=[{"key": "k", "value": "v" * 1_000_000}])
        kept = await at.call("GET", f"runs/get?run_id={run}")
        page = await at.call("GET", f"metrics/get-history?run_id={run}&metric_key=m&max_results=25001")

    assert [each.code for each in (refused, large, page)] == [(400, "INVALID_PARAMETER_VALUE")] * 3
    assert "params" not in kept.json["run"]["data"]


async def test_calls_beyond_the_rate_are_refused(mlflow_primary: MlflowServer) -> None:
    rules = Databricks()
    rules.buckets = Buckets(0.2, Tells.DATE, Hands().now)
    async with place(mlflow_primary, dialect=rules) as at:
        answers = [await at.post("runs/search", experiment_ids=["0"]) for _ in range(3)]
        other = await at.call("GET", "experiments/get?experiment_id=0")

    assert answers[0].status == other.status == 200
    assert answers[2].code == (429, "REQUEST_LIMIT_EXCEEDED")
    assert parsedate_to_datetime(answers[2].headers["Retry-After"]).tzinfo is not None


async def test_ids_of_experiments_can_be_as_long_as_the_service_s(mlflow_primary: MlflowServer) -> None:
    """In every answer, root and path alike; a short one is nobody's."""
    files = DatabricksFiles(Choices(rewrites=True))
    async with place(mlflow_primary, STRICT, files=files, middlewares=(long_ids,)) as at:
        name = unique()
        made = (await at.post("experiments/create", name=name)).json["experiment_id"]
        run = (await at.post("runs/create", experiment_id=made)).json["run"]["info"]
        found = await at.post("runs/search", experiment_ids=[made])
        status = await at.call("GET", f"/api/2.0/workspace/get-status?path={name}")
        key = f"WorkspaceInternal/Mlflow/Artifacts/{made}/Runs/{run['run_id']}/artifacts/a"
        await at.call("PUT", f"/api/2.0/fs/files/{key}?overwrite=true", {"a": 1})
        listed = await at.call("GET", f"artifacts/list?run_id={run['run_id']}")
        short = await at.call("GET", "experiments/get?experiment_id=1")

    assert len(made) == 18
    assert run["experiment_id"] == found.json["runs"][0]["info"]["experiment_id"] == made
    assert run["artifact_uri"] == f"dbfs:/databricks/mlflow-tracking/{made}/{run['run_id']}/artifacts"
    assert status.json["object_id"] == int(made)
    assert [file["path"] for file in listed.json["files"]] == ["a"]
    assert short.code == (404, "RESOURCE_DOES_NOT_EXIST")


# --- the registry ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("registry", "made", "foreign", "alias"),
    [
        (Registry.ANY, 200, 200, 200),
        (Registry.WORKSPACE, 200, 400, 404),
        (Registry.OFF, 403, 403, 403),
    ],
)
async def test_the_workspace_registry(
    mlflow_primary: MlflowServer, registry: Registry, made: int, foreign: int, alias: int
) -> None:
    """No aliases, and only what is on Databricks; or none at all."""
    name = uuid4().hex
    async with place(mlflow_primary, Terms(registry=registry)) as at:
        created = await at.post("registered-models/create", name=name)
        ours = await at.post("model-versions/create", name=name, source="dbfs:/databricks/mlflow-tracking/0/r/m")
        theirs = await at.post("model-versions/create", name=name, source="s3://elsewhere/m")
        aliased = await at.post("registered-models/alias", name=name, alias="best", version="1")

    assert [each.status for each in (created, ours, theirs, aliased)] == [made, made, foreign, alias]


# --- answers that go wrong ------------------------------------------------------------------------------------------


async def test_an_answer_that_tells_nothing_still_did_the_work(mlflow_primary: MlflowServer) -> None:
    """Empty, the text `200 OK`, a web page, a half of it, or slowly (facts B6)."""
    async with place(mlflow_primary) as at:
        run = await at.create_run()
        rules = [
            Rule(path="runs/set-tag", nth=number, action=Spoil(body=kind, seconds=0.2))
            for number, kind in enumerate((Spoilt.EMPTY, Spoilt.TEXT, Spoilt.HTML, Spoilt.SLOW), start=1)
        ]
        cut = Rule(path="runs/get$", nth=1, action=Spoil(body=Spoilt.TRUNCATED))
        await at.control.set_faults(*rules, cut)
        answers = [await at.post("runs/set-tag", run_id=run, key=f"k{number}", value="v") for number in range(4)]
        with pytest.raises(ClientPayloadError):
            await at.call("GET", f"runs/get?run_id={run}")
        kept = await at.call("GET", f"runs/get?run_id={run}")

    assert [each.status for each in answers] == [200] * 4
    assert [each.body for each in answers[:2]] == [b"", b"200 OK"]
    assert answers[2].body.startswith(b"<html>")
    assert answers[3].json == {}
    assert {tag["key"] for tag in kept.json["run"]["data"]["tags"]} >= {"k0", "k1", "k2", "k3"}


@pytest.mark.parametrize("status", [500, 400])
async def test_a_failing_batch_can_have_stored_a_part(mlflow_primary: MlflowServer, status: int) -> None:
    """Facts B7. The counters see what was stored."""
    async with place(mlflow_primary) as at:
        run = await at.create_run()
        await at.control.set_faults(Rule(path="log-batch", nth=1, action=Partial(status=status)))
        body = {
            "metrics": [{"key": "m", "value": 1, "timestamp": 1, "step": 1}],
            "params": [{"key": "p", "value": "1"}],
        }
        failed = await at.post("runs/log-batch", run_id=run, **body)
        data = (await at.call("GET", f"runs/get?run_id={run}")).json["run"]["data"]
        again = await at.post("runs/log-batch", run_id=run, **body)
        counted = await at.control.duplicates()

    assert (failed.status, again.status) == (status, 200)
    assert ([metric["key"] for metric in data["metrics"]], data.get("params")) == (["m"], None)
    assert counted["metric_points"] == 1


async def test_a_partial_batch_without_that_part_stores_nothing(mlflow_primary: MlflowServer) -> None:
    async with place(mlflow_primary) as at:
        run = await at.create_run()
        await at.control.set_faults(Rule(path="log-batch", action=Partial()))
        failed = await at.post("runs/log-batch", run_id=run, params=[{"key": "p", "value": "1"}])
        kept = await at.call("GET", f"runs/get?run_id={run}")

    assert failed.code == (500, "INTERNAL_ERROR")
    assert "params" not in kept.json["run"]["data"]


async def test_a_signed_url_can_have_ended(mlflow_primary: MlflowServer) -> None:
    """By rule, in the words of the storage."""
    files = DatabricksFiles(Choices(rewrites=True))
    async with place(mlflow_primary, files=files) as at:
        run = await at.create_run()
        asked = await at.call("POST", "artifacts/credentials-for-write", {"run_id": run, "path": ["a"]})
        (info,) = asked.json["credential_infos"]
        await at.control.set_faults(Rule(path="/__storage__/", nth=1, action=Refuse(status=403, body=Body.XML)))
        headers = {header["name"]: header["value"] for header in info["headers"]}
        statuses = []
        for _ in range(2):
            async with at.session.put(info["signed_uri"], data=b"x", headers=headers) as put:
                statuses.append((put.status, await put.read()))

    assert statuses == [(403, b"<Error><Code>AuthenticationFailed</Code></Error>"), (201, b"")]


async def test_lost_answers_of_every_create_are_counted(mlflow_primary: MlflowServer) -> None:
    """Also of experiments, whose second create the server refuses, and of models, which it makes twice."""
    name, mark = unique(), uuid4().hex
    tags = [{"key": "dualtrack.source_model_id", "value": mark}]
    async with place(mlflow_primary) as at:
        await at.control.set_faults(Rule(path="create$|logged-models$", first=2, action=DropAfter()))
        for path, body in (("experiments/create", {"name": name}), ("logged-models", {"experiment_id": "0"})):
            with pytest.raises((ServerDisconnectedError, ConnectionResetError)):
                await at.post(path, **body, tags=tags)
        await at.control.clear_faults()
        refused = await at.post("experiments/create", name=name)
        await at.post("logged-models", experiment_id="0", tags=tags)
        counted = await at.control.duplicates()

    assert refused.code == (400, "RESOURCE_ALREADY_EXISTS")
    assert {name: count for name, count in counted.items() if count} == {"models": 1, "model_examples": [mark]}


# --- as a process ---------------------------------------------------------------------------------------------------

FLAGS = (
    "--strict",
    "--long-ids",
    "--client",
    f"{CLIENT}={SECRET}",
    "--lifetime",
    "60",
    "--also-token",
    "dapi-2",
    "--rates",
    "2",
)


async def test_a_strict_workspace_runs_as_a_process(mlflow_primary: MlflowServer, tmp_path: Path) -> None:
    fault = orjson.dumps({"path": "runs/get$", "nth": 1, "action": {"kind": "refuse", "status": 503}}).decode()
    flags = (*FLAGS, "--also-token", "ended:0", "--fault", fault)
    emulator = Emulator("databricks", *flags, upstream=mlflow_primary.url, token=TOKEN, log_path=tmp_path / "log")
    try:
        await asyncio.to_thread(emulator.wait_ready)
        async with ClientSession() as session:
            at = Place(emulator.url, session, Tokens(), Control(emulator.url, session))
            run = (await at.post("runs/create", experiment_id="0")).json["run"]["info"]
            unknown = await at.call("GET", "/ajax-api/2.0/mlflow/experiments/search")
            issued = await at.issue()
            refused = await at.call("GET", f"runs/get?run_id={run['run_id']}")
            statuses = []
            for at.token in ("dapi-2", "ended", issued.json["access_token"]):
                statuses.append((await at.call("GET", f"runs/get?run_id={run['run_id']}")).status)
    finally:
        await asyncio.to_thread(emulator.stop)

    assert run["artifact_uri"].startswith("dbfs:/databricks/mlflow-tracking/0/")
    assert unknown.code == (404, "ENDPOINT_NOT_FOUND")
    assert (refused.status, statuses) == (503, [200, 401, 200])
    assert issued.json["expires_in"] == 60


async def test_azure_can_let_its_tokens_end_too(mlflow_primary: MlflowServer) -> None:
    """The frame's tokens are those of every kind of workspace."""
    clock = Hands()
    tokens = Tokens(lifetime=60, audiences=["https://management.azure.com/.default"], now=clock.now)
    dialect = AzureML()
    async with place(mlflow_primary, tokens=tokens, dialect=dialect) as at:
        path = "/__emulator__/identity?resource=https://management.azure.com"
        at.token = (await at.call("GET", path, **{"X-IDENTITY-HEADER": "x"})).json["access_token"]
        search = f"/mlflow/v2.0{DEFAULT_SCOPE}{API}experiments/search?max_results=1"
        good = await at.call("GET", search)
        clock.at += 61
        ended = await at.call("GET", search)

    assert (good.status, ended.status) == (200, 401)
    assert "error_code" not in ended.json
