"""Logged models where the primary knows none: an MLflow 3 client logs them all the same, as files of its run."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import ClientSession

from dualtrack.core.ids import ClientId, EntityKind, Ref
from dualtrack.demo.compare import RUN_MARK, Side
from dualtrack.demo.servers import MlflowServer
from dualtrack.emulators.azureml_scope import DEFAULT_SCOPE
from dualtrack.emulators.azureml_workspace import STRICT, settings_of
from dualtrack.emulators.faults import Refuse, Rule
from dualtrack.emulators.tokens import Tokens
from dualtrack.errors import JournalError
from dualtrack.ports import Settlement
from dualtrack.store.sqlite import SqliteJournal
from tests.support.clients import run_script
from tests.support.environments import CLIENTS, client_python
from tests.support.files import behind, delete, get, listing, mirror_of, put, run_root, tree
from tests.support.flow import SECRETS, Client, Json, Launcher, Running, Workspace, unique
from tests.support.servers import Control, emulating

AZURE: Json = {"backends": {"a": {"kind": "azureml"}}}
POINT: Json = {"key": "loss", "value": 0.25, "timestamp": 5, "step": 1}


@pytest.fixture
async def azure(mlflow_primary: MlflowServer, session: ClientSession) -> AsyncIterator[Workspace]:
    settings = settings_of(STRICT, upstream=mlflow_primary.url, tokens=Tokens(SECRETS["TOKEN_A"]))
    async with emulating(settings) as url:
        side = Side(name="a", url=mlflow_primary.url)
        yield Workspace(name="a", url=f"{url}/mlflow/v2.0{DEFAULT_SCOPE}", side=side, control=Control(url, session))


@pytest.fixture
async def proxy(launch: Launcher, azure: Workspace, b: Workspace) -> Running:
    return await launch(azure, b, **AZURE)


async def began(proxy: Running) -> tuple[str, str]:
    experiment_id = await proxy.create_experiment()
    return experiment_id, await proxy.create_run(experiment_id)


async def made(proxy: Running, experiment_id: str, run_id: str, name: str = "m", **more: object) -> Json:
    """A new model's `info`."""
    body = {"experiment_id": experiment_id, "name": name, "source_run_id": run_id, **more}
    info: Json = (await proxy.post("logged-models", **body))["model"]["info"]
    return info


async def model_of(client: Client, model_id: str) -> Json:
    model: Json = (await client.call("GET", f"logged-models/{model_id}")).json["model"]
    return model


def journal_of(proxy: Running) -> SqliteJournal:
    assert proxy.app.journal is not None
    return proxy.app.journal


async def mirrored_model(proxy: Running, b: Workspace, model_id: str) -> Json:
    """What the secondary has for a model of ours."""
    twin = await journal_of(proxy).twin(Ref(EntityKind.MODEL, ClientId(model_id)), "b")
    assert twin is not None
    return await model_of(behind(b, proxy), twin.backend_id)


@pytest.mark.parametrize("version", CLIENTS)
async def test_a_client_logs_registers_and_loads_a_model(
    proxy: Running, azure: Workspace, b: Workspace, tmp_path: Path, version: str
) -> None:
    """By its run, by its id, by name and version; it predicts the same, and stands on the other side as well."""
    python = await asyncio.to_thread(client_python, version)
    name = unique().replace("-", "_")
    done = await asyncio.to_thread(
        run_script, "log_models", proxy.url, tmp_path, name, "--register", name, "--no-prompts", python=python
    )
    await proxy.drained()
    ours = await tree(proxy, await run_root(proxy, done["run_id"]))
    calls = [seen["path"] for seen in await azure.control.log() if seen["status"] != 404]
    if done["model_id"]:
        model = await mirrored_model(proxy, b, done["model_id"])
        there, uri = model["info"]["artifact_uri"], f"models:/{model['info']['model_id']}"
        theirs = {f"model/{path}": content for path, content in (await tree(behind(b, proxy), there)).items()}
        assert model["info"]["status"] == "LOGGED_MODEL_READY"
    else:
        mirror = (await mirror_of(b, proxy, done["run_id"]))["info"]
        uri, theirs = f"runs:/{mirror['run_id']}/model", await tree(behind(b, proxy), mirror["artifact_uri"])
    loaded = await asyncio.to_thread(run_script, "load_model", b.side.url, tmp_path, uri, python=python)

    assert done["predictions"] == dict.fromkeys(done["predictions"], done["expected"])
    assert len(done["predictions"]) >= 3
    assert "model/MLmodel" in ours
    assert {path: content for path, content in ours.items() if "MLmodel" not in path} == {
        path: content for path, content in theirs.items() if "MLmodel" not in path
    }
    assert loaded["predictions"] == {uri: done["expected"]}
    assert not [path for path in calls if "logged-models" in path or "outputs" in path]
    assert (await proxy.backend())["parked"] == 0


