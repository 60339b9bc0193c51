"""Files of Azure ML runs, beside the suite of all stores: repeats, renewals, batches, and who sees a token."""

import asyncio
import os
import tracemalloc
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from dualtrack.backends.artifacts_azureml import AzureArtifacts
from dualtrack.backends.auth import bearer
from dualtrack.backends.http import HttpBackend
from dualtrack.backends.signed import SignedStorage
from dualtrack.demo.servers import MlflowServer
from dualtrack.emulators.azureml import DEFAULT_SCOPE
from dualtrack.emulators.faults import Body, DropAfter, Refuse, Rule
from dualtrack.errors import BackendError, RejectedError, UnauthorizedError, UnreachableError
from dualtrack.metrics import Metrics
from tests.support.azure import TOKEN, Workspace, workspace
from tests.support.raw_server import answer, saying

REGISTRATION = "artifacts/batch/metadata"
BLOB = "/azureml/ExperimentRun/"
MIB = 1024 * 1024


@dataclass
class Desk:
    """The store under test, the workspace that it talks to, and a folder for sources."""

    files: AzureArtifacts
    place: Workspace
    folder: Path

    def source(self, content: bytes = b"some") -> str:
        source = self.folder / uuid4().hex
        source.write_bytes(content)
        return str(source)

    async def write(self, path: str, content: bytes = b"some", root: str = "") -> None:
        await self.files.put(root or self.place.root, path, self.source(content))

    async def read(self, path: str, root: str = "") -> bytes | None:
        async with self.files.fetch(root or self.place.root, path) as fetched:
            return b"".join([chunk async for chunk in fetched.chunks]) if fetched else None

    async def crash(self, path: str) -> None:
        """Register, and go no further."""
        await self.files._registered(*self.files._place("crash", self.place.root, path))


def backend_at(url: str) -> HttpBackend:
    return HttpBackend(
        "azure",
        url,
        bearer(TOKEN),
        Metrics(),
        connect_timeout=5.0,
        read_timeout=30.0,
        call_timeout=30.0,
        connections=4,
        tls=True,
        user_agent="dualtrack/test",
    )


def storage() -> SignedStorage:
    return SignedStorage("azure", connect_timeout=5.0, read_timeout=30.0, tls=True, user_agent="dualtrack/test")


@pytest.fixture
async def desk(mlflow_primary: MlflowServer, tmp_path: Path) -> AsyncIterator[Desk]:
    async with workspace(mlflow_primary) as place:
        backend, signed = backend_at(place.base_url), storage()
        yield Desk(AzureArtifacts(backend, signed), place, tmp_path)
        await signed.close()
        await backend.close()


def refuse(method: str, path: str, status: int, first: int = 1) -> Rule:
    return Rule(method=method, path=path, first=first, action=Refuse(status=status, body=Body.EMPTY))


# ---- repeats -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"some"])
async def test_an_upload_that_died_before_the_bytes_may_be_repeated(desk: Desk, content: bytes) -> None:
    await desk.crash("a.txt")

    assert await desk.read("a.txt") is None
    await desk.write("a.txt", content)
    assert await desk.read("a.txt") == content


@pytest.mark.parametrize("lost", [REGISTRATION, BLOB])
async def test_a_lost_answer_is_repeated(desk: Desk, lost: str) -> None:
    await desk.place.control.set_faults(Rule(path=lost, first=1, action=DropAfter()))
    with pytest.raises(UnreachableError):
        await desk.write("a.txt")

    await desk.write("a.txt", b"again")
    assert await desk.read("a.txt") == b"again"


async def test_what_exists_is_replaced_without_a_condition(desk: Desk) -> None:
    await desk.write("a.txt")
    await desk.write("a.txt", b"new")

    puts = await desk.place.seen("PUT", BLOB)
    assert await desk.read("a.txt") == b"new"
    assert len(puts) == 2
    assert not [put for put in puts if "If-None-Match" in put["header_names"]]


@pytest.mark.parametrize("status", [403, 404])
async def test_where_no_writable_url_is_given_the_file_is_registered_anew(desk: Desk, status: int) -> None:
    await desk.write("a.txt")
    await desk.place.control.set_faults(refuse("GET", "/write$", status))
    await desk.write("a.txt", b"new")

    assert await desk.read("a.txt") == b"new"
    assert len(await desk.place.seen("DELETE", "metadata")) == 1


# ---- signed URLs ---------------------------------------------------------------------------------------------------


