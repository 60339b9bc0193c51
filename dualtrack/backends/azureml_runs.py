"""Runs of an Azure ML workspace under the primary's own ids: `run_ids: same`.

MLflow's API lets nobody choose a run's id; the workspace's run history does (facts A3), as the dual tracking that was
did it (facts C). So a create becomes an upsert there, a start event, and a read through MLflow, which says the rest:

    runs/create ─▶ PATCH …/experimentids/{experiment}/runs/{id} ─▶ POST …/events ─▶ runs/get

Each of the three may be repeated: an id names one run, however often it is sent. The API is not documented as stable,
and was never tried on the real service by us, so `server` is the default.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote

import orjson

from dualtrack.backends.azureml_api import RUN_ID, WorkspaceApi
from dualtrack.backends.http import HttpBackend
from dualtrack.core.exchange import JSON, Answer, Call, Document
from dualtrack.ports import Reply, Whole

_MARK: Final = "dualtrack.source_run_id"
_PATCH: Final = "application/json-patch+json; charset=utf-8"  # what the service wants, though it is no JSON patch
_START: Final = "Microsoft.MachineLearning.Run.Start"


class SameRunIds:
    """A `Backend` whose new runs have the id that their mark names; everything else is the workspace's own affair."""

    def __init__(self, backend: HttpBackend) -> None:
        self._backend = backend
        self._api = WorkspaceApi(backend)
        self.name = backend.name

    def stream(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes | AsyncIterator[bytes] | None
    ) -> AbstractAsyncContextManager[Reply]:
        return self._backend.stream(method, target, headers, body)

    async def exchange(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Whole:
        return await self._backend.exchange(method, target, headers, body)

    async def send(self, call: Call) -> Answer:
        return await (self._create(call) if call.operation == "createRun" else self._backend.send(call))

    async def _create(self, call: Call) -> Answer:
        asked = orjson.loads(call.body)
        tags = {str(tag["key"]): str(tag["value"]) for tag in asked.get("tags") or ()}
        run_id = tags.get(_MARK, "")
        if not RUN_ID.fullmatch(run_id):
            words = f"the workspace takes no run id {run_id!r}; `run_ids: server` lets it choose its own"
            return Answer(status=400, error_code="INVALID_PARAMETER_VALUE", message=words)
        target = self._api.run("experimentids", str(asked["experiment_id"]), run_id)
        answer = await self._api.tell("PATCH", target, _upsert(run_id, asked, tags), _PATCH)
        if answer.is_success:
            answer = await self._api.tell("POST", f"{target}/events", _started(run_id, asked), "application/json")
        if not answer.is_success:
            return answer
        query = f"/api/2.0/mlflow/runs/get?run_id={quote(run_id, safe='')}"
        return await self._backend.send(Call(operation="getRun", method="GET", target=query))


def _upsert(run_id: str, asked: Document, tags: Mapping[str, str]) -> Document:
    document: Document = {
        "runId": run_id,
        "status": "Running",
        "tags": dict[str, JSON](tags),
        "properties": {},
    }
    if at := _at(asked):
        document["startTimeUtc"] = at  # of the vendor's CreateRun (azureml-mlflow 1.62)
    if name := asked.get("run_name"):
        document["displayName"] = name
    if parent := tags.get("mlflow.parentRunId"):
        document["parentRunId"] = parent
    return document


def _started(run_id: str, asked: Document) -> Document:
    event: Document = {"name": _START, "data": {"RunId": run_id}}
    if at := _at(asked):
        event |= {"timestamp": at, "data": {"RunId": run_id, "StartTime": at}}
    return event


def _at(asked: Document) -> str:
    """When the run began; empty for a time outside of the calendar: a run without its odd time is better than none."""
    try:
        return datetime.fromtimestamp(int(str(asked.get("start_time") or 0)) / 1000, UTC).isoformat()
    except (ValueError, OverflowError, OSError):  # which one of them depends on the platform and the number
        return ""
