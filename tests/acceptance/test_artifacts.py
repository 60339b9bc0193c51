"""Files go to both sides, whichever client sends them, and come back through the proxy as from the primary itself."""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest

from dualtrack.demo.servers import MlflowServer
from tests.support.clients import IMPATIENT, run_script
from tests.support.environments import CLIENTS, CURRENT, client_python
from tests.support.holdings import on_both
from tests.support.proxy import Dualtrack
from tests.support.servers import call
from tests.support.sides import assert_equal
from tests.support.wire import ask

pytestmark = pytest.mark.acceptance

FILES = "/api/2.0/mlflow-artifacts"
# `%41` is a letter to every client's server, so the plain one makes this name of `%41.txt` too
NAMES = {"with space.txt", "100% sure.txt", "a+b=c&d;e,f.txt", "größe ✓ 日本.txt", "~tilde (1)'s [x]!.txt", "A.txt"}
TREE = {"top.txt", "one/two/three/deep.txt", "one/two/größe.csv", "one/empty", "a b/c+d/%.json"}
MADE = {"notes/text.md", "config/settings.json", "config/settings.yaml", "plots/curve.png", "tables/rows.json"}
# Files of a megabyte go in parts, and every file comes in parts, if anybody lets them.
IN_PARTS = {
    **IMPATIENT,
    "MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD": "true",
    "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "true",
    "MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE": "1000000",
    "MLFLOW_MULTIPART_UPLOAD_CHUNK_SIZE": "1000000",
    "MLFLOW_MULTIPART_DOWNLOAD_MINIMUM_FILE_SIZE": "1",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run with some files, made by plain HTTP; `root` is where the proxy says that they are."""

    experiment_id: str
    id: str
    root: str

    def target(self, path: str) -> str:
        return f"{FILES}/artifacts/{self.root}/{quote(path)}"


def new_run(proxy: Dualtrack, name: str, files: dict[str, bytes]) -> Run:
    experiment_id = call(proxy.url, "experiments/create", {"name": name})["experiment_id"]
    info = call(proxy.url, "runs/create", {"experiment_id": experiment_id})["run"]["info"]
    scheme, _, root = info["artifact_uri"].partition(":/")
    assert scheme == "mlflow-artifacts"
    run = Run(experiment_id=experiment_id, id=info["run_id"], root=root)
    for path, content in files.items():
        stored = ask(proxy.url, "PUT", run.target(path), content)
        assert (stored.status, stored.body, stored.went) == (200, b"", "mirrored"), stored
    return run


def answered(proxy: Dualtrack, operation: str) -> float:
    return proxy.metric("dualtrack_requests_total", operation=operation)


# --- clients --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", CLIENTS)
def test_whatever_a_client_logs(
    version: str, proxy: Dualtrack, mlflow_primary: MlflowServer, mlflow_secondary: MlflowServer, tmp_path: Path
) -> None:
    """Files of any name, empty, nested, replaced and rewritten: byte for byte the same on both sides."""
    python = client_python(version)

    done = run_script("log_files", proxy.url, tmp_path, f"files of a client {version}", python=python)

    assert done["mlflow"].startswith(f"{version}.")
    proxy.drain()
    assert_equal(mlflow_primary.url, mlflow_secondary.url, done["experiment_id"], runs=1)
    ours, theirs = on_both(mlflow_primary.url, mlflow_secondary.url, done["run_id"], tmp_path)
    assert ours.files == theirs.files == done["files"]
    assert ours.root != theirs.root
    # older clients join the parts of these names by `%`, newer ones by `+`; `%1795…` looks like an encoded letter
    images = {path for path in ours.files if path.startswith("images/noise heavy.1")}
    assert len(images) == 4, ours.files.keys()
    inside = {f"deep/größe + %/er/{name}" for name in NAMES}
    assert NAMES | inside | {f"tree/{path}" for path in TREE} | MADE <= ours.files.keys()


@pytest.mark.parametrize("version", CLIENTS)
def test_a_client_that_wants_to_send_in_parts(
    version: str, proxy: Dualtrack, mlflow_primary: MlflowServer, mlflow_secondary: MlflowServer, tmp_path: Path
) -> None:
    """It asks, is told that there is no such thing in the words that it knows, and sends the file whole."""
    python, asked = client_python(version), answered(proxy, "createMultipartUpload")
    asked_to_read = answered(proxy, "getPresignedDownloadUrl")

    done = run_script("log_files", proxy.url, tmp_path, f"in parts, {version}", env=IN_PARTS, python=python)

    assert answered(proxy, "createMultipartUpload") == asked + 1, "the large file was to go in parts"
    if version == CURRENT:
        assert answered(proxy, "getPresignedDownloadUrl") > asked_to_read
    proxy.drain()
    ours, theirs = on_both(mlflow_primary.url, mlflow_secondary.url, done["run_id"], tmp_path)
    assert ours.files == theirs.files == done["files"]
    assert "large/large.bin" in ours.files


@pytest.mark.parametrize("version", CLIENTS)
def test_deleted_files(
    version: str, proxy: Dualtrack, mlflow_primary: MlflowServer, mlflow_secondary: MlflowServer, tmp_path: Path
) -> None:
    """A file, a name that needs care and a whole folder disappear from both sides; what is left is left."""
    files = {name: name.encode() for name in ("kept.txt", "gone.txt", "100% größe+.txt", "tree/a.txt", "tree/b/c.txt")}
    run = new_run(proxy, f"deletes of a client {version}", files)
    proxy.drain()
    before = on_both(mlflow_primary.url, mlflow_secondary.url, run.id, tmp_path)
    assert [set(side.files) for side in before] == [set(files)] * 2
    gone = ("gone.txt", "100% größe+.txt", "tree")

    done = run_script("delete_files", proxy.url, tmp_path, run.id, *gone, python=client_python(version))

    assert done["left"] == ["kept.txt"]
    proxy.drain()
    after = on_both(mlflow_primary.url, mlflow_secondary.url, run.id, tmp_path)
    assert [set(side.files) for side in after] == [{"kept.txt"}] * 2


def test_a_file_that_is_written_again_and_again(
    proxy: Dualtrack, mlflow_primary: MlflowServer, mlflow_secondary: MlflowServer, tmp_path: Path
) -> None:
    """The last content wins on both sides, also after a delete in between."""
    run = new_run(proxy, "again and again", {})
    for number in range(20):
        assert ask(proxy.url, "PUT", run.target("checkpoint.bin"), b"%d" % number * (20 - number)).status == 200
    assert ask(proxy.url, "DELETE", run.target("checkpoint.bin")).status == 200
    assert ask(proxy.url, "PUT", run.target("checkpoint.bin"), b"the last").status == 200

    proxy.drain()
    ours, theirs = on_both(mlflow_primary.url, mlflow_secondary.url, run.id, tmp_path)
    assert ours.files == theirs.files != {}
    assert ask(proxy.url, "GET", run.target("checkpoint.bin")).body == b"the last"


# --- downloads ------------------------------------------------------------------------------------------------------

CONTENT = bytes(range(256)) * 40


@pytest.mark.parametrize("name", ["plain.txt", "with space.csv", "größe ✓ 100%.png", "no-suffix"])
def test_a_download_is_the_primary_s(name: str, proxy: Dualtrack, mlflow_primary: MlflowServer) -> None:
    """Name, type, validator and range are those that the primary itself answers with."""
    run = new_run(proxy, f"downloads {name}", {name: CONTENT})
    told = ("content-type", "content-disposition", "content-length", "content-range", "etag", "accept-ranges")

    for asked in ({}, {"Range": "bytes=100-199"}, {"Range": "bytes=-5"}, {"Range": "bytes=10200-"}):
        through, direct = (ask(url, "GET", run.target(name), headers=asked) for url in (proxy.url, mlflow_primary.url))
        assert (through.status, through.body) == (direct.status, direct.body), asked
        for header in told:
            assert through.headers.get(header) == direct.headers.get(header), (header, asked)
        assert through.status == (206 if asked else 200)
        assert through.headers["content-disposition"].startswith("attachment; filename")
        assert through.headers["x-content-type-options"] == "nosniff"
    etag = through.headers["etag"]
    answers = [
        ask(url, "GET", run.target(name), headers={"If-None-Match": etag}) for url in (proxy.url, mlflow_primary.url)
    ]
    assert answers[0].status == answers[1].status
    assert answers[0].body == answers[1].body
    part = ask(proxy.url, "GET", run.target(name), headers={"Range": "bytes=0-3", "If-Range": etag})
    assert (part.status, part.body) == (206, CONTENT[:4])
    changed = ask(proxy.url, "GET", run.target(name), headers={"Range": "bytes=0-3", "If-Range": '"another"'})
    assert (changed.status, changed.body) == (200, CONTENT)


def test_what_is_not_there(proxy: Dualtrack) -> None:
    """A missing file is a 404 in MLflow's words; a missing folder lists as empty, and can be deleted."""
    run = new_run(proxy, "nothing there", {})

    missing = ask(proxy.url, "GET", run.target("none.txt"))
    listed = ask(proxy.url, "GET", f"{FILES}/artifacts?path={quote(f'{run.root}/none')}")
    deleted = ask(proxy.url, "DELETE", run.target("none.txt"))

    assert (missing.status, missing.document["error_code"]) == (404, "RESOURCE_DOES_NOT_EXIST")
    assert (listed.status, listed.document.get("files", [])) == (200, [])
    assert deleted.status == 200


# --- what is refused ------------------------------------------------------------------------------------------------

ASTRAY = {
    "one level up": "..%2fother/x.txt",
    "plain dots": "../x.txt",
    "in the middle": "a/../../x.txt",
    "encoded twice": "%252e%252e%252fx.txt",
    "encoded thrice": "%25252e%25252e/x.txt",
    "dots encoded": "%2e%2e/x.txt",
    "a fragment": "a%23b.txt",
}
ABSOLUTE = {
    "absolute": "/etc/passwd",
    "absolute, encoded": "%2fetc/passwd",
    "absolute, encoded twice": "%252fetc%252fpasswd",
    "a file URI": "file:///etc/passwd",
    "a drive": "c:%5Cx.txt",
}


@pytest.mark.parametrize("path", [*ASTRAY.values(), *ABSOLUTE.values()], ids=[*ASTRAY, *ABSOLUTE])
def test_a_path_that_leads_out_of_its_root(path: str, proxy: Dualtrack) -> None:
    """It is refused as the server refuses it, in whatever way it is written and whatever is asked."""
    whole = path if path in ABSOLUTE.values() else f"{proxy_root(proxy)}/{path}"

    answers = {method: ask(proxy.url, method, f"{FILES}/artifacts/{whole}") for method in ("GET", "DELETE")}
    answers["PUT"] = ask(proxy.url, "PUT", f"{FILES}/artifacts/{whole}", b"evil")
    answers["list"] = ask(proxy.url, "GET", f"{FILES}/artifacts?path={whole}")
    answers["ajax"] = ask(proxy.url, "PUT", f"/ajax-api/2.0/mlflow-artifacts/artifacts/{whole}", b"evil")

    for what, answer in answers.items():
        assert answer.status == 400, (what, answer.status, answer.body)
        assert answer.headers["content-type"].partition(";")[0] == "application/json", what
        assert answer.document["error_code"] == "INVALID_PARAMETER_VALUE", what


def proxy_root(proxy: Dualtrack) -> str:
    """The root of a run that is there for paths to lead out of."""
    info = call(proxy.url, "runs/create", {"experiment_id": "0"})["run"]["info"]
    return str(info["artifact_uri"]).removeprefix("mlflow-artifacts:/")


@pytest.mark.parametrize("prefix", ["/api", "/ajax-api"])
def test_there_is_no_way_around(prefix: str, proxy: Dualtrack) -> None:
    """Parts and signed addresses would pass the proxy by: refused in the words by which clients know that."""
    run = new_run(proxy, f"no way around {prefix}", {"a.bin": b"x"})
    parts = {"path": "b.bin", "num_parts": 2}
    routes = f"{prefix}/2.0/mlflow-artifacts"

    created = ask(proxy.url, "POST", f"{routes}/mpu/create/{run.root}", parts)
    others = [
        ask(proxy.url, "POST", f"{routes}/mpu/complete/{run.root}", {"path": "b.bin", "upload_id": "1", "parts": []}),
        ask(proxy.url, "POST", f"{routes}/mpu/abort/{run.root}", {"path": "b.bin", "upload_id": "1"}),
        ask(proxy.url, "GET", f"{routes}/presigned/{run.root}/a.bin"),
    ]

    assert created.status == 501
    said = created.document["message"]
    assert said.startswith("Multipart upload is not supported for the current artifact repository")
    assert [answer.status for answer in others] == [501] * 3


def test_server_info_promises_no_parts(proxy: Dualtrack, mlflow_primary: MlflowServer) -> None:
    """A client of today decides by these two flags."""
    through, direct = (ask(url, "GET", "/api/3.0/mlflow/server-info") for url in (proxy.url, mlflow_primary.url))

    assert through.status == 200
    assert through.document["multipart_uploads_enabled"] is False
    assert through.document["multipart_downloads_enabled"] is False
    assert through.document.keys() == direct.document.keys()


# --- the UI ---------------------------------------------------------------------------------------------------------


def test_files_in_the_ui(
    proxy: Dualtrack, mlflow_primary: MlflowServer, mlflow_secondary: MlflowServer, tmp_path: Path
) -> None:
    """A file is shown, and one that the UI uploads is a file like any other."""
    run = new_run(proxy, "files in the UI", {"größe 1+1.txt": b"shown"})
    path = f"uploaded/{quote('größe 100%+.txt')}"

    shown = ask(proxy.url, "GET", f"/get-artifact?run_id={run.id}&path={quote('größe 1+1.txt')}")
    sent = ask(
        proxy.url,
        "POST",
        f"/ajax-api/2.0/mlflow/upload-artifact?run_uuid={run.id}&path={path}",
        b"from the UI",
        headers={"Content-Type": "text/plain", "Origin": proxy.url},
    )
    back = ask(proxy.url, "GET", f"/get-artifact?run_uuid={run.id}&path={path}")
    astray = ask(proxy.url, "POST", f"/ajax-api/2.0/mlflow/upload-artifact?run_uuid={run.id}&path=../x", b"evil")

    assert (shown.status, shown.body, shown.went) == (200, b"shown", "read")
    assert (sent.status, sent.went) == (200, "mirrored"), sent
    assert (back.status, back.body) == (200, b"from the UI")
    assert (astray.status, astray.document["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    proxy.drain()
    ours, theirs = on_both(mlflow_primary.url, mlflow_secondary.url, run.id, tmp_path)
    assert ours.files == theirs.files
    assert set(theirs.files) == {"größe 1+1.txt", "uploaded/größe 100%+.txt"}
