"""`check --online`: who it is on each backend, and what to mend when it is nobody."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from dualtrack.app import OnlineReport, check_online
from dualtrack.backends.online import claims_of
from dualtrack.config import parse
from tests.support.identity import CLIENT_SECRET, IDENTITY_HEADER, Workspace, certified, jwt, serving
from tests.support.raw_server import answer, saying

SCOPE = "/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/w"
TOKEN = "dapi-s3cr3t"


@pytest.fixture
async def workspace() -> AsyncIterator[Workspace]:
    async with serving() as workspace:
        yield workspace


@pytest.fixture
def signed_in(workspace: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Workspace:
    """Variables of both vendors, for identities that this workspace issues tokens for."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("IDENTITY_ENDPOINT", f"{workspace.url}/msi/token")
    monkeypatch.setenv("IDENTITY_HEADER", IDENTITY_HEADER)
    monkeypatch.setenv("DATABRICKS_CLIENT_ID", "a-client")
    monkeypatch.setenv("DATABRICKS_CLIENT_SECRET", CLIENT_SECRET)
    return workspace


async def check(url: str, kind: str, auth: str, **more: str) -> OnlineReport:
    keys = "".join(f", {key}: {value}" for key, value in more.items())
    text = f"primary: a\nregistry: a\nbackends: {{a: {{url: '{url}', kind: {kind}, auth: {auth}{keys}}}}}\n"
    (report,) = await check_online(parse(text, {"TOKEN": TOKEN}, Path()))
    assert TOKEN not in str(report)
    assert CLIENT_SECRET not in str(report)
    assert IDENTITY_HEADER not in str(report)
    assert bool(report.hint) is not report.ok
    return report


async def check_databricks(workspace: Workspace) -> OnlineReport:
    return await check(workspace.url, "databricks", "{type: databricks}")


async def check_azure(workspace: Workspace) -> OnlineReport:
    auth = "{type: azure, credential: ManagedIdentityCredential}"
    return await check(f"{workspace.url}/mlflow/v2.0{SCOPE}", "azureml", auth)


async def check_plain(url: str, auth: str = '{type: token, token: "${TOKEN}"}', **more: str) -> OnlineReport:
    return await check(url, "mlflow", auth, **more)


# ---- who -----------------------------------------------------------------------------------------------------------


async def test_databricks_says_who_we_are(signed_in: Workspace) -> None:
    report = await check_databricks(signed_in)

    assert (report.ok, report.who) == (True, "ann@example.com")


async def test_a_databricks_that_does_not_say_is_fine(signed_in: Workspace) -> None:
    signed_in.user = None
    report = await check_databricks(signed_in)

    assert report.ok
    assert "does not say" in report.who


@pytest.mark.parametrize(
    ("claims", "who"),
    [
        ({"upn": "ann@example.com", "appid": "cli", "oid": "o", "tid": "t"}, "ann@example.com in tenant t"),
        ({"unique_name": "ann@example.com", "tid": "t"}, "ann@example.com in tenant t"),
        ({"appid": "app", "oid": "o", "tid": "t"}, "application app in tenant t"),
        ({"azp": "app"}, "application app"),
        ({"oid": "o", "tid": "t"}, "object o in tenant t"),
        ({"tid": "t"}, "signed in; the token does not say as whom"),
    ],
)
async def test_azure_ml_tells_by_the_claims_of_the_token(
    signed_in: Workspace, claims: dict[str, Any], who: str
) -> None:
    signed_in.claims = claims
    report = await check_azure(signed_in)

    assert (report.ok, report.who) == (True, who)


@pytest.mark.parametrize("token", ["", "dapi1", "a.b", "a.?.c", "a.AAAA.c", "a.W10.c", "a.b.c.d", "ä.ö.ü"])
def test_what_is_no_token_of_entra_says_nothing(token: str) -> None:
    assert claims_of(token) == {}


def test_claims_are_read_whatever_their_padding() -> None:
    assert [claims_of(jwt(oid="x" * length))["oid"] for length in range(4)] == ["", "x", "xx", "xxx"]


