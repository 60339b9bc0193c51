"""A secondary without logged models, as Azure ML is: a model's files stand below its name in its run.

What has no place there is recorded as a loss and holds nothing else up.
"""

from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import orjson
import pytest
import yaml
from aiohttp import ClientSession
from mlflow.models import Model

from dualtrack.core.exchange import Answer
from dualtrack.core.exchange import Call as BackendCall
from dualtrack.demo.compare import Side
from dualtrack.demo.servers import MlflowServer
from dualtrack.emulators.azureml import is_of_logged_models
from dualtrack.emulators.faults import Delay, DropAfter, DropBefore, Refuse, Rule
from dualtrack.emulators.tracking import Call, Plain, Reply, Settings
from tests.support.files import behind, mirror_of, mirrored, put, run_root, tree
from tests.support.flow import SECRETS, Client, Json, Launcher, Running, Workspace
from tests.support.servers import Control, emulating

NAME = "classifier"
HISTORY = "mlflow.log-model.history"
LOSS = "no_logged_models"
# What waits for the run goes on at once, and what is asked of the models is answered at once.
AT_ONCE = (
    Rule(method="POST", path="runs/create$", action=Delay(seconds=1)),
    Rule(method="POST", path="logged-models$", action=Delay(seconds=0.3)),
    Rule(method="POST", path="runs/log-model$", action=Delay(seconds=0.3)),
)


class Bare(Plain):
    """A server that never heard of logged models."""

    def answer(self, call: Call) -> Reply | None:
        return Reply(status=404) if is_of_logged_models(call.path) else None


@pytest.fixture
async def bare(mlflow_secondary: MlflowServer, session: ClientSession) -> AsyncIterator[Workspace]:
    settings = Settings(upstream=mlflow_secondary.url, token=SECRETS["TOKEN_B"], dialect=Bare())
    async with emulating(settings) as url:
        side = Side(name="b", url=mlflow_secondary.url)
        yield Workspace(name="b", url=url, side=side, control=Control(url, session))


@pytest.fixture
async def proxy(launch: Launcher, a: Workspace, bare: Workspace) -> Running:
    return await launch(a, bare)


@dataclass(frozen=True, kw_only=True)
class Logged:
    """A logged model as its client knows it."""

    model_id: str
    root: str

    def mlmodel(self, run_id: str = "") -> bytes:
        """Its MLmodel, as MLflow writes it."""
        model = Model(
            artifact_path=self.root,
            run_id=run_id or None,
            model_id=self.model_id,
            model_uuid=self.model_id,
            utc_time_created="2026-11-21 06:50:28.030632",
        )
        model.add_flavor("python_function", loader_module="mlflow.sklearn", config={"a": 1}, env={"conda": "c.yaml"})
        return str(model.to_yaml()).encode()


async def began(client: Client) -> tuple[str, str]:
    """A new experiment and a run in it."""
    experiment_id = await client.create_experiment()
    return experiment_id, await client.create_run(experiment_id)


async def log_model(client: Client, experiment_id: str, run_id: str = "", name: str = NAME) -> Logged:
    body: Json = {"experiment_id": experiment_id, "name": name, **({"source_run_id": run_id} if run_id else {})}
    info = (await client.post("logged-models", **body))["model"]["info"]
    return Logged(model_id=info["model_id"], root=info["artifact_uri"])


async def finalize(client: Client, model: Logged) -> None:
    path = f"logged-models/{model.model_id}"
    reply = await client.call("PATCH", path, {"model_id": model.model_id, "status": "LOGGED_MODEL_READY"})
    assert reply.status == 200, reply.body


async def histories(bare: Workspace, proxy: Running, run_id: str) -> list[Json]:
    """The models of a mirrored run, as its history names them."""
    tags = (await mirror_of(bare, proxy, run_id))["data"].get("tags", [])
    listed: list[Json] = orjson.loads(next((tag["value"] for tag in tags if tag["key"] == HISTORY), "[]"))
    return listed


async def losses(proxy: Running, reason: str = LOSS) -> list[str]:
    """What is written down as lost, for a reason."""
    rows: list[Json] = (await proxy.admin.call("GET", "/api/v1/losses?limit=1000")).json["losses"]
    return [str(row) for row in rows if row["reason"] == reason]


