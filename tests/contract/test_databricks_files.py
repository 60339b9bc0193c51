"""Files of a Databricks workspace: which road is taken, what is remembered, and what each makes of trouble."""

import asyncio
import gc
import os
import tracemalloc
from pathlib import Path
from typing import Any

import orjson
import pytest

from dualtrack.backends import artifacts_databricks
from dualtrack.backends.databricks_signed import Sizes
from dualtrack.core.artifact import Listed
from dualtrack.demo.servers import MlflowServer
from dualtrack.emulators.databricks_files import Choices
from dualtrack.emulators.faults import BlackHole, DropAfter, Refuse, Rule
from dualtrack.emulators.storage import Kind
from dualtrack.errors import BackendError, RejectedError, UnauthorizedError, UnreachableError
from tests.support.raw_server import answer, saying
from tests.support.workspace import ROADS, SIGNED, Workspace, reaching, workspace

SMALL = Sizes(whole_bytes=5, model_whole_bytes=5, part_bytes=3)
MIB = 1024 * 1024
every_kind = pytest.mark.parametrize("kind", list(Kind))
STORAGE = "/__storage__/"


async def put(place: Workspace, root: str, path: str, source: Path, content: bytes = b"some") -> None:
    await asyncio.to_thread(source.write_bytes, content)
    await place.files.put(root, path, str(source))


async def read(place: Workspace, root: str, path: str) -> bytes | None:
    async with place.files.fetch(root, path) as fetched:
        return b"".join([chunk async for chunk in fetched.chunks]) if fetched is not None else None


# ---- which road ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("refusal", [403, 404, 501])
async def test_a_closed_files_api_is_asked_once(mlflow_primary: MlflowServer, tmp_path: Path, refusal: int) -> None:
    async with workspace(mlflow_primary, Choices(refuses=refusal)) as place:
        root = await place.root("run")
        for name in ("a", "b"):
            await put(place, root, name, tmp_path / "source")
        await read(place, root, "a")
        await place.files.list(root, "")

        assert len(await place.calls("/api/2.0/fs/")) == 1


async def test_runs_and_models_are_found_out_about_each_for_itself(
    mlflow_primary: MlflowServer, tmp_path: Path
) -> None:
    async with workspace(mlflow_primary, Choices()) as place:
        await place.control.set_faults(Rule(action=Refuse(status=403), path="/fs/files/.*/LoggedModels/"))
        run, model = await place.root("run"), await place.root("model")
        for root in (run, model, run, model):
            await put(place, root, "a", tmp_path / "source")

        calls = await place.calls("/api/2.0/fs/")
        assert [len([call for call in calls if area in call]) for area in ("/Runs/", "/LoggedModels/")] == [2, 1]


@pytest.mark.parametrize(("refusal", "calls"), [(403, 1), (404, 2)])
async def test_a_closed_files_api_is_found_out_by_reading_too(
    mlflow_primary: MlflowServer, tmp_path: Path, refusal: int, calls: int
) -> None:
    """A 404 says nothing until the file is found elsewhere, and missed again."""
    async with workspace(mlflow_primary, Choices(refuses=refusal)) as place:
        root = await place.root("run")
        await put(place, root, "a", tmp_path / "source")
        async with reaching(place.url) as fresh:
            place.files = fresh
            before = len(await place.calls("/api/2.0/fs/"))

            assert await read(place, root, "a") == b"some"
            assert await read(place, root, "a") == b"some"
            assert len(await place.calls("/api/2.0/fs/")) == before + calls


@pytest.mark.parametrize("again", [None, 403, 503])
async def test_a_file_that_comes_between_two_looks_closes_nothing(
    mlflow_primary: MlflowServer, tmp_path: Path, again: int | None
) -> None:
    """Missed by its path, found by a URL: only what the Files API misses or refuses again is closed."""
    async with workspace(mlflow_primary, Choices()) as place:
        root = await place.root("run")
        await put(place, root, "a", tmp_path / "source")
        rules = [Rule(action=Refuse(status=404), path="/fs/files/", first=1)]
        rules += [Rule(action=Refuse(status=again), path="/fs/files/", nth=2)] if again else []
        await place.control.set_faults(*rules)
        async with reaching(place.url) as fresh:
            place.files = fresh

            assert await read(place, root, "a") == b"some"
            assert await read(place, root, "a") == b"some"
            assert len(await place.calls("credentials-for-read")) == (2 if again == 403 else 1)


