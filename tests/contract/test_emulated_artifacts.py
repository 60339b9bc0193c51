"""What the emulated Azure ML enforces for artifacts and storage: the items of the facts that adapters rely on."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from aiohttp import ClientSession

from dualtrack.demo.servers import MlflowServer
from dualtrack.emulators.azureml import DEFAULT_SCOPE
from tests.support.azure import TOKEN, Workspace, workspace

BLOCK_BLOB = {"x-ms-blob-type": "BlockBlob"}
SIGNED_IN = {"Authorization": f"Bearer {TOKEN}"}


@dataclass
class Client:
    """A client of the APIs beside MLflow's."""

    place: Workspace
    session: ClientSession

    async def ask(self, method: str, rest: str, document: Any = None) -> tuple[int, Any]:
        """Call what is below the run's artifacts; below the artifact API with `/artifact` in front."""
        base = f"/history/v1.0{DEFAULT_SCOPE}/experiments/0/runs/{self.place.run_id}/artifacts"
        generic = f"/artifact/v2.0{DEFAULT_SCOPE}/artifacts/ExperimentRun/dcid.{self.place.run_id}"
        path = generic + rest.removeprefix("/artifact") if rest.startswith("/artifact") else base + rest
        async with self.session.request(method, self.place.url + path, json=document, headers=SIGNED_IN) as answer:
            return answer.status, await answer.json() if answer.content_type == "application/json" else None

    async def register(self, *paths: str) -> tuple[int, Any]:
        return await self.ask("POST", "/batch/metadata", {"paths": [{"path": path} for path in paths]})

    async def registered(self, path: str) -> str:
        _, answer = await self.register(path)
        return str(answer["artifactContentInformation"][path]["contentUri"])

    async def url(self, verb: str, path: str) -> str:
        _, answer = await self.ask("GET", f"{verb}?path={path}")
        return str(answer["contentUri"])

    async def put(self, url: str, content: bytes = b"some", **headers: str) -> tuple[int, str]:
        sent = {**BLOCK_BLOB, **{name.replace("_", "-"): value for name, value in headers.items()}}
        async with self.session.put(url, data=content, headers=sent) as answer:
            return answer.status, answer.headers.get("x-ms-error-code", "")

    async def get(self, url: str, **headers: str) -> tuple[int, bytes]:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.session.get(url, headers=sent) as answer:
            return answer.status, await answer.read()


@pytest.fixture
async def client(mlflow_primary: MlflowServer) -> AsyncIterator[Client]:
    async with workspace(mlflow_primary) as place, ClientSession() as session:
        yield Client(place, session)


# ---- registration --------------------------------------------------------------------------------------------------


async def test_a_path_is_registered_before_its_bytes_and_only_once(client: Client) -> None:
    first, second = await client.register("a.txt", "b.txt"), await client.register("a.txt", "c.txt")

    assert first[0] == second[0] == 200
    assert set(first[1]["artifacts"]) == set(first[1]["artifactContentInformation"]) == {"a.txt", "b.txt"}
    assert set(second[1]["artifacts"]) == {"c.txt"}
    assert "Resource Conflict" in second[1]["errors"]["a.txt"]["error"]["message"]


async def test_registrations_have_bounds(client: Client) -> None:
    too_long = "a" * 5001

    assert (await client.register(*(f"{number}" for number in range(101))))[0] == 400
    assert (await client.register())[0] == 400
    assert set((await client.register(too_long))[1]["errors"]) == {too_long}


async def test_only_a_run_of_the_workspace_has_artifacts(client: Client) -> None:
    run_id, client.place.run_id = client.place.run_id, "0" * 32

    assert (await client.register("a.txt"))[0] == 404
    assert (await client.ask("GET", "/artifact/write?path=a"))[0] == 404
    client.place.run_id = run_id
    assert (await client.ask("GET", ""))[0] == 200


async def test_a_token_is_needed_and_other_workspaces_are_empty_404s(client: Client) -> None:
    base = f"{client.place.url}/history/v1.0"
    async with client.session.get(f"{base}{DEFAULT_SCOPE}/experiments/0/runs/r/artifacts") as answer:
        assert answer.status == 401
    async with client.session.get(f"{base}{DEFAULT_SCOPE}2/experiments/0/runs/r/artifacts") as answer:
        assert (answer.status, await answer.read()) == (404, b"")


async def test_listings_come_in_pages_without_sizes(client: Client) -> None:
    await client.register("a", "f/b", "f/c")
    _, first = await client.ask("GET", "")
    _, rest = await client.ask("GET", f"?continuationToken={first['continuationToken']}")
    _, below = await client.ask("GET", "/path?path=f")
    _, urls = await client.ask("GET", "/prefix/contentinfo?path=f")

    assert [each["path"] for each in first["value"] + rest["value"]] == ["a", "f/b", "f/c"]
    assert rest["continuationToken"] is None
    assert "size" not in first["value"][0]
    assert [each["path"] for each in below["value"]] == [each["path"] for each in urls["value"]] == ["f/b", "f/c"]


