"""P9 and P6, and what a client may send: no route in for whoever has no right, none past the registry's one backend.

Bad input gets a clear 4xx of the proxy's own, nothing of it is journaled, and nothing of it reaches the primary.
"""

import asyncio
import base64
import contextlib
from collections.abc import Callable

import pytest

from dualtrack.demo.compare import read_registry
from dualtrack.emulators.faults import BlackHole, Body, Refuse, Rule
from tests.support.flow import (
    API,
    PATIENCE,
    SECRETS,
    Launcher,
    Reply,
    Running,
    Workspace,
    connected,
    raw,
    read_reply,
    request,
    unique,
)

MIB = 1024**2
SET_TAG = f"{API}runs/set-tag"
CODES = {
    "INVALID_PARAMETER_VALUE",
    "MALFORMED_REQUEST",
    "PERMISSION_DENIED",
    "UNAUTHENTICATED",
    "DEADLINE_EXCEEDED",
    "TEMPORARILY_UNAVAILABLE",
    "BAD_REQUEST",
}


async def is_untouched(proxy: Running, primary: Workspace) -> bool:
    """Whether nothing was journaled and no write reached the primary."""
    assert proxy.app.journal is not None
    usage = await proxy.app.journal.usage()
    left_open = await proxy.app.journal.left_open(lambda _: None)
    return (usage.entries, left_open, await primary.writes()) == (0, [], [])


# --- malformed, huge, slow, half-sent -------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b'{"run_id": ', b"[1, 2]", b'"text"', b"\xff\xfe", b"[" * 1000, b"12"])
async def test_a_body_that_is_no_json_object_is_refused(proxy: Running, a: Workspace, body: bytes) -> None:
    reply = await proxy.call("POST", "runs/set-tag", body)

    assert (reply.status, reply.code) == (400, "MALFORMED_REQUEST")
    assert await is_untouched(proxy, a)


async def test_a_body_over_the_bound_is_refused_before_it_is_read(launch: Launcher, a: Workspace, b: Workspace) -> None:
    proxy = await launch(a, b, limits={"max_body": "1MiB"})
    reply = await raw(proxy.url, request("POST", SET_TAG, f"Content-Length: {MIB + 1}"))

    assert (reply.status, reply.code) == (413, "INVALID_PARAMETER_VALUE")
    assert "limits.max_body" in reply.json["message"]
    assert "Retry-After" not in reply.headers  # clients would repeat it
    assert await is_untouched(proxy, a)


async def test_a_chunked_body_over_the_bound_is_refused(launch: Launcher, a: Workspace, b: Workspace) -> None:
    proxy = await launch(a, b, limits={"max_body": "1MiB"})
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    reply = await raw(proxy.url, request("POST", SET_TAG, "Transfer-Encoding: chunked"), *[chunk] * 17)

    assert (reply.status, reply.code) == (413, "INVALID_PARAMETER_VALUE")
    assert await is_untouched(proxy, a)


async def test_a_body_of_exactly_the_bound_passes(launch: Launcher, a: Workspace, b: Workspace) -> None:
    proxy = await launch(a, b, limits={"max_body": "1MiB"})
    run_id = await proxy.create_run("0")
    body = b'{"run_id": "%s", "key": "k", "value": "v"}' % run_id.encode()
    reply = await proxy.call("POST", "runs/set-tag", body.ljust(MIB))

    assert (reply.status, reply.headers["X-Dualtrack"]) == (200, "mirrored")


async def test_a_body_that_does_not_arrive_is_given_up(launch: Launcher, a: Workspace, b: Workspace) -> None:
    proxy = await launch(a, b, limits={"body_timeout": "100ms"})
    reply = await raw(proxy.url, request("POST", SET_TAG, "Content-Length: 100", body=b'{"run_id"'))

    assert (reply.status, reply.code) == (408, "DEADLINE_EXCEEDED")
    assert await is_untouched(proxy, a)