async def test_an_open_files_api_refuses_one_file_and_stays_open(mlflow_primary: MlflowServer, tmp_path: Path) -> None:
    async with workspace(mlflow_primary, Choices()) as place:
        root = await place.root("run")
        await put(place, root, "a", tmp_path / "source")
        await place.control.set_faults(Rule(action=Refuse(status=403), path="/secret"))
        with pytest.raises(RejectedError, match="403"):
            await put(place, root, "secret", tmp_path / "source")
        await put(place, root, "b", tmp_path / "source")

        assert await place.calls("credentials") == []
        assert await place.files.list(root, "") == [Listed(path=name, is_dir=False, size=4) for name in "ab"]


async def test_what_both_roads_refuse_is_refused_and_nothing_is_remembered(
    mlflow_primary: MlflowServer, tmp_path: Path
) -> None:
    async with workspace(mlflow_primary, Choices()) as place:
        root = await place.root("run")
        await place.control.set_faults(Rule(action=Refuse(status=403), path="/fs/|credentials"))
        with pytest.raises(RejectedError, match="403"):
            await put(place, root, "a", tmp_path / "source")
        await place.control.clear_faults()
        await put(place, root, "a", tmp_path / "source")

        assert len(await place.calls("/fs/files/")) == 2


async def test_a_run_that_is_not_there_has_no_files_and_takes_none(
    mlflow_primary: MlflowServer, tmp_path: Path
) -> None:
    root = f"dbfs:/databricks/mlflow-tracking/0/{'0' * 32}/artifacts"
    async with workspace(mlflow_primary, Choices(refuses=404)) as place:
        with pytest.raises(RejectedError, match="RESOURCE_DOES_NOT_EXIST"):
            await put(place, root, "a", tmp_path / "source")

        assert await read(place, root, "a") is None
        assert await place.files.list(root, "") == []


@pytest.mark.parametrize(
    "root",
    [
        "dbfs:/databricks/mlflow-tracking/1",
        "dbfs:/databricks/mlflow-tracking/1/r",
        "dbfs:/databricks/mlflow-tracking/1/tr-1/artifacts",
        "dbfs:/databricks/mlflow-tracking/1/r/artifacts/../../s",
        "dbfs:/databricks/mlflow-tracking/1/logged_models/artifacts",
        "dbfs://other@databricks/databricks/mlflow-tracking/1/r/artifacts",
        "dbfs:/Volumes/catalog/schema",
        "dbfs:/FileStore/x",
        "dbfs:",
    ],
)
async def test_a_root_of_another_form_is_refused(root: str) -> None:
    async with saying(answer(500)) as server, reaching(server.url) as files:
        with pytest.raises(RejectedError, match="no root of a run") as caught:
            await files.list(root, "")

    assert "dbfs:/Volumes/" in caught.value.hint
    assert server.heard == []


@pytest.mark.parametrize("of", ["run", "model"])
@pytest.mark.parametrize("refuses", [0, 404])
async def test_a_root_below_an_entity_s_own_is_reached(
    mlflow_primary: MlflowServer, tmp_path: Path, of: str, refuses: int
) -> None:
    async with workspace(mlflow_primary, Choices(refuses=refuses)) as place:
        root = await place.root(of)
        await put(place, f"{root}/a/b", "c/d", tmp_path / "source")

        assert await read(place, root, "a/b/c/d") == b"some"
        assert await place.files.list(f"{root}/a/b", "c") == [Listed(path="c/d", is_dir=False, size=4)]


@pytest.mark.parametrize("of", ["run", "model"])
@pytest.mark.parametrize("refuses", [0, 404])
async def test_a_long_listing_is_read_to_its_end(
    mlflow_primary: MlflowServer, tmp_path: Path, of: str, refuses: int
) -> None:
    async with workspace(mlflow_primary, Choices(refuses=refuses)) as place:
        root, names = await place.root(of), [f"{number}.txt" for number in range(8)]
        for name in names:
            await put(place, root, name, tmp_path / "source")

        assert [file.path for file in await place.files.list(root, "")] == names


async def test_what_the_files_api_does_not_take_goes_by_a_signed_url(
    mlflow_primary: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifacts_databricks, "FILE_BYTES_MAX", 3)
    async with workspace(mlflow_primary, Choices()) as place:
        root = await place.root("run")
        await put(place, root, "a", tmp_path / "source")

        assert await place.calls("/api/2.0/fs/") == []
        assert await read(place, root, "a") == b"some"


# ---- no token where none belongs -----------------------------------------------------------------------------------


