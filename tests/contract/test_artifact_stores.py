"""The ArtifactStore port: one suite for every transport, and what each makes of trouble."""

import asyncio
import gzip
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeAlias
from uuid import uuid4

import pytest

from dualtrack.backends import repositories
from dualtrack.backends.artifacts import Artifacts
from dualtrack.backends.artifacts_azureml import AzureArtifacts
from dualtrack.backends.auth import SignIn, TokenFile, bearer
from dualtrack.backends.http import HttpBackend
from dualtrack.backends.repositories import Repositories
from dualtrack.backends.signed import SignedStorage
from dualtrack.core.artifact import Listed
from dualtrack.demo.servers import MlflowServer, free_port
from dualtrack.errors import BackendError, RejectedError, UnauthorizedError, UnreachableError
from dualtrack.metrics import Metrics
from dualtrack.ports import ArtifactStore
from tests.support.azure import workspace as azure_workspace
from tests.support.raw_server import SILENCE, RawServer, Silence, answer, saying
from tests.support.workspace import ROADS, SIGNED, workspace

ROUTE = "/api/2.0/mlflow-artifacts/artifacts"
SERVED = "mlflow-artifacts:/1/r/artifacts"
NOTHING = answer(200, b"")
LISTED = answer(200, b'{"files": [{"path": "a.txt", "is_dir": false, "file_size": 4}]}')

Way: TypeAlias = Callable[[ArtifactStore, str, Path], Awaitable[object]]


@asynccontextmanager
async def files_at(
    url: str, sign_in: SignIn | None = None, *, local: bool = False, patience: float = 30.0
) -> AsyncIterator[Artifacts]:
    backend = HttpBackend(
        "azure",
        url,
        sign_in or bearer("a-token"),
        Metrics(),
        connect_timeout=5.0,
        read_timeout=patience,
        call_timeout=30.0,
        connections=4,
        tls=True,
        user_agent="dualtrack/test",
    )
    storage = SignedStorage("azure", connect_timeout=5.0, read_timeout=patience, tls=True, user_agent="dualtrack/test")
    clouds = {"azureml": AzureArtifacts(backend, storage)}
    files = Artifacts(backend, local=local, hosts=("localhost", "127.0.0.1"), clouds=clouds)
    try:
        yield files
    finally:
        await files.close()
        await backend.close()


@asynccontextmanager
async def told(*answers: bytes | Silence, **options: Any) -> AsyncIterator[tuple[Artifacts, RawServer]]:
    async with saying(*answers) as server, files_at(server.url, **options) as files:
        yield files, server


# ---- every transport -----------------------------------------------------------------------------------------------


@dataclass
class Root:
    """A root of its own for a test, and the store that reaches it."""

    files: Artifacts
    uri: str
    desk: Path
    can_delete: bool = True
    tells_sizes: bool = True

    def listed(self, path: str, size: int) -> Listed:
        return Listed(path=path, is_dir=False, size=size if self.tells_sizes else None)

    async def write(self, path: str, content: bytes = b"some") -> None:
        source = self.desk / uuid4().hex
        source.write_bytes(content)
        await self.files.put(self.uri, path, str(source))

    async def read(self, path: str) -> bytes | None:
        async with self.files.fetch(self.uri, path) as fetched:
            if fetched is None:
                return None
            content = b"".join([chunk async for chunk in fetched.chunks])
            assert fetched.size in {None, len(content)}
            return content

    def on_disk(self) -> dict[str, bytes]:
        """All that lies in a local root, temporary files included."""
        return {file.name: file.read_bytes() for file in Path(self.uri).glob("*")}

    async def names(self, path: str = "") -> list[str]:
        return [file.path for file in await self.files.list(self.uri, path)]


def address(kind: str, server: MlflowServer, tmp_path: Path) -> str:
    place = f"1/{uuid4().hex}/artifacts"
    return {
        "served": f"mlflow-artifacts:/{place}",
        "served by name": f"mlflow-artifacts://127.0.0.1:{server.port}/{place}",
        "folder": str(tmp_path / "roots" / place),
        "file": f"file://{tmp_path}/roots/{place}",
        "other host": f"mlflow-artifacts://localhost:{server.port}/{place}",
        "http": f"{server.url}{ROUTE}/{place}",
    }[kind]