async def test_an_expired_url_is_renewed_for_a_put(desk: Desk) -> None:
    desk.place.site.blobs.expired_next = 1
    await desk.write("a.txt")

    assert await desk.read("a.txt") == b"some"


async def test_an_expired_url_is_renewed_for_a_fetch(desk: Desk) -> None:
    await desk.write("a.txt")
    desk.place.site.blobs.expired_next = 1

    assert await desk.read("a.txt") == b"some"


async def test_a_url_is_renewed_once_only_and_never_shown(desk: Desk) -> None:
    """What refuses a new URL too is no matter of one file: a firewall that is closed for a while must not cost it."""
    await desk.write("a.txt")
    desk.place.site.blobs.expired_next = 9
    for way in (desk.write("a.txt"), desk.read("a.txt")):
        with pytest.raises(UnreachableError, match="firewall") as caught:
            await way

        assert "sig=" not in str(caught.value)
    assert desk.place.site.blobs.expired_next == 5


async def test_no_token_reaches_the_storage(desk: Desk) -> None:
    await desk.write("a.txt")
    await desk.write("big", bytes(64 * MIB + 1))
    await desk.read("a.txt")

    seen = await desk.place.control.log()
    blobs = [each for each in seen if each["path"].startswith(BLOB)]
    assert {each["method"] for each in blobs} == {"PUT", "GET"}
    assert not [each for each in blobs if {"Authorization", "Cookie"} & set(each["header_names"])]
    assert all("Authorization" in each["header_names"] for each in seen if each not in blobs)


async def test_a_plain_url_of_an_encrypted_workspace_is_refused() -> None:
    backend, signed = backend_at(f"https://host{DEFAULT_SCOPE}"), storage()
    files = AzureArtifacts(backend, signed)
    with pytest.raises(UnreachableError, match="no https URL"):
        files._url("put a", {"contentUri": "http://host/a?sig=x"})

    await signed.close()
    await backend.close()


# ---- large and many ------------------------------------------------------------------------------------------------


async def test_a_large_file_goes_by_blocks_within_bounded_memory(desk: Desk) -> None:
    source = desk.folder / "big"
    with source.open("wb") as file:
        for _ in range(70):
            file.write(os.urandom(MIB))
    tracemalloc.start()
    await desk.files.put(desk.place.root, "big.bin", str(source))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert await desk.read("big.bin") == source.read_bytes()
    assert len(await desk.place.seen("PUT", "comp=block&")) == 18
    assert len(await desk.place.seen("PUT", "comp=blocklist")) == 1
    assert peak < 16 * MIB  # adapter and emulator together


async def test_a_failing_block_is_sent_again_alone(desk: Desk) -> None:
    await desk.place.control.set_faults(Rule(method="PUT", path=BLOB, nth=3, action=Refuse(status=500)))
    content = os.urandom(MIB) * 65
    await desk.write("big", content)

    assert await desk.read("big") == content
    assert len(await desk.place.seen("PUT", "comp=block&")) == 18