@pytest.mark.parametrize("road", sorted(SIGNED))
async def test_a_signed_url_never_gets_a_bearer(mlflow_primary: MlflowServer, tmp_path: Path, road: str) -> None:
    of, choices = ROADS[road]
    async with workspace(mlflow_primary, choices, SMALL) as place:
        root = await place.root(of)
        place.emulator.storage._part_bytes_min = 1
        await put(place, root, "a", tmp_path / "source", b"some more")
        assert await read(place, root, "a") == b"some more"
        seen = [seen for seen in await place.control.log() if seen["path"].startswith(STORAGE)]

    assert len(seen) >= 2
    assert not [seen for seen in seen if "Authorization" in seen["header_names"]]


# ---- sequences -----------------------------------------------------------------------------------------------------


@every_kind
@pytest.mark.parametrize("of", ["run", "model"])
async def test_a_file_in_pieces_is_the_same_file(
    mlflow_primary: MlflowServer, tmp_path: Path, kind: Kind, of: str
) -> None:
    async with workspace(mlflow_primary, Choices(refuses=403, kind=kind, part_bytes_min=3), SMALL) as place:
        root = await place.root(of)
        for content in (b"", b"123", b"123456", b"12345678"):
            await put(place, root, "a b/ü%+.bin", tmp_path / "source", content)

            assert await read(place, root, "a b/ü%+.bin") == content
        assert not place.emulator.storage.uploads


@every_kind
async def test_an_expired_credential_is_renewed_once(mlflow_primary: MlflowServer, tmp_path: Path, kind: Kind) -> None:
    """In the middle of the file: what was sent before stays good."""
    async with workspace(mlflow_primary, Choices(refuses=403, kind=kind, part_bytes_min=3), SMALL) as place:
        root = await place.root("run")
        nth = 1 if kind is Kind.GCP else 2
        await place.control.set_faults(Rule(action=Refuse(status=403), path=STORAGE, nth=nth))
        await put(place, root, "a", tmp_path / "source", b"12345678")
        again = "get-presigned-upload-part-url" if kind is Kind.AWS else "credentials-for-write"

        assert await read(place, root, "a") == b"12345678"
        assert len(await place.calls(again)) == (1 if kind is Kind.AWS else 2)


@every_kind
async def test_a_credential_that_is_refused_again_is_trouble_of_the_storage(
    mlflow_primary: MlflowServer, tmp_path: Path, kind: Kind
) -> None:
    """A firewall that is closed for a while must not cost a file; nobody is asked a third time at once."""
    async with workspace(mlflow_primary, Choices(refuses=403, kind=kind), SMALL) as place:
        root = await place.root("run")
        refusal = Refuse(status=403)
        await place.control.set_faults(*(Rule(action=refusal, method=way, path=STORAGE) for way in ("PUT", "PATCH")))
        with pytest.raises(UnreachableError, match=r"HTTP 403.*firewall"):
            await put(place, root, "a", tmp_path / "source", b"12345678")

        refused = [seen for seen in await place.control.log() if STORAGE in seen["path"] and seen["fault"]]
        assert len(refused) == 2
        assert not place.emulator.storage.uploads
        assert await place.files.list(root, "") == []


@every_kind
async def test_a_read_renews_its_credential_once(mlflow_primary: MlflowServer, tmp_path: Path, kind: Kind) -> None:
    async with workspace(mlflow_primary, Choices(refuses=403, kind=kind)) as place:
        root = await place.root("run")
        await put(place, root, "a", tmp_path / "source")
        await place.control.set_faults(Rule(action=Refuse(status=403), method="GET", path=STORAGE, first=1))
        assert await read(place, root, "a") == b"some"
        await place.control.set_faults(Rule(action=Refuse(status=403), method="GET", path=STORAGE))
        with pytest.raises(UnreachableError, match=r"HTTP 403.*firewall"):
            await read(place, root, "a")

        assert await read(place, root, "missing") is None


@every_kind
async def test_an_interrupted_upload_leaves_nothing_partial(
    mlflow_primary: MlflowServer, tmp_path: Path, kind: Kind
) -> None:
    """But for ADLS, where a file is there, empty, from the first call on."""
    async with workspace(mlflow_primary, Choices(refuses=403, kind=kind, part_bytes_min=3), SMALL) as place:
        root = await place.root("run")
        nth = 1 if kind is Kind.GCP else 2
        refusal = Refuse(status=500, retry_after="1")  # a storage that names a time is not asked again at once
        await place.control.set_faults(Rule(action=refusal, path=STORAGE, nth=nth))
        with pytest.raises(UnreachableError):
            await put(place, root, "a", tmp_path / "source", b"12345678")

        assert await read(place, root, "a") in ((b"",) if kind is Kind.ADLS else (None,))
        assert not place.emulator.storage.uploads
        await put(place, root, "a", tmp_path / "source", b"12345678")
        assert await read(place, root, "a") == b"12345678"


