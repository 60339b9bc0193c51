"""A client in plain HTTP that logs run after run of every kind of write, and knows what was acknowledged."""

import random
from collections.abc import Awaitable, Callable
from typing import Any

from tests.support.files import put
from tests.support.flow import Json, Reply
from tests.support.ledger import PARENT, Record
from tests.support.served import Served


class Writer:
    """Logs one run after the other in plain HTTP, keeps what was acknowledged, and repeats what was not."""

    def __init__(self, served: Served, experiment: str, seed: str) -> None:
        self._served = served
        self._experiment = experiment
        self._seed = seed
        self._chance = random.Random(seed)
        self.made: list[Record] = []

    async def write(self, is_over: Callable[[], bool]) -> None:
        while not is_over():
            await self._log(f"{self._seed}.{len(self.made)}")

    async def _log(self, label: str) -> None:
        chance = self._chance
        parent = chance.choice(self.made)["run_id"] if self.made and chance.random() < 0.4 else None
        tags = [{"key": PARENT, "value": parent}] if parent else []
        start = chance.randrange(10**12)
        told = await self._post("runs/create", experiment_id=self._experiment, start_time=start, tags=tags)
        info = told["run"]["info"]
        record: Record = {"run_id": info["run_id"], "label": label, "parent": parent, "params": {}, "tags": {}}
        record |= {"points": [], "files": {}, "models": [], "status": "RUNNING", "stage": "active"}
        self.made.append(record)
        doings = [self._metric, self._batch, self._tag, self._dataset, self._untag]
        for number in range(chance.randrange(2, 8)):
            await chance.choice(doings)(record, number)
        if chance.random() < 0.25:
            await self._file(record, str(info["artifact_uri"]))
        if chance.random() < 0.2:
            await self._model(record)
        record["status"] = chance.choice(("FINISHED", "FAILED", "KILLED"))
        await self._post("runs/update", run_id=record["run_id"], status=record["status"], end_time=start + 5)
        if chance.random() < 0.15:
            await self._delete(record)

    async def _post(self, path: str, **body: Any) -> Json:
        return await self._served.repeat(path, **body)

    async def _metric(self, record: Record, number: int) -> None:
        point = self._point("single", number)
        await self._post("runs/log-metric", run_id=record["run_id"], **point)
        record["points"].append(_kept(point))

    async def _batch(self, record: Record, number: int) -> None:
        points = [self._point(f"m{number % 2}", 100 * number + step) for step in range(self._chance.randrange(1, 9))]
        params, value = [{"key": f"p{number}", "value": "ü" * 200}], f"b{number}"
        tags = [{"key": "k", "value": value}]
        await self._post("runs/log-batch", run_id=record["run_id"], metrics=points, params=params, tags=tags)
        record["points"] += map(_kept, points)
        record["params"][f"p{number}"] = "ü" * 200
        record["tags"]["k"] = value

    def _point(self, key: str, step: int) -> Json:
        value = self._chance.choice((step / 3, -step / 7, "NaN", "Infinity"))
        return {"key": key, "value": value, "timestamp": 10**12 + step, "step": step}

    async def _tag(self, record: Record, number: int) -> None:
        await self._post("runs/set-tag", run_id=record["run_id"], key="k", value=str(number))
        record["tags"]["k"] = str(number)

    async def _untag(self, record: Record, _number: int) -> None:
        if record["tags"].pop("k", None) is not None:
            await self._once("runs/delete-tag", run_id=record["run_id"], key="k")

    async def _dataset(self, record: Record, number: int) -> None:
        # of this run alone: a server that gets a new dataset from two runs at once refuses one of them (400)
        dataset = {"name": "d", "digest": f"{record['label']}.{number}", "source_type": "local", "source": "{}"}
        await self._post("runs/log-inputs", run_id=record["run_id"], datasets=[{"dataset": dataset}])

    async def _file(self, record: Record, root: str) -> None:
        for path in ("a.txt", "b c/größe.txt"):
            text = path * self._chance.randrange(2000)
            await self._put(root, path, text)
            record["files"][path] = text

    async def _put(self, root: str, path: str, text: str) -> None:
        reply = await self._served.repeated(lambda: put(self._served, root, path, text.encode()))
        assert reply.status == 200, reply.body

    async def _model(self, record: Record) -> None:
        body = {"experiment_id": self._experiment, "name": "m", "source_run_id": record["run_id"]}
        info = (await self._post("logged-models", **body))["model"]["info"]
        await self._put(str(info["artifact_uri"]), "weights.bin", record["label"] * 100)
        path = f"logged-models/{info['model_id']}"
        done = {"model_id": info["model_id"], "status": "LOGGED_MODEL_READY"}
        reply = await self._served.repeated(lambda: self._served.call("PATCH", path, done))
        assert reply.status == 200, reply.body
        record["models"].append(info["model_id"])

    async def _delete(self, record: Record) -> None:
        await self._once("runs/delete", run_id=record["run_id"])
        record["stage"] = "deleted"
        if self._chance.random() < 0.5:
            await self._once("runs/restore", run_id=record["run_id"])
            record["stage"] = "active"

    async def _once(self, path: str, **body: Any) -> None:
        """What is refused the second time, when the first answer was lost."""
        asked = 0

        def ask() -> Awaitable[Reply]:
            nonlocal asked
            asked += 1
            return self._served.call("POST", path, body)

        reply = await self._served.repeated(ask)
        assert reply.status == 200 or (asked > 1 and reply.status in {400, 404}), (path, reply.status, reply.body)


def _kept(point: Json) -> list[Any]:
    return [point["key"], point["step"], point["timestamp"], repr(float(point["value"]))]