async def test_a_half_sent_body_leaves_nothing_behind(proxy: Running, a: Workspace) -> None:
    """The connection goes before the body is complete: no entry, no call, and the next client is served."""
    async with connected(proxy.url) as (_, writer):
        writer.write(request("POST", SET_TAG, "Content-Length: 100", body=b'{"run_id"'))
        await writer.drain()

    async def is_over() -> bool:
        return await proxy.metric("requests_total", operation="setTag", outcome="4xx") == 1

    await proxy.until(is_over)
    assert await is_untouched(proxy, a)
    assert (await proxy.call("GET", "/version")).status == 200


async def test_headers_over_the_bound_are_refused(launch: Launcher, a: Workspace, b: Workspace) -> None:
    proxy = await launch(a, b, limits={"max_headers": "4KiB"})
    reply = await raw(proxy.url, request("POST", SET_TAG, f"X-Long: {'x' * 5000}", body=b"{}"))

    assert reply.status == 400
    assert await is_untouched(proxy, a)


@pytest.mark.parametrize("line", [b"GARBAGE\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\r\n\r\n"])
async def test_what_is_no_http_is_refused(proxy: Running, a: Workspace, line: bytes) -> None:
    reply = await raw(proxy.url, line)

    assert reply.status == 400
    assert await is_untouched(proxy, a)


@pytest.mark.parametrize(
    "lines",
    [
        ("Content-Length: 5", "Transfer-Encoding: chunked"),
        ("Content-Length: 5", "Content-Length: 6"),
        ("Transfer-Encoding: chunked, identity",),
        ("Content-Length: -1",),
    ],
)
async def test_a_body_with_two_lengths_smuggles_nothing(proxy: Running, a: Workspace, lines: tuple[str, ...]) -> None:
    reply = await raw(proxy.url, request("POST", SET_TAG, *lines, body=b"0\r\n\r\nPOST /x"))

    assert reply.status == 400
    assert await is_untouched(proxy, a)


async def test_expect_100_continue_is_answered(proxy: Running) -> None:
    run_id = await proxy.create_run("0")
    body = b'{"run_id": "%s", "key": "k", "value": "v"}' % run_id.encode()
    async with connected(proxy.url) as (reader, writer):
        writer.write(request("POST", SET_TAG, f"Content-Length: {len(body)}", "Expect: 100-continue"))
        interim = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE)
        writer.write(body)
        reply = await read_reply(reader)

    assert interim.startswith(b"HTTP/1.1 100")
    assert (reply.status, reply.headers["X-Dualtrack"]) == (200, "mirrored")


# --- connections ----------------------------------------------------------------------------------------------------


