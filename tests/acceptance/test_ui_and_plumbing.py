"""The web UI, artifacts and odd requests through the proxy, as HTTP."""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from dualtrack.demo.servers import MlflowServer
from tests.support.clients import run_script
from tests.support.facade import Facade
from tests.support.proxy import PRIMARY, Dualtrack
from tests.support.servers import call
from tests.support.sides import assert_equal
from tests.support.wire import Answer, ask

pytestmark = pytest.mark.acceptance

API, UI = "/api/2.0/mlflow", "/ajax-api/2.0/mlflow"
FILES = "/api/2.0/mlflow-artifacts/artifacts"
MIB = 1024 * 1024


def post(proxy: Dualtrack, path: str, body: dict[str, object]) -> Answer:
    answer = ask(proxy.url, "POST", path, body)
    assert answer.status == 200, answer.body
    return answer


def new_run(proxy: Dualtrack, name: str) -> tuple[str, str]:
    """An experiment with a run in it."""
    experiment_id = str(post(proxy, f"{API}/experiments/create", {"name": name}).document["experiment_id"])
    made = post(proxy, f"{API}/runs/create", {"experiment_id": experiment_id, "start_time": 1, "run_name": "first"})
    return experiment_id, str(made.document["run"]["info"]["run_id"])


# --- the UI ---------------------------------------------------------------------------------------------------------


def test_the_ui_is_served(proxy: Dualtrack) -> None:
    """The page and all that it names come through, as the primary serves them."""
    page = ask(proxy.url, "GET", "/")

    assert (page.status, page.went) == (200, "read")
    files = re.findall(r'(?:src|href)="\.?/?(static-files/[^"]+)"', page.body.decode())
    assert files
    for file in files:
        answer = ask(proxy.url, "GET", f"/{file}", headers={"Accept-Encoding": "gzip"})
        assert (answer.status, answer.went) == (200, "read"), file
        assert len(answer.body) > 0


def test_edits_in_the_ui_are_mirrored(
    proxy: Dualtrack, mlflow_primary: MlflowServer, mlflow_secondary: MlflowServer
) -> None:
    """A page of our own may write, and its renames, tags and deletes are writes like any other."""
    experiment_id, run_id = new_run(proxy, "edited in the UI")
    page = {"Origin": proxy.url, "Referer": f"{proxy.url}/", "Cookie": "a=b"}

    for path, body in (
        ("experiments/update", {"experiment_id": experiment_id, "new_name": "renamed in the UI"}),
        (
            "experiments/set-experiment-tag",
            {"experiment_id": experiment_id, "key": "mlflow.note.content", "value": "n"},
        ),
        ("runs/update", {"run_id": run_id, "run_name": "renamed"}),
        ("runs/set-tag", {"run_id": run_id, "key": "mlflow.note.content", "value": "# größe"}),
        ("runs/set-tag", {"run_id": run_id, "key": "gone", "value": "soon"}),
        ("runs/delete-tag", {"run_id": run_id, "key": "gone"}),
        ("runs/delete", {"run_id": run_id}),
        ("runs/restore", {"run_id": run_id}),
        ("runs/delete", {"run_id": run_id}),
    ):
        answer = ask(proxy.url, "POST", f"{UI}/{path}", dict(body), headers=page)
        assert (answer.status, answer.went) == (200, "mirrored"), answer.body

    proxy.drain()
    assert_equal(mlflow_primary.url, mlflow_secondary.url, experiment_id, runs=1)
    there = call(mlflow_secondary.url, "experiments/search", {"max_results": 500, "view_type": "ALL"})["experiments"]
    assert "renamed in the UI" in {item["name"] for item in there}


def test_a_page_of_another_site_may_not_write(proxy: Dualtrack) -> None:
    """What somebody's browser sends on behalf of another page changes nothing."""
    _, run_id = new_run(proxy, "another site")
    tag = {"run_id": run_id, "key": "evil", "value": "yes"}

    refused = ask(proxy.url, "POST", f"{UI}/runs/set-tag", tag, headers={"Origin": "http://evil.example"})

    assert refused.status == 403
    assert refused.document["error_code"] == "PERMISSION_DENIED"
    run = ask(proxy.url, "GET", f"{API}/runs/get?run_id={run_id}").document["run"]
    assert "evil" not in {tag["key"] for tag in run["data"]["tags"]}


def test_graphql(proxy: Dualtrack) -> None:
    """The UI's queries are reads."""
    query = 'query GetIt { mlflowGetExperiment(input: {experimentId: "0"}) { experiment { name } } }'

    answer = ask(proxy.url, "POST", "/graphql", {"query": query, "operationName": "GetIt", "variables": {}})

    assert (answer.status, answer.went) == (200, "read"), answer.body
    assert answer.document["data"]["mlflowGetExperiment"]["experiment"] == {"name": "Default"}


