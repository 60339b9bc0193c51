"""Artifact roots that only the primary can reach become the proxy's own in every answer, and back in every request."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

import pytest

from dualtrack.emulators.faults import BlackHole, Rule
from dualtrack.errors import UnreachableError
from dualtrack.ports import Fetched
from dualtrack.translate.roots import client_uri
from tests.support.files import behind, get, listing, mirror_of, mirrored, put, run_root, target, tree
from tests.support.flow import Json, Launcher, Running, Workspace, connected, request, unique


@pytest.fixture
async def location(tmp_path: Path) -> Path:
    """A folder that the primary names as artifact location: not served by its own artifact routes."""
    folder = tmp_path / "mlruns = 100%" / "x"
    folder.mkdir(parents=True)
    return folder


async def began(proxy: Running, location: Path) -> tuple[str, str, str]:
    """An experiment with a location of its own, a run in it, and the root that clients are told."""
    created = await proxy.post("experiments/create", name=unique(), artifact_location=str(location))
    run_id = await proxy.create_run(created["experiment_id"])
    return created["experiment_id"], run_id, await run_root(proxy, run_id)


async def test_every_answer_names_a_root_of_the_proxy(proxy: Running, location: Path) -> None:
    experiment_id, run_id, root = await began(proxy, location)
    experiment = (await proxy.call("GET", f"experiments/get?experiment_id={experiment_id}")).json["experiment"]
    runs = (await proxy.post("runs/search", experiment_ids=[experiment_id]))["runs"]
    updated = await proxy.post("runs/update", run_id=run_id, status="RUNNING")
    model = (await proxy.post("logged-models", experiment_id=experiment_id, name="m", source_run_id=run_id))["model"]
    models = (await proxy.post("logged-models/search", experiment_ids=[experiment_id]))["models"]
    listed = (await proxy.call("GET", f"artifacts/list?run_id={run_id}")).json
    at = experiment["artifact_location"]

    assert at.startswith("mlflow-artifacts:/_dualtrack/a/")
    assert root == f"{at}/{run_id}/artifacts"
    assert {run["info"]["artifact_uri"] for run in runs} == {root}
    assert updated["run_info"]["artifact_uri"] == root
    assert model["info"]["artifact_uri"].startswith(f"{at}/models/")
    assert [item["info"]["artifact_uri"] for item in models] == [model["info"]["artifact_uri"]]
    assert listed["root_uri"] == root


async def test_files_go_where_the_primary_keeps_them(proxy: Running, b: Workspace, location: Path) -> None:
    _, run_id, root = await began(proxy, location)
    files = {"a b/ü%.txt": b"one", "=3D.bin": b"", "c.txt": b"0123456789"}
    for name, content in files.items():
        assert (await put(proxy, root, name, content)).status == 200
    await proxy.drained()
    here = location / run_id / "artifacts"

    assert {str(path.relative_to(here)): path.read_bytes() for path in here.rglob("*") if path.is_file()} == files
    assert await tree(proxy, root) == files
    assert await mirrored(b, proxy, run_id) == files


async def test_downloads_are_as_mlflow_serves_them(proxy: Running, location: Path) -> None:
    _, _, root = await began(proxy, location)
    await put(proxy, root, "sub/größe.csv", b"0123456789")
    whole = await get(proxy, root, "sub/größe.csv")
    part = await get(proxy, root, "sub/größe.csv", Range="bytes=2-4")
    same = await get(proxy, root, "sub/größe.csv", If_None_Match=whole.headers["ETag"])
    missing = await get(proxy, root, "sub/none.csv")

    assert (whole.status, whole.body, whole.headers["Content-Type"]) == (200, b"0123456789", "text/csv")
    assert "filename*=UTF-8''gr%C3%B6%C3%9Fe.csv" in whole.headers["Content-Disposition"]
    assert (part.status, part.body, part.headers["Content-Range"]) == (206, b"234", "bytes 2-4/10")
    assert (same.status, same.body) == (304, b"")
    assert (missing.status, missing.code) == (404, "RESOURCE_DOES_NOT_EXIST")


async def test_deletes_reach_both_sides(proxy: Running, b: Workspace, location: Path) -> None:
    _, run_id, root = await began(proxy, location)
    for name in ("a/1", "a/2", "b"):
        await put(proxy, root, name)
    reply = await proxy.call("DELETE", target(root, "a"))
    await proxy.drained()

    assert reply.status == 200
    assert list(await tree(proxy, root)) == list(await mirrored(b, proxy, run_id)) == ["b"]


async def test_a_root_that_comes_back_is_turned_back(proxy: Running, location: Path) -> None:
    """As an experiment's location, and in a filter."""
    experiment_id, run_id, root = await began(proxy, location)
    at = root.removesuffix(f"/{run_id}/artifacts")
    other = await proxy.post("experiments/create", name=unique(), artifact_location=f"{at}/other")
    direct = behind(proxy.primary, proxy)
    stored = (await direct.call("GET", f"experiments/get?experiment_id={other['experiment_id']}")).json["experiment"]
    found = await proxy.post(
        "runs/search", experiment_ids=[experiment_id], filter=f"attributes.artifact_uri = '{root}'"
    )

    assert stored["artifact_location"] == f"{location}/other"
    assert [run["info"]["run_id"] for run in found["runs"]] == [run_id]


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_no_other_place_is_reached(proxy: Running, tmp_path: Path, method: str) -> None:
    """Only what a backend stated: a path that nobody named is refused, whatever it is."""
    secret = tmp_path / "secret.txt"
    await asyncio.to_thread(secret.write_text, "secret")
    path = f"/api/2.0/mlflow-artifacts/artifacts/_dualtrack/a/local/-{quote(str(secret))}"
    reply = await proxy.call(method, path, b"x" if method == "PUT" else None)

    assert (reply.status, reply.code) == (404, "RESOURCE_DOES_NOT_EXIST")
    assert secret.read_text() == "secret"


