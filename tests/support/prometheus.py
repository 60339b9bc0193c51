"""A real Prometheus, in a process of its own, with the configuration and the rules that are shipped."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import yaml
from aiohttp import ClientSession

from dualtrack.demo.servers import POLL_SECONDS, Process, answers, free_port
from tests.support.tools import tool

SHIPPED = Path(__file__).parents[2] / "deploy" / "prometheus"


class Prometheus:
    """Asks one that runs."""

    def __init__(self, url: str, session: ClientSession) -> None:
        self._url = url
        self._session = session

    async def get(self, path: str, **params: str) -> Any:
        """What its API says; the answer has to be a success."""
        async with self._session.get(f"{self._url}/api/v1/{path}", params=params) as answer:
            document = await answer.json()
        assert document["status"] == "success", (params, document)
        return document["data"]

    async def ask(self, expr: str) -> list[float]:
        """The value of each sample that an expression has now."""
        return [float(sample["value"][1]) for sample in (await self.get("query", query=expr))["result"]]

    async def sees(self, expr: str, seconds: float = 60) -> None:
        """Wait until an expression has a sample: until something was scraped, or an alert was raised."""
        async with asyncio.timeout(seconds):
            while not await self.ask(expr):  # noqa: ASYNC110 - another process, which tells nobody when it has scraped
                await asyncio.sleep(POLL_SECONDS)


@asynccontextmanager
async def scraping(target: str, folder: Path, session: ClientSession) -> AsyncIterator[Prometheus]:
    """Run one that scrapes `target` every second, as the shipped configuration says otherwise."""
    program = tool("prometheus", "prometheus")
    config = yaml.safe_load((SHIPPED / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(SHIPPED / name) for name in config["rule_files"]]
    config["scrape_configs"][0]["static_configs"] = [{"targets": [target]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    url = f"http://127.0.0.1:{free_port()}"
    process = Process(
        [
            str(program),
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'series'}",
            f"--web.listen-address={url.removeprefix('http://')}",
        ],
        log_path=folder / "prometheus.log",
        env=dict(os.environ),
    )
    try:
        await asyncio.to_thread(process.wait_ready, lambda: answers(f"{url}/-/ready"))
        yield Prometheus(url, session)
    finally:
        await asyncio.to_thread(process.stop)
