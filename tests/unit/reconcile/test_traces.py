"""Traces cost nothing where there are none, and are read whole where there are some."""

import asyncio
from typing import Any

import orjson
import pytest

from dualtrack.core.exchange import Answer, Call
from dualtrack.core.views import TraceView
from dualtrack.errors import UnreachableError
from dualtrack.reconcile.traces import Traces
from tests.support.hands import Hands


class Served:
    """Answers each search as it is told, the last answer for ever; keeps what it was asked."""

    name = "b"

    def __init__(self, *answers: Answer) -> None:
        self._answers = list(answers)
        self.asked: list[dict[str, Any]] = []

    async def send(self, call: Call) -> Answer:
        self.asked.append(orjson.loads(call.body))
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]


def listed(*names: str, token: str = "") -> Answer:
    told = [{"trace_id": name, "state": "OK", "tags": {"mlflow.traceName": "predict"}} for name in names]
    return Answer(status=200, body=orjson.dumps({"traces": told, "next_page_token": token}))


def refused(status: int, code: str = "") -> Answer:
    return Answer(status=status, error_code=code)


NONE = listed()
DENIED = refused(403, "PERMISSION_DENIED")


def read(traces: Traces, run_id: str = "r1", experiment_id: str = "7") -> Any:
    return asyncio.run(traces.of(run_id, experiment_id))


def make(backend: Served, clock: Hands | None = None) -> Traces:
    return Traces(backend, clock or Hands())  # type: ignore[arg-type]  # it sends, and does nothing else


def test_an_experiment_without_traces_is_asked_about_once_in_a_while() -> None:
    """However many runs it has; later there may be some."""
    backend, clock = Served(NONE), Hands()
    traces = make(backend, clock)
    found = [read(traces, f"r{number}") for number in range(50)]
    clock.at += 61.0
    read(traces)

    assert found == [{}] * 50
    assert [asked.get("filter") for asked in backend.asked] == [None, None]


def test_other_experiments_are_asked_about_on_their_own() -> None:
    backend = Served(NONE, listed("t1"), listed("t1"))
    traces = make(backend)

    assert (read(traces), list(read(traces, "r2", "8"))) == ({}, ["t1"])
    assert [asked["locations"][0]["mlflow_experiment"]["experiment_id"] for asked in backend.asked] == ["7", "8", "8"]


def test_those_of_a_run_are_read_page_by_page() -> None:
    first = {
        "trace_id": "t1",
        "state": "OK",
        "request_time": "2026-05-01T12:00:00Z",
        "execution_duration": "1.500s",
        "request_preview": "in",
        "response_preview": "out",
        "tags": {"mlflow.traceName": "predict", "k": "v", "mlflow.artifactLocation": "mlflow-artifacts:/1/traces/t1"},
    }
    page = Answer(status=200, body=orjson.dumps({"traces": [first], "next_page_token": "more"}))
    backend = Served(listed("t0"), page, listed("t2"))
    found = read(make(backend))

    assert list(found) == ["t1", "t2"]
    assert found["t1"] == TraceView(
        name="predict",
        state="OK",
        request_time="2026-05-01T12:00:00Z",
        duration="1.500s",
        request="in",
        response="out",
        tags={"mlflow.traceName": "predict", "k": "v"},
    )
    assert [asked.get("filter") for asked in backend.asked] == [None, *["attributes.run_id = 'r1'"] * 2]
    assert [asked.get("page_token") for asked in backend.asked] == [None, None, "more"]


@pytest.mark.parametrize(
    ("answer", "times"),
    [
        (refused(403), 1),
        (refused(404), 1),
        (refused(404, "ENDPOINT_NOT_FOUND"), 1),
        (refused(501), 1),
        (DENIED, 2),
        (refused(404, "RESOURCE_DOES_NOT_EXIST"), 2),
        (refused(400, "INVALID_PARAMETER_VALUE"), 2),
    ],
)
def test_a_backend_without_traces_is_asked_once_in_a_while(answer: Answer, times: int) -> None:
    """As Azure ML, which says nothing but 403; a refusal that is about one experiment is not about the next."""
    backend = Served(answer)
    traces = make(backend)

    assert [read(traces), read(traces, "r2", "8")] == [None, None]
    assert len(backend.asked) == times


def test_a_gateway_that_refused_for_a_while_is_not_remembered_for_ever() -> None:
    backend, clock = Served(refused(403), listed("t1"), listed("t1")), Hands()
    traces = make(backend, clock)
    before = read(traces)
    clock.at += 61.0

    assert (before, list(read(traces))) == (None, ["t1"])


def test_too_many_of_one_run_are_not_compared() -> None:
    """Half of them would look like a difference."""
    pages = [listed(*(f"t{page}.{number}" for number in range(100)), token="more") for page in range(11)]
    backend = Served(listed("t"), *pages)

    assert read(make(backend)) is None
    assert len(backend.asked) == 12


@pytest.mark.parametrize("answer", [refused(503), refused(429), Answer(status=200, body=b"<html>")])
def test_trouble_is_no_absence(answer: Answer) -> None:
    with pytest.raises(UnreachableError):
        read(make(Served(answer)))


def test_what_is_remembered_is_bounded() -> None:
    traces = make(Served(NONE))
    for number in range(2500):
        read(traces, "r", str(number))

    assert len(traces._empty) <= 1000
