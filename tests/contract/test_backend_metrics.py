"""What a backend's metrics say of its calls: answered or not, throttled, signed in; nothing before it is known."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeAlias

import pytest

from dualtrack.backends.auth import Fixed, SignIn, TokenFile, bearer
from dualtrack.backends.http import HttpBackend
from dualtrack.core.exchange import Call
from dualtrack.errors import UnauthorizedError, UnreachableError
from dualtrack.metrics import Metrics
from tests.support.raw_server import DROP, RawServer, Silence, answer, saying

TARGET = "/api/2.0/mlflow/runs/search"
OWN = {"Authorization": "Bearer of-the-client"}

Way: TypeAlias = Callable[[HttpBackend, Mapping[str, str]], Awaitable[int]]


async def by_exchange(backend: HttpBackend, headers: Mapping[str, str]) -> int:
    return (await backend.exchange("POST", TARGET, headers, b"{}")).status


async def by_stream(backend: HttpBackend, headers: Mapping[str, str]) -> int:
    async with backend.stream("POST", TARGET, headers, b"{}") as reply:
        return reply.status


async def by_send(backend: HttpBackend, headers: Mapping[str, str]) -> int:
    return (await backend.send(Call(operation="searchRuns", method="POST", target=TARGET, body=b"{}"))).status


async def by_transfer(backend: HttpBackend, headers: Mapping[str, str]) -> int:
    async with backend.transfer("GET", TARGET, headers) as reply:
        return reply.status


every_way = pytest.mark.parametrize("way", [by_exchange, by_stream, by_send, by_transfer])


class Seen:
    """A backend, and what its metrics say."""

    def __init__(self, backend: HttpBackend, metrics: Metrics) -> None:
        self.backend = backend
        self._metrics = metrics

    def __call__(self, name: str, **labels: str) -> float | None:
        return self._metrics.registry.get_sample_value(f"dualtrack_{name}", {"backend": "one", **labels})


@asynccontextmanager
async def told(*answers: bytes | Silence, sign_in: SignIn | None = None) -> AsyncIterator[tuple[Seen, RawServer]]:
    metrics = Metrics()
    async with saying(*answers) as server:
        backend = HttpBackend(
            "one",
            server.url,
            sign_in or bearer("ours"),
            metrics,
            connect_timeout=5.0,
            read_timeout=30.0,
            call_timeout=30.0,
            connections=4,
            tls=True,
            user_agent="dualtrack/test",
        )
        try:
            yield Seen(backend, metrics), server
        finally:
            await backend.close()


async def test_nothing_is_said_before_the_first_call() -> None:
    """An idle secondary is not one that is down."""
    async with told(answer(200)) as (seen, _):
        assert (seen("backend_up"), seen("signed_in")) == (None, None)
        assert seen("upstream_calls_total", outcome="5xx") == 0
        assert seen("throttled_total") == 0


@every_way
@pytest.mark.parametrize(("status", "outcome"), [(200, "2xx"), (404, "4xx"), (429, "4xx"), (503, "5xx")])
async def test_a_call_counts_by_the_class_of_its_status(way: Way, status: int, outcome: str) -> None:
    async with told(answer(status)) as (seen, _):
        assert await way(seen.backend, {}) == status

        assert seen("upstream_calls_total", outcome=outcome) == 1
        assert seen("throttled_total") == (1 if status == 429 else 0)
        assert seen("backend_up") == (0 if status == 503 else 1)


@every_way
async def test_a_call_without_an_answer_is_counted_too(way: Way) -> None:
    async with told(DROP) as (seen, _):
        with pytest.raises(UnreachableError):
            await way(seen.backend, {})

        assert seen("upstream_calls_total", outcome="unanswered") == 1
        assert seen("backend_up") == 0


@every_way
async def test_a_refused_signature_is_seen_until_one_is_taken(way: Way) -> None:
    """A 5xx says nothing of it, either way."""
    refusals = 1 if way in {by_exchange, by_stream} else 2  # the others send it again, although no token is newer
    async with told(answer(200), *[answer(401)] * refusals, answer(503), answer(200)) as (seen, _):
        said = [(await way(seen.backend, {}), seen("signed_in")) for _ in range(4)]

    assert said == [(200, 1), (401, 0), (503, 0), (200, 1)]


class Renewing:
    """Has a token that ended, and a new one for who asks again."""

    async def headers(self, *, fresh: bool = False) -> Mapping[str, str]:
        return {"Authorization": "Bearer new" if fresh else "Bearer old"}

    async def close(self) -> None:
        return None


@every_way
async def test_a_token_that_ended_and_was_replaced_is_no_failure(way: Way) -> None:
    async with told(answer(401), answer(200), sign_in=Renewing()) as (seen, server):
        assert await way(seen.backend, {}) == 200

        assert [each.headers["authorization"] for each in server.heard] == ["Bearer old", "Bearer new"]
        assert seen("signed_in") == 1


@every_way
async def test_a_sign_in_that_fails_is_seen(way: Way, tmp_path: Path) -> None:
    async with told(answer(200), sign_in=TokenFile("one", tmp_path / "missing")) as (seen, _):
        with pytest.raises(UnauthorizedError):
            await way(seen.backend, {})

        assert seen("signed_in") == 0
        assert seen("backend_up") is None


@every_way
@pytest.mark.parametrize("status", [200, 401])
async def test_without_a_signature_of_ours_nothing_is_said_of_it(way: Way, status: int) -> None:
    """Clients sign, or nobody: what we ask there by ourselves may well be refused."""
    async with told(answer(status), sign_in=Fixed({})) as (seen, _):
        assert await way(seen.backend, OWN) == status

        assert seen("signed_in") is None
        assert seen("backend_up") == 1