async def settled(proxy: Running) -> None:
    """Drain; nothing may be parked."""
    await proxy.drained()
    assert (await proxy.admin.call("GET", "/api/v1/parked")).json["parked"] == []


async def test_a_model_s_files_are_files_of_its_run(proxy: Running, bare: Workspace) -> None:
    """Below its name; MLmodel and the run's history name what is there, as MLflow 2 would have written them."""
    experiment_id, run_id = await began(proxy)
    model = await log_model(proxy, experiment_id, run_id)
    for path, content in {"MLmodel": model.mlmodel(run_id), "data/model.pkl": b"pickled", "größe ✓.txt": b"1"}.items():
        assert (await put(proxy, model.root, path, content)).status == 200
    await put(proxy, await run_root(proxy, run_id), "notes.txt", b"of the run")
    await proxy.post("runs/outputs", run_id=run_id, models=[{"model_id": model.model_id, "step": 0}])
    await finalize(proxy, model)
    await proxy.finish(run_id)
    await settled(proxy)

    files = await mirrored(bare, proxy, run_id)
    info = (await mirror_of(bare, proxy, run_id))["info"]
    assert {path: content for path, content in files.items() if not path.endswith("MLmodel")} == {
        f"{NAME}/data/model.pkl": b"pickled",
        f"{NAME}/größe ✓.txt": b"1",
        "notes.txt": b"of the run",
    }
    there = yaml.safe_load(files[f"{NAME}/MLmodel"])
    here = yaml.safe_load(model.mlmodel(run_id))
    assert there["run_id"] == info["run_id"] != run_id
    assert there["artifact_path"] == f"{info['artifact_uri']}/{NAME}"
    assert "model_id" not in there
    assert there["flavors"] == here["flavors"]
    assert info["status"] == "FINISHED"
    (entry,) = await histories(bare, proxy, run_id)
    assert (entry["run_id"], entry["artifact_path"]) == (info["run_id"], NAME)
    assert (entry["model_uuid"], entry["utc_time_created"]) == (model.model_id, here["utc_time_created"])
    assert entry["flavors"].keys() == here["flavors"].keys()
    assert any(model.model_id in loss for loss in await losses(proxy))
    primary = await tree(behind(proxy.primary, proxy), model.root)
    assert primary["MLmodel"] == model.mlmodel(run_id)


@pytest.mark.parametrize(
    "fault", [DropAfter(), Refuse(status=503), Refuse(status=429)], ids=["answer lost", "unavailable", "throttled"]
)
async def test_a_history_names_a_model_once(proxy: Running, bare: Workspace, fault: Any) -> None:
    """Whatever becomes of the call that tells it."""
    experiment_id, run_id = await began(proxy)
    model = await log_model(proxy, experiment_id, run_id)
    await bare.control.set_faults(Rule(method="POST", path="runs/log-model$", first=1, action=fault))
    await put(proxy, model.root, "MLmodel", model.mlmodel(run_id))
    await settled(proxy)

    assert len(await histories(bare, proxy, run_id)) == 1
    assert f"{NAME}/MLmodel" in await mirrored(bare, proxy, run_id)


async def test_a_file_that_is_sent_twice_tells_no_second_model(proxy: Running, bare: Workspace) -> None:
    experiment_id, run_id = await began(proxy)
    model = await log_model(proxy, experiment_id, run_id)
    for _ in range(2):
        await put(proxy, model.root, "MLmodel", model.mlmodel(run_id))
        await settled(proxy)

    assert len(await histories(bare, proxy, run_id)) == 1
    assert len(await bare.writes("runs/log-model")) == 1


