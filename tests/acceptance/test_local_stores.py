"""Two servers that serve no files: clients would write to the servers' disks, and go through the proxy instead."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.clients import run_script
from tests.support.environments import CLIENTS, client_python
from tests.support.holdings import LocalServer, check_models, check_predictions, on_both
from tests.support.proxy import PRIMARY, SECONDARY, Dualtrack
from tests.support.servers import call
from tests.support.sides import assert_equal
from tests.support.wire import ask

pytestmark = pytest.mark.acceptance

FILES = "/api/2.0/mlflow-artifacts"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    primary: LocalServer
    secondary: LocalServer
    proxies: dict[str, Dualtrack]  # by where their registry is

    @property
    def urls(self) -> tuple[str, str]:
        return self.primary.url, self.secondary.url


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    root = tmp_path_factory.mktemp("local")
    with ExitStack() as stack:
        primary, secondary = (stack.enter_context(LocalServer(root / name)) for name in (PRIMARY, SECONDARY))
        primary.wait_ready()
        call(secondary.wait_ready().url, "experiments/create", {"name": "so that ids differ"})
        proxies = {
            home: stack.enter_context(Dualtrack(root / f"proxy-{home}", primary.url, secondary.url, registry=home))
            for home in (PRIMARY, SECONDARY)
        }
        yield Pair(primary=primary, secondary=secondary, proxies=proxies)


@pytest.mark.parametrize("version", CLIENTS)
def test_files_reach_both_disks(version: str, pair: Pair, tmp_path: Path) -> None:
    """The client is told of no path of any machine, and both servers' folders hold what it logged."""
    python, proxy = client_python(version), pair.proxies[PRIMARY]

    done = run_script("log_files", proxy.url, tmp_path, f"files of a client {version}", python=python)

    proxy.drain()
    told = ask(proxy.url, "GET", f"/api/2.0/mlflow/runs/get?run_id={done['run_id']}").document["run"]["info"]
    assert told["artifact_uri"].startswith("mlflow-artifacts:/")
    assert_equal(*pair.urls, done["experiment_id"], runs=1)
    ours, theirs = on_both(*pair.urls, done["run_id"], tmp_path)
    assert ours.files == theirs.files == done["files"]
    assert Path(ours.root).is_relative_to(pair.primary.files.resolve())
    assert Path(theirs.root).is_relative_to(pair.secondary.files.resolve())


@pytest.mark.parametrize("home", [PRIMARY, SECONDARY])
@pytest.mark.parametrize("version", CLIENTS)
def test_models_reach_both_disks(version: str, home: str, pair: Pair, tmp_path: Path) -> None:
    """Logged, registered, loaded: as with servers that serve their files."""
    python, proxy = client_python(version), pair.proxies[home]
    name = f"größe {version} on {home}"

    done = run_script("log_models", proxy.url, tmp_path, name, "--register", name, python=python)

    proxy.drain()
    check_predictions(done)
    check_models(*pair.urls, done, (name, home), tmp_path, python)


@pytest.mark.parametrize("version", CLIENTS)
def test_deleted_files(version: str, pair: Pair, tmp_path: Path) -> None:
    """They disappear from both disks, a folder with all that is in it."""
    python, proxy = client_python(version), pair.proxies[PRIMARY]
    done = run_script("log_files", proxy.url, tmp_path, f"deletes of a client {version}", python=python)
    gone = ("tree", "100% sure.txt", "a+b=c&d;e,f.txt", "empty.bin")

    run_script("delete_files", proxy.url, tmp_path, done["run_id"], *gone, python=python)

    proxy.drain()
    ours, theirs = on_both(*pair.urls, done["run_id"], tmp_path)
    left = {path: digest for path, digest in done["files"].items() if not path.startswith(gone)}
    assert ours.files == theirs.files == left
    assert len(left) > 20


def test_a_download_is_served_as_a_server_would(pair: Pair) -> None:
    """Whole, in ranges and by its name, from a disk that no server serves."""
    proxy, content = pair.proxies[PRIMARY], bytes(range(256)) * 40
    experiment_id = call(proxy.url, "experiments/create", {"name": "downloads"})["experiment_id"]
    info = call(proxy.url, "runs/create", {"experiment_id": experiment_id})["run"]["info"]
    target = f"{FILES}/artifacts/{info['artifact_uri'].removeprefix('mlflow-artifacts:/')}/with%20space.txt"

    stored = ask(proxy.url, "PUT", target, content)
    whole = ask(proxy.url, "GET", target)
    part = ask(proxy.url, "GET", target, headers={"Range": "bytes=100-199"})
    last = ask(proxy.url, "GET", target, headers={"Range": "bytes=-5"})
    head = ask(proxy.url, "HEAD", target)

    assert (stored.status, stored.went) == (200, "mirrored")
    assert (whole.status, whole.body) == (200, content)
    assert whole.headers["content-type"].startswith("text/plain")
    assert whole.headers["content-disposition"] == 'attachment; filename="with space.txt"'
    assert whole.headers["accept-ranges"] == "bytes"
    assert whole.headers["x-content-type-options"] == "nosniff"
    assert (part.status, part.body) == (206, content[100:200])
    assert part.headers["content-range"] == f"bytes 100-199/{len(content)}"
    assert (last.status, last.body) == (206, content[-5:])
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", str(len(content)))


@pytest.mark.parametrize("path", ["..%2f..%2fx", "../x", "%252e%252e%252fx", "%2e%2e/x", "a/..%2f..%2fx"])
def test_a_path_that_leads_out_of_its_root(path: str, pair: Pair) -> None:
    """There is no server behind it that would refuse, so the proxy does."""
    proxy = pair.proxies[PRIMARY]
    info = call(proxy.url, "runs/create", {"experiment_id": "0"})["run"]["info"]
    root = info["artifact_uri"].removeprefix("mlflow-artifacts:/")
    before = sorted(pair.primary.files.parent.rglob("x"))

    answers = [ask(proxy.url, method, f"{FILES}/artifacts/{root}/{path}", b"evil") for method in ("PUT", "DELETE")]
    answers += [ask(proxy.url, "GET", f"{FILES}/artifacts/{root}/{path}")]
    answers += [ask(proxy.url, "GET", f"{FILES}/artifacts?path={root}/{path}")]

    assert [answer.status for answer in answers] == [400] * 4
    assert {answer.document["error_code"] for answer in answers} == {"INVALID_PARAMETER_VALUE"}
    assert sorted(pair.primary.files.parent.rglob("x")) == before