@pytest.mark.parametrize(
    ("auth", "who"),
    [
        ("{type: none}", "nobody"),
        ('{type: basic, username: ann, password: "${TOKEN}"}', "ann"),
        ('{type: token, token: "${TOKEN}"}', "whoever the token is for"),
    ],
)
async def test_mlflow_says_its_version(auth: str, who: str) -> None:
    async with saying(answer(200, b'{"experiments": []}'), answer(200, b"3.4.0")) as server:
        report = await check_plain(server.url, auth)

    assert report.ok
    assert report.who.startswith(who)
    assert "MLflow 3.4.0" in report.detail


@pytest.mark.parametrize("said", [answer(401), answer(403), answer(200)])
async def test_a_primary_that_clients_sign_in_to_is_asked_without(said: bytes) -> None:
    async with saying(said) as server:
        report = await check(server.url, "databricks", "{type: forward}")

    assert report.ok
    assert "each client" in report.who
    assert "authorization" not in server.heard[0].headers


async def test_a_page_instead_of_a_name_is_no_failure() -> None:
    async with saying(answer(200), answer(200, b"<html>")) as server:
        report = await check(server.url, "databricks", '{type: token, token: "${TOKEN}"}')

    assert report.ok
    assert "does not say" in report.who


# ---- what to mend --------------------------------------------------------------------------------------------------


async def test_no_sign_in(signed_in: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    signed_in.refuses = True
    databricks, azure = await check_databricks(signed_in), await check_azure(signed_in)

    assert (databricks.ok, azure.ok) == (False, False)
    assert "DATABRICKS_*" in databricks.hint
    assert "managed identity" in azure.hint


@pytest.mark.parametrize(
    ("status", "of_databricks", "of_azure", "of_mlflow"),
    [
        (401, "does not take its token", "`scope` and `authority`", "these credentials"),
        (403, "workspace_resource_id", "AzureML Data Scientist", "right to read"),
        (404, "without a path", "mlflow_tracking_uri", "with its path"),
    ],
)
async def test_a_refusal_says_the_next_step(
    signed_in: Workspace, status: int, of_databricks: str, of_azure: str, of_mlflow: str
) -> None:
    signed_in.answer = web.json_response({"error_code": "X", "message": "because"}, status=status)
    reports = [
        await check_databricks(signed_in),
        await check_azure(signed_in),
        await check_plain(signed_in.url),
    ]

    for report, words in zip(reports, (of_databricks, of_azure, of_mlflow), strict=True):
        assert not report.ok
        assert report.detail == f"HTTP {status}: because"
        assert words in report.hint


async def test_an_empty_404_is_the_wrong_workspace(signed_in: Workspace) -> None:
    """Azure ML answers an unknown path with nothing at all (facts A6)."""
    signed_in.answer = web.Response(status=404, body=b"")
    report = await check_azure(signed_in)

    assert report.detail.startswith("HTTP 404: ")
    assert "az ml workspace show" in report.hint


async def test_a_private_link() -> None:
    async with saying(answer(302, b"", "Location: /login.html?error=private-link-validation-error")) as server:
        report = await check(server.url, "databricks", '{type: token, token: "${TOKEN}"}')

    assert "302 redirects to /login.html" in report.detail
    assert "private link only" in report.hint


async def test_an_unknown_host() -> None:
    report = await check_plain("http://no-such-host.invalid")

    assert "DNS" in report.hint


async def test_a_server_without_tls(workspace: Workspace) -> None:
    report = await check_plain(workspace.url.replace("http:", "https:"))

    assert "TLS" in report.hint


async def test_a_certificate_that_nobody_trusts(tmp_path: Path) -> None:
    tls, _ = certified(tmp_path)
    async with serving(tls) as server:
        stranger = await check_plain(server.url)
        friend = await check_plain(server.url, ca_file=str(tmp_path / "cert.pem"))

    assert "`ca_file`" in stranger.hint
    assert friend.ok