async def test_metrics_of_a_model_are_metrics_of_its_run(proxy: Running, bare: Workspace) -> None:
    """MLflow 3 logs a run's metrics again for its model: over there that is one point, and the link is a loss."""
    experiment_id, run_id = await began(proxy)
    model = await log_model(proxy, experiment_id, run_id)
    point: Json = {"key": "loss", "value": 0.25, "timestamp": 5, "step": 1}
    of_model: Json = {**point, "model_id": model.model_id}
    await proxy.post("runs/log-batch", run_id=run_id, metrics=[point, of_model])
    await proxy.post("runs/log-metric", run_id=run_id, **{**of_model, "key": "accuracy"})
    await settled(proxy)

    mirror = await mirror_of(bare, proxy, run_id)
    assert {metric["key"]: metric["value"] for metric in mirror["data"]["metrics"]} == {"loss": 0.25, "accuracy": 0.25}
    bodies = await bare.writes("runs/log-batch")
    assert not [metric for body in bodies for metric in body["metrics"] if "model_id" in metric]
    query = f"metrics/get-history?run_id={mirror['info']['run_id']}&metric_key=loss"
    history = (await behind(bare, proxy).call("GET", query)).json["metrics"]
    assert [(item["value"], item["step"]) for item in history] == [(0.25, 1)]
    assert any(model.model_id in loss for loss in await losses(proxy))


async def test_what_log_model_sends_once_more_is_not_sent_there(proxy: Running, bare: Workspace) -> None:
    """All metrics of a step, again, for the model: the run there has them; what it has not is sent."""
    experiment_id, run_id = await began(proxy)
    points: list[Json] = [{"key": "loss", "value": at / 4, "timestamp": 5 + at, "step": 0} for at in range(3)]
    await proxy.post("runs/log-batch", run_id=run_id, metrics=points)
    await settled(proxy)
    model = await log_model(proxy, experiment_id, run_id)
    new: Json = {"key": "accuracy", "value": 1.0, "timestamp": 9, "step": 0}
    repeated = [{**point, "model_id": model.model_id} for point in [*points, new]]
    await proxy.post("runs/log-batch", run_id=run_id, metrics=repeated)
    await settled(proxy)
    await proxy.post("runs/log-batch", run_id=run_id, metrics=[{**new, "key": "other"}, *repeated])
    await settled(proxy)
    sent = [metric for body in await bare.writes("runs/log-batch") for metric in body.get("metrics", ())]

    assert [(item["key"], item["timestamp"]) for item in sent] == [
        ("loss", 5),
        ("loss", 6),
        ("loss", 7),
        ("accuracy", 9),
        ("other", 9),
    ]
    assert (await bare.control.duplicates())["metric_points"] == 0


@pytest.mark.parametrize("at_once", [False, True], ids=["one after the other", "at once"])
async def test_models_of_one_name_keep_their_own_files(proxy: Running, bare: Workspace, at_once: bool) -> None:
    """Each logged into the same run, under the same name, with files of the same names; however they arrive there."""
    if at_once:
        await bare.control.set_faults(*AT_ONCE)
    experiment_id, run_id = await began(proxy)
    models = []
    for number in range(3):
        models.append(await log_model(proxy, experiment_id, run_id))
        await put(proxy, models[-1].root, "model.pkl", b"%d" % number)
        await put(proxy, models[-1].root, "MLmodel", models[-1].mlmodel(run_id))
        if not at_once:
            await settled(proxy)
    await settled(proxy)

    files = await mirrored(bare, proxy, run_id)
    assert sorted(content for path, content in files.items() if path.endswith("/model.pkl")) == [b"0", b"1", b"2"]
    entries = await histories(bare, proxy, run_id)
    assert {entry["model_uuid"] for entry in entries} == {model.model_id for model in models}
    for entry in entries:
        number = [model.model_id for model in models].index(entry["model_uuid"])
        assert files[f"{entry['artifact_path']}/model.pkl"] == b"%d" % number
        assert yaml.safe_load(files[f"{entry['artifact_path']}/MLmodel"])["model_uuid"] == entry["model_uuid"]


async def test_a_model_does_not_overwrite_files_of_its_run(proxy: Running, bare: Workspace) -> None:
    """A folder of the run may be called as the model is, as MLflow 2 does it."""
    experiment_id, run_id = await began(proxy)
    await put(proxy, await run_root(proxy, run_id), f"{NAME}/model.pkl", b"of the run")
    model = await log_model(proxy, experiment_id, run_id)
    await put(proxy, model.root, "model.pkl", b"of the model")
    await settled(proxy)

    contents = list((await mirrored(bare, proxy, run_id)).values())
    assert sorted(contents) == [b"of the model", b"of the run"]


