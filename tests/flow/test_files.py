"""Files of runs: through the proxy to the primary, and in the run's order to the secondary."""

import pytest

from tests.support.files import behind, get, listing, mirrored, put, run_root, sha256, target, tree
from tests.support.flow import Running, Workspace

NAMES = ("plain.txt", "a b/c d.txt", "100%.txt", "a+b.csv", "größe/✓.csv", "deep/er/still.bin", "a=3Db.txt", "x@y")


async def test_a_file_is_on_both_sides(proxy: Running, b: Workspace) -> None:
    run_id = await proxy.create_run(await proxy.create_experiment())
    root = await run_root(proxy, run_id)
    reply = await put(proxy, root, "notes/a.txt", b"hello")
    await proxy.emptied()

    assert (reply.status, reply.headers["X-Dualtrack"]) == (200, "mirrored")
    assert await tree(behind(proxy.primary, proxy), root) == {"notes/a.txt": b"hello"}
    assert await mirrored(b, proxy, run_id) == {"notes/a.txt": b"hello"}


@pytest.mark.parametrize("name", NAMES)
async def test_names_are_the_same_on_both_sides(proxy: Running, b: Workspace, name: str) -> None:
    run_id = await proxy.create_run(await proxy.create_experiment())
    root = await run_root(proxy, run_id)
    await put(proxy, root, name, name.encode())
    await proxy.drained()

    assert await tree(behind(proxy.primary, proxy), root) == {name: name.encode()}
    assert await mirrored(b, proxy, run_id) == {name: name.encode()}
    assert (await get(proxy, root, name)).body == name.encode()


async def test_a_large_file_keeps_its_bytes(proxy: Running, b: Workspace) -> None:
    run_id = await proxy.create_run(await proxy.create_experiment())
    root = await run_root(proxy, run_id)
    content = bytes(range(256)) * 20_000
    await put(proxy, root, "large.bin", content)
    await proxy.drained()

    assert sha256((await mirrored(b, proxy, run_id))["large.bin"]) == sha256(content)


async def test_the_last_content_wins(proxy: Running, b: Workspace) -> None:
    run_id = await proxy.create_run(await proxy.create_experiment())
    root = await run_root(proxy, run_id)
    for content in (b"one", b"", b"three"):
        await put(proxy, root, "a.txt", content)
    await proxy.drained()

    assert await mirrored(b, proxy, run_id) == {"a.txt": b"three"}


async def test_a_deleted_file_goes_from_both_sides(proxy: Running, b: Workspace) -> None:
    run_id = await proxy.create_run(await proxy.create_experiment())
    root = await run_root(proxy, run_id)
    for path in ("a/1.txt", "a/2.txt", "b.txt"):
        await put(proxy, root, path)
    reply = await proxy.call("DELETE", target(root, "a"))
    await proxy.drained()

    assert (reply.status, reply.headers["X-Dualtrack"]) == (200, "mirrored")
    assert list(await mirrored(b, proxy, run_id)) == ["b.txt"]
    assert [item["path"] for item in await listing(proxy, root)] == ["b.txt"]


@pytest.mark.parametrize(
    "name", ["..%2f..%2fa", "%2e%2e/a", "%252e%252e/a", "%2fetc%2fpasswd", "a/%252e%252e/%252e%252e/b"]
)
@pytest.mark.parametrize("method", ["PUT", "GET", "DELETE"])
async def test_a_path_that_leads_out_is_refused(proxy: Running, method: str, name: str) -> None:
    """As MLflow refuses it, before anything is asked of a backend."""
    seen = await proxy.primary.calls()
    reply = await proxy.call(method, f"/api/2.0/mlflow-artifacts/artifacts/{name}", b"x" if method == "PUT" else None)

    assert (reply.status, reply.code) == (400, "INVALID_PARAMETER_VALUE")
    assert await proxy.primary.calls() == seen
