"""A primary that sends API calls to a login page, as Databricks does behind a private link, has refused them."""

from collections.abc import AsyncIterator

import pytest
from aiohttp import ClientSession

from dualtrack.config import parse
from dualtrack.demo.compare import Side
from dualtrack.demo.servers import free_port
from tests.support.flow import API, Launcher, Running, Workspace, raw, request
from tests.support.raw_server import RawServer, answer, saying
from tests.support.servers import Control

PRIVATE_LINK = "/login.html?error=private-link-validation-error&next=s3cr3t"


@pytest.fixture(params=[PRIVATE_LINK, "https://login.microsoftonline.com/t/oauth2/authorize?state=s3cr3t"])
async def primary(request: pytest.FixtureRequest) -> AsyncIterator[RawServer]:
    async with saying(answer(302, b"", f"Location: {request.param}")) as server:
        yield server


@pytest.fixture
async def proxy(launch: Launcher, primary: RawServer, session: ClientSession) -> Running:
    text = f"""
        primary: a
        registry: a
        backends: {{a: {{url: "{primary.url}"}}, b: {{url: "http://127.0.0.1:{free_port()}"}}}}
        listen: {{port: {free_port()}}}
        admin: {{port: {free_port()}}}
    """
    side = Side(name="a", url=primary.url)
    workspace = Workspace(name="a", url=primary.url, side=side, control=Control(primary.url, session))
    return await launch.launch(parse(text, {}, launch.folder), workspace)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", f"{API}experiments/create", b'{"name": "e"}'),  # mirrored
        ("POST", f"{API}runs/search", b'{"experiment_ids": ["1"]}'),  # read, and its roots looked at
        ("GET", f"{API}metrics/get-history?run_id=1&metric_key=m", b""),  # streamed
        ("POST", f"{API}registered-models/create", b'{"name": "m"}'),  # the registry's
        ("POST", "/api/9.9/unknown", b"{}"),
    ],
)
async def test_a_client_gets_an_error_and_no_redirect(proxy: Running, method: str, path: str, body: bytes) -> None:
    """MLflow's clients follow redirects, and would take the page for an answer."""
    reply = await raw(proxy.url, request(method, path, body=body))

    assert (reply.status, reply.code) == (403, "PERMISSION_DENIED")
    assert "Location" not in reply.headers
    assert "sends this call to a login page" in reply.json["message"]
    assert "s3cr3t" not in reply.json["message"]


async def test_the_error_says_what_to_do(proxy: Running, primary: RawServer) -> None:
    reply = await proxy.call("POST", "experiments/create", {"name": "e"})

    is_private = b"private-link" in next(said for said in primary.answers if isinstance(said, bytes))
    assert ("private link" in reply.json["message"]) is is_private
    assert ("`auth`" in reply.json["message"]) is not is_private


async def test_a_write_that_was_refused_so_is_not_mirrored(proxy: Running) -> None:
    await proxy.call("POST", "experiments/create", {"name": "e"})

    journal = proxy.app.journal
    assert journal is not None
    assert (await journal.usage()).entries == 0

    async def is_forgotten() -> bool:  # soon, as nobody waits for that
        return await journal.left_open(lambda _: None) == []

    await proxy.until(is_forgotten)
