"""The Backend port over HTTP: bytes as they are, foreign trouble renamed, no credential where people read."""

import asyncio
import os
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any, TypeAlias

import orjson
import pytest
from aiohttp import ClientSession

from dualtrack.backends.auth import Fixed, SignIn, TokenFile, basic, bearer
from dualtrack.backends.http import HttpBackend, parse_retry_after
from dualtrack.backends.login import leads_to_login
from dualtrack.backends.pace import Pace
from dualtrack.core.exchange import Call
from dualtrack.demo.servers import MlflowServer, free_port
from dualtrack.emulators.azureml import DEFAULT_SCOPE, AzureML
from dualtrack.emulators.faults import BlackHole, Body, DropAfter, DropBefore, Refuse, Rule
from dualtrack.emulators.tracking import Plain, Settings
from dualtrack.errors import UnauthorizedError, UnreachableError
from dualtrack.metrics import Metrics
from tests.support.raw_server import DROP, SILENCE, RawServer, answer, saying
from tests.support.servers import Control, emulating

API = "/api/2.0/mlflow"
SECRET = "s3cr3t-token-of-ours"
SEARCH = f"{API}/experiments/search?max_results=1"

Way: TypeAlias = Callable[[HttpBackend, str, str, bytes], Awaitable[tuple[int, bytes]]]


async def by_stream(backend: HttpBackend, method: str, target: str, body: bytes) -> tuple[int, bytes]:
    async with backend.stream(method, target, {}, body or None) as reply:
        return reply.status, b"".join([chunk async for chunk in reply.body])


async def by_exchange(backend: HttpBackend, method: str, target: str, body: bytes) -> tuple[int, bytes]:
    whole = await backend.exchange(method, target, {}, body)
    return whole.status, whole.body


async def by_send(backend: HttpBackend, method: str, target: str, body: bytes) -> tuple[int, bytes]:
    answered = await backend.send(Call(operation="anything", method=method, target=target, body=body))
    return answered.status, answered.body


every_way = pytest.mark.parametrize("way", [by_stream, by_exchange, by_send])


@asynccontextmanager
async def backend_at(
    url: str, sign_in: SignIn | None = None, *, patience: float = 30.0, rewords: bool = False
) -> AsyncIterator[HttpBackend]:
    backend = HttpBackend(
        "azure",
        url,
        sign_in or bearer(SECRET),
        Metrics(),
        connect_timeout=5.0,
        read_timeout=patience,
        call_timeout=30.0,
        connections=4,
        tls=True,
        user_agent="dualtrack/test",
        rewords=rewords,
    )
    try:
        yield backend
    finally:
        await backend.close()


@asynccontextmanager
async def told(
    *answers: Any, sign_in: SignIn | None = None, rewords: bool = False
) -> AsyncIterator[tuple[HttpBackend, RawServer]]:
    async with saying(*answers) as server, backend_at(server.url, sign_in, rewords=rewords) as backend:
        yield backend, server


# ---- pace ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("from_root", [False, True])
async def test_each_of_our_own_calls_takes_its_turn(monkeypatch: pytest.MonkeyPatch, from_root: bool) -> None:
    """The calls about files too, and those that follow a fresh token; a client's call is passed on at once."""
    turns = list[str]()

    async def turn(_: Pace, target: str) -> None:
        turns.append(target)

    monkeypatch.setattr(Pace, "turn", turn)
    async with told(answer(200), answer(401), answer(200)) as (backend, _):
        await by_stream(backend, "GET", "/passed-on", b"")
        async with backend.transfer("POST", "/a?b=c", {}, from_root=from_root) as reply:
            assert reply.status == 200
        await by_send(backend, "GET", SEARCH, b"")

    assert turns == ["/a?b=c", "/a?b=c", SEARCH]


# ---- bytes as they are ---------------------------------------------------------------------------------------------


@every_way
@pytest.mark.parametrize(
    "target",
    [
        "/api/2.0/mlflow/runs/get?run_id=a%2Fb&x=1+2&y",
        "/api/2.0/mlflow-artifacts/artifacts/a%20b%2Fc%25d/%E6%97%A5?path=x%2F..%2Fy",
        "/api//double/./dot/../up?q=%zz",
        "/a;b=c/d:e@f,g?h=[i]",
    ],
)
async def test_a_path_goes_on_as_it_came(way: Way, target: str) -> None:
    async with told() as (backend, server):
        await way(backend, "GET", target, b"")

    assert server.heard[0].line == f"GET {target} HTTP/1.1"