@every_kind
async def test_a_cancelled_upload_leaves_nothing_partial(
    mlflow_primary: MlflowServer, tmp_path: Path, kind: Kind
) -> None:
    async with workspace(mlflow_primary, Choices(refuses=403, kind=kind, part_bytes_min=3), SMALL) as place:
        root = await place.root("run")
        rule = Rule(action=BlackHole(), method="PUT" if kind is not Kind.ADLS else "PATCH", path=STORAGE, nth=1)
        await place.control.set_faults(rule)
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(put(place, root, "a", tmp_path / "source", b"12345678"))
            while not any(seen["fault"] for seen in await place.control.log(wait=5)):
                pass
            task.cancel()

        assert not place.emulator.storage.uploads
        assert await read(place, root, "a") in ((b"",) if kind is Kind.ADLS else (None,))


@pytest.mark.parametrize("kind", [Kind.AZURE, Kind.ADLS, Kind.AWS])
async def test_a_hiccup_costs_one_piece(mlflow_primary: MlflowServer, tmp_path: Path, kind: Kind) -> None:
    async with workspace(mlflow_primary, Choices(refuses=403, kind=kind, part_bytes_min=3), SMALL) as place:
        root = await place.root("run")
        await place.control.set_faults(Rule(action=DropAfter(), path=STORAGE, nth=2 if kind is Kind.ADLS else 1))
        await put(place, root, "a", tmp_path / "source", b"12345678")

        assert await read(place, root, "a") == b"12345678"
        assert len(await place.calls("credentials-for-write")) == 1


async def test_a_lost_answer_to_the_last_call_is_repeated_whole(mlflow_primary: MlflowServer, tmp_path: Path) -> None:
    async with workspace(mlflow_primary, Choices(refuses=403, kind=Kind.AWS, part_bytes_min=3), SMALL) as place:
        root = await place.root("run")
        await place.control.set_faults(Rule(action=DropAfter(), path="complete-multipart", nth=1))
        with pytest.raises(UnreachableError):
            await put(place, root, "a", tmp_path / "source", b"12345678")
        await put(place, root, "a", tmp_path / "source", b"12345678")

        assert await read(place, root, "a") == b"12345678"


async def test_parts_that_are_not_taken_are_aborted(mlflow_primary: MlflowServer, tmp_path: Path) -> None:
    async with workspace(mlflow_primary, Choices(refuses=403, kind=Kind.AWS, part_bytes_min=4), SMALL) as place:
        root = await place.root("run")
        with pytest.raises(RejectedError, match="EntityTooSmall"):
            await put(place, root, "a", tmp_path / "source", b"12345678")

        assert not place.emulator.storage.uploads