async def test_a_model_is_kept_as_a_server_keeps_it(proxy: Running, b: Workspace) -> None:
    """Created, tagged, given params, found, finalized, deleted; each step shows here and on the other side."""
    experiment_id, run_id = await began(proxy)
    tags, params = [{"key": "team", "value": "demo"}], [{"key": "depth", "value": "3"}]
    info = await made(proxy, experiment_id, run_id, model_type="agent", tags=tags, params=params)
    path = f"logged-models/{info['model_id']}"
    await proxy.post(f"{path}/params", model_id=info["model_id"], params=[{"key": "width", "value": "9"}])
    tagged = await proxy.call("PATCH", f"{path}/tags", {"tags": [{"key": "a b", "value": "2"}, tags[0]]})
    untagged = await proxy.call("DELETE", f"{path}/tags/a%20b")
    named: Json = {"model_id": info["model_id"], "status": "LOGGED_MODEL_READY"}
    ready = await proxy.call("PATCH", path, named)
    kept = await model_of(proxy, info["model_id"])
    found = await proxy.post("logged-models/search", experiment_ids=[experiment_id], filter="name = 'm'")
    await proxy.drained()
    there = await mirrored_model(proxy, b, info["model_id"])
    gone = await proxy.call("DELETE", path)
    await proxy.drained()

    assert info["status"] == "LOGGED_MODEL_PENDING"
    assert info["artifact_uri"] == f"{await run_root(proxy, run_id)}/m"
    assert [reply.status for reply in (tagged, untagged, ready, gone)] == [200] * 4
    assert kept["info"] == {**info, **_later(kept), "status": "LOGGED_MODEL_READY"}
    assert _pairs(kept["data"]["params"]) == {"depth": "3", "width": "9"}
    assert [model["info"]["model_id"] for model in found["models"]] == [info["model_id"]]
    assert _pairs(there["info"]["tags"]).items() >= {("team", "demo")}
    assert _pairs(there["data"]["params"]) == {"depth": "3", "width": "9"}
    assert (there["info"]["status"], there["info"]["model_type"]) == ("LOGGED_MODEL_READY", "agent")
    assert (await proxy.call("GET", path)).code == "RESOURCE_DOES_NOT_EXIST"
    assert (await proxy.post("logged-models/search", experiment_ids=[experiment_id])) == {}


def _later(model: Json) -> Json:
    return {"last_updated_timestamp_ms": model["info"]["last_updated_timestamp_ms"]}


def _pairs(listed: list[Json]) -> dict[str, str]:
    return {item["key"]: item["value"] for item in listed}