async def test_a_model_without_a_run_is_a_loss_and_nothing_else_is(proxy: Running, bare: Workspace) -> None:
    experiment_id, run_id = await began(proxy)
    model = await log_model(proxy, experiment_id)
    stored = [await put(proxy, model.root, path, model.mlmodel()) for path in ("MLmodel", "model.pkl")]
    await finalize(proxy, model)
    point: Json = {"key": "loss", "value": 1.0, "timestamp": 5, "step": 0, "model_id": model.model_id}
    await proxy.post("runs/log-batch", run_id=run_id, metrics=[point])
    await put(proxy, await run_root(proxy, run_id), "notes.txt", b"of the run")
    await proxy.finish(run_id)
    await settled(proxy)

    mirror = await mirror_of(bare, proxy, run_id)
    assert [reply.status for reply in stored] == [200, 200]
    assert await mirrored(bare, proxy, run_id) == {"notes.txt": b"of the run"}
    assert [metric["key"] for metric in mirror["data"]["metrics"]] == ["loss"]
    assert mirror["info"]["status"] == "FINISHED"
    assert any("MLmodel" in loss for loss in await losses(proxy, "no_place"))
    assert any("model.pkl" in loss for loss in await losses(proxy, "no_place"))
    assert any(model.model_id in loss for loss in await losses(proxy))


async def test_a_model_that_is_changed_and_deleted_parks_nothing(proxy: Running, bare: Workspace) -> None:
    """Its params and tags have no place there; its files stay in the run as long as nobody deletes them."""
    experiment_id, run_id = await began(proxy)
    model = await log_model(proxy, experiment_id, run_id)
    await put(proxy, model.root, "model.pkl", b"x")
    path = f"logged-models/{model.model_id}"
    named: Json = {"model_id": model.model_id}
    await proxy.post(f"{path}/params", **named, params=[{"key": "depth", "value": "3"}])
    tagged = await proxy.call("PATCH", f"{path}/tags", {**named, "tags": [{"key": "team", "value": "demo"}]})
    untagged = await proxy.call("DELETE", f"{path}/tags/team")
    gone = await proxy.call("DELETE", path)
    await proxy.set_tag(run_id, "after", "all")
    await settled(proxy)

    assert [reply.status for reply in (tagged, untagged, gone)] == [200, 200, 200]
    assert await mirrored(bare, proxy, run_id) == {f"{NAME}/model.pkl": b"x"}
    tags = (await mirror_of(bare, proxy, run_id))["data"]["tags"]
    assert {"key": "after", "value": "all"} in tags


async def test_a_model_from_before_the_proxy_is_brought_over_as_files(
    launch: Launcher, a: Workspace, bare: Workspace, session: ClientSession
) -> None:
    """What names it first brings it, with its run and all its files."""
    before = Client(a.side.url, session)
    experiment_id, run_id = await began(before)
    model = await log_model(before, experiment_id, run_id)
    await put(before, model.root, "MLmodel", model.mlmodel(run_id))
    await put(before, model.root, "data/model.pkl", b"pickled")
    await before.post("runs/outputs", run_id=run_id, models=[{"model_id": model.model_id, "step": 0}])
    proxy = await launch(a, bare)
    point: Json = {"key": "loss", "value": 1.0, "timestamp": 5, "step": 0, "model_id": model.model_id}
    await proxy.post("runs/log-batch", run_id=run_id, metrics=[point])
    await settled(proxy)

    files = await mirrored(bare, proxy, run_id)
    assert files[f"{NAME}/data/model.pkl"] == b"pickled"
    assert "model_id" not in yaml.safe_load(files[f"{NAME}/MLmodel"])
    assert len(await histories(bare, proxy, run_id)) == 1
    assert [item["key"] for item in (await mirror_of(bare, proxy, run_id))["data"]["metrics"]] == ["loss"]


