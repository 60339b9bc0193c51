"""A run that the proxy mirrored, read from both sides into views: no drift, on a secondary of any kind.

And what was written past the proxy is found, planned and delivered as any write is; then there is none again.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from aiohttp import ClientSession

from dualtrack.core.difference import Difference
from dualtrack.core.drift import compare, metrics_in_doubt
from dualtrack.core.ids import ClientId, EntityKind, Ref, Twin
from dualtrack.core.views import ExperimentView, ModelView, RunView
from dualtrack.demo.compare import Side
from dualtrack.demo.servers import MlflowServer
from dualtrack.emulators.tokens import Tokens
from dualtrack.ports import Loss
from dualtrack.reconcile.snapshot import MapNames, Snapshots
from dualtrack.translate.operations import lane_of
from dualtrack.translate.repair import Repair, plan
from tests.support.files import behind, put, run_root
from tests.support.flow import SECRETS, Json, Running, Workspace, unique
from tests.support.kinds import FRONTS, KINDS
from tests.support.servers import Control, emulating


@dataclass(frozen=True, kw_only=True)
class OfKind(Workspace):
    """A workspace as strict as its kind can be."""

    kind: str

    @property
    def backend(self) -> Json:
        return {**super().backend, "kind": self.kind}


@pytest.fixture(params=KINDS)
async def b(
    request: pytest.FixtureRequest, mlflow_secondary: MlflowServer, session: ClientSession
) -> AsyncIterator[OfKind]:
    settings_for, path = FRONTS[request.param]
    async with emulating(settings_for(mlflow_secondary.url, Tokens(SECRETS["TOKEN_B"]))) as url:
        side = Side(name="b", url=mlflow_secondary.url)
        yield OfKind(name="b", url=f"{url}{path}", side=side, control=Control(url, session), kind=request.param)


@dataclass(kw_only=True)
class Sides:
    """Both sides of a proxy, as a verifier reads them."""

    proxy: Running
    views: dict[str, Snapshots] = field(default_factory=dict)

    def __post_init__(self) -> None:
        app = self.proxy.app
        for name in ("a", "b"):
            assert app.journal is not None
            names = MapNames(app.journal, name, is_primary=name == "a")
            self.views[name] = Snapshots(app.readers[name], app.stores[name], names)

    async def twin(self, ref: Ref, name: str) -> Twin:
        assert self.proxy.app.journal is not None
        found = await self.proxy.app.journal.twin(ref, name)
        assert found is not None
        return found

    async def run(self, name: str, run_id: str, points_of: frozenset[str] = frozenset()) -> RunView | None:
        twin = await self.twin(Ref(EntityKind.RUN, ClientId(run_id)), name)
        return await self.views[name].run(twin, points_of=points_of, reads_content=True)

    async def model(self, name: str, model_id: str) -> ModelView | None:
        return await self.views[name].model(await self.twin(Ref(EntityKind.MODEL, ClientId(model_id)), name))

    async def experiment(self, name: str, experiment_id: str) -> ExperimentView | None:
        twin = await self.twin(Ref(EntityKind.EXPERIMENT, ClientId(experiment_id)), name)
        return await self.views[name].experiment(twin, expected_names=(twin.name,))

    async def run_drift(self, run_id: str) -> tuple[list[Difference], Repair]:
        """Compare as a verifier does: by digests, then by the points of what is in doubt."""
        losses = await self.losses(f"run:{run_id}")
        found = compare(await self.run("a", run_id), await self.run("b", run_id), losses)
        keys = metrics_in_doubt(found)
        here, there = await self.run("a", run_id, keys), await self.run("b", run_id, keys)
        found = compare(here, there, losses)
        return [each for each in found if each.is_drift], plan(here, there, found)

    async def losses(self, key: str) -> list[Loss]:
        assert self.proxy.app.journal is not None
        return [each.loss for each in await self.proxy.app.journal.losses(key, backend="b")]


async def logged(proxy: Running) -> tuple[str, str, str]:
    """An experiment, a run and a logged model with something of everything."""
    experiment_id = await proxy.create_experiment(unique("/Shared/e"))
    parent = await proxy.create_run(experiment_id)
    tags = [{"key": "mlflow.parentRunId", "value": parent}]
    run_id = await proxy.create_run(experiment_id, run_name="fox", user_id="ann", tags=tags)
    model = await proxy.post("logged-models", experiment_id=experiment_id, name="m", source_run_id=run_id)
    info = model["model"]["info"]
    point = {"key": "loss", "timestamp": 1000, "model_id": info["model_id"], "run_id": run_id}
    metrics = [{**point, "value": value, "step": step} for step, value in enumerate([0.5, "NaN", "Infinity"])]
    params = [{"key": "depth", "value": "3"}]
    await proxy.post("runs/log-batch", run_id=run_id, metrics=metrics, params=params)
    dataset = {"name": "cancer", "digest": "d1", "source_type": "code", "source": "{}"}
    await proxy.post("runs/log-inputs", run_id=run_id, datasets=[{"tags": [], "dataset": dataset}])
    await proxy.post("runs/outputs", run_id=run_id, models=[{"model_id": info["model_id"], "step": 0}])
    written = f"artifact_path: {info['artifact_uri']}\nflavors: {{}}\nmodel_id: {info['model_id']}\n"
    written += f"model_uuid: {info['model_id']}\nrun_id: {run_id}\nutc_time_created: '2026-11-21'\n"
    await put(proxy, info["artifact_uri"], "MLmodel", written.encode())
    await put(proxy, info["artifact_uri"], "data/model.pkl", b"pickled")
    await put(proxy, await run_root(proxy, run_id), "plots/a.txt", b"abc")
    ready = {"model_id": info["model_id"], "status": "LOGGED_MODEL_READY"}
    await proxy.call("PATCH", f"logged-models/{info['model_id']}", ready)
    await proxy.post("experiments/set-experiment-tag", experiment_id=experiment_id, key="team", value="a")
    await proxy.finish(run_id)
    await proxy.drained()
    return experiment_id, run_id, str(info["model_id"])


async def test_what_was_mirrored_has_not_drifted(proxy: Running) -> None:
    """The run, its logged model and its experiment, with what their backend cannot hold explained."""
    experiment_id, run_id, model_id = await logged(proxy)
    sides = Sides(proxy=proxy)
    drift, repair = await sides.run_drift(run_id)
    model = compare(
        await sides.model("a", model_id), await sides.model("b", model_id), await sides.losses(f"model:{model_id}")
    )
    experiment = compare(await sides.experiment("a", experiment_id), await sides.experiment("b", experiment_id))

    assert drift == []
    assert repair == Repair()
    assert [each for each in (*model, *experiment) if each.is_drift] == []


async def test_what_was_written_past_the_proxy_is_repaired(proxy: Running) -> None:
    """Found, planned as exchanges, delivered as any write is; afterwards there is nothing to do."""
    _, run_id, _ = await logged(proxy)
    sides = Sides(proxy=proxy)
    direct = behind(proxy.primary, proxy)
    extra = {"key": "loss", "value": 7.0, "timestamp": 5, "step": 9}
    params, tags = [{"key": "p", "value": "1"}], [{"key": "t", "value": "1"}]
    await direct.post("runs/log-batch", run_id=run_id, metrics=[extra], params=params, tags=tags)
    await direct.post("runs/update", run_id=run_id, status="FAILED", end_time=99_999)
    drift, repair = await sides.run_drift(run_id)
    assert proxy.app.journal is not None
    assert {lane_of(each) for each in repair.exchanges} == {f"run:{run_id}"}
    await proxy.app.journal.replace("b", f"run:{run_id}", proxy.app.journal.last_seq(), repair.exchanges)
    await proxy.drained()
    left, nothing = await sides.run_drift(run_id)

    assert {each.item for each in drift} == {"status", "end_time", "t", "p", "loss"}
    assert repair.unrepaired == ()
    assert left == []
    assert nothing == Repair()