async def test_many_small_files_are_registered_together(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dualtrack.backends.artifacts_azureml._GATHERING_SECONDS", 2.0)  # on a slow machine, too
    names = [f"f/{number} + %ü.txt" for number in range(250)]
    await asyncio.gather(*(desk.write(name, name.encode()) for name in names))

    assert len(await desk.place.seen("POST", REGISTRATION)) <= 5
    assert sorted(each.path for each in await desk.files.list(desk.place.root, "f")) == sorted(names)
    assert await desk.read(names[7]) == names[7].encode()


async def test_a_batch_survives_that_its_first_one_is_cancelled(desk: Desk) -> None:
    root = desk.place.root
    run, _ = desk.files._place("put", root, "")
    async with asyncio.TaskGroup() as group:
        first = group.create_task(desk.files._registered(run, "a.txt"))
        second = group.create_task(desk.files._registered(run, "b.txt"))
        await asyncio.sleep(0)  # both have begun
        first.cancel()

    assert second.result()
    assert [each.path for each in await desk.files.list(root, "")] == ["b.txt"]


async def test_a_batch_that_fails_fails_for_all(desk: Desk) -> None:
    await desk.place.control.set_faults(refuse("POST", REGISTRATION, 503, first=0))
    ends = await asyncio.gather(*(desk.write(name) for name in "abc"), return_exceptions=True)

    assert [type(end) for end in ends] == [UnreachableError] * 3


# ---- roots ---------------------------------------------------------------------------------------------------------


async def test_a_root_may_name_the_experiment_in_the_old_form_and_lead_into_a_run(desk: Desk) -> None:
    await desk.write("model/MLmodel")
    old = f"azureml://experiments/Default/runs/{desk.place.run_id}/artifacts"

    assert await desk.read("MLmodel", f"{old}/model") == await desk.read("model/MLmodel", old) == b"some"
    assert [each.path for each in await desk.files.list(f"{old}/model", "")] == ["MLmodel"]


@pytest.mark.parametrize(
    "root",
    [
        "azureml://elsewhere{rest}",
        f"azureml://{{host}}/mlflow/v2.0{DEFAULT_SCOPE}2/experiments/0/runs/r/artifacts",
        "azureml://{host}{rest}/../../../runs/other",
        "azureml://experiments/../runs/r/artifacts",
        "azureml://experiments/e/runs/../artifacts",
        "azureml://experiments/e/runs/a%2Fb/artifacts",
        "azureml://registries/r",
        "azureml://subscriptions/x/datastores/workspaceblobstore/paths/a",
    ],
)
async def test_a_root_elsewhere_is_refused_and_nobody_asked(desk: Desk, root: str) -> None:
    own = urlsplit(desk.place.root)
    before = len(await desk.place.control.log())
    with pytest.raises(RejectedError):
        await desk.write("a.txt", root=root.format(host=own.netloc, rest=own.path))

    assert len(await desk.place.control.log()) == before


async def test_a_run_that_is_not_there_is_refused(desk: Desk) -> None:
    root = desk.place.root.replace(desk.place.run_id, "0" * 32)
    with pytest.raises(RejectedError, match="is not there"):
        await desk.write("a.txt", root=root)

    assert await desk.read("a.txt", root) is None
    assert await desk.files.list(root, "") == []


async def test_a_path_that_the_service_refuses_is_refused(desk: Desk) -> None:
    with pytest.raises(RejectedError, match="5000"):
        await desk.write("/".join(["a" * 100] * 51))


# ---- trouble -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [REGISTRATION, BLOB])
@pytest.mark.parametrize("status", [408, 429, 500, 503])
async def test_trouble_that_passes_says_when(desk: Desk, at: str, status: int) -> None:
    action = Refuse(status=status, retry_after="7")
    await desk.place.control.set_faults(Rule(path=at, first=1, action=action))
    with pytest.raises(UnreachableError) as caught:
        await desk.write("a.txt")

    assert caught.value.retry_after == 7


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (answer(401), UnauthorizedError),
        (answer(403), RejectedError),
        (answer(302, b"", "Location: /login?token=x"), UnreachableError),
        (answer(200, b"<html>"), UnreachableError),
        (answer(200, b"{}"), UnreachableError),
        (answer(200, b'{"artifactContentInformation": {"a.txt": {}}}'), UnreachableError),
    ],
)
async def test_an_answer_is_told_by_its_status(said: bytes, kind: type[BackendError], tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"some")
    async with saying(said, said) as server:
        backend, signed = backend_at(f"{server.url}/mlflow/v2.0{DEFAULT_SCOPE}"), storage()
        with pytest.raises(kind) as caught:
            await AzureArtifacts(backend, signed).put("azureml://experiments/e/runs/r/artifacts", "a.txt", str(source))
        await signed.close()
        await backend.close()

    assert type(caught.value) is kind


async def test_a_listing_that_does_not_go_on_is_trouble() -> None:
    page = answer(200, b'{"value": [], "continuationToken": "x"}')
    async with saying(page, page) as server:
        backend, signed = backend_at(f"{server.url}/mlflow/v2.0{DEFAULT_SCOPE}"), storage()
        with pytest.raises(UnreachableError, match="does not go on"):
            await AzureArtifacts(backend, signed).list("azureml://experiments/e/runs/r/artifacts", "")
        await signed.close()
        await backend.close()


async def test_a_listing_goes_on_where_only_a_link_says_how() -> None:
    """The plugin of the vendor goes by the link; whom it names is never asked."""
    first = answer(200, b'{"value": [{"path": "a"}], "nextLink": "https://elsewhere/x?continuationToken=t%201"}')
    async with saying(first, answer(200, b'{"value": [{"path": "b"}]}')) as server:
        backend, signed = backend_at(f"{server.url}/mlflow/v2.0{DEFAULT_SCOPE}"), storage()
        listed = await AzureArtifacts(backend, signed).list("azureml://experiments/e/runs/r/artifacts", "")
        await signed.close()
        await backend.close()

    assert [each.path for each in listed] == ["a", "b"]
    assert server.heard[1].line.split()[1].endswith("/artifacts?continuationToken=t%201")