@every_way
async def test_a_base_path_stands_before_every_target(way: Way) -> None:
    async with saying() as server, backend_at(f"{server.url}/mlflow/v2.0/sub") as backend:
        await way(backend, "GET", SEARCH, b"")

    assert server.heard[0].line == f"GET /mlflow/v2.0/sub{SEARCH} HTTP/1.1"


@every_way
async def test_the_upstream_hears_its_own_host(way: Way) -> None:
    async with told() as (backend, server):
        await way(backend, "GET", "/", b"")

    assert server.heard[0].headers["host"] == server.url.removeprefix("http://")


@every_way
async def test_a_delete_keeps_its_body(way: Way) -> None:
    """MLflow's clients send one (facts section 12)."""
    async with told() as (backend, server):
        await way(backend, "DELETE", "/api/x", b'{"key": "k"}')

    assert server.heard[0].body == b'{"key": "k"}'


@every_way
async def test_a_whole_body_of_a_megabyte_arrives(way: Way) -> None:
    sent, said = os.urandom(1 << 20), orjson.dumps("x" * (1 << 20))
    async with told(answer(200, said)) as (backend, server):
        status, heard = await way(backend, "POST", "/x", sent)

    assert (status, heard) == (200, said)
    assert server.heard[0].body == sent


async def test_a_body_streams_in_both_directions() -> None:
    """The answer's head is there before its body is; what is sent comes in chunks of unknown number."""
    parts = [b"5\r\nfirst\r\n", b"6\r\nsecond\r\n0\r\n\r\n"]
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Two: 1\r\nX-Two: 2\r\n\r\n"

    async def upload() -> AsyncIterator[bytes]:
        for part in (b"one", b"two"):
            yield part

    async with (
        told(head + b"".join(parts)) as (backend, server),
        backend.stream("PUT", "/artifact", {"Content-Type": "a/b"}, upload()) as reply,
    ):
        chunks = b"".join([chunk async for chunk in reply.body])

    assert chunks == b"firstsecond"
    assert [value for name, value in reply.headers if name == "X-Two"] == ["1", "2"]
    assert server.heard[0].body == b"onetwo"
    assert server.heard[0].headers["content-type"] == "a/b"


async def test_headers_of_the_caller_win_over_the_sign_in() -> None:
    async with told() as (backend, server):
        await backend.exchange("GET", "/", {"authorization": "Bearer the-clients-own"}, b"")

    assert server.heard[0].headers["authorization"] == "Bearer the-clients-own"


async def test_connections_are_used_again() -> None:
    async with told() as (backend, server):
        for _ in range(3):
            await by_send(backend, "GET", "/", b"")

    assert server.connections == 1


async def test_a_connection_that_ends_with_its_answer_is_not_used_again() -> None:
    async with told(answer(200, b"{}", "Connection: close")) as (backend, server):
        for _ in range(2):
            await by_exchange(backend, "POST", "/", b"{}")

    assert server.connections == 2


# ---- trouble, renamed ----------------------------------------------------------------------------------------------


@every_way
async def test_a_refused_connection_was_certainly_not_sent(way: Way) -> None:
    async with backend_at(f"http://127.0.0.1:{free_port()}") as backend:
        with pytest.raises(UnreachableError) as caught:
            await way(backend, "POST", "/x", b"{}")

        assert not caught.value.sent
        assert backend.is_up is False
        assert caught.value.hint


@every_way
@pytest.mark.parametrize(
    "said",
    [
        DROP,
        b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\nConnection: close\r\n\r\n{}",
        b"nonsense\r\n\r\nconnection: close",
    ],
    ids=["nothing", "half an answer", "nonsense"],
)
async def test_a_lost_answer_may_have_been_sent(way: Way, said: bytes) -> None:
    async with told(said) as (backend, _):
        with pytest.raises(UnreachableError) as caught:
            await way(backend, "POST", "/x", b"{}")

    assert caught.value.sent
    assert caught.value.backend == "azure"


@every_way
async def test_silence_ends_with_the_read_timeout(way: Way) -> None:
    async with saying(SILENCE) as server, backend_at(server.url, patience=0.05) as backend:
        with pytest.raises(UnreachableError) as caught:
            await way(backend, "POST", "/x", b"{}")
        await server.ended.wait()

    assert caught.value.sent