async def test_what_a_server_refuses_is_refused(proxy: Running) -> None:
    """In its words and codes; nothing of it goes to the other side."""
    experiment_id, run_id = await began(proxy)
    info = await made(proxy, experiment_id, run_id, params=[{"key": "depth", "value": "3"}])
    path, ours = f"logged-models/{info['model_id']}", {"experiment_id": experiment_id, "source_run_id": run_id}
    other_id, link = await proxy.create_experiment(), {"model_id": info["model_id"], "step": 0}
    replies = {
        "no run": await proxy.call("POST", "logged-models", {"experiment_id": experiment_id, "name": "m"}),
        "other experiment": await proxy.call("POST", "logged-models", {**ours, "experiment_id": other_id}),
        "outputs of no run": await proxy.call("POST", "runs/outputs", {"run_id": "0" * 32, "models": [link]}),
        "inputs of no run": await proxy.call("POST", "runs/log-inputs", {"run_id": "0" * 32, "models": [link]}),
        "unknown run": await proxy.call("POST", "logged-models", {**ours, "source_run_id": "0" * 32}),
        "name": await proxy.call("POST", "logged-models", {**ours, "name": "a/b"}),
        "param twice": await proxy.call("POST", f"{path}/params", {"params": [{"key": "depth", "value": "4"}]}),
        "status": await proxy.call("PATCH", path, {"model_id": info["model_id"], "status": "LOGGED_MODEL_PENDING"}),
        "no tag": await proxy.call("DELETE", f"{path}/tags/none"),
        "no model": await proxy.call("GET", f"logged-models/m-{'0' * 32}"),
        "filter": await proxy.call(
            "POST", "logged-models/search", {"experiment_ids": [experiment_id], "filter": "name ="}
        ),
        "not JSON": await proxy.call("POST", "logged-models", b"{"),
    }
    await proxy.drained()

    assert {name: (reply.status, reply.code) for name, reply in replies.items()} == {
        "no run": (400, "INVALID_PARAMETER_VALUE"),
        "other experiment": (400, "INVALID_PARAMETER_VALUE"),
        "outputs of no run": (404, "RESOURCE_DOES_NOT_EXIST"),
        "inputs of no run": (404, "RESOURCE_DOES_NOT_EXIST"),
        "unknown run": (404, "RESOURCE_DOES_NOT_EXIST"),
        "name": (400, "INVALID_PARAMETER_VALUE"),
        "param twice": (400, "BAD_REQUEST"),
        "status": (400, "INVALID_PARAMETER_VALUE"),
        "no tag": (404, "RESOURCE_DOES_NOT_EXIST"),
        "no model": (404, "RESOURCE_DOES_NOT_EXIST"),
        "filter": (400, "INVALID_PARAMETER_VALUE"),
        "not JSON": (400, "MALFORMED_REQUEST"),
    }
    assert "mlflow.start_run" in replies["no run"].json["message"]
    assert (await proxy.backend())["parked"] == 0


async def test_a_metric_of_a_model_is_one_of_its_run_and_no_second_one(
    proxy: Running, azure: Workspace, b: Workspace
) -> None:
    """`log_model` sends the run's metrics once more, for the model: the workspace hears of each point once."""
    experiment_id, run_id = await began(proxy)
    later: Json = {**POINT, "step": 2, "value": "NaN"}
    await proxy.post("runs/log-batch", run_id=run_id, metrics=[POINT, later])
    info = await made(proxy, experiment_id, run_id)
    of_model: Json = {"model_id": info["model_id"]}
    other: Json = {**POINT, "key": "accuracy", **of_model}
    for value in (POINT["value"], str(POINT["value"])):  # a client repeats what was not answered
        await proxy.post(
            "runs/log-batch",
            run_id=run_id,
            metrics=[{**POINT, "value": value, **of_model}, {**later, **of_model}, other, other],
        )
    await proxy.post("runs/log-metric", run_id=run_id, **other)
    await proxy.post("runs/log-metric", run_id=run_id, **{**other, "step": 7})
    await proxy.drained()
    kept = (await model_of(proxy, info["model_id"]))["data"]["metrics"]
    sent = [metric for body in await azure.writes("runs/log-batch") for metric in body.get("metrics", ())]
    sent += await azure.writes("runs/log-metric")
    there = await mirrored_model(proxy, b, info["model_id"])

    assert [(item["key"], item["step"]) for item in sent] == [
        ("loss", 1),
        ("loss", 2),
        ("accuracy", 1),
        ("accuracy", 7),
    ]
    assert not [item for item in sent if "model_id" in item]
    assert sorted((item["key"], item["step"]) for item in kept) == [
        ("accuracy", 1),
        ("accuracy", 7),
        ("loss", 1),
        ("loss", 2),
    ]
    assert {item["run_id"] for item in kept} == {run_id}
    assert len(there["data"]["metrics"]) == 4
    assert (await azure.control.duplicates())["metric_points"] == 0


