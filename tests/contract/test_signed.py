"""The client of signed URLs: what it sends, what it makes of refusals, and that a signature is never shown."""

import asyncio
import logging
import os
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeAlias

import pytest

from dualtrack.backends.signed import ExpiredUrlError, MissingError, SignedStorage
from dualtrack.demo.servers import free_port
from dualtrack.errors import BackendError, RejectedError, UnreachableError
from tests.support.raw_server import SILENCE, RawServer, Silence, answer, saying

SIGNED = "/c/a%20b?se=2026&sig=a%2Fsecret%3D"
XML = '\ufeff<?xml version="1.0"?><Error><Code>{}</Code><Message>Signature sig=a/secret=</Message></Error>'

Way: TypeAlias = Callable[[SignedStorage, str, str], Awaitable[object]]


@asynccontextmanager
async def storage(patience: float = 30.0) -> AsyncIterator[SignedStorage]:
    client = SignedStorage("azure", connect_timeout=5.0, read_timeout=patience, tls=True, user_agent="dualtrack/test")
    try:
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def told(*answers: bytes | Silence, patience: float = 30.0) -> AsyncIterator[tuple[SignedStorage, RawServer]]:
    async with saying(*answers) as server, storage(patience) as client:
        yield client, server


@pytest.fixture
def source(tmp_path: Path) -> str:
    (tmp_path / "source").write_bytes(b"0123456789")
    return str(tmp_path / "source")


async def by_blob(client: SignedStorage, url: str, source: str) -> None:
    await client.put_blob(url, {}, source)


async def by_object(client: SignedStorage, url: str, source: str) -> str:
    return await client.put_object(url, {}, source)


async def by_request(client: SignedStorage, url: str, source: str) -> object:
    return await client.request("POST", url, {}, b"<x/>")


async def by_fetch(client: SignedStorage, url: str, source: str) -> bytes:
    async with client.fetch(url, {}) as reply:
        return b"".join([chunk async for chunk in reply.body])


every_way = pytest.mark.parametrize("way", [by_blob, by_object, by_request, by_fetch])


# ---- what is sent --------------------------------------------------------------------------------------------------


@every_way
async def test_the_url_arrives_as_it_is_and_nothing_of_ours_with_it(way: Way, source: str) -> None:
    async with told(answer(200, b"", "Set-Cookie: a=b")) as (client, server):
        await way(client, server.url + SIGNED, source)
        await way(client, server.url + SIGNED, source)

    assert [heard.line.split()[1] for heard in server.heard] == [SIGNED] * 2
    assert not [heard for heard in server.heard if {"authorization", "cookie"} & heard.headers.keys()]
    assert not [heard for heard in server.heard if "transfer-encoding" in heard.headers]


async def test_a_credential_among_the_headers_is_dropped(source: str) -> None:
    async with told(answer(200)) as (client, server):
        await client.put_object(server.url, {"authorization": "Bearer x", "Cookie": "a", "x-amz-acl": "y"}, source)

    sent = server.heard[0].headers
    assert sent["x-amz-acl"] == "y"
    assert not {"authorization", "cookie"} & sent.keys()


async def test_a_part_of_a_file_is_sent_and_its_etag_answered(source: str) -> None:
    async with told(answer(200, b"", 'ETag: "abc"')) as (client, server):
        assert await client.put_object(server.url + SIGNED, {}, source, offset=2, length=3) == '"abc"'
        await client.put_object(server.url + SIGNED, {}, source, offset=8)
        await client.put_object(server.url + SIGNED, {}, source, offset=10)

    assert [heard.body for heard in server.heard] == [b"234", b"89", b""]
    assert [heard.headers["content-length"] for heard in server.heard] == ["3", "2", "0"]


async def test_a_blob_is_put_without_a_condition(source: str) -> None:
    async with told(answer(201)) as (client, server):
        await client.put_blob(server.url + SIGNED, {}, source)

    assert server.heard[0].headers["x-ms-blob-type"] == "BlockBlob"
    assert "if-none-match" not in server.heard[0].headers


async def test_a_large_blob_is_put_by_blocks_and_then_listed(tmp_path: Path) -> None:
    source = tmp_path / "big"
    with source.open("wb") as file:
        file.truncate(64 * 1024 * 1024 + 1)
    async with told(answer(201)) as (client, server):
        await client.put_blob(server.url + SIGNED, {}, str(source))

    *blocks, last = server.heard
    assert [len(block.body) for block in blocks] == [4 * 1024 * 1024] * 16 + [1]
    assert len({block.line for block in blocks}) == 17
    assert "&comp=blocklist " in last.line
    assert last.body.count(b"<Latest>") == 17


# ---- what is answered ----------------------------------------------------------------------------------------------