@pytest.fixture(params=["served", "served by name", "folder", "file", "other host", "http", "azureml", *ROADS])
async def root(request: pytest.FixtureRequest, mlflow_primary: MlflowServer, tmp_path: Path) -> AsyncIterator[Root]:
    if request.param == "azureml":
        async with azure_workspace(mlflow_primary) as azure, files_at(azure.base_url) as files:
            yield Root(files, azure.root, tmp_path, tells_sizes=False)
        return
    if request.param in ROADS:
        of, choices = ROADS[request.param]
        async with workspace(mlflow_primary, choices) as place:
            yield Root(place.files, await place.root(of), tmp_path, can_delete=request.param not in SIGNED)
        return
    async with files_at(mlflow_primary.url, local=True) as files:
        yield Root(files, address(request.param, mlflow_primary, tmp_path), tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "a b.txt",
        "100%",
        "%zz",
        "a+b.png",
        "Größe/日本.csv",
        "a=b&c;d:e",
        "what?x",
        "x/y/z",
        "it's ~.html",
        "back\\slash",
    ],
)
async def test_a_file_comes_back_under_its_name(root: Root, name: str) -> None:
    await root.write(name, b"this")
    folder = name.rpartition("/")[0]

    assert await root.read(name) == b"this"
    assert await root.files.list(root.uri, folder) == [root.listed(name, 4)]


async def test_an_encoded_path_names_what_a_server_makes_of_it(root: Root) -> None:
    await root.write("%41%2520b.txt", b"this")

    assert await root.names() == ["A b.txt"]
    assert await root.read("A%20b.txt") == b"this"


@pytest.mark.parametrize("content", [b"", os.urandom(20 * 1024 * 1024), gzip.compress(b"some")])
async def test_content_is_kept(root: Root, content: bytes) -> None:
    await root.write("file.csv.gz", content)

    assert await root.read("file.csv.gz") == content


async def test_a_file_is_replaced(root: Root) -> None:
    await root.write("a.txt", b"a longer one")
    await root.write("a.txt", b"short")

    assert await root.read("a.txt") == b"short"
    assert await root.names() == ["a.txt"]


async def test_a_listing_is_sorted_and_one_level_deep(root: Root) -> None:
    for path in ("b/c/d.txt", "b/a.txt", "b/B.txt"):
        await root.write(path)

    assert await root.files.list(root.uri, "") == [Listed(path="b", is_dir=True)]
    assert await root.files.list(root.uri, "b") == [
        root.listed("b/B.txt", 4),
        root.listed("b/a.txt", 4),
        Listed(path="b/c", is_dir=True),
    ]


async def test_what_is_not_there_is_no_error(root: Root) -> None:
    await root.files.delete(root.uri, "no/such.txt")

    assert await root.read("no/such.txt") is None
    assert await root.names() == await root.names("no/such") == []


async def test_a_folder_is_no_file_and_a_file_no_folder(root: Root) -> None:
    await root.write("a/b.txt")

    assert await root.read("a") is None
    assert await root.read("a/b.txt/c") is None
    assert await root.names("a/b.txt") == []


async def test_a_file_and_a_folder_are_deleted_and_nothing_else(root: Root) -> None:
    for path in ("a.txt", "a.txt.bak", "b/c/d.txt", "bc.txt"):
        await root.write(path)
    if not root.can_delete:
        with pytest.raises(RejectedError, match="takes no deletes"):
            await root.files.delete(root.uri, "a.txt")
        return
    await root.files.delete(root.uri, "a.txt")
    await root.files.delete(root.uri, "b")

    assert await root.names() == ["a.txt.bak", "bc.txt"]


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/%2e%2e/%2e%2e/x", "a#b"])
async def test_a_path_out_of_the_root_is_refused(root: Root, path: str) -> None:
    with pytest.raises(RejectedError, match="safe path"):
        await root.write(path)


async def test_a_source_that_is_gone_is_refused(root: Root) -> None:
    with pytest.raises(RejectedError):
        await root.files.put(root.uri, "a.txt", str(root.desk / "gone"))

    assert await root.names() == []


@pytest.mark.parametrize("root", ["served", "folder"], indirect=True)
@pytest.mark.parametrize("path", ["a", "a/b.txt/c"])
async def test_a_name_that_is_taken_by_the_other_kind_is_refused(root: Root, path: str) -> None:
    """MLflow answers a bare 500."""
    await root.write("a/b.txt")

    with pytest.raises(RejectedError):
        await root.write(path)