async def test_listings_of_other_places_are_refused(proxy: Running, tmp_path: Path) -> None:
    path = quote(f"_dualtrack/a/local/-{tmp_path}", safe="")
    reply = await proxy.call("GET", f"/api/2.0/mlflow-artifacts/artifacts?path={path}")

    assert reply.status == 404


async def test_a_disk_that_is_not_ours_is_left_alone(
    launch: Launcher, a: Workspace, b: Workspace, location: Path
) -> None:
    """`local_artifacts: false`: the primary's paths mean nothing here; the error says what would allow it."""
    proxy = await launch(a, b, backends={"a": {"local_artifacts": False}})
    _, _, root = await began(proxy, location)
    reply = await put(proxy, root, "a.txt")

    assert (reply.status, reply.code) == (400, "INVALID_PARAMETER_VALUE")
    assert "local_artifacts" in reply.json["message"]
    assert await tree(proxy, root) == {}


async def test_a_folder_is_no_file(proxy: Running, location: Path) -> None:
    """A name that ends with a slash, or none at all: nothing is written, and nothing goes unmirrored."""
    _, _, root = await began(proxy, location)
    replies = [await proxy.call("PUT", target(root, name), b"x") for name in ("folder/", "")]

    assert {(reply.status, reply.code) for reply in replies} == {(400, "INVALID_PARAMETER_VALUE")}
    assert await tree(proxy, root) == {}
    assert await proxy.metric("lossy_total", backend="b", kind="unowned_file") == 0


async def test_files_of_a_run_that_nobody_met_are_mirrored(proxy: Running, b: Workspace) -> None:
    """Its root is asked for by the id in the path, so a client that kept an address goes on with it."""
    direct = behind(proxy.primary, proxy)
    run_id = await direct.create_run(await direct.create_experiment())
    root = await run_root(direct, run_id)
    await put(direct, root, "before.txt", b"before")
    reply = await put(proxy, root, "after.txt", b"after")
    await proxy.drained()

    assert reply.headers["X-Dualtrack"] == "mirrored"
    assert await mirrored(b, proxy, run_id) == {"before.txt": b"before", "after.txt": b"after"}


