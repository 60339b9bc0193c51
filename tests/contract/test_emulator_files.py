"""The files of the emulated workspace: both protocols, four kinds of storage, and what they refuse."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import orjson
import pytest
from aiohttp import ClientSession, ClientTimeout
from yarl import URL

from dualtrack.demo.servers import MlflowServer
from dualtrack.emulators.databricks import Databricks
from dualtrack.emulators.databricks_files import Choices, DatabricksFiles
from dualtrack.emulators.storage import Kind
from dualtrack.emulators.tracking import Settings
from tests.support.servers import Control, emulating

TOKEN = "a-token"
API = "/api/2.0/mlflow"
FS = "/api/2.0/fs"


class Workspace:
    """A client of an emulated workspace."""

    def __init__(self, url: str, session: ClientSession, files: DatabricksFiles) -> None:
        self.url = url
        self.session = session
        self.files = files
        self.control = Control(url, session)

    async def call(self, method: str, path: str, body: Any = None, data: bytes | None = None) -> tuple[int, Any]:
        url = path if path.startswith("http") else self.url + path
        headers = {} if path.startswith("http") else {"Authorization": f"Bearer {TOKEN}"}
        return await self.send(method, url, headers, orjson.dumps(body) if body is not None else data, body is not None)

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], data: bytes | None, is_json: bool = False
    ) -> tuple[int, Any]:
        sent = {**headers, **({"Content-Type": "application/json"} if is_json else {})}
        skip = ("Content-Type",)
        async with self.session.request(
            method, URL(url, encoded=True), data=data, headers=sent, skip_auto_headers=skip
        ) as answer:
            raw = await answer.read()
            return answer.status, orjson.loads(raw) if answer.content_type == "application/json" and raw else raw

    async def run(self) -> str:
        _, answer = await self.call("POST", f"{API}/runs/create", {"experiment_id": "0"})
        return str(answer["run"]["info"]["run_id"])

    async def model(self) -> str:
        _, answer = await self.call("POST", f"{API}/logged-models", {"experiment_id": "0", "name": "m"})
        return str(answer["model"]["info"]["model_id"])

    async def credential(self, run: str, path: str, right: str = "write") -> Any:
        body = {"run_id": run, "path": [path]}
        status, answer = await self.call("POST", f"{API}/artifacts/credentials-for-{right}", body)
        assert status == 200, answer
        return answer["credential_infos"][0]

    async def read(self, run: str, path: str) -> tuple[int, Any]:
        return await self.call("GET", (await self.credential(run, path, "read"))["signed_uri"])

    async def list(self, run: str, path: str = "", token: str = "") -> Any:
        query = f"run_id={run}&path={path}&page_token={token}"
        return (await self.call("GET", f"{API}/artifacts/list?{query}"))[1]

    async def write(self, run: str, path: str, data: bytes = b"some") -> None:
        target = f"{FS}/files/WorkspaceInternal/Mlflow/Artifacts/0/Runs/{run}/artifacts/{path}?overwrite=true"
        assert (await self.call("PUT", target, data=data))[0] == 204


@asynccontextmanager
async def workspace(server: MlflowServer, choices: Choices) -> AsyncIterator[Workspace]:
    files = DatabricksFiles(choices)
    settings = Settings(upstream=server.url, token=TOKEN, dialect=Databricks(), site=files)
    async with emulating(settings) as url, ClientSession(timeout=ClientTimeout(total=30)) as session:
        yield Workspace(url, session, files)


@pytest.fixture
async def plain(mlflow_primary: MlflowServer) -> AsyncIterator[Workspace]:
    async with workspace(mlflow_primary, Choices()) as made:
        yield made


def headers_of(info: Any) -> dict[str, str]:
    return {header["name"]: header["value"] for header in info["headers"]}


# ---- Files API ---------------------------------------------------------------------------------------------------


async def test_the_files_api_keeps_files_and_folders(plain: Workspace) -> None:
    place = f"/Volumes/a/b/c/{uuid4().hex}"

    assert (await plain.call("PUT", f"{FS}/files{place}/d/x%20%2B%25.txt", data=b"one"))[0] == 204
    assert (await plain.call("PUT", f"{FS}/files{place}/d/x%20%2B%25.txt", data=b"two"))[0] == 409
    assert (await plain.call("PUT", f"{FS}/files{place}/d/x%20%2B%25.txt?overwrite=true", data=b"two"))[0] == 204
    assert await plain.call("GET", f"{FS}/files{place}/d/x%20%2B%25.txt") == (200, b"two")
    assert (await plain.call("HEAD", f"{FS}/directories{place}/d"))[0] == 200
    assert (await plain.call("DELETE", f"{FS}/directories{place}"))[0] == 400
    assert (await plain.call("DELETE", f"{FS}/files{place}/d/x%20%2B%25.txt"))[0] == 204
    assert (await plain.call("HEAD", f"{FS}/directories{place}/d"))[0] == 200
    assert (await plain.call("DELETE", f"{FS}/directories{place}/d"))[0] == 204
    assert (await plain.call("GET", f"{FS}/directories{place}/d"))[0] == 404


async def test_the_files_api_refuses_what_cannot_be(plain: Workspace) -> None:
    place = f"/Volumes/a/b/c/{uuid4().hex}"

    assert (await plain.call("PUT", f"{FS}/directories{place}/d"))[0] == 204
    assert (await plain.call("PUT", f"{FS}/files{place}/d", data=b"one"))[0] == 400
    assert (await plain.call("PUT", f"{FS}/files{place}/e", data=b"one"))[0] == 204
    assert (await plain.call("PUT", f"{FS}/files{place}/e/f", data=b"one"))[0] == 400
    assert (await plain.call("PUT", f"{FS}/files{place}/d/%2E%2E/x", data=b"one"))[0] == 400
    status, answer = await plain.call("POST", f"{FS}/create-download-url?path=/Volumes/a")
    assert (status, answer["error_code"]) == (404, "ENDPOINT_NOT_FOUND")


async def test_files_want_a_token(plain: Workspace) -> None:
    async with plain.session.get(f"{plain.url}{FS}/files/Volumes/a") as answer:
        assert answer.status == 401


async def test_a_folder_is_listed_in_pages(mlflow_primary: MlflowServer) -> None:
    async with workspace(mlflow_primary, Choices(page=2)) as plain:
        for name in ("a", "b", "c/d"):
            await plain.call("PUT", f"{FS}/files/Volumes/x/{name}", data=b"some")
        _, first = await plain.call("GET", f"{FS}/directories/Volumes/x")
        _, last = await plain.call("GET", f"{FS}/directories/Volumes/x?page_token={first['next_page_token']}")

    assert [(entry["path"], entry["file_size"]) for entry in first["contents"]] == [
        ("/Volumes/x/a", 4),
        ("/Volumes/x/b", 4),
    ]
    assert last == {"contents": [{"path": "/Volumes/x/c", "name": "c", "is_directory": True}]}


@pytest.mark.parametrize("status", [403, 404])
async def test_the_files_api_can_be_closed_for_artifacts(mlflow_primary: MlflowServer, status: int) -> None:
    async with workspace(mlflow_primary, Choices(refuses=status)) as plain:
        for method, kind in (("PUT", "files"), ("GET", "files"), ("DELETE", "files"), ("GET", "directories")):
            target = f"{FS}/{kind}/WorkspaceInternal/Mlflow/Artifacts/0/Runs/r/artifacts/a"
            assert (await plain.call(method, target, data=b"x" if method == "PUT" else None))[0] == status
        assert (await plain.call("PUT", f"{FS}/files/Volumes/a", data=b"some"))[0] == 204


# ---- credentials -------------------------------------------------------------------------------------------------


async def test_credentials_are_for_runs_that_exist_and_paths_inside(plain: Workspace) -> None:
    run = await plain.run()

    for body, status in (
        ({"run_id": "0" * 32, "path": ["a"]}, 404),
        ({"run_id": run, "path": ["../a"]}, 400),
        ({"run_id": run, "path": ["/a"]}, 400),
        ({"run_id": run, "path": []}, 400),
        ({"run_id": run, "path": ["a"] * 2001}, 400),
    ):
        answered, answer = await plain.call("POST", f"{API}/artifacts/credentials-for-write", body)
        assert (answered, set(answer)) == (status, {"error_code", "message"})


async def test_credentials_come_in_pages(mlflow_primary: MlflowServer) -> None:
    async with workspace(mlflow_primary, Choices(credentials=2)) as plain:
        body = {"run_id": await plain.run(), "path": ["a", "b", "c"]}
        _, first = await plain.call("POST", f"{API}/artifacts/credentials-for-read", body)
        _, last = await plain.call(
            "POST", f"{API}/artifacts/credentials-for-read", {**body, "page_token": first["next_page_token"]}
        )

    assert [info["path"] for info in first["credential_infos"] + last["credential_infos"]] == ["a", "b", "c"]
    assert "next_page_token" not in last


async def test_a_models_files_have_credentials_and_a_listing_of_their_own(plain: Workspace) -> None:
    model = await plain.model()
    base = f"{API}/logged-models/{model}/artifacts"
    _, answer = await plain.call("POST", f"{base}/credentials-for-upload", {"paths": ["d/MLmodel"]})
    info = answer["credentials"][0]["credential_info"]
    await plain.send("PUT", info["signed_uri"], headers_of(info), b"some")
    _, answer = await plain.call("POST", f"{base}/credentials-for-download", {"paths": ["d/MLmodel"]})

    assert answer["credentials"][0]["model_id"] == model
    assert (await plain.call("GET", answer["credentials"][0]["credential_info"]["signed_uri"]))[1] == b"some"
    assert (await plain.call("GET", f"{base}/directories?artifact_directory_path=d"))[1]["files"] == [
        {"path": "d/MLmodel", "is_dir": False, "file_size": 4}
    ]
    assert (await plain.call("GET", f"{API}/logged-models/m-{'0' * 32}/artifacts/directories"))[0] == 404


@pytest.mark.parametrize("kind", list(Kind))
async def test_a_signed_url_takes_no_bearer_and_ends(mlflow_primary: MlflowServer, kind: Kind) -> None:
    async with workspace(mlflow_primary, Choices(kind=kind)) as plain:
        info = await plain.credential(await plain.run(), "a")
        url = info["signed_uri"]
        bearer = {"Authorization": f"Bearer {TOKEN}", **headers_of(info)}
        refused = [
            await plain.send("PUT", url, bearer, b"some"),
            await plain.send("GET", url, {}, None),
            await plain.send("PUT", url.replace("/a?", "/b?"), headers_of(info), b"some"),
        ]
    async with workspace(mlflow_primary, Choices(kind=kind, lifetime=-1)) as plain:
        info = await plain.credential(await plain.run(), "a")
        refused.append(await plain.send("PUT", info["signed_uri"], headers_of(info), b"some"))

    assert [status for status, _ in refused] == [400 if kind is Kind.AWS else 403, 403, 403, 403]
    assert b"<Code>RequestExpired</Code>" in refused[-1][1]


# ---- storage -----------------------------------------------------------------------------------------------------


def block_list(*ids: str) -> bytes:
    return f"<BlockList>{''.join(f'<Uncommitted>{one}</Uncommitted>' for one in ids)}</BlockList>".encode()


async def test_blocks_are_seen_when_they_are_committed(plain: Workspace) -> None:
    run = await plain.run()
    url = (await plain.credential(run, "a"))["signed_uri"]
    for block, data in (("MDE=", b"so"), ("MDI=", b"me")):
        assert (await plain.call("PUT", f"{url}&comp=block&blockid={block[:-1]}%3D", data=data))[0] == 201
    before = await plain.read(run, "a")

    assert before[0] == 404
    assert (await plain.call("PUT", f"{url}&comp=blocklist", data=block_list("MDM=")))[0] == 400
    assert (await plain.call("PUT", f"{url}&comp=blocklist", data=block_list("MDE=", "MDI=")))[0] == 201
    assert await plain.read(run, "a") == (200, b"some")
    assert (await plain.call("PUT", f"{url}&comp=blocklist", data=block_list()))[0] == 201
    assert await plain.read(run, "a") == (200, b"")


async def test_adls_appends_at_positions_and_flushes_the_whole(mlflow_primary: MlflowServer) -> None:
    async with workspace(mlflow_primary, Choices(kind=Kind.ADLS)) as plain:
        run = await plain.run()
        url = (await plain.credential(run, "a"))["signed_uri"]
        assert (await plain.call("PATCH", f"{url}&action=append&position=0", data=b"x"))[0] == 404
        assert (await plain.call("PUT", f"{url}&resource=file"))[0] == 201
        assert (await plain.call("PATCH", f"{url}&action=append&position=2", data=b"me"))[0] == 202
        assert (await plain.call("PATCH", f"{url}&action=flush&position=4"))[0] == 400
        assert (await plain.call("PATCH", f"{url}&action=append&position=0", data=b"so"))[0] == 202
        assert (await plain.call("PATCH", f"{url}&action=flush&position=3"))[0] == 400
        assert await plain.read(run, "a") == (200, b"")
        assert (await plain.call("PATCH", f"{url}&action=flush&position=4"))[0] == 200
        assert await plain.read(run, "a") == (200, b"some")
        assert (await plain.call("PUT", f"{url}&resource=file"))[0] == 201
        assert (await plain.call("PATCH", f"{url}&action=append&position=0&flush=true", data=b"at once"))[0] == 202
        assert await plain.read(run, "a") == (200, b"at once")


async def test_s3_takes_parts_in_order_by_their_etags(mlflow_primary: MlflowServer) -> None:
    async with workspace(mlflow_primary, Choices(kind=Kind.AWS, part_bytes_min=2)) as plain:
        place = {"run_id": await plain.run(), "path": "a"}
        _, begun = await plain.call("POST", f"{API}/artifacts/create-multipart-upload", {**place, "num_parts": 2})
        upload = begun["upload_id"]
        _, again = await plain.call(
            "GET",
            f"{API}/artifacts/get-presigned-upload-part-url?run_id={place['run_id']}&path=a"
            f"&upload_id={upload.replace('=', '%3D')}&part_number=2",
        )
        urls = [begun["upload_credential_infos"][0]["signed_uri"], again["upload_credential_info"]["signed_uri"]]
        etags = [await etag_of(plain, url, data) for url, data in zip(urls, (b"so", b"me"), strict=True)]
        parts = [{"part_number": number, "etag": etag} for number, etag in enumerate(etags, 1)]

        async def complete(parts: Sequence[Any]) -> int:
            body = {**place, "upload_id": upload, "part_etags": parts}
            return (await plain.call("POST", f"{API}/artifacts/complete-multipart-upload", body))[0]

        assert await complete(parts[::-1]) == await complete([{**parts[0], "etag": '"x"'}]) == 400
        assert (await plain.read(place["run_id"], "a"))[0] == 404
        assert await complete(parts) == 200
        assert await plain.read(place["run_id"], "a") == (200, b"some")
        assert not plain.files.storage.uploads


async def etag_of(plain: Workspace, url: str, data: bytes) -> str:
    async with plain.session.put(URL(url, encoded=True), data=data) as answer:
        assert answer.status == 200
        return answer.headers["ETag"]


async def test_parts_are_for_s3_and_presigned_urls_are_as_they_are(mlflow_primary: MlflowServer) -> None:
    async with workspace(mlflow_primary, Choices(kind=Kind.GCP)) as plain:
        run = await plain.run()
        body = {"run_id": run, "path": "a", "num_parts": 1}
        info = await plain.credential(run, "a")

        assert (await plain.call("POST", f"{API}/artifacts/create-multipart-upload", body))[0] == 400
        assert (await plain.call("POST", f"{API}/artifacts/no-such-call", body))[0] == 404
        assert (await plain.call("PUT", f"{info['signed_uri']}&x=y", data=b"some"))[0] == 403


async def test_an_aborted_upload_is_gone(mlflow_primary: MlflowServer) -> None:
    async with workspace(mlflow_primary, Choices(kind=Kind.AWS)) as plain:
        body = {"run_id": await plain.run(), "path": "a", "num_parts": 1}
        _, begun = await plain.call("POST", f"{API}/artifacts/create-multipart-upload", body)
        await etag_of(plain, begun["upload_credential_infos"][0]["signed_uri"], b"some")

        assert (await plain.call("DELETE", begun["abort_credential_info"]["signed_uri"]))[0] == 204
        assert not plain.files.storage.uploads
        assert (await plain.call("DELETE", begun["abort_credential_info"]["signed_uri"]))[0] == 404


# ---- listings and roots ------------------------------------------------------------------------------------------


async def test_a_run_is_listed_by_relative_paths_and_a_file_as_itself(mlflow_primary: MlflowServer) -> None:
    async with workspace(mlflow_primary, Choices(page=2)) as plain:
        run = await plain.run()
        for path in ("b/c", "a", "d"):
            await plain.write(run, path)
        first = await plain.list(run)
        last = await plain.list(run, token=first["next_page_token"])

        assert first["root_uri"] == f"dbfs:/databricks/mlflow-tracking/0/{run}/artifacts"
        assert first["files"] == [{"path": "a", "is_dir": False, "file_size": 4}, {"path": "b", "is_dir": True}]
        assert [file["path"] for file in last["files"]] == ["d"]
        assert (await plain.list(run, "b/c"))["files"] == [{"path": "b/c", "is_dir": False, "file_size": 4}]
        assert "files" not in await plain.list(run, "no/such")


async def test_roots_are_those_of_a_workspace_if_so_wanted(mlflow_primary: MlflowServer) -> None:
    async with workspace(mlflow_primary, Choices(rewrites=True)) as plain:
        run, model = await plain.run(), await plain.model()
        _, got = await plain.call("GET", f"{API}/runs/get?run_id={run}")
        _, of_model = await plain.call("GET", f"{API}/logged-models/{model}")
        _, experiment = await plain.call("GET", f"{API}/experiments/get?experiment_id=0")
        served, _ = await plain.call("GET", "/api/2.0/mlflow-artifacts/artifacts?path=")
        name, downloads = f"m-{run}", []
        await plain.call("POST", f"{API}/registered-models/create", {"name": name})
        sources = (f"mlflow-artifacts:/0/{run}/artifacts/a/b", f"models:/{model}", "s3://elsewhere/x")
        for number, source in enumerate(sources, start=1):
            version = {"name": name, "source": source, "run_id": run, "model_id": model if model in source else ""}
            await plain.call("POST", f"{API}/model-versions/create", version)
            asked = f"{API}/model-versions/get-download-uri?name={name}&version={number}"
            downloads.append((await plain.call("GET", asked))[1]["artifact_uri"])

    assert got["run"]["info"]["artifact_uri"] == f"dbfs:/databricks/mlflow-tracking/0/{run}/artifacts"
    assert downloads == [
        f"dbfs:/databricks/mlflow-tracking/0/{run}/artifacts/a/b",
        f"dbfs:/databricks/mlflow-tracking/0/logged_models/{model}/artifacts",
        "s3://elsewhere/x",
    ]
    root = f"dbfs:/databricks/mlflow-tracking/0/logged_models/{model}/artifacts"
    assert of_model["model"]["info"]["artifact_uri"] == root
    assert experiment["experiment"]["artifact_location"] == "dbfs:/databricks/mlflow-tracking/0"
    assert served == 404


async def test_roots_stay_otherwise(plain: Workspace) -> None:
    _, got = await plain.call("GET", f"{API}/runs/get?run_id={await plain.run()}")

    assert got["run"]["info"]["artifact_uri"].startswith("mlflow-artifacts:/")


async def test_the_log_has_the_storages_calls_too(plain: Workspace) -> None:
    run = await plain.run()
    await plain.read(run, "a")
    seen = await plain.control.log()

    assert (seen[-1]["path"].startswith("/__storage__/"), seen[-1]["status"]) == (True, 404)
    assert "Authorization" not in seen[-1]["header_names"]
