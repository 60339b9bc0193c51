"""The dashboard that is shipped, as what it asks."""

import asyncio
import math
import time
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

import orjson

from dualtrack.demo.servers import POLL_SECONDS
from tests.support.prometheus import Prometheus

DASHBOARD: dict[str, Any] = orjson.loads(
    (Path(__file__).parents[2] / "deploy" / "grafana" / "dualtrack.json").read_bytes()
)
PANELS: list[dict[str, Any]] = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
EXPRESSIONS = [(str(panel["title"]), str(target["expr"])) for panel in PANELS for target in panel["targets"]]
# what Grafana puts in; the window spans all of the story below
VARIABLES = {"$instance": ".*", "$backend": ".*", "$__rate_interval": "1h"}
_PATIENCE_SECONDS = 60


async def shows_all(prometheus: Prometheus, but: AbstractSet[str] = frozenset()) -> None:
    """Wait until every panel but those has something to show: after a scrape that failed nothing is, until the next."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while silent := [each for each in await empty(prometheus) if each[0] not in but]:
        assert time.monotonic() < deadline, silent
        await asyncio.sleep(POLL_SECONDS)


async def empty(prometheus: Prometheus) -> list[tuple[str, str]]:
    """The panels that have nothing to show, or nothing that is a number."""
    found = []
    for title, expression in EXPRESSIONS:
        asked = expression
        for name, value in VARIABLES.items():
            asked = asked.replace(name, value)
        assert "$" not in asked, (title, asked)
        if not any(math.isfinite(value) for value in await prometheus.ask(asked)):
            found.append((title, asked))
    return found