@pytest.mark.parametrize("refuses", [0, 403])
async def test_a_source_that_shrinks_breaks_the_upload(
    mlflow_primary: MlflowServer, tmp_path: Path, refuses: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with workspace(mlflow_primary, Choices(refuses=refuses, kind=Kind.GCP)) as place:
        root = await place.root("run")
        monkeypatch.setattr(os, "pread", lambda *_: b"so")
        with pytest.raises(UnreachableError, match="the file ended at 2 of 4 bytes"):
            await put(place, root, "a", tmp_path / "source")

        assert await place.files.list(root, "") == []


@pytest.mark.parametrize("terse", [b"", b"{}", b"200 OK"])
async def test_an_upload_completes_with_any_answer(mlflow_primary: MlflowServer, tmp_path: Path, terse: bytes) -> None:
    choices = Choices(refuses=403, kind=Kind.AWS, part_bytes_min=3, terse=terse)
    async with workspace(mlflow_primary, choices, SMALL) as place:
        root = await place.root("run")
        await put(place, root, "a", tmp_path / "source", b"12345678")

        assert await read(place, root, "a") == b"12345678"


@pytest.mark.parametrize("road", ["files", *Kind])
async def test_a_large_file_takes_no_memory(mlflow_primary: MlflowServer, tmp_path: Path, road: str) -> None:
    """The emulator shares this process, and keeps bytes on disk too."""
    choices = Choices() if road == "files" else Choices(refuses=403, kind=Kind(road))
    source, size = tmp_path / "source", 70 * MIB
    source.write_bytes(os.urandom(MIB) * 70)
    async with workspace(mlflow_primary, choices, Sizes(whole_bytes=50 * MIB)) as place:
        root = await place.root("run")
        await put(place, root, "small", tmp_path / "small")
        gc.collect()
        tracemalloc.start()
        await place.files.put(root, "large", str(source))
        async with place.files.fetch(root, "large") as fetched:
            assert fetched is not None
            read = sum([len(chunk) async for chunk in fetched.chunks])
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()

    assert (read, fetched.size) == (size, size)
    assert peak < 24 * MIB


# ---- trouble -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("refusal", "kind"),
    [
        (Refuse(status=401), UnauthorizedError),
        (Refuse(status=400), RejectedError),
        (Refuse(status=429, retry_after="7"), UnreachableError),
        (Refuse(status=503), UnreachableError),
    ],
)
@pytest.mark.parametrize("road", ["/api/2.0/fs/", "/api/2.0/mlflow/artifacts/"])
async def test_the_workspace_s_answer_is_told_by_its_status(
    mlflow_primary: MlflowServer, tmp_path: Path, refusal: Refuse, kind: type[BackendError], road: str
) -> None:
    async with workspace(mlflow_primary, Choices(refuses=404 if "mlflow" in road else 0)) as place:
        root = await place.root("run")
        await place.control.set_faults(Rule(action=refusal, path=road))
        for way in (put(place, root, "a", tmp_path / "source"), read(place, root, "a"), place.files.list(root, "")):
            with pytest.raises(BackendError) as caught:
                await way

            assert type(caught.value) is kind
            if isinstance(caught.value, UnreachableError) and refusal.retry_after:
                assert caught.value.retry_after == 7


@pytest.mark.parametrize(("status", "kind"), [(400, RejectedError), (429, UnreachableError), (503, UnreachableError)])
async def test_the_storage_s_answer_is_told_by_its_status(
    mlflow_primary: MlflowServer, tmp_path: Path, status: int, kind: type[BackendError]
) -> None:
    async with workspace(mlflow_primary, Choices(refuses=403)) as place:
        root = await place.root("run")
        await place.control.set_faults(Rule(action=Refuse(status=status), path=STORAGE))
        for way in (put(place, root, "a", tmp_path / "source"), read(place, root, "a")):
            with pytest.raises(BackendError) as caught:
                await way

            assert type(caught.value) is kind
            assert "sig=" not in str(caught.value)


@pytest.mark.parametrize(
    "said",
    [
        {"credential_infos": []},
        {"credential_infos": [{"signed_uri": "http://127.0.0.1:1/a?sig=s3cr3t", "type": "AZURE_SAS_URI"}]},
    ],
)
async def test_a_storage_that_cannot_be_reached_is_tried_later(said: Any, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"some")
    closed = answer(403, b'{"error_code": "PERMISSION_DENIED", "message": "no"}')
    async with saying(closed, answer(200, orjson.dumps(said))) as server, reaching(server.url) as files:
        with pytest.raises(UnreachableError) as caught:
            await files.put("dbfs:/databricks/mlflow-tracking/1/r/artifacts", "a", str(tmp_path / "source"))

    assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize(
    "begun", [{}, {"upload_id": "u", "upload_credential_infos": [{"signed_uri": ""}]}, {"upload_id": None}]
)
async def test_an_upload_in_parts_that_begins_oddly_is_tried_later(begun: Any, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"12345678")
    closed = answer(403, b'{"error_code": "PERMISSION_DENIED", "message": "no"}')
    info = {"credential_infos": [{"signed_uri": "http://127.0.0.1:1/a", "type": 2}]}
    said = (closed, answer(200, orjson.dumps(info)), answer(200, orjson.dumps(begun)))
    async with saying(*said) as server, reaching(server.url, SMALL) as files:
        with pytest.raises(UnreachableError, match="credentials for 3 parts"):
            await files.put("dbfs:/databricks/mlflow-tracking/1/r/artifacts", "a", str(tmp_path / "source"))


async def test_a_type_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"some")
    closed = answer(403, b'{"error_code": "PERMISSION_DENIED", "message": "no"}')
    info = answer(200, b'{"credential_infos": [{"signed_uri": "http://127.0.0.1:1/a", "type": "TAPE"}]}')
    async with saying(closed, info) as server, reaching(server.url) as files:
        with pytest.raises(RejectedError, match="TAPE"):
            await files.put("dbfs:/databricks/mlflow-tracking/1/r/artifacts", "a", str(tmp_path / "source"))