@pytest.mark.parametrize("root", ["served", "folder"], indirect=True)
async def test_a_folder_may_hold_one_file_of_its_own_name(root: Root) -> None:
    await root.write("model/model")

    assert await root.names("model") == ["model/model"]


@pytest.mark.parametrize("root", ["served"], indirect=True)
async def test_what_the_reader_raises_is_not_the_backends_fault(root: Root) -> None:
    await root.write("a.txt")

    with pytest.raises(OSError, match="disk full"):
        async with root.files.fetch(root.uri, "a.txt"):
            raise OSError("disk full")


# ---- the backend's own routes in trouble ---------------------------------------------------------------------------


async def by_put(files: ArtifactStore, root: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"some")
    await files.put(root, "a.txt", str(source))


async def by_fetch(files: ArtifactStore, root: str, tmp_path: Path) -> object:
    async with files.fetch(root, "a.txt") as fetched:
        return fetched and b"".join([chunk async for chunk in fetched.chunks])


async def by_list(files: ArtifactStore, root: str, tmp_path: Path) -> object:
    return await files.list(root, "")


async def by_delete(files: ArtifactStore, root: str, tmp_path: Path) -> None:
    await files.delete(root, "a.txt")


def url_of(listener: asyncio.Server) -> str:
    return f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"


every_way = pytest.mark.parametrize("way", [by_put, by_fetch, by_list, by_delete])


@every_way
@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (answer(403, b'{"error_code": "PERMISSION_DENIED", "message": "not yours"}'), RejectedError),
        (answer(413, b"too large"), RejectedError),
        (answer(401), UnauthorizedError),
        (answer(302, b"", "Location: /login?token=x"), UnreachableError),
        (answer(408), UnreachableError),
        (answer(429), UnreachableError),
        (answer(502, b"<html>"), UnreachableError),
        (answer(200, b"<html>sign in</html>", "Content-Type: text/html"), UnreachableError),
    ],
)
async def test_an_answer_is_told_by_its_status(way: Way, said: bytes, kind: type[BackendError], tmp_path: Path) -> None:
    async with told(said) as (files, _):
        with pytest.raises(BackendError) as caught:
            await way(files, SERVED, tmp_path)

    assert type(caught.value) is kind
    assert "token=x" not in str(caught.value)


@every_way
async def test_a_busy_server_says_when_to_come_back(way: Way, tmp_path: Path) -> None:
    async with told(answer(503, b"{}", "Retry-After: 7")) as (files, _):
        with pytest.raises(UnreachableError) as caught:
            await way(files, SERVED, tmp_path)

    assert caught.value.retry_after == 7


