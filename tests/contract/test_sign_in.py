"""Signing in: the vendors' own libraries against a real endpoint; one sign-in for all, renewed, healed, bounded."""

import asyncio
import logging
import os
import threading
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from math import inf
from pathlib import Path
from typing import TypeAlias

import pytest

from dualtrack.backends.auth import (
    AzureTokens,
    Cached,
    DatabricksTokens,
    Membership,
    Signature,
    SignIn,
    bearer,
    make_credential,
    signature,
)
from dualtrack.backends.auth.threads import Threads
from dualtrack.backends.http import HttpBackend
from dualtrack.core.azure import DATABRICKS_SCOPE, PUBLIC
from dualtrack.core.exchange import Call
from dualtrack.errors import UnauthorizedError
from dualtrack.metrics import Metrics
from tests.support.hands import Hands
from tests.support.identity import CLIENT_SECRET, IDENTITY_HEADER, Workspace, certified, serving
from tests.support.raw_server import answer, saying

SEARCH = "/api/2.0/mlflow/experiments/search?max_results=1"
RESOURCE = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Databricks/workspaces/w"


@pytest.fixture
async def workspace() -> AsyncIterator[Workspace]:
    async with serving() as workspace:
        yield workspace


@pytest.fixture
def nobody_signed_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variables, no profile, no command line tools, no metadata service: nothing to sign in with, no network."""
    for name in [
        name for name in os.environ if name.startswith(("AZURE_", "ARM_", "DATABRICKS_", "IDENTITY_", "MSI_"))
    ]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.fixture
def managed(nobody_signed_in: None, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """The workspace also issues the tokens of this machine's managed identity."""
    monkeypatch.setenv("IDENTITY_ENDPOINT", f"{workspace.url}/msi/token")
    monkeypatch.setenv("IDENTITY_HEADER", IDENTITY_HEADER)
    return workspace


