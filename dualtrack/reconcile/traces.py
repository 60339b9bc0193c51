"""Reads the traces of a run, where a backend serves them; they are compared only, as nothing mirrors them yet.

It must cost nothing where there are none: an experiment without traces is asked about once in a while, and its runs are
not asked about; so is a backend without any. Asked by MLflow's routes of 3.0; a backend that lacks those, or forbids
them (Azure ML), has no traces.
"""

from collections.abc import Mapping

from dualtrack.core.exchange import JSON, Answer, Document
from dualtrack.core.verdict import describe, lacks_route
from dualtrack.core.views import TraceView
from dualtrack.errors import UnreachableError
from dualtrack.ports import Backend, Clock
from dualtrack.translate.document import MalformedError, field, objects, parse, text
from dualtrack.translate.listing import search_traces

_KEPT_SECONDS = 60.0  # an experiment without traces, or a backend, is asked about again after this
_KEPT = 1000  # of such experiments
_MOST = 1000  # traces of one run; where there are more they are not compared
_NO = frozenset({400, 403, 404, 405, 501})
_SERVERS_OWN = frozenset({"mlflow.artifactLocation", "mlflow.trace.spansLocation"})  # each side's own place


class Traces:
    """Of one backend; ids are its own."""

    def __init__(self, backend: Backend, clock: Clock) -> None:
        self._backend = backend
        self._clock = clock
        self._unserved_until = 0.0
        self._empty: dict[str, float] = {}

    async def of(self, run_id: str, experiment_id: str) -> Mapping[str, TraceView] | None:
        """Read those of a run, by their ids; None where the backend has no traces, or too many for a run."""
        if self._unserved_until > self._clock.now():
            return None
        if self._empty.get(experiment_id, 0.0) > self._clock.now():
            return {}
        first = await self._page(experiment_id, "", "", 1)
        if first is not None and not objects(first.get("traces")):
            self._remember(experiment_id)
            return {}
        return await self._all(run_id, experiment_id) if first is not None else None

    def _remember(self, experiment_id: str) -> None:
        if len(self._empty) >= _KEPT:
            self._empty.clear()
        self._empty[experiment_id] = self._clock.now() + _KEPT_SECONDS

    async def _all(self, run_id: str, experiment_id: str) -> Mapping[str, TraceView] | None:
        found: dict[str, TraceView] = {}
        token = ""
        while len(found) <= _MOST:
            page = await self._page(experiment_id, run_id, token, 100)
            if page is None:
                return None
            found |= {text(each.get("trace_id")): _view(each) for each in objects(page.get("traces"))}
            token = text(page.get("next_page_token"))
            if not token:
                return found
        return None

    async def _page(self, experiment_id: str, run_id: str, token: str, size: int) -> Document | None:
        call = search_traces(experiment_id, run_id, token, size)
        answer = await self._backend.send(call)
        if answer.status in _NO:
            # a refusal that says nothing is of no endpoint, or of a gateway for a while; one with a code is about this
            # experiment
            if not answer.error_code or lacks_route(answer):
                self._unserved_until = self._clock.now() + _KEPT_SECONDS
            return None
        if not answer.is_success:
            raise UnreachableError(self._backend.name, call.operation, describe(answer), retry_after=answer.retry_after)
        return self._parsed(answer)

    def _parsed(self, answer: Answer) -> Document:
        try:
            return parse(answer.body)
        except MalformedError as error:
            cause = f"an unreadable answer: {error}"
            raise UnreachableError(self._backend.name, "searchTracesV3", cause) from error


def _view(trace: Document) -> TraceView:
    tags = field(trace, "tags")
    told: Mapping[str, JSON] = tags if isinstance(tags, dict) else {}
    return TraceView(
        name=text(told.get("mlflow.traceName")),
        state=text(trace.get("state")),
        request_time=text(trace.get("request_time")),
        duration=text(trace.get("execution_duration")),
        request=text(trace.get("request_preview")),
        response=text(trace.get("response_preview")),
        tags={key: text(value) for key, value in told.items() if key not in _SERVERS_OWN},
    )
