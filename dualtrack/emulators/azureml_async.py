"""Asynchronous logging of an Azure ML workspace (facts/backends A3, checklist item 10): batches whose metrics wait.

`log-batch-async` stores params and tags at once; metrics are kept here and reach the real server when they have been
asked for often enough. So a client that never asks never sees them, which the vendor's always does.
"""

import asyncio
from dataclasses import dataclass, replace
from typing import Any, TypeAlias
from uuid import uuid4

from dualtrack.emulators.azureml_errors import MISSING, Objection
from dualtrack.emulators.tracking import Call, Reply, Send

JSON: TypeAlias = Any

LOG = "/api/2.0/preview/mlflow/runs/log-batch-async"
STATUS = "/api/2.0/preview/mlflow/runs/get-run-data-status"
BATCH = "/api/2.0/mlflow/runs/log-batch"
COMPLETE, INCOMPLETE = (Reply(status=200, document={"is_complete": said}) for said in (True, False))


@dataclass(slots=True)
class _Pending:
    run_id: str
    metrics: list[JSON]
    polls: int


class Deferred:
    """The batches of one workspace. `polls` is how often a status says no before the metrics are there."""

    def __init__(self, *, polls: int = 1) -> None:
        self._polls = polls
        self._pending: dict[str, _Pending] = {}
        self._done: dict[str, str] = {}
        self._asking = asyncio.Lock()  # complete means there, also for whoever asks at the same time

    async def __call__(self, call: Call, send: Send) -> Reply:
        """Answer what is of asynchronous logging: a middleware."""
        match call.method, call.path:
            case "POST", path if path == LOG:
                return await self._log(call, send)
            case "GET", path if path == STATUS:
                async with self._asking:
                    return await self._status(call, send)
            case _:
                return await send(call)

    async def _log(self, call: Call, send: Send) -> Reply:
        run_id, metrics = call.asked("run_id"), call.document.get("metrics") or []
        at_once = {"run_id": run_id, **{name: call.document.get(name) or [] for name in ("params", "tags")}}
        reply = await send(Call(method="POST", path=BATCH, document=at_once))
        if reply.status != 200:
            return reply
        batch = uuid4().hex if metrics else ""
        if metrics:
            self._pending[batch] = _Pending(run_id, metrics, self._polls)
        return replace(reply, document={"batch_tracking_id": batch})

    async def _status(self, call: Call, send: Send) -> Reply:
        run_id, batch = call.asked("run_id"), call.asked("batch_tracking_id")
        if not run_id or not batch:
            return Objection(message="Both run_id and batch_tracking_id are required.").to_reply()
        if self._done.get(batch) == run_id:
            return COMPLETE
        pending = self._pending.get(batch)
        if pending is None or pending.run_id != run_id:
            return Objection(message=f"No batch {batch} of run {run_id}.", code=MISSING, status=404).to_reply()
        if pending.polls:
            pending.polls -= 1
            return INCOMPLETE
        metrics = {"run_id": run_id, "metrics": pending.metrics}
        reply = await send(Call(method="POST", path=BATCH, document=metrics))
        if reply.status != 200:
            return reply
        del self._pending[batch]
        self._done[batch] = run_id
        return COMPLETE