async def test_files_of_nobody_go_to_the_primary_alone(proxy: Running) -> None:
    """And are counted (P7)."""
    reply = await proxy.call("PUT", "/api/2.0/mlflow-artifacts/artifacts/loose/file.txt", b"x")

    assert (reply.status, reply.headers["X-Dualtrack"]) == (200, "primary-only")
    assert await proxy.metric("lossy_total", backend="b", kind="unowned_file") == 1


async def test_nobody_writes_to_a_secondary(launch: Launcher, a: Workspace, b: Workspace) -> None:
    """Its files may be read where versions are registered there, by the roots that it stated; never written."""
    proxy = await launch(a, b, registry="b")
    run_id = await proxy.create_run(await proxy.create_experiment())
    await put(proxy, await run_root(proxy, run_id), "x.txt", b"x")
    await proxy.drained()
    root = (await mirror_of(b, proxy, run_id))["info"]["artifact_uri"].removeprefix("mlflow-artifacts:/")
    path = f"/api/2.0/mlflow-artifacts/artifacts/_dualtrack/b/mlflow-artifacts/-/{root}/x.txt"
    read = await proxy.call("GET", path)
    written, deleted = await proxy.call("PUT", path, b"y"), await proxy.call("DELETE", path)

    assert (read.status, read.body, read.headers["X-Dualtrack"]) == (200, b"x", "registry")
    assert (written.status, written.code) == (403, "PERMISSION_DENIED")
    assert deleted.status == 403
    assert await mirrored(b, proxy, run_id) == {"x.txt": b"x"}


@pytest.mark.parametrize("backend", ["b", "nobody"])
async def test_the_store_of_another_backend_is_not_read(proxy: Running, b: Workspace, backend: str) -> None:
    """Neither by a run that is there nor by anything else: the registry is not there."""
    run_id = await proxy.create_run(await proxy.create_experiment())
    await put(proxy, await run_root(proxy, run_id), "x.txt", b"x")
    await proxy.drained()
    root = (await mirror_of(b, proxy, run_id))["info"]["artifact_uri"].removeprefix("mlflow-artifacts:/")
    route = "/api/2.0/mlflow-artifacts/artifacts"
    below = f"_dualtrack/{backend}/mlflow-artifacts/-/{root}"
    replies = [await proxy.call("GET", f"{route}/{below}/x.txt"), await proxy.call("GET", f"{route}?path={below}")]
    replies += [await proxy.call(method, f"{route}/{below}/x.txt") for method in ("PUT", "DELETE")]

    assert {(reply.status, reply.code) for reply in replies} == {(404, "RESOURCE_DOES_NOT_EXIST")}


# --- who states a root ------------------------------------------------------------------------------------------------


async def test_a_client_cannot_state_a_root_by_an_alias(proxy: Running, tmp_path: Path) -> None:
    """GraphQL lets whoever asks name the fields of the answer: a run's name could be read as a root."""
    secret = tmp_path / "secret.txt"
    await asyncio.to_thread(secret.write_text, "secret")
    run_id = await proxy.create_run(await proxy.create_experiment(), run_name=str(tmp_path))
    fields = "run { info { runId: status artifactUri: runName run_id: runUuid artifact_uri: runName } }"
    query = "query($data: MlflowGetRunInput!) { mlflowGetRun(input: $data) { %s } }" % fields  # noqa: UP031
    body = {"query": query, "variables": {"data": {"runId": run_id}}}
    answer = await proxy.call("POST", "/graphql", body)
    read = await proxy.call("GET", target(client_uri(str(tmp_path), "a", "a"), "secret.txt"))

    assert answer.json["data"]["mlflowGetRun"]["run"]["info"]["artifactUri"] == str(tmp_path)
    assert (read.status, read.code) == (404, "RESOURCE_DOES_NOT_EXIST")