async def test_a_point_that_is_the_run_s_latest_takes_one_read(proxy: Running, azure: Workspace) -> None:
    """Whole histories are read only where the latest point leaves a doubt."""
    experiment_id, run_id = await began(proxy)
    await proxy.post("runs/log-batch", run_id=run_id, metrics=[POINT])
    info = await made(proxy, experiment_id, run_id)
    before = len(await azure.calls())
    of_model: Json = {"model_id": info["model_id"]}
    await proxy.post("runs/log-batch", run_id=run_id, metrics=[{**POINT, **of_model}, {**POINT, **of_model, "step": 2}])
    asked = [seen["path"].rpartition("/api/2.0/mlflow/")[2] for seen in (await azure.calls())[before:]]
    before = len(await azure.calls())
    await proxy.post("runs/log-metric", run_id=run_id, **{**POINT, **of_model, "step": 2})
    again = [seen["path"].rpartition("/api/2.0/mlflow/")[2] for seen in (await azure.calls())[before:]]

    assert asked == ["runs/get", "metrics/get-history", "runs/log-batch"]
    assert again == ["runs/get"]


async def test_a_run_that_cannot_be_read_is_refused_and_its_metrics_are_sent(proxy: Running, azure: Workspace) -> None:
    """Rather a point twice than none; the refusal's words reach the client."""
    experiment_id, run_id = await began(proxy)
    info = await made(proxy, experiment_id, run_id)
    refusal = Refuse(status=400, code="INVALID_PARAMETER_VALUE")
    await azure.control.set_faults(Rule(path="runs/get", first=2, action=refusal))
    body = {"experiment_id": experiment_id, "name": "n", "source_run_id": run_id}
    refused = await proxy.call("POST", "logged-models", body)
    await proxy.post("runs/log-batch", run_id=run_id, metrics=[{**POINT, "model_id": info["model_id"]}])
    (sent,) = await azure.writes("runs/log-batch")

    assert (refused.status, refused.code) == (400, "INVALID_PARAMETER_VALUE")
    assert [metric["step"] for metric in sent["metrics"]] == [1]


async def test_a_link_that_is_refused_is_none(proxy: Running, azure: Workspace) -> None:
    experiment_id, run_id = await began(proxy)
    info = await made(proxy, experiment_id, run_id)
    refusal = Refuse(status=400, code="INVALID_PARAMETER_VALUE")
    await azure.control.set_faults(Rule(path="log-inputs", nth=1, action=refusal))
    dataset = {"name": "d", "digest": "1", "source_type": "code", "source": "s"}
    body = {
        "run_id": run_id,
        "models": [{"model_id": info["model_id"]}],
        "datasets": [{"dataset": dataset, "tags": []}],
    }
    refused = await proxy.call("POST", "runs/log-inputs", body)
    run = (await proxy.call("GET", f"runs/get?run_id={run_id}")).json["run"]

    assert refused.status == 400
    assert "model_inputs" not in run.get("inputs", {})


async def test_a_run_says_which_models_belong_to_it(proxy: Running, azure: Workspace, b: Workspace) -> None:
    experiment_id, run_id = await began(proxy)
    models = [(await made(proxy, experiment_id, run_id, name))["model_id"] for name in ("one", "two")]
    await proxy.post("runs/outputs", run_id=run_id, models=[{"model_id": models[0], "step": 4}])
    dataset = {"name": "d", "digest": "1", "source_type": "code", "source": "s"}
    await proxy.post(
        "runs/log-inputs", run_id=run_id, models=[{"model_id": models[1]}], datasets=[{"dataset": dataset, "tags": []}]
    )
    run = (await proxy.call("GET", f"runs/get?run_id={run_id}")).json["run"]
    found = await proxy.post("runs/search", experiment_ids=[experiment_id])
    await proxy.drained()
    mirror = await mirror_of(b, proxy, run_id)

    assert run["outputs"]["model_outputs"] == [{"model_id": models[0], "step": 4}]
    assert run["inputs"]["model_inputs"] == [{"model_id": models[1]}]
    assert [item["dataset"]["name"] for item in run["inputs"]["dataset_inputs"]] == ["d"]
    assert [item["outputs"] for item in found["runs"]] == [run["outputs"]]
    assert [item["step"] for item in mirror["outputs"]["model_outputs"]] == [4]
    assert not [body for body in await azure.writes("runs/log-inputs") if body.get("models")]