async def test_a_web_page_is_no_answer() -> None:
    async with told(answer(200, b"  <!doctype html><html>Sign in</html>")) as (backend, _):
        with pytest.raises(UnreachableError, match=r"web page instead of JSON .*MLflow API"):
            await backend.send(Call(operation="getRun", method="GET", target="/x"))


async def test_a_redirect_is_not_followed() -> None:
    """Databricks sends who is not signed in to a login page; its query may hold what nobody should read."""
    moved = answer(302, b"", f"Location: /login.html?next={SECRET}")
    async with told(moved) as (backend, server):
        with pytest.raises(UnreachableError, match=r"302 redirects to /login\.html ") as caught:
            await backend.send(Call(operation="getRun", method="POST", target="/x"))

    assert len(server.heard) == 1
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "location", "is_login"),
    [
        (302, "/login.html", True),
        (303, "/login.html?error=private-link-validation-error", True),
        (307, "https://adb-1.2.azuredatabricks.net/login.html?next_url=%2Fapi", True),
        (302, "https://login.microsoftonline.com/t/oauth2/authorize?client_id=x", True),
        (302, "https://login.example.org/", True),
        (302, "/Login", True),
        (200, "/login.html", False),
        (304, "/login.html", False),
        (302, "", False),
        (302, "http://[", False),
        (308, "https://mlflow.example.org/api/2.0/mlflow/runs/search", False),
        (302, "/logins/7", False),
    ],
)
def test_redirects_to_login_pages_are_told_apart(status: int, location: str, is_login: bool) -> None:
    assert leads_to_login(status, location) is is_login


@every_way
async def test_a_redirect_elsewhere_is_the_answer(way: Way) -> None:
    """A client may follow it; our own calls do not."""
    async with told(answer(308, b"", "Location: https://mlflow.example.org/x")) as (backend, _):
        if way is by_send:
            with pytest.raises(UnreachableError, match="redirects to https://mlflow"):
                await way(backend, "GET", "/x", b"")
        else:
            assert (await way(backend, "GET", "/x", b""))[0] == 308


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        (b'{"error_code":"RESOURCE_DOES_NOT_EXIST","message":"no run"}', "RESOURCE_DOES_NOT_EXIST", "no run"),
        (
            b'{"Error":{"Code":"UserError","Message":"too long"},"error_code":"INVALID_PARAMETER_VALUE"}',
            "INVALID_PARAMETER_VALUE",
            "too long",
        ),
        (b'{"Error":{"Code":"ValidationError","Message":"too long"}}', "ValidationError", "too long"),
        (b'{"error":{"code":"UserError","message":"no token"}}', "UserError", "no token"),
        (b'{"detail":"Not Found"}', "", "Not Found"),
        (b'{"error":"plain"}', "", ""),
        (b"", "", ""),
        (b"[1]", "", ""),
        (b"<html>Bad Gateway</html>", "", ""),
        (b"upstream went away", "", "upstream went away"),
        (b"\xff\xfe" + b"x" * 500, "", "\ufffd\ufffd" + "x" * 198),
    ],
)
async def test_error_bodies_of_every_shape_are_read(body: bytes, code: str, message: str) -> None:
    async with told(answer(400, body)) as (backend, _):
        answered = await backend.send(Call(operation="logBatch", method="POST", target="/x", body=b"{}"))

    assert (answered.status, answered.error_code, answered.message) == (400, code, message)


@pytest.mark.parametrize(
    ("value", "seconds"), [("7", 7.0), (" 12 ", 12.0), ("", None), ("soon", None), ("-3", None), ("1e3", None)]
)
async def test_retry_after_in_seconds(value: str, seconds: float | None) -> None:
    async with told(answer(429, b"", f"Retry-After: {value}")) as (backend, _):
        answered = await backend.send(Call(operation="logBatch", method="POST", target="/x", body=b"{}"))

    assert answered.retry_after == seconds


def test_retry_after_as_a_date() -> None:
    soon, before = datetime.now(UTC) + timedelta(seconds=100), datetime.now(UTC) - timedelta(seconds=100)

    assert 90 < (parse_retry_after(format_datetime(soon, usegmt=True)) or 0) <= 100
    assert parse_retry_after(format_datetime(before, usegmt=True)) == 0.0
    assert parse_retry_after("Wed, 99 Nov 2026 99:00:00 GMT") is None