async def test_what_is_not_registered_is_missing_and_what_is_may_be_empty(client: Client) -> None:
    await client.register("a")

    assert (
        (await client.ask("GET", "/contentinfo?path=b"))[0] == (await client.ask("GET", "/metadata?path=b"))[0] == 404
    )
    assert (await client.ask("GET", "/metadata?path=a"))[1]["container"] == f"dcid.{client.place.run_id}"
    assert (await client.get(await client.url("/contentinfo", "a")))[0] == 404


async def test_the_generic_api_stores_and_forgets(client: Client) -> None:
    content = "/artifact/content?path=a"

    assert (await client.ask("POST", content, 1))[0] == 200
    assert (await client.ask("POST", content, 2))[0] == 409
    assert (await client.ask("POST", f"{content}&append=true", 3))[0] == 200
    assert await client.get(await client.url("/contentinfo", "a")) == (200, b"13")
    assert (await client.ask("POST", f"{content}&allowOverwrite=true", 4))[0] == 200
    assert await client.get(await client.url("/contentinfo", "a")) == (200, b"4")
    assert (await client.ask("DELETE", "/artifact/metadata?path=a"))[0] == 200
    assert (await client.ask("DELETE", "/artifact/metadata?path=a"))[0] == 404


@pytest.mark.parametrize(("query", "status"), [("", 409), ("&hardDelete=true", 201)])
async def test_an_entry_goes_with_its_bytes_only_when_told(client: Client, query: str, status: int) -> None:
    await client.put(await client.registered("a"))
    await client.ask("DELETE", f"/artifact/metadata?path=a{query}")

    assert (await client.put(await client.registered("a"), If_None_Match="*"))[0] == status


# ---- storage -------------------------------------------------------------------------------------------------------


async def test_a_token_is_refused_by_the_storage(client: Client) -> None:
    assert await client.put(await client.registered("a"), Authorization=f"Bearer {TOKEN}") == (
        403,
        "AuthenticationFailed",
    )


async def test_a_signature_is_for_one_blob_some_rights_and_some_time(client: Client) -> None:
    url = await client.registered("a")
    await client.put(url)
    reading = await client.url("/contentinfo", "a")
    client.place.site.blobs.sas_seconds = -1
    late = await client.url("/artifact/write", "a")

    assert (await client.put(reading))[1] == "AuthorizationPermissionMismatch"
    assert (await client.get(url))[1][:3] == b"\xef\xbb\xbf"
    assert (await client.put(url.replace("/a?", "/b?")))[1] == "AuthenticationFailed"
    assert (await client.put(url.replace("sp=cw", "sp=rcw")))[1] == "AuthenticationFailed"
    assert (await client.put(late))[1] == "AuthenticationFailed"


async def test_a_blob_says_its_kind_and_conditions_are_kept(client: Client) -> None:
    url = await client.registered("a")
    async with client.session.put(url, data=b"some") as answer:
        assert answer.headers["x-ms-error-code"] == "MissingRequiredHeader"

    assert await client.put(url, If_None_Match="*") == (201, "")
    assert await client.put(url, If_None_Match="*") == (409, "BlobAlreadyExists")
    assert await client.put(url, b"other") == (201, "")


async def test_blocks_are_seen_when_they_are_listed(client: Client) -> None:
    url = await client.registered("a")
    listed = "<BlockList><Latest>QUI=</Latest><Latest>QUE=</Latest></BlockList>"
    await client.put(f"{url}&comp=block&blockid=QUE%3D", b"-end")
    assert await client.put(f"{url}&comp=blocklist", listed.encode()) == (400, "InvalidBlockList")
    await client.put(f"{url}&comp=block&blockid=QUI%3D", b"start")
    assert await client.put(f"{url}&comp=block&blockid=QQ%3D%3DQQ%3D", b"x") == (400, "InvalidBlobOrBlock")
    reading = await client.url("/contentinfo", "a")

    assert (await client.get(reading))[0] == 404
    assert await client.put(f"{url}&comp=blocklist", listed.encode()) == (201, "")
    assert await client.get(reading) == (200, b"start-end")
    assert await client.get(reading, x_ms_range="bytes=2-5") == (206, b"art-")
    assert (await client.get(reading, x_ms_range="bytes=9-"))[0] == 416


async def test_roots_are_the_workspaces_own_and_the_servers_routes_gone(client: Client) -> None:
    host = client.place.url.removeprefix("http://")
    path = f"{client.place.base_url}/api/2.0/mlflow-artifacts/artifacts"
    async with client.session.get(path, headers=SIGNED_IN) as answer:
        assert (answer.status, await answer.read()) == (404, b"")

    place = f"{host}/mlflow/v2.0{DEFAULT_SCOPE}/experiments/0/runs/{client.place.run_id}/artifacts"
    assert client.place.root == f"azureml://{place}"
