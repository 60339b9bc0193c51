"""Alerts about the process itself, raised by a real Prometheus about a real `dualtrack serve` that is really killed."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import ClientSession

from dualtrack.demo.servers import free_port
from tests.support.prometheus import Prometheus, scraping
from tests.support.proxy import Dualtrack

STARTS = "changes(dualtrack_process_start_time_seconds[15m])"
RESTARTING = 'ALERTS{alertname="DualtrackRestarting", alertstate="firing"}'


@pytest.fixture
async def watched(tmp_path: Path) -> AsyncIterator[tuple[Dualtrack, Prometheus]]:
    """A proxy between two backends that are down, which is all the same to it, and who scrapes it."""
    urls = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    proxy = Dualtrack(tmp_path / "proxy", *urls)
    await asyncio.to_thread(proxy.start)
    try:
        target = proxy.admin_url.removeprefix("http://")
        async with ClientSession() as session, scraping(target, tmp_path, session) as prometheus:
            yield proxy, prometheus
    finally:
        await asyncio.to_thread(proxy.process.stop)


async def test_restarts_and_an_end_are_noticed(watched: tuple[Dualtrack, Prometheus]) -> None:
    """Two restarts are nothing, a third one is; a proxy that is gone is down."""
    proxy, prometheus = watched
    for restarts in range(3):
        await prometheus.sees(f"{STARTS} == {restarts}")
        assert await prometheus.ask(RESTARTING) == []
        proxy.kill()
        await asyncio.to_thread(proxy.start)

    await prometheus.sees(RESTARTING)
    assert await prometheus.ask(STARTS) == [3]
    proxy.kill()
    await prometheus.sees('ALERTS{alertname="DualtrackDown", alertstate="pending"}')