@every_way
async def test_a_cancelled_call_leaves_no_connection(way: Way) -> None:
    """No answer to it may ever be taken for the answer to another call."""
    async with told(SILENCE) as (backend, server):
        async with asyncio.TaskGroup() as group:
            task = group.create_task(_quietly(way(backend, "POST", "/x", b"{}")))
            await server.arrived.wait()
            task.cancel()
        await server.ended.wait()

    assert task.cancelled()


async def _quietly(work: Awaitable[Any]) -> None:
    await work


# ---- signing in ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sign_in", "header"),
    [(bearer("t"), "Bearer t"), (basic("ann", "pä:ss"), "Basic YW5uOnDDpDpzcw=="), (Fixed({}), None)],
    ids=["bearer", "basic", "none"],
)
async def test_each_kind_of_sign_in_sends_its_header(sign_in: SignIn, header: str | None) -> None:
    async with told(sign_in=sign_in) as (backend, server):
        await by_send(backend, "GET", "/", b"")

    assert server.heard[0].headers.get("authorization") == header


async def test_a_refused_token_is_read_again_once(tmp_path: Path) -> None:
    """Somebody renewed the file within the resolution of its time stamp."""
    path = tmp_path / "token"
    path.write_text("old\n")
    sign_in = TokenFile("azure", path)
    await sign_in.headers()
    stamp = path.stat().st_mtime_ns
    path.write_text("new\n")
    os.utime(path, ns=(stamp, stamp))

    async with told(answer(401), answer(200), sign_in=sign_in) as (backend, server):
        status, _ = await by_send(backend, "POST", "/x", b"{}")

    assert status == 200
    assert [heard.headers["authorization"] for heard in server.heard] == ["Bearer old", "Bearer new"]


async def test_a_token_that_stays_refused_is_the_answer() -> None:
    async with told(answer(401)) as (backend, server):
        status, _ = await by_send(backend, "POST", "/x", b"{}")

    assert status == 401
    assert len(server.heard) == 2


async def test_a_changed_token_file_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("old")
    sign_in = TokenFile("azure", path)
    before = await sign_in.headers()

    path.write_text("new")
    os.utime(path, ns=(1, 1))

    assert before == {"Authorization": "Bearer old"}
    assert await sign_in.headers() == {"Authorization": "Bearer new"}