@every_way
async def test_a_refused_token_is_renewed_once(way: Way, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("old")
    good = LISTED if way is by_list else NOTHING
    async with told(answer(401), good, sign_in=TokenFile("azure", token)) as (files, server):
        await way(files, SERVED, tmp_path)

    assert len(server.heard) == 2
    assert [heard.body for heard in server.heard] == ([b"some"] * 2 if way is by_put else [b"", b""])


@every_way
async def test_a_silent_server_is_given_up(way: Way, tmp_path: Path) -> None:
    async with told(SILENCE, patience=0.2) as (files, _):
        with pytest.raises(UnreachableError, match="in time"):
            await way(files, SERVED, tmp_path)


async def test_a_server_that_takes_no_more_of_a_body_is_given_up(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(bytes(32 * 1024 * 1024))
    ended = asyncio.Event()

    async def deaf(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await ended.wait()
        writer.close()

    async with await asyncio.start_server(deaf, "127.0.0.1", 0, limit=1024) as listener:
        async with files_at(url_of(listener), patience=0.3) as files:
            with pytest.raises(UnreachableError, match="in time"):
                await files.put(SERVED, "a.bin", str(source))
        ended.set()


async def test_a_cut_upload_is_unreachable(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(bytes(8 * 1024 * 1024))

    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(100_000)
        writer.transport.abort()

    async with await asyncio.start_server(cut, "127.0.0.1", 0) as listener, files_at(url_of(listener)) as files:
        with pytest.raises(UnreachableError):
            await files.put(SERVED, "a.bin", str(source))


async def test_a_refusal_in_the_middle_of_an_upload_is_one(tmp_path: Path) -> None:
    """As of a body that is too large: nobody waits until all of it is sent."""
    source = tmp_path / "source"
    source.write_bytes(bytes(32 * 1024 * 1024))
    ended = asyncio.Event()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(100_000)
        writer.write(answer(413, b"too large", "Connection: close"))
        await ended.wait()
        writer.transport.abort()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as listener:
        async with files_at(url_of(listener), patience=60.0) as files:
            with pytest.raises(RejectedError, match="413"):
                await files.put(SERVED, "a.bin", str(source))
        ended.set()


async def test_a_source_that_shrinks_breaks_the_upload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "pread", lambda *_: b"so")
    async with told(NOTHING) as (files, server):
        with pytest.raises(UnreachableError, match="the file ended at 2 of 4 bytes"):
            await by_put(files, SERVED, tmp_path)

    assert server.heard == []


async def test_a_source_that_cannot_be_read_may_be_later(tmp_path: Path) -> None:
    async with told() as (files, server):
        with pytest.raises(UnreachableError, match="directory"):
            await files.put(SERVED, "a.txt", str(tmp_path))

    assert server.heard == []


async def test_a_served_root_that_leads_out_is_refused() -> None:
    async with told() as (files, server):
        with pytest.raises(RejectedError, match="safe path"):
            await files.list("mlflow-artifacts:/a/../../b", "")

    assert server.heard == []


async def test_azure_roots_are_for_backends_of_that_kind() -> None:
    async with told() as (_, server), files_at(server.url) as files:
        with pytest.raises(RejectedError, match="azureml backend only"):
            await Repositories("azure", server.url).list("azureml://experiments/e/runs/r/artifacts", "")
        with pytest.raises(RejectedError, match="another workspace"):
            await files.list("azureml://elsewhere/x", "")

    assert server.heard == []


@pytest.mark.parametrize("head", ["Content-Length: 100", "Transfer-Encoding: chunked"])
async def test_a_cut_download_is_told_while_it_is_read(head: str, tmp_path: Path) -> None:
    said = f"HTTP/1.1 200 OK\r\n{head}\r\nConnection: close\r\n\r\n4\r\nsome\r\n"
    async with told(said.encode()) as (files, _), files.fetch(SERVED, "a.txt") as fetched:
        assert fetched is not None
        with pytest.raises(UnreachableError):
            _ = [chunk async for chunk in fetched.chunks]


async def test_nobody_listening_is_unreachable(tmp_path: Path) -> None:
    async with files_at(f"http://127.0.0.1:{free_port()}") as files:
        with pytest.raises(UnreachableError):
            await by_put(files, SERVED, tmp_path)


@every_way
async def test_a_bare_500_is_looked_into(way: Way, tmp_path: Path) -> None:
    """S3 behind MLflow: a missing file is a 500 too; one that is listed is trouble."""
    empty, trouble = answer(200, b"{}"), answer(500, b"Internal Server Error")
    async with told(trouble, LISTED) as (files, _):
        with pytest.raises(UnreachableError):
            await way(files, SERVED, tmp_path)
    async with told(trouble, empty) as (files, _):
        if way in {by_fetch, by_delete}:
            assert await way(files, SERVED, tmp_path) is None


async def test_a_listing_that_is_the_file_itself_is_empty(tmp_path: Path) -> None:
    """What older servers answer for a file."""
    async with told(LISTED, answer(200, b"some")) as (files, server):
        assert await files.list(SERVED, "x/a.txt") == []

    assert server.heard[1].line == f"GET {ROUTE}/1/r/artifacts/x/a.txt HTTP/1.1"


async def test_a_page_that_is_an_artifact_is_one(tmp_path: Path) -> None:
    said = answer(200, b"<html>", "Content-Type: text/html", "Content-Disposition: attachment; filename=a.txt")
    async with told(said) as (files, _):
        assert await by_fetch(files, SERVED, tmp_path) == b"<html>"


async def test_an_upload_looks_like_the_clients(tmp_path: Path) -> None:
    async with told(NOTHING) as (files, server):
        await by_put(files, "mlflow-artifacts:/1/a%20b c/artifacts", tmp_path)
    (heard,) = server.heard

    assert heard.line == f"PUT {ROUTE}/1/a%20b%20c/artifacts/a.txt HTTP/1.1"
    assert heard.headers["content-length"] == "4"
    assert heard.headers["content-type"] == "text/plain"
    assert heard.headers["authorization"] == "Bearer a-token"


_PAGE = b"<html><h1>404 Not Found</h1><hr>nginx</html>"


@pytest.mark.parametrize("way", [by_fetch, by_list, by_delete])
async def test_a_gateway_that_knows_no_such_page_does_not_say_that_a_file_is_gone(way: Way, tmp_path: Path) -> None:
    """MLflow's 404 names its error; that of a gateway before it passes with the gateway's trouble."""
    answer = b"HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n" % len(_PAGE)
    async with told(answer + _PAGE) as (files, _):
        with pytest.raises(UnreachableError, match="gateway"):
            await way(files, "mlflow-artifacts:/1", tmp_path)


async def test_the_whole_store_is_not_deleted() -> None:
    async with told() as (files, server):
        with pytest.raises(RejectedError, match="whole"):
            await files.delete("mlflow-artifacts:/", "")

    assert server.heard == []


# ---- folders of this machine ---------------------------------------------------------------------------------------


@pytest.fixture
async def folder(tmp_path: Path) -> AsyncIterator[Root]:
    place = tmp_path / "root"
    place.mkdir()
    async with files_at("http://127.0.0.1:1", local=True) as files:
        yield Root(files, str(place), tmp_path)


async def test_a_folder_needs_permission(tmp_path: Path) -> None:
    async with files_at("http://127.0.0.1:1") as files:
        with pytest.raises(RejectedError, match=str(tmp_path)) as caught:
            await files.list(str(tmp_path), "")

    assert "backends.azure.local_artifacts: true" in caught.value.hint


@pytest.mark.parametrize("uri", ["mlruns/1", "./x", "file:x", "file://elsewhere/x", ""])
async def test_a_root_that_is_no_place_on_this_machine_is_refused(folder: Root, uri: str) -> None:
    with pytest.raises(RejectedError, match="absolute"):
        await folder.files.list(uri, "")


async def test_no_link_leads_out(folder: Root) -> None:
    outside = folder.desk / "outside"
    outside.mkdir()
    (outside / "secret").write_text("s")
    (Path(folder.uri) / "way").symlink_to(outside)
    (Path(folder.uri) / "file").symlink_to(outside / "secret")

    assert await folder.names() == []
    for path in ("way/secret", "file"):
        with pytest.raises(RejectedError, match="out of the root"):
            await folder.read(path)
    with pytest.raises(RejectedError, match="out of the root"):
        await folder.write("way/new/x")
    with pytest.raises(RejectedError, match="out of the root"):
        await folder.files.delete(folder.uri, "way/secret")
    assert [file.name for file in outside.iterdir()] == ["secret"]


async def test_a_link_itself_may_be_replaced_and_deleted(folder: Root) -> None:
    kept = folder.desk / "kept"
    kept.mkdir()
    (kept / "x").write_text("x")
    (Path(folder.uri) / "link").symlink_to(kept)
    (Path(folder.uri) / "file").symlink_to(kept / "x")
    await folder.files.delete(folder.uri, "link")
    await folder.write("file", b"new")

    assert await folder.names() == ["file"]
    assert (kept / "x").read_text() == "x"


async def test_the_root_itself_may_be_deleted(folder: Root) -> None:
    await folder.write("a/b.txt")
    await folder.files.delete(folder.uri, "")

    assert [file.name for file in folder.desk.iterdir() if file.is_dir()] == []


async def test_a_failed_write_leaves_nothing(folder: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    await folder.write("a.txt", b"old")
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(UnreachableError, match="No space left"):
        await folder.write("a.txt", b"new")

    assert folder.on_disk() == {"a.txt": b"old"}


async def test_a_file_that_shrinks_while_it_is_read_is_told(folder: Root) -> None:
    await folder.write("a.bin", bytes(3 * 1024 * 1024))
    async with folder.files.fetch(folder.uri, "a.bin") as fetched:
        assert fetched is not None
        await anext(aiter(fetched.chunks))
        os.truncate(f"{folder.uri}/a.bin", 10)

        with pytest.raises(UnreachableError, match="changed"):
            _ = [chunk async for chunk in fetched.chunks]


async def test_a_cancelled_write_takes_no_effect(folder: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even when its thread goes on after a later write."""
    synced, reached, ended = os.fsync, threading.Event(), threading.Event()

    def slow(descriptor: int) -> None:
        monkeypatch.setattr(os, "fsync", synced)
        reached.set()
        ended.wait(60)

    monkeypatch.setattr(os, "fsync", slow)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(folder.write("a.txt", b"old"))
        await asyncio.to_thread(reached.wait, 60)
        task.cancel()
    await folder.write("a.txt", b"new")
    ended.set()
    await folder.files.close()
    await asyncio.to_thread(folder.files._elsewhere._threads.shutdown)

    assert folder.on_disk() == {"a.txt": b"new"}


# ---- stores that mlflow's repositories reach -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "cause", "hint"),
    [
        ("s3://bucket/x", "boto3", "pip install boto3"),
        ("gs://bucket/x", "google", "pip install google-cloud-storage"),
        ("wasbs://c@a.blob.core.windows.net/x", "azure", "pip install azure-storage-blob"),
        ("dbfs:/databricks/mlflow-tracking/1/2/artifacts", "databricks backend only", "kind: databricks"),
        ("azureml://subscriptions/x", "another workspace", "backend of its own"),
        ("azureml://host:port/x", "no URI", ""),
        ("runs:/abc/x", "no artifact root", ""),
        ("nobody-knows://x", "registered", ""),
        ("mlflow-artifacts://host:port/x", "no URI", ""),
    ],
)
async def test_a_root_that_nobody_here_reaches_is_refused(uri: str, cause: str, hint: str) -> None:
    async with files_at("http://127.0.0.1:1") as files:
        with pytest.raises(RejectedError, match=cause) as caught:
            await files.list(uri, "")

    assert hint in caught.value.hint


@every_way
@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, UnauthorizedError), (403, RejectedError), (500, UnreachableError), (503, UnreachableError)],
)
async def test_a_foreign_server_is_told_by_its_status(
    way: Way, status: int, kind: type[BackendError], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    async with saying(answer(status)) as server, files_at("http://127.0.0.1:1") as files:
        with pytest.raises(BackendError) as caught:
            await way(files, f"{server.url}{ROUTE}/1", tmp_path)

    assert type(caught.value) is kind


async def test_a_foreign_server_that_is_down_is_unreachable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    async with files_at("http://127.0.0.1:1") as files:
        with pytest.raises(UnreachableError) as caught:
            await by_put(files, f"http://user:s3cr3t@127.0.0.1:{free_port()}{ROUTE}/1?sig=s3cr3t", tmp_path)

    assert "s3cr3t" not in str(caught.value)


class ClientError(Exception):
    """As botocore's."""

    def __init__(self, status: int, code: str) -> None:
        self.response = {"ResponseMetadata": {"HTTPStatusCode": status}, "Error": {"Code": code}}
        super().__init__(code)


class ResourceNotFoundError(Exception):
    """As azure.core's."""

    status_code = 404


class GoogleAPICallError(Exception):
    code = 503


class NoCredentialsError(Exception):
    pass


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ClientError(404, "NoSuchBucket"), RejectedError),
        (ClientError(403, "AccessDenied"), RejectedError),
        (ClientError(400, "ExpiredToken"), UnauthorizedError),
        (ClientError(503, "SlowDown"), UnreachableError),
        (ResourceNotFoundError(), RejectedError),
        (GoogleAPICallError(), UnreachableError),
        (NoCredentialsError(), UnauthorizedError),
        (NotImplementedError("cannot delete"), RejectedError),
        (PermissionError(13, "Permission denied"), RejectedError),
        (ConnectionResetError(), UnreachableError),
        (TimeoutError(), UnreachableError),
        (RuntimeError("who knows"), UnreachableError),
    ],
)
async def test_a_library_is_told_by_what_it_raises(
    error: Exception, kind: type[BackendError], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when another library wraps it, as boto3's uploads do."""

    class Failing:
        def log_artifact(self, *_: object) -> None:
            try:
                raise error
            except Exception as cause:
                raise RuntimeError("wrapped") from cause

    monkeypatch.setattr(repositories.Repositories, "_make", lambda *_: Failing())
    async with files_at("http://127.0.0.1:1") as files:
        with pytest.raises(BackendError) as caught:
            await by_put(files, "s3://bucket/x", tmp_path)

    assert type(caught.value) is kind


@pytest.mark.parametrize("way", [by_fetch, by_delete])
@pytest.mark.parametrize("there", [True, False])
async def test_a_failure_is_one_if_the_file_is_listed(
    way: Way, there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is raised for a missing file is a plain failure in some libraries."""

    class Failing:
        def _download_file(self, *_: object) -> None:
            raise RuntimeError("something")

        def delete_artifacts(self, *_: object) -> None:
            raise RuntimeError("something")

        def list_artifacts(self, _: str | None) -> list[SimpleNamespace]:
            return [SimpleNamespace(path="a.txt", is_dir=False, file_size=4)] if there else []

    monkeypatch.setattr(repositories.Repositories, "_make", lambda *_: Failing())
    async with files_at("http://127.0.0.1:1") as files:
        if there:
            with pytest.raises(UnreachableError, match="something"):
                await way(files, "s3://bucket/x", tmp_path)
        else:
            assert await way(files, "s3://bucket/x", tmp_path) is None


async def test_a_cancelled_fetch_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread goes on until its library is done, and cleans up then."""
    reached, ended, places = threading.Event(), threading.Event(), list[Path]()

    class Slow:
        def _download_file(self, _: str, place: str) -> None:
            places.append(Path(place))
            Path(place).write_bytes(b"some")
            reached.set()
            ended.wait(60)

    monkeypatch.setattr(repositories.Repositories, "_make", lambda *_: Slow())
    async with files_at("http://127.0.0.1:1") as files, asyncio.TaskGroup() as tasks:
        task = tasks.create_task(_fetched(files, tmp_path))
        await asyncio.to_thread(reached.wait, 60)
        task.cancel()
    ended.set()
    await asyncio.to_thread(files._elsewhere._threads.shutdown)

    assert places
    assert not places[0].parent.exists()


async def _fetched(files: ArtifactStore, tmp_path: Path) -> None:
    await by_fetch(files, "s3://bucket/x", tmp_path)


@pytest.mark.parametrize(
    "root",
    [
        "abfss://files@account.evil.example/x",
        "abfss://files@account.dfs.core.windows.net.evil.example/x",
        "abfss://files@account.dfs.core.windows.net:8443/x",
        "r2://bucket@evil.example/x",
        "b2://bucket@s3.x.backblazeb2.com.evil.example/x",
        "http://evil.example\\@127.0.0.1/x",
        "http://127.0.0.1\\@evil.example/x",
        "http://evil.example /x",
        "sftp://evil.example/x",
        "ftp:///x",
        "http://10.0.0.1:99999/x",
        "mlflow-artifacts://evil.example/x",
    ],
)
async def test_nobody_is_led_to_another_host_with_our_credentials(root: str) -> None:
    """These repositories connect to where the root says, signed in as this machine is."""
    async with told() as (files, server):
        with pytest.raises(RejectedError):
            await files.list(root, "")

    assert server.heard == []


@pytest.mark.parametrize(
    "root",
    [
        "abfss://files@account.dfs.core.windows.net/x",
        "abfss://files@account.dfs.core.usgovcloudapi.net/x",
        "r2://bucket@account.r2.cloudflarestorage.com/x",
        "b2://bucket@s3.us-west-004.backblazeb2.com/x",
    ],
)
async def test_a_cloud_s_own_domain_needs_no_permission(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Empty:
        def list_artifacts(self, _: object) -> list[object]:
            return []

    monkeypatch.setattr(repositories.Repositories, "_make", lambda *_: Empty())
    async with files_at("http://127.0.0.1:1") as files:
        assert await files.list(root, "") == []


async def test_a_root_on_a_host_that_nobody_named_is_left_alone() -> None:
    """A client may choose a root, by an experiment's location; it does not choose where this machine connects."""
    async with told() as (files, server):
        with pytest.raises(RejectedError, match=r"artifact_hosts: \[10\.0\.0\.1\]"):
            await files.list("http://10.0.0.1/api/2.0/mlflow-artifacts/artifacts/1", "")

    assert server.heard == []
