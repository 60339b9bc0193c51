"""Every mirrored operation as one write through a proxy, with what has to be there before it."""

from collections.abc import Awaitable, Callable
from typing import Any

from tests.support.flow import Running, Workspace, unique

DATASET = {"name": "iris", "digest": "d1", "source_type": "local", "source": "{}"}
HISTORY = '{"artifact_path": "model", "flavors": {}, "run_id": "%s", "utc_time_created": "2026-11-20 10:00:00.000000"}'


class Place:
    """What operations need: an experiment and a run on both sides already, and on demand a logged model.

    `name` makes a name that the primary takes for an experiment.
    """

    def __init__(self, proxy: Running, experiment: str, run: str, name: Callable[[], str] = unique) -> None:
        self.name = name
        self.proxy = proxy
        self.experiment = experiment
        self.run = run
        self.model = ""

    async def post(self, path: str, **body: Any) -> Any:
        return await self.proxy.post(path, **body)

    async def of_run(self, path: str, **body: Any) -> Any:
        return await self.post(f"runs/{path}", run_id=self.run, **body)

    async def of_experiment(self, path: str, **body: Any) -> Any:
        return await self.post(f"experiments/{path}", experiment_id=self.experiment, **body)

    async def create_model(self) -> None:
        body = {"experiment_id": self.experiment, "name": "model", "source_run_id": self.run}
        self.model = (await self.post("logged-models", **body))["model"]["info"]["model_id"]

    async def of_model(self, method: str, path: str = "", **body: Any) -> None:
        reply = await self.proxy.call(method, f"logged-models/{self.model}{path}", {"model_id": self.model, **body})
        assert reply.status == 200, reply


Step = Callable[[Place], Awaitable[Any]]

TAG = {"key": "k", "value": "v"}
# per operation: what has to be there before, and the write whose answer is lost
STEPS: dict[str, tuple[Step | None, Step]] = {
    "createExperiment": (None, lambda at: at.post("experiments/create", name=at.name())),
    "updateExperiment": (None, lambda at: at.of_experiment("update", new_name=at.name())),
    "deleteExperiment": (None, lambda at: at.of_experiment("delete")),
    "restoreExperiment": (lambda at: at.of_experiment("delete"), lambda at: at.of_experiment("restore")),
    "setExperimentTag": (None, lambda at: at.of_experiment("set-experiment-tag", **TAG)),
    "deleteExperimentTag": (
        lambda at: at.of_experiment("set-experiment-tag", **TAG),
        lambda at: at.of_experiment("delete-experiment-tag", key="k"),
    ),
    "createRun": (None, lambda at: at.post("runs/create", experiment_id=at.experiment, start_time=5)),
    "updateRun": (None, lambda at: at.of_run("update", status="FINISHED", end_time=9)),
    "deleteRun": (None, lambda at: at.of_run("delete")),
    "restoreRun": (lambda at: at.of_run("delete"), lambda at: at.of_run("restore")),
    "logMetric": (None, lambda at: at.of_run("log-metric", key="loss", value=1, timestamp=1, step=1)),
    "logParam": (None, lambda at: at.of_run("log-parameter", **TAG)),
    "setTag": (None, lambda at: at.of_run("set-tag", **TAG)),
    "logBatch": (
        None,
        lambda at: at.of_run(
            "log-batch",
            metrics=[{"key": "loss", "value": 2, "timestamp": 2, "step": 2}],
            params=[{"key": "p", "value": "1"}],
            tags=[{"key": "t", "value": "1"}],
        ),
    ),
    "deleteTag": (lambda at: at.of_run("set-tag", **TAG), lambda at: at.of_run("delete-tag", key="k")),
    "logInputs": (None, lambda at: at.of_run("log-inputs", datasets=[{"dataset": DATASET, "tags": [TAG]}])),
    "logOutputs": (Place.create_model, lambda at: at.of_run("outputs", models=[{"model_id": at.model, "step": "1"}])),
    "logModel": (None, lambda at: at.of_run("log-model", model_json=HISTORY % at.run)),
    "createLoggedModel": (None, Place.create_model),
    "finalizeLoggedModel": (Place.create_model, lambda at: at.of_model("PATCH", status="LOGGED_MODEL_READY")),
    "logLoggedModelParams": (Place.create_model, lambda at: at.of_model("POST", "/params", params=[TAG])),
    "setLoggedModelTags": (Place.create_model, lambda at: at.of_model("PATCH", "/tags", tags=[TAG])),
    "deleteLoggedModelTag": (
        lambda at: in_turn(at, Place.create_model, lambda at: at.of_model("PATCH", "/tags", tags=[TAG])),
        lambda at: at.of_model("DELETE", "/tags/k"),
    ),
    "deleteLoggedModel": (Place.create_model, lambda at: at.of_model("DELETE")),
}


async def in_turn(at: Place, *steps: Step) -> None:
    for step in steps:
        await step(at)


async def doubles(side: Workspace) -> dict[str, Any]:
    """What a side was given twice, metric points included; empty when nothing was."""
    return {name: count for name, count in (await side.control.duplicates()).items() if count}