async def test_a_metric_brings_a_model_from_before_the_proxy(
    launch: Launcher, a: Workspace, b: Workspace, session: ClientSession
) -> None:
    """Also where there are logged models: its run is brought over at the same time, and the metric names it still."""
    before = Client(a.side.url, session)
    experiment_id, run_id = await began(before)
    model = await log_model(before, experiment_id, run_id)
    await put(before, model.root, "data/model.pkl", b"pickled")
    proxy = await launch(a, b)
    point: Json = {"key": "loss", "value": 1.0, "timestamp": 5, "step": 0, "model_id": model.model_id}
    await proxy.post("runs/log-batch", run_id=run_id, metrics=[point])

    assert await proxy.differences(experiment_id, b) == []


@pytest.mark.parametrize("fault", [Refuse(status=503), DropBefore()], ids=["unavailable", "dropped"])
async def test_a_create_that_failed_once_is_made_up_for(proxy: Running, bare: Workspace, fault: Any) -> None:
    """A create in doubt is looked for before it is sent again, where there is nothing to search."""
    experiment_id, run_id = await began(proxy)
    await settled(proxy)
    await bare.control.set_faults(Rule(method="POST", path="logged-models$", first=1, action=fault))
    model = await log_model(proxy, experiment_id, run_id)
    await put(proxy, model.root, "model.pkl", b"x")
    await proxy.finish(run_id)
    await settled(proxy)

    assert await mirrored(bare, proxy, run_id) == {f"{NAME}/model.pkl": b"x"}


async def test_models_of_one_run_are_all_in_its_history(proxy: Running, bare: Workspace) -> None:
    """A server adds to the history by reading and writing it, and the lanes of models do not wait for each other."""
    await bare.control.set_faults(*AT_ONCE)
    experiment_id, run_id = await began(proxy)
    models = [await log_model(proxy, experiment_id, run_id, f"model{number}") for number in range(8)]
    for model in models:
        await put(proxy, model.root, "MLmodel", model.mlmodel(run_id))
    await settled(proxy)

    named = [entry["model_uuid"] for entry in await histories(bare, proxy, run_id)]
    assert sorted(named) == sorted(model.model_id for model in models)


async def test_what_a_client_adds_to_a_history_and_what_we_do_come_one_after_the_other(
    proxy: Running, bare: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client of MLflow 2 logs a model of the run while the files of another one arrive."""
    experiment_id, run_id = await began(proxy)
    model = await log_model(proxy, experiment_id, run_id)
    await settled(proxy)
    send, under_way, at_once = proxy.app.backends["b"].send, Counter[str](), [0]

    async def counting(call: BackendCall) -> Answer:
        under_way[call.operation] += 1
        at_once.append(under_way["logModel"])
        try:
            return await send(call)
        finally:
            under_way[call.operation] -= 1

    monkeypatch.setattr(proxy.app.backends["b"], "send", counting)
    await bare.control.set_faults(Rule(path="runs/log-model$", action=Delay(seconds=1)))
    earlier = {"artifact_path": "earlier", "flavors": {}, "run_id": run_id, "utc_time_created": "2026-11-20 10:00:00"}
    await proxy.post("runs/log-model", run_id=run_id, model_json=orjson.dumps(earlier).decode())
    await put(proxy, model.root, "MLmodel", model.mlmodel(run_id))
    await settled(proxy)

    assert max(at_once) == 1
    assert len(await histories(bare, proxy, run_id)) == 2


async def test_a_deleted_run_is_told_of_its_models_first(proxy: Running, bare: Workspace) -> None:
    """The history of a run names its models, and a deleted run takes no more: the deletion waits for the models."""
    experiment_id, run_id = await began(proxy)
    await settled(proxy)
    await bare.control.set_faults(Rule(path="runs/log-model$", first=3, action=Refuse(status=503)))
    model = await log_model(proxy, experiment_id, run_id)
    await put(proxy, model.root, "MLmodel", model.mlmodel(run_id))
    await proxy.post("runs/delete", run_id=run_id)
    await settled(proxy)

    assert [entry["model_uuid"] for entry in await histories(bare, proxy, run_id)] == [model.model_id]
    assert (await mirror_of(bare, proxy, run_id))["info"]["lifecycle_stage"] == "deleted"