# --- artifacts ------------------------------------------------------------------------------------------------------

NAMES = ("plain.txt", "with space.txt", "100%.txt", "a+b.txt", "größe ✓.bin", "deep/er/x;y,z=&.txt")


def test_artifacts_of_any_name(proxy: Dualtrack, mlflow_primary: MlflowServer) -> None:
    """Names arrive as they are written: put, listed, read and deleted byte for byte."""
    experiment_id, run_id = new_run(proxy, "names")
    root = f"{experiment_id}/{run_id}/artifacts"

    for name in NAMES:
        stored = ask(proxy.url, "PUT", f"{FILES}/{root}/{quote(name)}", name.encode() * 3)
        assert (stored.status, stored.went) == (200, "mirrored"), stored.body

    for name in NAMES:
        for url in (proxy.url, mlflow_primary.url):
            assert ask(url, "GET", f"{FILES}/{root}/{quote(name)}").body == name.encode() * 3, name
    through = ask(proxy.url, "GET", f"{API}/artifacts/list?run_id={run_id}")
    direct = ask(mlflow_primary.url, "GET", f"{API}/artifacts/list?run_id={run_id}")
    assert through.document == direct.document
    listed = {file["path"] for file in through.document["files"]}
    assert listed == {name.partition("/")[0] for name in NAMES}
    gone = ask(proxy.url, "DELETE", f"{FILES}/{root}/{quote(NAMES[2])}")
    assert gone.status == 200, gone.body
    assert ask(proxy.url, "GET", f"{FILES}/{root}/{quote(NAMES[2])}").status == 404


def test_a_large_artifact_is_streamed(proxy: Dualtrack) -> None:
    """20 MiB pass in chunks in both directions, ranges included, beyond what a mirrored write may be."""
    experiment_id, run_id = new_run(proxy, "large")
    target = f"{FILES}/{experiment_id}/{run_id}/artifacts/large.bin"
    chunks = [bytes([number]) * MIB for number in range(20)]
    digest = hashlib.sha256(b"".join(chunks)).hexdigest()

    assert ask(proxy.url, "PUT", target, iter(chunks)).status == 200

    whole = ask(proxy.url, "GET", target)
    assert hashlib.sha256(whole.body).hexdigest() == digest
    part = ask(proxy.url, "GET", target, headers={"Range": f"bytes={MIB - 1}-{MIB}"})
    assert (part.status, part.body) == (206, b"\x00\x01")
    assert part.headers["content-range"] == f"bytes {MIB - 1}-{MIB}/{20 * MIB}"
    again = ask(proxy.url, "GET", target, headers={"If-None-Match": whole.headers.get("etag", "")})
    assert again.status in {200, 304}


# --- plumbing -------------------------------------------------------------------------------------------------------


def test_an_unknown_path_goes_to_the_primary_alone(
    primary_facade: Facade, secondary_facade: Facade, tmp_path: Path
) -> None:
    """What the table lacks is passed on as it is, answered by the primary, counted, and never mirrored."""
    facades = {PRIMARY: primary_facade.start(), "secondary": secondary_facade.start()}
    tokens = {name: facade.token for name, facade in facades.items()}
    with Dualtrack(tmp_path, primary_facade.url, secondary_facade.url, tokens=tokens) as proxy:
        primary_facade.forget()
        answer = ask(proxy.url, "POST", "/api/9.0/mlflow/nothing%2Fyet?a=%20b&a=+c", {"x": 1}, {"X-Own": "1"})

        seen = next(item for item in primary_facade.requests() if "nothing" in item["path"])
        assert answer.went == "primary-only"
        assert answer.status == 404
        assert (seen["method"], seen["query"], seen["body"]) == ("POST", "a=%20b&a=+c", '{"x":1}')
        assert "nothing%2Fyet" in seen["path"]
        assert "x-own" in {name.lower() for name in seen["header_names"]}
        assert proxy.metric("dualtrack_unknown_route_total") == 1
        assert not [item for item in secondary_facade.requests() if "nothing" in item["path"]]
        assert proxy.backend()["backlog"] == 0


def test_head_and_options(proxy: Dualtrack, mlflow_primary: MlflowServer) -> None:
    """A HEAD has the headers of a GET and no body, and the connection can be used again."""
    for target in ("/", "/health", f"{API}/experiments/search?max_results=1"):
        through, direct = (ask(url, "HEAD", target) for url in (proxy.url, mlflow_primary.url))
        assert (through.status, through.body) == (direct.status, b""), target
        assert through.headers.get("content-length") == direct.headers.get("content-length"), target
        assert through.headers.get("content-type") == direct.headers.get("content-type"), target