async def test_models_of_one_name_have_folders_of_their_own(proxy: Running, b: Workspace) -> None:
    """Also beside files that the run has there already."""
    experiment_id, run_id = await began(proxy)
    root = await run_root(proxy, run_id)
    await put(proxy, root, "m/notes.txt", b"of the run")
    infos = [await made(proxy, experiment_id, run_id, name) for name in ("m", "n", "n")]
    for number, info in enumerate(infos):
        assert (await put(proxy, info["artifact_uri"], "model.pkl", b"%d" % number)).status == 200
    at_once = await asyncio.gather(*(made(proxy, experiment_id, run_id, "p") for _ in range(5)))
    await proxy.drained()
    theirs = [await mirrored_model(proxy, b, info["model_id"]) for info in infos]

    assert [info["artifact_uri"] for info in infos] == [
        f"{root}/m-{infos[0]['model_id']}",
        f"{root}/n",
        f"{root}/n-{infos[2]['model_id']}",
    ]
    assert len({info["artifact_uri"] for info in at_once}) == 5
    for number, info in enumerate(infos):
        assert (await get(proxy, info["artifact_uri"], "model.pkl")).body == b"%d" % number
        assert [item["path"] for item in await listing(proxy, info["artifact_uri"])] == ["model.pkl"]
        there = theirs[number]["info"]["artifact_uri"]
        assert await tree(behind(b, proxy), there) == {"model.pkl": b"%d" % number}
    assert (await get(proxy, root, "m/notes.txt")).body == b"of the run"


async def test_a_version_is_registered_from_the_run_s_files(proxy: Running, azure: Workspace) -> None:
    """The workspace cannot follow `models:/m-…`, and does not hear it."""
    experiment_id, run_id = await began(proxy)
    info = await made(proxy, experiment_id, run_id)
    await put(proxy, info["artifact_uri"], "MLmodel", b"flavors: {}")
    name = unique()
    await proxy.post("registered-models/create", name=name)
    sources = [f"models:/{info['model_id']}", info["artifact_uri"]]
    for source in sources:
        await proxy.post("model-versions/create", name=name, source=source, model_id=info["model_id"], run_id=run_id)
    asked = await azure.writes("model-versions/create")
    shown = (await proxy.call("GET", f"model-versions/get-download-uri?name={name}&version=1")).json["artifact_uri"]

    assert len({body["source"] for body in asked}) == 1
    assert asked[0]["source"].endswith(f"/runs/{run_id}/artifacts/m")
    assert {body["run_id"] for body in asked} == {run_id}
    assert not [body for body in asked if "model_id" in body]
    assert (await get(proxy, shown, "MLmodel")).body == b"flavors: {}"


async def test_models_outlive_the_proxy(launch: Launcher, azure: Workspace, b: Workspace, tmp_path: Path) -> None:
    store = {"url": f"sqlite:///{tmp_path}/kept.db"}
    proxy = await launch(azure, b, **AZURE, store=store)
    experiment_id, run_id = await began(proxy)
    info = await made(proxy, experiment_id, run_id)
    await put(proxy, info["artifact_uri"], "a.txt", b"1")
    await proxy.post("runs/outputs", run_id=run_id, models=[{"model_id": info["model_id"], "step": 0}])
    before = await model_of(proxy, info["model_id"])
    await proxy.stop()
    again = await launch(azure, b, **AZURE, store=store)

    assert await model_of(again, info["model_id"]) == before
    assert (await get(again, info["artifact_uri"], "a.txt")).body == b"1"
    run = (await again.call("GET", f"runs/get?run_id={run_id}")).json["run"]
    assert run["outputs"]["model_outputs"] == [{"model_id": info["model_id"], "step": 0}]