@pytest.mark.parametrize("content", [None, b"", b" \n", b"\xff\xfe", b"two\nlines"])
async def test_a_token_file_that_is_no_good_says_so(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(UnauthorizedError, match=r"token file .*write a token there"):
        await TokenFile("azure", path).headers()


@every_way
@pytest.mark.parametrize("said", [DROP, b"nonsense\r\n\r\nconnection: close", answer(302, b"", "Location: /l?t=1")])
async def test_no_exception_shows_a_credential(way: Way, said: bytes) -> None:
    """P9: neither the words nor the traceback of what went wrong."""
    async with told(said) as (backend, _):
        try:
            await way(backend, "POST", "/x?q=1", b"{}")
        except UnreachableError as error:
            words = "".join(traceback.format_exception(error)) + repr(vars(error))
        else:
            words = ""

    assert SECRET not in words


# ---- against the emulators -----------------------------------------------------------------------------------------


@asynccontextmanager
async def emulated(upstream: str, dialect: Any = None, prefix: str = "") -> AsyncIterator[tuple[HttpBackend, Control]]:
    async with AsyncExitStack() as stack:
        settings = Settings(upstream=upstream, token=SECRET, dialect=dialect or Plain())
        url = await stack.enter_async_context(emulating(settings))
        session = await stack.enter_async_context(ClientSession())
        backend = await stack.enter_async_context(backend_at(url + prefix))
        yield backend, Control(url, session)


async def test_a_real_server_answers_through_an_emulator(mlflow_primary: MlflowServer) -> None:
    async with emulated(mlflow_primary.url) as (backend, _):
        answered = await backend.send(Call(operation="searchExperiments", method="GET", target=SEARCH))

    assert answered.is_success
    assert "experiments" in orjson.loads(answered.body)
    assert backend.is_up


async def test_azure_ml_refusals_are_read(mlflow_primary: MlflowServer) -> None:
    async with emulated(mlflow_primary.url, AzureML(), "/mlflow/v2.0" + DEFAULT_SCOPE) as (backend, _):
        call = Call(
            operation="createExperiment", method="POST", target=f"{API}/experiments/create", body=b'{"name":"/a"}'
        )
        answered = await backend.send(call)

    assert (answered.status, answered.error_code) == (400, "INVALID_PARAMETER_VALUE")
    assert "'/a' is not valid" in answered.message


@pytest.mark.parametrize("action", [DropBefore(), DropAfter()], ids=["before", "after"])
async def test_an_emulated_loss_may_have_been_sent(mlflow_primary: MlflowServer, action: Any) -> None:
    async with emulated(mlflow_primary.url) as (backend, control):
        await control.set_faults(Rule(action=action))
        with pytest.raises(UnreachableError) as caught:
            await by_exchange(backend, "POST", f"{API}/experiments/search", b'{"max_results":1}')

    assert caught.value.sent


@pytest.mark.parametrize("body", list(Body))
async def test_an_emulated_throttling_is_read(mlflow_primary: MlflowServer, body: Body) -> None:
    async with emulated(mlflow_primary.url) as (backend, control):
        await control.set_faults(Rule(action=Refuse(status=429, body=body, retry_after="3")))
        answered = await backend.send(Call(operation="searchExperiments", method="POST", target=SEARCH))

    assert (answered.status, answered.retry_after) == (429, 3.0)


async def test_an_emulated_black_hole_is_left_by_cancelling(mlflow_primary: MlflowServer) -> None:
    async with emulated(mlflow_primary.url) as (backend, control):
        await control.set_faults(Rule(action=BlackHole()))
        async with asyncio.TaskGroup() as group:
            task = group.create_task(_quietly(by_send(backend, "POST", SEARCH, b"")))
            await control.arrived("experiments/search")
            task.cancel()

        assert task.cancelled()


# ---- refusals in a service's own shape -------------------------------------------------------------------------------

_AZURE = orjson.dumps({"Error": {"Code": "UserError", "Message": "No."}, "error_code": "BAD_REQUEST"})
_FOREIGN: dict[str, tuple[int, bytes, dict[str, str]]] = {
    "azure": (400, _AZURE, {"error_code": "BAD_REQUEST", "message": "No."}),
    "empty": (
        404,
        b"",
        {"error_code": "ENDPOINT_NOT_FOUND", "message": "azure does not have this endpoint (HTTP 404)"},
    ),
    "page": (502, b"<html>", {"error_code": "INTERNAL_ERROR", "message": "azure says no more (HTTP 502)"}),
}


@pytest.mark.parametrize("shape", _FOREIGN)
@every_way
async def test_a_refusal_of_another_shape_is_said_in_mlflow_s(way: Way, shape: str) -> None:
    """To clients, and to whoever judges it: a code and a message, of the length that is announced."""
    status, body, wanted = _FOREIGN[shape]
    async with told(answer(status, body), rewords=True) as (backend, _):
        found = await way(backend, "POST", f"{API}/runs/create", b"{}")

    assert (found[0], orjson.loads(found[1])) == (status, wanted)


@every_way
async def test_a_refusal_of_a_plain_server_is_left_as_it_is(way: Way) -> None:
    async with told(answer(404, b"<html>Not Found</html>")) as (backend, _):
        found = await way(backend, "POST", f"{API}/nothing", b"{}")

    assert found == (404, b"<html>Not Found</html>")


async def test_headers_of_a_refusal_are_those_of_what_is_said() -> None:
    body = b"nothing of a thing"
    raw = b"HTTP/1.1 429 Slow\r\nContent-Type: text/plain\r\nRetry-After: 7\r\nETag: x\r\nContent-Length: %d\r\n\r\n"
    async with told(raw % len(body) + body, raw % len(body) + body, rewords=True) as (backend, _):
        async with backend.stream("GET", SEARCH, {}, None) as reply:
            streamed = {name.lower(): value for name, value in reply.headers}
        whole = {name.lower(): value for name, value in (await backend.exchange("GET", SEARCH, {}, b"")).headers}

    assert streamed == whole == {"retry-after": "7", "content-type": "application/json"}


@pytest.mark.parametrize("method", ["HEAD", "GET"])
async def test_what_has_no_body_or_a_packed_one_passes_as_it_is(method: str) -> None:
    packed = b"HTTP/1.1 404 No\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n" + b"zzzz" * (method == "GET")
    async with told(packed, rewords=True) as (backend, _), backend.stream(method, SEARCH, {}, None) as reply:
        body = b"".join([chunk async for chunk in reply.body])

    assert (reply.status, body) == (404, b"zzzz" if method == "GET" else b"")