@every_way
@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (403, "AuthenticationFailed", ExpiredUrlError),
        (401, "NoAuthenticationInformation", ExpiredUrlError),
        (400, "ExpiredToken", ExpiredUrlError),
        (400, "EntityTooLarge", RejectedError),
        (404, "BlobNotFound", MissingError),
        (409, "LeaseIdMissing", RejectedError),
        (412, "ConditionNotMet", RejectedError),
        (301, "", UnreachableError),
        (408, "", UnreachableError),
        (429, "TooManyRequests", UnreachableError),
        (503, "ServerBusy", UnreachableError),
    ],
)
async def test_a_refusal_is_told_by_its_status_and_code(
    way: Way, status: int, code: str, kind: type[BackendError], source: str
) -> None:
    body = XML.format(code).encode() if code else b""
    async with told(answer(status, body, "Retry-After: 7", "Location: /x?sig=a%2Fsecret%3D")) as (client, server):
        with pytest.raises(BackendError) as caught:
            await way(client, server.url + SIGNED, source)

    assert type(caught.value) is kind
    assert code in str(caught.value)
    assert "secret" not in str(caught.value)
    if isinstance(caught.value, UnreachableError) and status != 301:
        assert caught.value.retry_after == 7


@pytest.mark.parametrize(
    ("body", "code"),
    [(b'{"error": {"code": "PathNotFound"}}', "PathNotFound"), (b"<html>", ""), (b'{"error": "x"}', ""), (b"[]", "")],
)
async def test_a_code_is_read_where_there_is_one(body: bytes, code: str, source: str) -> None:
    async with told(answer(404, body)) as (client, server):
        with pytest.raises(MissingError) as caught:
            await by_fetch(client, server.url, source)

    assert caught.value.cause == f"HTTP 404 {code}".strip()


@every_way
@pytest.mark.parametrize("said", [b"", b"nonsense\r\n\r\n", SILENCE])
async def test_no_answer_is_unreachable_and_shows_no_signature(
    way: Way, said: bytes | Silence, source: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with told(said, patience=0.2) as (client, server):
        with pytest.raises(UnreachableError) as caught:
            await way(client, server.url + SIGNED, source)

    assert "secret" not in "".join(traceback.format_exception(caught.value, chain=False)) + caplog.text + repr(client)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@every_way
async def test_nobody_listening_has_not_been_sent_anything(way: Way, source: str) -> None:
    async with storage() as client:
        with pytest.raises(UnreachableError) as caught:
            await way(client, f"http://127.0.0.1:{free_port()}{SIGNED}", source)

    assert not caught.value.sent


@every_way
@pytest.mark.parametrize("url", ["", "/c?sig=secret", "ftp://h/c?sig=secret", "http://h:port/?sig=secret", "http://[x"])
async def test_what_is_no_url_is_refused(way: Way, url: str, source: str) -> None:
    async with storage() as client:
        with pytest.raises(RejectedError, match="signed URL is none") as caught:
            await way(client, url, source)

    assert "secret" not in str(caught.value)


async def test_a_cut_download_is_told_while_it_is_read(source: str) -> None:
    said = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\nConnection: close\r\n\r\nsome"
    async with told(said) as (client, server):
        with pytest.raises(UnreachableError):
            await by_fetch(client, server.url + SIGNED, source)


# ---- the file ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", [by_blob, by_object])
async def test_a_file_that_is_gone_is_refused_and_one_that_cannot_be_read_may_be_later(
    way: Way, tmp_path: Path
) -> None:
    async with told(answer(200)) as (client, server):
        with pytest.raises(RejectedError, match="is gone"):
            await way(client, server.url, str(tmp_path / "gone"))
        with pytest.raises(UnreachableError, match="directory"):
            await way(client, server.url, str(tmp_path))

    assert server.heard == []


async def test_a_file_that_shrinks_breaks_the_upload(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "pread", lambda *_: b"so")
    async with told(answer(200)) as (client, server):
        with pytest.raises(UnreachableError, match="the file ended at 2 of 10 bytes"):
            await by_blob(client, server.url, source)

    assert server.heard == []


async def test_a_storage_that_takes_no_more_is_given_up(tmp_path: Path) -> None:
    source = tmp_path / "big"
    with source.open("wb") as file:
        file.truncate(32 * 1024 * 1024)
    ended = asyncio.Event()

    async def deaf(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await ended.wait()
        writer.close()

    async with await asyncio.start_server(deaf, "127.0.0.1", 0, limit=1024) as listener, storage(0.3) as client:
        port = listener.sockets[0].getsockname()[1]
        with pytest.raises(UnreachableError, match="in time"):
            await by_blob(client, f"http://127.0.0.1:{port}/", str(source))
        ended.set()