async def test_a_location_of_an_experiment_is_not_read(proxy: Running, location: Path) -> None:
    """Whoever creates an experiment says where it is; below it only runs, models and traces have files."""
    secret = location / "secret.txt"
    await asyncio.to_thread(secret.write_text, "secret")
    experiment_id, _, root = await began(proxy, location)
    at = (await proxy.call("GET", f"experiments/get?experiment_id={experiment_id}")).json["experiment"]
    place = at["artifact_location"]
    trace = f"{place}/traces/tr-1/artifacts"
    refused = [await get(proxy, place, "secret.txt"), await put(proxy, place, "secret.txt", b"x")]
    refused += [await proxy.call("DELETE", target(place, "secret.txt"))]
    refused += [
        await proxy.call("GET", f"/api/2.0/mlflow-artifacts/artifacts?path={target(place, '').split('/', 5)[5]}")
    ]
    written = await put(proxy, trace, "traces.json", b"{}")

    assert root.startswith(place)
    assert {(reply.status, reply.code) for reply in refused} == {(404, "RESOURCE_DOES_NOT_EXIST")}
    assert secret.read_text() == "secret"
    assert (written.status, written.headers["X-Dualtrack"]) == (200, "primary-only")
    assert (location / "traces/tr-1/artifacts/traces.json").read_bytes() == b"{}"
    assert (await get(proxy, trace, "traces.json")).body == b"{}"
    assert await tree(proxy, trace) == {"traces.json": b"{}"}
    assert proxy.app.spool.used_bytes == 0


# --- when there is no room --------------------------------------------------------------------------------------------


async def test_with_a_full_journal_files_and_roots_pass_to_the_primary_alone(
    launch: Launcher, a: Workspace, b: Workspace, location: Path
) -> None:
    """What took effect is answered, whether its root can be written down or not; files lie where they belong."""
    proxy = await launch(a, b, store={"max_size": "1MiB", "on_full": "primary-only"})
    experiment_id, run_id, root = await began(proxy, location)
    await proxy.drained()
    await b.control.set_faults(Rule(action=BlackHole()))
    tags = [{"key": f"k{number}", "value": "x" * 5000} for number in range(10)]
    while (await proxy.call("POST", "runs/log-batch", {"run_id": run_id, "tags": tags})).headers[
        "X-Dualtrack"
    ] == "mirrored":
        pass
    stored = await put(proxy, root, "kept.txt", b"kept")
    await put(proxy, root, "gone.txt", b"gone")
    gone = await proxy.call("DELETE", target(root, "gone.txt"))
    made = await proxy.call("POST", "runs/create", {"experiment_id": experiment_id, "start_time": 1})
    other = made.json["run"]["info"]
    other_stored = await put(proxy, other["artifact_uri"], "other.txt", b"other")

    assert [(reply.status, reply.headers["X-Dualtrack"]) for reply in (stored, gone, made, other_stored)] == [
        (200, "primary-only")
    ] * 4
    assert other["artifact_uri"] == root.replace(run_id, other["run_id"])
    assert await tree(proxy, root) == {"kept.txt": b"kept"}
    assert (location / run_id / "artifacts" / "kept.txt").read_bytes() == b"kept"
    assert (location / other["run_id"] / "artifacts" / "other.txt").read_bytes() == b"other"
    assert len((await proxy.post("runs/search", experiment_ids=[experiment_id]))["runs"]) == 2
    assert proxy.app.spool.used_bytes == 0


# --- downloads that break ---------------------------------------------------------------------------------------------