async def test_a_connection_too_many_is_closed_and_the_others_live(
    launch: Launcher, a: Workspace, b: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    proxy = await launch(a, b, limits={"max_connections": 2})
    async with connected(proxy.url) as (first, ask), connected(proxy.url) as (second, ask_too):
        for reader, writer in ((first, ask), (second, ask_too)):
            writer.write(request("GET", "/version"))
            await read_reply(reader)
        async with connected(proxy.url) as (third, _):
            # which of the two the system makes of it is a matter of timing
            with contextlib.suppress(ConnectionResetError):
                assert await asyncio.wait_for(third.read(), PATIENCE) == b""
        ask.write(request("GET", "/version"))
        reply = await read_reply(first)

    assert reply.status == 200
    assert not caplog.records


async def test_an_idle_connection_is_closed(launch: Launcher, a: Workspace, b: Workspace) -> None:
    proxy = await launch(a, b, limits={"idle_timeout": "100ms"})
    async with connected(proxy.url) as (reader, writer):
        writer.write(request("GET", "/version"))
        await read_reply(reader)
        rest = await asyncio.wait_for(reader.read(), PATIENCE)

    assert rest == b""


async def test_a_connection_that_never_asks_is_closed(launch: Launcher, a: Workspace, b: Workspace) -> None:
    proxy = await launch(a, b, limits={"idle_timeout": "100ms", "body_timeout": "100ms"})
    async with connected(proxy.url) as (reader, writer):
        writer.write(b"POST /api/2.0/ml")
        rest = await asyncio.wait_for(reader.read(), PATIENCE)

    assert not rest.startswith(b"HTTP/1.1 2")


# --- who may come in ------------------------------------------------------------------------------------------------


async def test_a_foreign_host_is_refused(proxy: Running, a: Workspace) -> None:
    """A name that an attacker points at this address (DNS rebinding) opens nothing, not even a read."""
    replies = [
        await raw(proxy.url, request(method, path, "Host: evil.example", body=body))
        for method, path, body in (("POST", SET_TAG, b"{}"), ("GET", f"{API}runs/get?run_id=x", b""), ("GET", "/", b""))
    ]

    assert {(reply.status, reply.code) for reply in replies} == {(403, "PERMISSION_DENIED")}
    assert await a.calls() == []


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1"])
@pytest.mark.parametrize("path", [SET_TAG, f"{API}registered-models/create", "/unknown"])
async def test_a_write_from_a_foreign_page_is_refused(proxy: Running, a: Workspace, origin: str, path: str) -> None:
    reply = await proxy.call("POST", path, {"name": "x"}, Origin=origin)

    assert (reply.status, reply.code) == (403, "PERMISSION_DENIED")
    assert await is_untouched(proxy, a)


async def test_a_write_from_the_own_ui_passes_without_its_origin(proxy: Running, a: Workspace) -> None:
    """An MLflow server refuses an Origin that is not its own, and the UI's is the proxy's."""
    run_id = await proxy.create_run("0")
    body = {"run_id": run_id, "key": "k", "value": "v"}
    reply = await proxy.call("POST", "/ajax-api/2.0/mlflow/runs/set-tag", body, Origin=proxy.url)

    assert (reply.status, reply.headers["X-Dualtrack"]) == (200, "mirrored")
    seen = await a.control.arrived("runs/set-tag")
    assert "origin" not in {name.lower() for name in seen["header_names"]}


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.mark.parametrize(
    ("auth", "right"),
    [
        ({"type": "bearer", "token": "${TOKEN_C}"}, f"Bearer {SECRETS['TOKEN_C']}"),
        ({"type": "basic", "username": "ann", "password": "${TOKEN_C}"}, basic("ann", SECRETS["TOKEN_C"])),
    ],
)
async def test_only_the_right_credentials_come_in(
    launch: Launcher, a: Workspace, b: Workspace, auth: dict[str, str], right: str
) -> None:
    proxy = await launch(a, b, auth=auth)
    body = {"experiment_id": "0", "start_time": 1}
    wrong = ["", "Bearer", "Bearer wrong", basic("ann", "wrong"), right.lower(), right + "x", "\xff", right[:-1]]
    refused = [await proxy.call("POST", "runs/create", body)]
    refused += [await proxy.call("POST", "runs/create", body, Authorization=given) for given in wrong]
    refused += [await proxy.call("GET", path) for path in ("/version", "/", "/unknown", "runs/get?run_id=x")]

    assert {(reply.status, reply.code) for reply in refused} == {(401, "UNAUTHENTICATED")}
    assert all("WWW-Authenticate" in reply.headers for reply in refused)
    assert await is_untouched(proxy, a)
    assert (await proxy.call("POST", "runs/create", body, Authorization=right)).status == 200


async def test_what_a_client_signs_in_with_reaches_no_backend(launch: Launcher, a: Workspace, b: Workspace) -> None:
    """The façades refuse any token but the proxy's own, so answers of 200 say that only that was sent."""
    proxy = await launch(a, b, auth={"type": "bearer", "token": "${TOKEN_C}"})
    headers = {"Authorization": f"Bearer {SECRETS['TOKEN_C']}", "Cookie": "session=s", "Proxy_Authorization": "p"}
    created = await proxy.call("POST", "runs/create", {"experiment_id": "0", "start_time": 1}, **headers)
    found = await proxy.call("GET", f"runs/get?run_id={created.json['run']['info']['run_id']}", **headers)
    listed = await proxy.call("GET", "registered-models/search", **headers)
    await proxy.drained()

    assert [reply.status for reply in (created, found, listed)] == [200, 200, 200]
    seen = [*await a.calls(), *await b.calls()]
    assert {entry["status"] for entry in seen} <= {200, 404}
    assert not {name.lower() for entry in seen for name in entry["header_names"]} & {"cookie", "proxy-authorization"}


# --- answers --------------------------------------------------------------------------------------------------------


async def test_a_refusal_of_the_primary_passes_untouched_and_nothing_is_mirrored(
    proxy: Running, a: Workspace, b: Workspace
) -> None:
    body = {"run_id": "0" * 32, "key": "k", "value": "v"}
    reply = await proxy.call("POST", "runs/set-tag", body)
    direct = await proxy.call("POST", f"{a.url}{SET_TAG}", body, Authorization=f"Bearer {SECRETS['TOKEN_A']}")
    await proxy.drained()

    assert (reply.status, reply.body) == (404, direct.body)
    assert reply.headers["X-Dualtrack"] == "primary-only"
    assert not await b.writes()


@pytest.mark.parametrize("body", Body)
async def test_a_500_of_the_primary_is_settled_by_asking(
    proxy: Running, a: Workspace, b: Workspace, body: Body
) -> None:
    """The client sees that answer; since nothing took effect, nothing is mirrored, and the repeat is mirrored once."""
    experiment = await proxy.create_experiment()
    run_id = await proxy.create_run(experiment)
    refusal = Refuse(status=500, body=body)
    await a.control.set_faults(Rule(method="POST", path="log-metric|runs/create", first=2, action=refusal))
    point = {"run_id": run_id, "key": "loss", "value": 1, "timestamp": 1, "step": 0}
    replies = [
        await proxy.call("POST", "runs/log-metric", point),
        await proxy.call("POST", "runs/create", {"experiment_id": experiment, "start_time": 7}),
    ]
    await proxy.drained()

    assert [reply.status for reply in replies] == [500, 500]
    assert not await b.writes("runs/log-batch")
    assert (await proxy.call("POST", "runs/log-metric", point)).status == 200
    assert not await proxy.differences(experiment, b)


@pytest.mark.parametrize(
    "path", ["runs/create", "experiments/create", "experiments/search", "runs/search", "registered-models/create"]
)
async def test_answers_of_the_primary_are_passed_byte_by_byte(proxy: Running, a: Workspace, path: str) -> None:
    """Whatever a server writes into its JSON, in whichever order and spacing, the client gets."""
    await a.control.set_faults(Rule(path=path, action=Refuse(status=418, body=Body.HTML)))
    reply = await proxy.call("POST", path, {"name": "x", "experiment_id": "0"})

    assert (reply.status, reply.body) == (418, b"<html><body><h1>418</h1></body></html>")


async def test_a_search_reads_the_same_through_the_proxy(proxy: Running, a: Workspace) -> None:
    body = {"experiment_ids": ["0"], "max_results": 50}
    through = await proxy.call("POST", "runs/search", body)
    direct = await proxy.call("POST", f"{a.side.url}{API}runs/search", body)

    assert (through.status, through.body) == (200, direct.body)
    assert through.headers["X-Dualtrack"] == "read"


async def test_an_outage_of_the_primary_is_a_503_that_clients_repeat(
    launch: Launcher, a: Workspace, b: Workspace
) -> None:
    """Never RESOURCE_DOES_NOT_EXIST, which clients take for "create it"; and `/version` is answered all the same."""
    proxy = await launch(a, b, backends={"a": {"read_timeout": "100ms"}})
    await a.control.set_faults(Rule(action=BlackHole()))
    replies = [
        await proxy.call("POST", "runs/create", {"experiment_id": "0"}),
        await proxy.call("GET", "experiments/get-by-name?experiment_name=x"),
        await proxy.call("POST", "registered-models/create", {"name": "x"}),
    ]
    version = await proxy.call("GET", "/version")
    await a.control.clear_faults()

    assert {(reply.status, reply.code) for reply in replies} == {(503, "TEMPORARILY_UNAVAILABLE")}
    assert all(int(reply.headers["Retry-After"]) >= 1 for reply in replies)
    assert (version.status, version.body[:1].isdigit()) == (200, True)


async def test_own_errors_are_json_with_a_code_that_mlflow_knows(launch: Launcher, a: Workspace, b: Workspace) -> None:
    proxy = await launch(a, b, limits={"body_timeout": "100ms", "max_body": "1MiB"})
    replies: list[Reply] = [
        await proxy.call("POST", "runs/set-tag", b"["),
        await proxy.call("POST", "runs/set-tag", {}, Host="evil.example"),
        await raw(proxy.url, request("POST", SET_TAG, f"Content-Length: {MIB + 1}")),
        await raw(proxy.url, request("POST", SET_TAG, "Content-Length: 9", body=b"{")),
    ]

    assert [reply.status for reply in replies] == [400, 403, 413, 408]
    assert all(reply.headers["Content-Type"] == "application/json" for reply in replies)
    assert {reply.code for reply in replies} <= CODES
    assert all(reply.json["message"] for reply in replies)


# --- paths ----------------------------------------------------------------------------------------------------------

Spelled = Callable[[str], str]
SPELLINGS: dict[str, Spelled] = {
    "plain": lambda path: path,
    "leading double slash": lambda path: "/" + path,
    "many leading slashes": lambda path: "////" + path,
    "a letter encoded": lambda path: path.replace("create", "%63reate"),
    "a slash encoded": lambda path: path.replace("/create", "%2Fcreate"),
    "in lower-case hex": lambda path: path.replace("/create", "%2fcreate"),
    "the prefix encoded": lambda path: path.replace("/api/", "/%61pi/"),
    "as the UI": lambda path: path.replace("/api/", "/ajax-api/"),
    "as the UI, encoded": lambda path: path.replace("/api/", "/ajax%2Dapi/"),
    "all of it": lambda path: "//" + "/".join(f"%{ord(p[0]):02x}{p[1:]}" for p in path.split("/") if p),
}


async def send(proxy: Running, path: str, body: bytes) -> Reply:
    """Without a client library, which would normalise the path."""
    return await raw(proxy.url, request("POST", path, body=body))


@pytest.mark.parametrize("spell", SPELLINGS.values(), ids=SPELLINGS.keys())
async def test_however_a_registry_write_is_spelled_it_reaches_one_backend(
    proxy: Running, a: Workspace, b: Workspace, spell: Spelled
) -> None:
    reply = await send(proxy, spell(f"{API}registered-models/create"), b'{"name": ""}')
    await proxy.drained()

    assert reply.headers["X-Dualtrack"] in {"registry", "primary-only"}
    assert reply.headers["X-Dualtrack"] == "registry" or reply.status == 404
    assert len(await a.control.log()) >= 1
    assert not await b.control.log()


@pytest.mark.parametrize("spell", SPELLINGS.values(), ids=SPELLINGS.keys())
async def test_however_a_registry_write_is_spelled_it_goes_to_the_registry(
    launch: Launcher, a: Workspace, b: Workspace, spell: Spelled
) -> None:
    """With the registry on the secondary, no spelling makes a model on the primary."""
    proxy = await launch(a, b, registry="b")
    name = unique("model")
    reply = await send(proxy, spell(f"{API}registered-models/create"), b'{"name": "%s"}' % name.encode())

    assert reply.status in {200, 404}
    assert name not in read_registry(a.side).models
    assert (name in read_registry(b.side).models) is (reply.status == 200)


@pytest.mark.parametrize("spell", SPELLINGS.values(), ids=SPELLINGS.keys())
async def test_however_a_tracking_write_is_spelled_it_is_mirrored_or_not_done(
    proxy: Running, a: Workspace, b: Workspace, spell: Spelled
) -> None:
    experiment = await proxy.create_experiment()
    await send(proxy, spell(f"{API}runs/create"), b'{"experiment_id": "%s", "start_time": 1}' % experiment.encode())

    assert not await proxy.differences(experiment, b)