async def test_a_create_that_nobody_settled_is_mirrored_once(
    proxy: Running, b: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model is on the shelf and its entry is open, as a crash between the two leaves it: the shelf is asked."""
    experiment_id, run_id = await began(proxy)
    journal = journal_of(proxy)
    settle = journal.settle
    failures = iter([JournalError("no luck")])

    async def settled(settlement: Settlement) -> None:
        for failure in failures:
            raise failure
        await settle(settlement)

    monkeypatch.setattr(journal, "settle", settled)
    body = {"experiment_id": experiment_id, "name": "m", "source_run_id": run_id}
    lost = await proxy.call("POST", "logged-models", body)
    (model,) = (await proxy.post("logged-models/search", experiment_ids=[experiment_id]))["models"]

    async def is_mirrored() -> bool:
        return await journal.twin(Ref(EntityKind.MODEL, ClientId(model["info"]["model_id"])), "b") is not None

    await proxy.until(is_mirrored)
    theirs = await mirrored_model(proxy, b, model["info"]["model_id"])
    search = {"experiment_ids": [theirs["info"]["experiment_id"]]}
    found = (await behind(b, proxy).call("POST", "logged-models/search", search)).json

    assert lost.status == 503
    assert [item["info"]["model_id"] for item in found["models"]] == [theirs["info"]["model_id"]]


async def test_a_run_that_is_brought_over_leaves_its_models_folders_to_them(proxy: Running, b: Workspace) -> None:
    experiment_id, run_id = await began(proxy)
    info = await made(proxy, experiment_id, run_id)
    await put(proxy, info["artifact_uri"], "model.pkl", b"of the model")
    await put(proxy, await run_root(proxy, run_id), "notes/a.txt", b"of the run")
    await proxy.drained()
    for_deletion = await mirror_of(b, proxy, run_id)
    await journal_of(proxy).forget(Ref(EntityKind.RUN, ClientId(run_id)), "b")
    await behind(b, proxy).post("runs/delete-tag", run_id=for_deletion["info"]["run_id"], key=RUN_MARK)
    await proxy.set_tag(run_id, "again", "yes")
    await proxy.drained()
    mirror = await mirror_of(b, proxy, run_id)

    assert mirror["info"]["run_id"] != for_deletion["info"]["run_id"]
    assert await tree(behind(b, proxy), mirror["info"]["artifact_uri"]) == {"notes/a.txt": b"of the run"}


async def test_a_search_is_mlflow_s(proxy: Running) -> None:
    """Its filters, orders and pages."""
    experiment_id, run_id = await began(proxy)
    for number in range(5):
        tags = [{"key": "even", "value": str(number % 2 == 0)}]
        info = await made(proxy, experiment_id, run_id, f"m{number}", tags=tags)
        point = {**POINT, "value": number / 4, "model_id": info["model_id"]}
        await proxy.post("runs/log-batch", run_id=run_id, metrics=[point])

    async def names(**asked: object) -> tuple[list[str], str]:
        reply = await proxy.post("logged-models/search", experiment_ids=[experiment_id], **asked)
        return [model["info"]["name"] for model in reply["models"]], reply.get("next_page_token", "")

    by_name = [{"field_name": "name", "ascending": True}]
    by_loss = [{"field_name": "metrics.loss", "ascending": False}]
    first, token = await names(order_by=by_name, max_results=3)
    second, end = await names(order_by=by_name, max_results=3, page_token=token)
    many = await proxy.post("logged-models/search", experiment_ids=[experiment_id] * 20_000, order_by=by_name)

    assert (first, second, end) == (["m0", "m1", "m2"], ["m3", "m4"], "")
    assert [[item["value"] for item in model["data"]["metrics"]] for model in many["models"]] == [
        [number / 4] for number in range(5)
    ]
    assert (await names(filter="tags.even = 'True' AND name != 'm2'", order_by=by_loss))[0] == ["m4", "m0"]
    assert (await names(filter="metrics.loss >= 0.75", order_by=by_name))[0] == ["m3", "m4"]
    assert (await names(filter=f"source_run_id = '{run_id}'", order_by=by_name))[0] == [f"m{n}" for n in range(5)]


async def test_a_primary_with_models_keeps_its_own(launch: Launcher, a: Workspace, b: Workspace) -> None:
    """Nothing of this is in its way."""
    proxy = await launch(a, b)
    experiment_id, run_id = await began(proxy)
    info = await made(proxy, experiment_id, run_id)
    await proxy.post("runs/log-batch", run_id=run_id, metrics=[{**POINT, "model_id": info["model_id"]}])

    assert (await model_of(behind(a, proxy), info["model_id"]))["info"]["name"] == "m"
    assert await journal_of(proxy).models.is_used() is False
    assert await proxy.differences(experiment_id, b) == []


async def test_names_that_differ_only_where_a_root_cannot_have_folders_of_their_own(proxy: Running) -> None:
    experiment_id, run_id = await began(proxy)
    infos = [await made(proxy, experiment_id, run_id, name) for name in ("a?b", "a?c", "a#b", "a\nb")]
    for number, info in enumerate(infos):
        assert (await put(proxy, info["artifact_uri"], "MLmodel", b"%d" % number)).status == 200

    assert [await tree(proxy, info["artifact_uri"]) for info in infos] == [{"MLmodel": b"%d" % n} for n in range(4)]


class Forwarding(Workspace):
    """A workspace that hears of the client's own credentials alone."""

    @property
    def backend(self) -> Json:
        return {"url": self.url, "kind": "azureml", "auth": {"type": "forward"}}


async def test_a_primary_that_only_clients_sign_in_to_answers_for_itself(
    launch: Launcher, azure: Workspace, b: Workspace
) -> None:
    """Nothing is asked of it that nobody would sign: its own refusal tells a client to log models as files."""
    forwarding = Forwarding(name="a", url=azure.url, side=azure.side, control=azure.control)
    proxy = await launch(forwarding, b)
    proxy.authorize(f"Bearer {SECRETS['TOKEN_A']}")
    experiment_id, run_id = await began(proxy)
    body = {"experiment_id": experiment_id, "name": "m", "source_run_id": run_id}
    made = await proxy.call("POST", "logged-models", body)
    found = await proxy.call("POST", "logged-models/search", {"experiment_ids": [experiment_id]})
    asked = [seen["status"] for seen in await azure.control.log() if "logged-models" in seen["path"]]

    assert [(reply.status, reply.code) for reply in (made, found)] == [(404, "ENDPOINT_NOT_FOUND")] * 2
    assert asked == [404, 404]


@pytest.fixture(params=["signed roots", "host-less roots"])
async def modelless(
    request: pytest.FixtureRequest, launch: Launcher, azure: Workspace, a: Workspace, b: Workspace
) -> Running:
    """A primary that knows no models; whether it shows roots of its own decides how its answers are read."""
    if request.param == "signed roots":
        return await launch(azure, b, **AZURE)
    await a.control.set_faults(
        Rule(path="logged-models", action=Refuse(status=404, code="ENDPOINT_NOT_FOUND")),
    )
    return await launch(a, b)


@pytest.mark.parametrize("when", ["before the model", "after the model"])
async def test_files_of_a_model_are_its_own_although_its_run_has_some_beside_it(
    modelless: Running, b: Workspace, when: str
) -> None:
    proxy = modelless
    experiment_id, run_id = await began(proxy)
    root = await run_root(proxy, run_id)
    if when == "before the model":
        await put(proxy, root, "plot.txt", b"p")
        await put(proxy, root, "m/old.bin", b"o")
        await delete(proxy, root, "m/old.bin")
    info = await made(proxy, experiment_id, run_id)
    if when == "after the model":
        await put(proxy, root, "plot.txt", b"p")
    for name in ("data.bin", "gone.bin"):
        await put(proxy, info["artifact_uri"], name, b"d")
    await delete(proxy, info["artifact_uri"], "gone.bin")
    await proxy.drained()

    model = await mirrored_model(proxy, b, info["model_id"])
    mirror = (await mirror_of(b, proxy, run_id))["info"]
    assert info["artifact_uri"] == f"{root}/m"
    assert await tree(behind(b, proxy), model["info"]["artifact_uri"]) == {"data.bin": b"d"}
    assert await tree(behind(b, proxy), mirror["artifact_uri"]) == {"plot.txt": b"p"}


async def test_all_files_of_a_model_are_deleted_as_its_own(proxy: Running, b: Workspace) -> None:
    """Its root lies in a folder of the run, whose owner is known already."""
    experiment_id, run_id = await began(proxy)
    info = await made(proxy, experiment_id, run_id)
    await put(proxy, info["artifact_uri"], "data.bin", b"d")
    await put(proxy, await run_root(proxy, run_id), "plot.txt", b"p")
    await delete(proxy, info["artifact_uri"], "")
    await proxy.drained()

    model = await mirrored_model(proxy, b, info["model_id"])
    assert await tree(behind(b, proxy), model["info"]["artifact_uri"]) == {}