async def test_a_download_that_breaks_is_cut_and_nothing_follows(
    proxy: Running, location: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once a head is out no second answer is written: its bytes would be the file's, or the next request's."""
    _, _, root = await began(proxy, location)
    await put(proxy, root, "a.txt", b"0123456789")

    async def broken() -> AsyncIterator[bytes]:
        yield b"01234"
        raise UnreachableError("a", "fetch a.txt", "the file changed while it was read")

    @asynccontextmanager
    async def fetch(*_: object) -> AsyncIterator[Fetched]:
        yield Fetched(size=10, chunks=broken())

    monkeypatch.setattr(proxy.app._client_stores["a"], "fetch", fetch)
    async with connected(proxy.url) as (reader, writer):
        asked = request("GET", target(root, "a.txt"))
        writer.write(asked + asked)
        try:
            said = await reader.read()
        except ConnectionResetError:
            said = b""

    assert said.count(b"HTTP/1.1") <= 1
    assert b"503" not in said
    assert (await proxy.call("GET", "experiments/get?experiment_id=0")).status == 200


# --- artifacts: direct ------------------------------------------------------------------------------------------------


async def test_direct_leaves_roots_alone_and_copies_when_a_run_ends(
    launch: Launcher, a: Workspace, b: Workspace, location: Path
) -> None:
    proxy = await launch(a, b, artifacts="direct")
    _, run_id, root = await began(proxy, location)
    await asyncio.to_thread(_write, Path(root) / "deep" / "a.txt", b"written past the proxy")
    await proxy.finish(run_id)
    await proxy.drained()

    assert root == f"{location}/{run_id}/artifacts"
    assert await mirrored(b, proxy, run_id) == {"deep/a.txt": b"written past the proxy"}


async def test_direct_ends_a_run_whose_files_cannot_be_copied(
    launch: Launcher, a: Workspace, b: Workspace, location: Path
) -> None:
    """The status is not held back by a store that cannot be read; what is missing is recorded (P7)."""
    proxy = await launch(a, b, artifacts="direct", backends={"a": {"local_artifacts": False}})
    _, run_id, _ = await began(proxy, location)
    await proxy.finish(run_id)
    await proxy.drained()

    assert (await mirror_of(b, proxy, run_id))["info"]["status"] == "FINISHED"
    assert await proxy.metric("lossy_total", backend="b", kind="not_copied") == 1
    assert (await proxy.backend())["parked"] == 0


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(content)


# --- what a server can do with files ----------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["/api", "/ajax-api"])
@pytest.mark.parametrize(
    ("method", "path", "words"),
    [
        ("POST", "mlflow-artifacts/mpu/create/1/x", "Multipart upload is not supported for the current artifact repo"),
        ("POST", "mlflow-artifacts/mpu/complete/1/x", "Multipart upload is not supported"),
        ("POST", "mlflow-artifacts/mpu/abort/1/x", "Multipart upload is not supported"),
        ("GET", "mlflow-artifacts/presigned/1/x", "Multipart download is not supported for the current artifact repo"),
        ("POST", "mlflow/artifacts/presigned-upload-url", "Presigned upload is not supported"),
    ],
)
async def test_what_would_go_around_the_proxy_is_refused(
    proxy: Running, prefix: str, method: str, path: str, words: str
) -> None:
    """In MLflow's own words, by which its client falls back."""
    reply = await proxy.call(method, f"{prefix}/2.0/{path}", {} if method == "POST" else None)

    assert (reply.status, reply.code) == (501, "NOT_IMPLEMENTED")
    assert reply.json["message"].startswith(words)


async def test_the_server_says_so(proxy: Running) -> None:
    said: Json = (await proxy.call("GET", "/api/3.0/mlflow/server-info")).json

    assert (said["multipart_uploads_enabled"], said["multipart_downloads_enabled"]) == (False, False)


async def test_a_file_that_is_nobodys_outlives_a_sweep_of_the_spool(
    proxy: Running, location: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trace's: no entry names its copy, which the store has yet to open."""
    experiment_id, _, _ = await began(proxy, location)
    at = (await proxy.call("GET", f"experiments/get?experiment_id={experiment_id}")).json["experiment"]
    trace = f"{at['artifact_location']}/traces/tr-1/artifacts"
    store, journal = proxy.app._client_stores["a"], proxy.app.journal
    assert journal is not None
    stored = store.put

    async def slow(root: str, path: str, source: str) -> None:
        await proxy.app._sweep_once(journal)
        await stored(root, path, source)

    monkeypatch.setattr(store, "put", slow)
    written = await put(proxy, trace, "traces.json", b"{}")

    assert (written.status, (await get(proxy, trace, "traces.json")).body) == (200, b"{}")
    assert proxy.app.spool.used_bytes == 0


async def test_listing_at_the_top_is_the_primarys(proxy: Running) -> None:
    assert isinstance(await listing(proxy, "mlflow-artifacts:/", ""), list)
