"""The emulated workspace in front of the vendor's own plugin, over TLS: what it trips over, the emulator does wrong."""

import asyncio
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from aiohttp import ClientSession, TCPConnector

from dualtrack.demo.servers import MlflowServer
from dualtrack.emulators.azureml_scope import AUDIENCE, DEFAULT_SCOPE
from dualtrack.emulators.azureml_workspace import STRICT, settings_of
from dualtrack.emulators.tokens import Tokens
from tests.support.clients import IMPATIENT, run_script
from tests.support.environments import client_python
from tests.support.identity import certified
from tests.support.servers import Control, emulating

pytestmark = pytest.mark.acceptance

HOST, STORAGE = "westeurope.api.azureml.ms", "workspace.blob.core.windows.net"
FILES = 60  # the plugin registers 50 at once
PAGE = 25  # so listings go on
SIZE = 64 * 1024 * 1024 + 1  # the plugin sends blocks from here on


@dataclass(frozen=True, slots=True)
class Trial:
    """What the plugin did, in its own words, and the calls that the workspace saw: their ends and queries."""

    done: dict[str, Any]
    calls: Counter[str]


async def tried(server: MlflowServer, folder: Path) -> Trial:
    """Run the plugin once, against the service as it is."""
    choices = replace(STRICT, page=PAGE, storage_origin=f"https://{STORAGE}")
    settings = settings_of(choices, upstream=server.url, tokens=Tokens(audiences=(AUDIENCE,)))
    tls, trusting = certified(folder, HOST, STORAGE)
    arguments = (f"plugin-{uuid4().hex}", str(FILES), str(SIZE))
    uri = f"azureml://{HOST}/mlflow/v1.0{DEFAULT_SCOPE}"
    python = await asyncio.to_thread(client_python, "azureml")
    async with emulating(settings, tls) as url:
        env = IMPATIENT | {
            "LOOPBACK_PORT": url.rpartition(":")[2],
            "REQUESTS_CA_BUNDLE": str(folder / "cert.pem"),
            "AZUREML_CURRENT_CLOUD": "AzureCloud",  # else it asks the resource manager which clouds there are
            "IDENTITY_ENDPOINT": f"{url}/__emulator__/identity",
            "IDENTITY_HEADER": "any",
        }
        done = await asyncio.to_thread(run_script, "azureml_plugin", uri, folder, *arguments, env=env, python=python)
        async with ClientSession(connector=TCPConnector(ssl=trusting)) as session:
            log = await Control(url, session).log()
    ends = ("batch/metadata", "log-batch-async", "get-run-data-status", "comp=block", "comp=blocklist")
    return Trial(done, Counter(end for each in log for end in ends if _ends(each, end)))


def _ends(entry: dict[str, Any], end: str) -> bool:
    return bool(entry["path"].endswith(end)) or end in entry["query"].split("&")


async def test_it_works_as_with_the_service(mlflow_primary: MlflowServer, tmp_path: Path) -> None:
    """All that the plugin can do works, and what fails with the service fails here."""
    trial = await tried(mlflow_primary, tmp_path)
    done = trial.done
    works = {key: done[key] for key in ("named", "found", "status", "params", "metrics", "tags", "history")}

    assert works == {
        "named": True,
        "found": True,
        "status": "FINISHED",
        "params": {"rate": "0.1", "depth": "3", "soon": "now"},
        "metrics": {"loss": 1 / 3, "acc": 0.7, "later": 1.5},
        "tags": {"who": "ann", "kind": "test"},
        "history": [[0, 0.5], [1, 0.7]],
    }
    assert done["root"].startswith(f"azureml://{HOST}/mlflow/v2.0{DEFAULT_SCOPE}/experiments/")
    assert done["root"].endswith(f"/runs/{done['run']}/artifacts")
    assert done["run"].count("-") == 4
    assert done["listed"] == [["d", True, -1], ["large", False, -1], ["many", True, -1]]
    assert done["read"] == ["some", SIZE, FILES]
    assert done["version"] == ["1", True, f"{done['root']}/d"]
    # only the batch with a metric is asked for: once too early, once in time
    assert (trial.calls["log-batch-async"], trial.calls["get-run-data-status"]) == (2, 2)
    assert trial.calls["batch/metadata"] == 5  # two files, two parts of a folder, and the one that was there
    assert (trial.calls["comp=block"], trial.calls["comp=blocklist"]) == (17, 1)
    assert "MaxResults must be less than 1000" in done["long"]
    assert done["ordered"].startswith("RestException: INVALID_PARAMETER_VALUE")
    assert "logged-models/search failed with error code 404" in done["below"]
    assert "Resource Conflict" in done["again"]
    assert "must be an artifact of this workspace" in done["foreign"]
    assert done["renamed"].startswith("RestException: BAD_REQUEST")
    assert done["deleted"].startswith("RestException: BAD_REQUEST")