@pytest.fixture
def machine(nobody_signed_in: None, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """The variables of Databricks' OAuth for machines are set."""
    monkeypatch.setenv("DATABRICKS_CLIENT_ID", "a-client")
    monkeypatch.setenv("DATABRICKS_CLIENT_SECRET", CLIENT_SECRET)
    return workspace


def azure(name: str = "ManagedIdentityCredential", *, membership: Membership | None = None) -> AzureTokens:
    scope = PUBLIC.resource_manager if membership is None else DATABRICKS_SCOPE
    return AzureTokens("azure", name, make_credential("azure", name, {}, None), scope, membership)


def databricks(workspace: Workspace, profile: str | None = None) -> DatabricksTokens:
    return DatabricksTokens("databricks", workspace.url, profile)


@asynccontextmanager
async def backend_at(url: str, sign_in: SignIn) -> AsyncIterator[HttpBackend]:
    backend = HttpBackend(
        "azure",
        url,
        sign_in,
        Metrics(),
        connect_timeout=5.0,
        read_timeout=30.0,
        call_timeout=30.0,
        connections=64,
        tls=True,
        user_agent="dualtrack/test",
    )
    try:
        yield backend
    finally:
        await backend.close()


Way: TypeAlias = Callable[[HttpBackend, dict[str, str]], Awaitable[int]]


async def by_exchange(backend: HttpBackend, headers: dict[str, str]) -> int:
    return (await backend.exchange("POST", SEARCH, headers, b"{}")).status


async def by_stream(backend: HttpBackend, headers: dict[str, str]) -> int:
    async with backend.stream("GET", SEARCH, headers, None) as reply:
        return reply.status


async def status_of(backend: HttpBackend) -> int:
    return (await backend.exchange("POST", SEARCH, {}, b"{}")).status


# ---- azure-identity ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ManagedIdentityCredential", "default"])
async def test_fifty_requests_at_once_make_one_sign_in(managed: Workspace, name: str) -> None:
    async with backend_at(managed.url, Cached("azure", azure(name))) as backend:
        statuses = await asyncio.gather(*(status_of(backend) for _ in range(50)))

    assert set(statuses) == {200}
    assert managed.sign_ins == 1
    assert managed.scopes == ["https://management.azure.com"]


@pytest.mark.parametrize("refusal", [(401, "no"), (403, "Invalid access token."), (400, "ExpiredJwtException: at 5")])
@pytest.mark.parametrize("way", ["exchange", "send", "stream", "transfer"])
async def test_a_refused_token_is_healed_by_a_new_one(managed: Workspace, way: str, refusal: tuple[int, str]) -> None:
    """azure-identity would give the refused one again, for it has not ended. Not every refusal is a 401."""
    managed.refusal = refusal
    async with backend_at(managed.url, Cached("azure", azure())) as backend:
        assert await status_of(backend) == 200
        managed.revoke()

        if way == "exchange":
            status = await status_of(backend)
        elif way == "send":
            status = (await backend.send(Call(operation="x", method="POST", target=SEARCH))).status
        else:
            async with getattr(backend, way)("GET", SEARCH, {}, None) as reply:
                status = reply.status

    assert status == 200
    assert managed.sign_ins == 2


@pytest.mark.parametrize("size", [10, 300_000])
@pytest.mark.parametrize("way", ["stream", "transfer"])
async def test_another_refusal_passes_whole(way: str, size: int) -> None:
    """What was read of it to know what it is about is not missing from it."""
    body = b'{"error_code": "PERMISSION_DENIED", "message": "' + b"x" * size + b'"}'
    async with (
        saying(answer(403, body)) as server,
        backend_at(server.url, bearer("t")) as backend,
        getattr(backend, way)("GET", SEARCH, {}, None) as reply,
    ):
        said = b"".join([chunk async for chunk in reply.body])

    assert (reply.status, said) == (403, body)


@pytest.mark.parametrize("way", [by_exchange, by_stream])
async def test_credentials_of_the_client_are_the_clients_affair(managed: Workspace, way: Way) -> None:
    """With `forward`, a 401 is the answer: there is nothing that we could renew."""
    async with backend_at(managed.url, Cached("azure", azure())) as backend:
        assert await way(backend, {"authorization": "Bearer of-the-client"}) == 401

    assert len(managed.heard) == 1
    assert managed.sign_ins == 1


@pytest.mark.parametrize("way", [by_exchange, by_stream])
async def test_a_refused_token_that_cannot_be_replaced_is_said(managed: Workspace, way: Way) -> None:
    async with backend_at(managed.url, Cached("azure", azure())) as backend:
        assert await way(backend, {}) == 200
        managed.revoke()
        managed.refuses = True

        with pytest.raises(UnauthorizedError, match="managed identity"):
            await way(backend, {})


async def test_a_body_that_is_gone_is_not_sent_again_but_the_next_one_is_signed(managed: Workspace) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"once"

    async with backend_at(managed.url, Cached("azure", azure())) as backend:
        await status_of(backend)
        managed.revoke()
        async with backend.stream("PUT", "/file", {}, body()) as reply:
            status = reply.status

        assert status == 401
        assert await status_of(backend) == 200
    assert managed.sign_ins == 2


async def test_refused_tokens_of_many_requests_are_replaced_once(managed: Workspace) -> None:
    async with backend_at(managed.url, Cached("azure", azure())) as backend:
        await status_of(backend)
        managed.revoke()

        statuses = await asyncio.gather(*(status_of(backend) for _ in range(20)))

    assert set(statuses) == {200}
    assert managed.sign_ins == 2


async def test_a_workspace_that_refuses_every_token_is_not_answered_by_ever_more_sign_ins(managed: Workspace) -> None:
    managed.takes_none = True
    async with backend_at(managed.url, Cached("azure", azure())) as backend:
        statuses = [await status_of(backend) for _ in range(5)]

    assert set(statuses) == {401}
    assert managed.sign_ins == 2


async def test_a_token_is_renewed_before_it_ends(managed: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """No request is ever signed with one that has ended, and none of them gets a 401 on the way.

    Time goes on between requests alone, for us, for the library and for the workspace.
    """
    real, hands = time.time, Hands(0.0)

    def now() -> float:
        return real() + hands.at

    monkeypatch.setattr(time, "time", now)
    managed.life = 500
    async with backend_at(managed.url, Cached("azure", azure(), now=now)) as backend:
        statuses = []
        while hands.at < 4 * managed.life:
            statuses.append(await status_of(backend))
            hands.at += 10

    assert set(statuses) == {200}
    assert len(managed.heard) == len(statuses)
    assert 5 <= managed.sign_ins <= 9  # before each end, and not in the first half of a life


async def test_a_principal_that_is_no_member_shows_its_role(managed: Workspace) -> None:
    """Facts B5 and E: two more headers, and the scope whose resource ends in a slash."""
    membership = Membership(resource_id=RESOURCE, scope=PUBLIC.management)
    async with backend_at(managed.url, Cached("azure", azure(membership=membership))) as backend:
        await status_of(backend)

    assert managed.scopes == ["2ff814a6-3304-4ab8-85cb-cd0e6f879c1d", "https://management.core.windows.net/"]
    (headers,) = managed.heard
    assert headers["Authorization"] == f"Bearer {managed.issued[0]}"
    assert headers["X-Databricks-Azure-Workspace-Resource-Id"] == RESOURCE
    assert headers["X-Databricks-Azure-SP-Management-Token"] == managed.issued[1]


@pytest.fixture
async def entra(nobody_signed_in: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[Workspace]:
    """An Entra authority over TLS, whose certificate azure-identity trusts here."""
    server, client = certified(tmp_path)
    monkeypatch.setattr("aiohttp.connector._SSL_CONTEXT_VERIFIED", client)
    async with serving(server) as entra:
        yield entra


def principal(entra: Workspace, name: str, **given: str) -> Cached:
    told = {"tenant_id": "a-tenant", "client_id": "a-client", **given}
    return Cached(
        "azure", AzureTokens("azure", name, make_credential("azure", name, told, entra.url), "scope/.default")
    )


async def test_a_service_principal_signs_in(entra: Workspace, tmp_path: Path) -> None:
    """By its secret, or by its certificate; again with a new token after a 401."""
    secret = principal(entra, "ClientSecretCredential", client_secret=CLIENT_SECRET)
    certificate = principal(entra, "CertificateCredential", certificate_path=str(tmp_path / "both.pem"))
    for sign_in in (secret, certificate):
        first = await sign_in.headers()
        again = await sign_in.headers()
        fresh = await sign_in.headers(fresh=True)
        await sign_in.close()

        assert first == again == {"Authorization": f"Bearer {entra.issued[-2]}"}
        assert fresh == {"Authorization": f"Bearer {entra.issued[-1]}"}
    assert entra.scopes == ["scope/.default"] * 4


async def test_a_service_principal_that_is_refused_is_told_why(entra: Workspace) -> None:
    sign_in = principal(entra, "ClientSecretCredential", client_secret="s3cr3t-that-is-wrong")

    with pytest.raises(UnauthorizedError, match=r"AADSTS7000215.*check tenant_id, client_id") as caught:
        await sign_in.headers()
    await sign_in.close()
    assert "s3cr3t" not in "".join(traceback.format_exception(caught.value)) + repr(vars(caught.value))


async def test_azure_says_what_is_missing(nobody_signed_in: None) -> None:
    """The real azure-identity: a credential that finds no variables fails before it goes anywhere."""
    sign_in = Cached("azure", azure("EnvironmentCredential"))

    with pytest.raises(UnauthorizedError, match=r"azure-identity: EnvironmentCredential .*\(check the AZURE_\*"):
        await sign_in.headers()
    await sign_in.close()


async def test_a_hanging_identity_endpoint_slows_nobody_else(managed: Workspace) -> None:
    """P3: a request to the other backend takes as long as ever, while one here waits for its token."""
    managed.issuing.clear()
    async with (
        saying() as other,
        backend_at(managed.url, Cached("azure", azure())) as stuck,
        backend_at(other.url, bearer("t")) as free,
        asyncio.TaskGroup() as group,
    ):
        waiting = group.create_task(status_of(stuck))
        await managed.asked.wait()
        for _ in range(20):
            await status_of(free)
        assert not waiting.done()
        managed.issuing.set()

    assert waiting.result() == 200


class FakeAccess:
    def __init__(self, number: int) -> None:
        self.token, self.expires_on, self.refresh_on = f"t{number}", int(time.time()) + 3600, None


class Person:
    """Stands for the blocking credentials, which only a person can satisfy."""

    def __init__(self) -> None:
        self.claims: list[str | None] = []
        self.is_closed = False
        self.asked, self.answers = threading.Event(), threading.Event()

    def get_token_info(self, *_: str, options: dict[str, str] | None = None) -> FakeAccess:
        self.claims.append((options or {}).get("claims"))
        self.asked.set()
        self.answers.wait(60)
        return FakeAccess(len(self.claims))

    def close(self) -> None:
        self.is_closed = True


async def test_a_person_is_waited_for_in_a_thread_and_not_asked_again(workspace: Workspace) -> None:
    """The event loop goes on meanwhile; after a 401 the same credential is asked for a younger token."""
    person = Person()
    source = AzureTokens("azure", "DeviceCodeCredential", lambda: person, "scope")
    sign_in = Cached("azure", source)
    async with asyncio.TaskGroup() as group:
        first = group.create_task(sign_in.headers())
        await asyncio.to_thread(person.asked.wait, 60)
        await settled()
        was_waiting = not first.done()
        person.answers.set()
    second = await sign_in.headers(fresh=True)
    await sign_in.close()

    assert was_waiting
    assert (first.result()["Authorization"], second["Authorization"]) == ("Bearer t1", "Bearer t2")
    assert person.claims[0] is None
    assert '"nbf"' in str(person.claims[1])
    assert person.is_closed
    assert source.patience > 600


def test_a_device_code_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """The real class, told to prompt; what it prompts is a warning, so that it is seen at any level."""
    credential = make_credential("azure", "DeviceCodeCredential", {"tenant_id": "t"}, "login.chinacloudapi.cn")()
    with caplog.at_level(logging.WARNING):
        credential._prompt_callback("https://example.org/device", "ABC-DEF", "noon")
    credential.close()

    assert "open https://example.org/device and enter the code ABC-DEF" in caplog.text


# ---- databricks-sdk ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tells_issuer", [True, False])
async def test_fifty_requests_to_databricks_make_one_sign_in(machine: Workspace, tells_issuer: bool) -> None:
    """Whether the host says who issues its tokens or not."""
    machine.tells_issuer = tells_issuer
    async with backend_at(machine.url, Cached("databricks", databricks(machine))) as backend:
        statuses = await asyncio.gather(*(status_of(backend) for _ in range(50)))

    assert set(statuses) == {200}
    assert machine.sign_ins == 1


async def test_a_refused_databricks_token_is_healed_by_a_new_one(machine: Workspace) -> None:
    async with backend_at(machine.url, Cached("databricks", databricks(machine))) as backend:
        await status_of(backend)
        machine.revoke()

        assert await status_of(backend) == 200
    assert machine.sign_ins == 2


async def test_a_databricks_token_is_renewed_before_it_ends(machine: Workspace) -> None:
    source = databricks(machine)
    signed = await source.fetch(fresh=False)

    assert 3200 < signed.renew_at - time.time() < 3310
    assert 3500 < signed.ends_at - time.time() < 3600
    assert (await source.fetch(fresh=False)).headers != signed.headers


async def test_a_personal_token_is_sent(
    nobody_signed_in: None, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABRICKS_TOKEN", "dapi-1")

    source = databricks(workspace)
    signed = await source.fetch(fresh=False)

    assert await source.fetch(fresh=False) != signed  # asked again, for it does not say when it ends
    assert signed.headers == {"Authorization": "Bearer dapi-1"}
    assert (workspace.sign_ins, signed.ends_at) == (0, inf)


async def test_databricks_says_what_is_missing(nobody_signed_in: None, workspace: Workspace) -> None:
    sign_in = Cached("databricks", databricks(workspace, "no-such-profile"))

    with pytest.raises(UnauthorizedError, match=r"databricks-sdk: .*\(check the DATABRICKS_\*"):
        await sign_in.headers()
    await sign_in.close()


async def test_a_hanging_databricks_sign_in_ends_and_leaves_the_loop_free(
    machine: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The SDK waits for its token without a time-out; neither the request nor the process waits with it."""
    monkeypatch.setattr("dualtrack.backends.auth.databricks._PATIENCE", 0.5)
    machine.issuing.clear()
    sign_in = Cached("databricks", databricks(machine))

    async with asyncio.timeout(60):
        with pytest.raises(UnauthorizedError, match="no answer within"):
            await sign_in.headers()
        await sign_in.close()


# ---- no credential where people read (P9) --------------------------------------------------------------------------


@pytest.mark.parametrize("vendor", ["azure", "databricks"])
async def test_no_secret_in_errors_and_logs(
    vendor: str, managed: Workspace, machine: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    managed.refuses = True
    sign_in = Cached(vendor, azure() if vendor == "azure" else databricks(machine))
    with caplog.at_level(logging.DEBUG, logger="dualtrack"), caplog.at_level(logging.WARNING):
        try:
            await sign_in.headers()
        except UnauthorizedError as error:
            words = "".join(traceback.format_exception(error)) + repr(vars(error)) + caplog.text
        else:
            words = ""
    await sign_in.close()

    assert vendor in words
    assert CLIENT_SECRET not in words
    assert IDENTITY_HEADER not in words


def test_a_signature_shows_no_header() -> None:
    assert "t0k3n" not in repr(Signature(headers={"Authorization": "t0k3n"}))


# ---- the cache itself ----------------------------------------------------------------------------------------------


class Scripted:
    """A source that is told what to do, under a clock that is set by hand."""

    patience = 60.0
    hint = "mend it"

    def __init__(self) -> None:
        self.at = 1000.0
        self.life = 3600.0
        self.flights: list[bool] = []
        self.goes = asyncio.Event()
        self.fails = False
        self.failing_flight = 0
        self.goes.set()

    def now(self) -> float:
        return self.at

    async def fetch(self, *, fresh: bool) -> Signature:
        self.flights.append(fresh)
        await self.goes.wait()
        if self.fails or len(self.flights) == self.failing_flight:
            raise UnauthorizedError("b", "sign-in", "refused", self.hint)
        return signature({"n": str(len(self.flights))}, self.at, ends_at=self.at + self.life)

    async def close(self) -> None:
        self.goes.set()


@asynccontextmanager
async def cache(source: Scripted) -> AsyncIterator[Cached]:
    cached = Cached("b", source, wait=120.0, now=source.now)
    yield cached
    await cached.close()


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_cancelled_waiter_cancels_nobody_else() -> None:
    source = Scripted()
    source.goes.clear()
    async with cache(source) as cached, asyncio.TaskGroup() as group:
        gone, stays = (group.create_task(cached.headers()) for _ in range(2))
        await settled()
        gone.cancel()
        await settled()
        source.goes.set()

    assert stays.result() == {"n": "1"}
    assert source.flights == [False]


async def test_a_renewal_holds_nobody_up_and_its_failure_is_no_trouble(caplog: pytest.LogCaptureFixture) -> None:
    source = Scripted()
    async with cache(source) as cached:
        await cached.headers()
        source.at += 3500
        source.fails = True
        during = await cached.headers()
        await settled()
        after = await cached.headers()
        source.at += 60
        source.fails = False
        await cached.headers()
        await settled()

        assert during == after == {"n": "1"}
        assert await cached.headers() == {"n": "3"}
    assert "could not be renewed" in caplog.text


async def test_a_failure_is_said_again_without_asking() -> None:
    """A dead endpoint is asked once in a while, not once a request; then it is asked again."""
    source = Scripted()
    source.fails = True
    async with cache(source) as cached:
        for _ in range(10):
            with pytest.raises(UnauthorizedError, match=r"refused \(mend it\)"):
                await cached.headers()
        assert source.flights == [False]

        source.at += 11
        source.fails = False
        assert await cached.headers() == {"n": "2"}


async def test_a_sign_in_that_hangs_is_given_up() -> None:
    source = Scripted()
    source.patience = 0.2
    source.goes.clear()
    async with cache(source) as cached:
        with pytest.raises(UnauthorizedError, match=r"no answer within 0 s \(mend it\)"):
            await cached.headers()


async def test_a_request_waits_no_longer_than_it_may() -> None:
    """A person may take a quarter of an hour; a request does not."""
    source = Scripted()
    source.goes.clear()
    cached = Cached("b", source, wait=0.05, now=source.now)
    with pytest.raises(UnauthorizedError, match="and still asking"):
        await cached.headers()
    source.goes.set()
    await settled()

    assert await cached.headers() == {"n": "1"}
    await cached.close()


async def test_a_refused_token_whose_replacement_fails_is_an_error() -> None:
    source = Scripted()
    async with cache(source) as cached:
        await cached.headers()
        source.fails = True

        for _ in range(2):
            with pytest.raises(UnauthorizedError, match="refused"):
                await cached.headers(fresh=True)
    assert source.flights == [False, True]


async def test_a_fresh_token_waits_for_a_renewal_under_way_and_takes_it() -> None:
    source = Scripted()
    async with cache(source) as cached:
        await cached.headers()
        source.at += 3500
        source.goes.clear()
        await cached.headers()
        async with asyncio.TaskGroup() as group:
            fresh = group.create_task(cached.headers(fresh=True))
            await settled()
            source.goes.set()

    assert fresh.result() == {"n": "2"}
    assert source.flights == [False, False]


async def test_all_who_were_refused_wait_for_the_new_token_when_a_renewal_fails() -> None:
    source = Scripted()
    async with cache(source) as cached:
        await cached.headers()
        source.at += 3500
        source.failing_flight = 2
        source.goes.clear()
        await cached.headers()
        async with asyncio.TaskGroup() as group:
            waiting = [group.create_task(cached.headers(fresh=True)) for _ in range(3)]
            await settled()
            source.goes.set()

    assert [task.result() for task in waiting] == [{"n": "3"}] * 3
    assert source.flights == [False, False, True]


async def test_closing_ends_a_sign_in_under_way() -> None:
    source = Scripted()
    source.goes.clear()
    cached = Cached("b", source, wait=60.0, now=source.now)
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(_outcome(cached))
        await settled()
        await cached.close()

    assert isinstance(waiting.result(), UnauthorizedError)
    assert isinstance(await _outcome(cached), UnauthorizedError)


async def _outcome(cached: Cached) -> object:
    try:
        return await cached.headers()
    except UnauthorizedError as error:
        return error


@pytest.mark.parametrize(
    ("life", "renew_in", "ends_in"), [(3600, 3300, 3560), (600, 300, 560), (10, 5, 9), (0, inf, 60), (-5, inf, 60)]
)
def test_margins_fit_the_life_of_a_token(life: float, renew_in: float, ends_in: float) -> None:
    signed = signature({}, 1000.0, ends_at=1000.0 + life)

    assert (signed.renew_at - 1000, signed.ends_at - 1000) == (renew_in, ends_in)


def test_a_token_that_asks_to_be_renewed_early_is() -> None:
    assert signature({}, 0.0, ends_at=86400.0, renew_at=43200.0).renew_at == 43200.0


async def test_calls_that_never_return_do_not_pile_up() -> None:
    release, threads = asyncio.Event(), Threads("b")
    loop = asyncio.get_running_loop()

    def hang() -> None:
        asyncio.run_coroutine_threadsafe(release.wait(), loop).result()

    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(threads.run(hang))
        await settled()
        with pytest.raises(TimeoutError, match="4 earlier attempts"):
            await threads.run(hang)
        release.set()
    for thread in threads._running:
        await asyncio.to_thread(thread.join)

    assert await threads.run(lambda: 7) == 7
