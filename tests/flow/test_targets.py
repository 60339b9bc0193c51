"""P6 and P9: a request target that is no plain path reaches nobody, least of all another host with our token."""

import pytest

from dualtrack.backends.auth import Fixed
from dualtrack.backends.http import HttpBackend
from dualtrack.metrics import Metrics
from tests.support.flow import API, Running, Workspace, raw


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "work://x/"),
        ("POST", f"/{API.lstrip('/')}registered-models/create#x"),
        ("POST", f"/{API.lstrip('/')}runs/create#"),
        ("TRACE", "/"),
    ],
)
async def test_a_target_that_is_no_path_reaches_nobody(proxy: Running, a: Workspace, method: str, target: str) -> None:
    """Also not the registry's neighbour: what the table does not see, a backend might."""
    before = await a.writes()

    reply = await raw(proxy.url, f"{method} {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())

    assert 400 <= reply.status < 500
    assert await a.writes() == before


@pytest.mark.parametrize("target", [".evil.example/", "@evil.example/", "work://x/"])
async def test_a_backend_is_never_asked_elsewhere(target: str) -> None:
    backend = HttpBackend(
        "a",
        "https://adb-1.example",
        Fixed({"Authorization": "Bearer secret"}),
        Metrics(),
        connect_timeout=1,
        read_timeout=1,
        call_timeout=1,
        connections=1,
        tls=True,
        user_agent="test",
    )
    try:
        with pytest.raises(ValueError, match="is no path on"):
            async with backend.stream("GET", target, {}, None):
                pass
    finally:
        await backend.close()