def test_delete_with_a_body(proxy: Dualtrack, mlflow_primary: MlflowServer, mlflow_secondary: MlflowServer) -> None:
    """DELETE reads its JSON body, so the body goes along; mirrored and read ones alike."""
    experiment_id, run_id = new_run(proxy, "deletes")
    model = {"experiment_id": experiment_id, "name": "m", "source_run_id": run_id, "tags": [{"key": "k", "value": "v"}]}
    made = ask(proxy.url, "POST", f"{API}/logged-models", model)
    model_id = made.document["model"]["info"]["model_id"]

    gone = ask(proxy.url, "DELETE", f"{API}/logged-models/{model_id}/tags/k", {"model_id": model_id, "tag_key": "k"})

    assert (gone.status, gone.went) == (200, "mirrored"), gone.body
    proxy.drain()
    assert_equal(mlflow_primary.url, mlflow_secondary.url, experiment_id, runs=1)


def test_the_label_says_where_a_call_went(proxy: Dualtrack) -> None:
    """`X-Dualtrack` on every answer, errors of the primary included."""
    _, run_id = new_run(proxy, "labels")
    went = {
        ("GET", f"{API}/runs/get?run_id={run_id}"): (200, "read"),
        ("POST", f"{API}/runs/search"): (200, "read"),
        ("GET", "/version"): (200, "read"),
        ("GET", "/health"): (200, "read"),
        ("GET", f"{API}/registered-models/search"): (200, "registry"),
        ("POST", f"{API}/runs/set-tag"): (200, "mirrored"),
        ("GET", f"{API}/runs/get?run_id=none"): (404, "read"),
        ("POST", f"{API}/runs/log-metric"): (400, "primary-only"),
        ("GET", "/no/such/path"): (404, "primary-only"),
    }

    for (method, target), expected in went.items():
        body = {"run_id": run_id, "key": "k", "value": "v", "experiment_ids": []} if method == "POST" else None
        answer = ask(proxy.url, method, target, body)
        assert (answer.status, answer.went) == expected, target


def test_the_answer_of_the_primary_is_unchanged(proxy: Dualtrack, mlflow_primary: MlflowServer) -> None:
    """Errors and reads are byte for byte what the primary says."""
    _, run_id = new_run(proxy, "unchanged")

    for target in (f"{API}/runs/get?run_id={run_id}", f"{API}/runs/get?run_id=none", f"{API}/experiments/get"):
        through, direct = (ask(url, "GET", target) for url in (proxy.url, mlflow_primary.url))
        assert (through.status, through.body) == (direct.status, direct.body), target


def test_the_client_s_credentials_stay_here(
    primary_facade: Facade, mlflow_secondary: MlflowServer, tmp_path: Path
) -> None:
    """The backend gets dualtrack's token; the client's own header and cookies go no further."""
    primary_facade.start()
    tokens = {PRIMARY: primary_facade.token}
    with Dualtrack(tmp_path, primary_facade.url, mlflow_secondary.url, tokens=tokens) as proxy:
        headers = {"Authorization": "Bearer of-the-client", "Cookie": "session=secret"}
        answer = ask(proxy.url, "GET", f"{API}/experiments/search?max_results=1", headers=headers)

        assert answer.status == 200, "the façade lets only its own token in"
        # the proxy asks for experiments by itself, too
        seen = [item for item in primary_facade.requests() if "experiments/search" in item["path"]]
        assert seen
        assert not [name for item in seen for name in item["header_names"] if name.lower() == "cookie"]


# --- one backend alone ----------------------------------------------------------------------------------------------


@pytest.fixture
def alone(mlflow_primary: MlflowServer, tmp_path: Path) -> Iterator[Dualtrack]:
    with Dualtrack(tmp_path / "alone", mlflow_primary.url, None) as dualtrack:
        yield dualtrack


def test_one_backend_alone(alone: Dualtrack, mlflow_primary: MlflowServer, tmp_path: Path) -> None:
    """Exclusive tracking works the same, and no journal is written."""
    done = run_script("fluent", alone.url, tmp_path, "alone")
    registered = ask(alone.url, "POST", f"{API}/registered-models/create", {"name": "alone"})
    tag = {"run_id": done["runs"][0], "key": "k", "value": "v"}
    written = ask(alone.url, "POST", f"{API}/runs/set-tag", tag)

    assert (registered.status, registered.went) == (200, "registry")
    assert (written.status, written.went) == (200, "primary-only")
    runs = call(mlflow_primary.url, "runs/search", {"experiment_ids": [done["experiment_id"]], "run_view_type": "ALL"})
    assert {run["info"]["run_id"] for run in runs["runs"]} == set(done["runs"])
    alone.drain()
    assert alone.terminate() == 0
    assert sorted(path.name for path in alone.config_dir.iterdir()) == ["dualtrack.yaml", "serve.log"]
