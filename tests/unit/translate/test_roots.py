"""Artifact roots as clients see them: one host-less name for each, and the way back."""

import json
from collections.abc import Callable

import orjson
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from dualtrack.core.exchange import JSON, Document
from dualtrack.core.ids import EntityKind
from dualtrack.translate.document import write
from dualtrack.translate.roots import (
    PREFIX,
    Candidate,
    client_uri,
    filter_text,
    holds_foreign,
    is_hostless,
    learned,
    locate,
    path_of,
    walk,
)

PRIMARY, OTHER = "databricks", "azureml"
OURS = f"mlflow-artifacts:/{PREFIX}/{PRIMARY}"
RUN, MODEL, EXPERIMENT = EntityKind.RUN, EntityKind.MODEL, EntityKind.EXPERIMENT


def shown(uri: str) -> str:
    return client_uri(uri, PRIMARY, PRIMARY)


def located(uri: str) -> list[Candidate]:
    """What a client's URI may mean."""
    path = path_of(uri)
    assert path is not None
    return locate(path, PRIMARY)


# --- one URI ----------------------------------------------------------------------------------------------------

FORMS = [
    ("s3://bucket/a/b", "s3/bucket/a/b"),
    ("s3://bucket", "s3/bucket"),
    ("s3://bucket/", "s3/bucket=2F"),
    ("s3://bucket//a", "s3/bucket=2F/a"),
    ("s3://-/a", "s3/=2D/a"),
    ("/mlruns/1", "local/-/mlruns/1"),
    ("///mlruns/1", "local/=/mlruns/1"),
    ("//server/share", "local/server/share"),
    ("./mlruns", "local/=./=2E/mlruns"),
    ("a/../b", "local/=./a/=2E=2E/b"),
    ("local:/a", "local=3A/-/a"),
    ("file:///mlruns/1", "file/-/mlruns/1"),
    ("file:/mlruns/1", "file/=/mlruns/1"),
    ("dbfs:/databricks/x", "dbfs/-/databricks/x"),
    ("dbfs:///databricks/x", "dbfs/=/databricks/x"),
    ("dbfs:databricks/x", "dbfs/=./databricks/x"),
    ("dbfs:", "dbfs/-"),
    ("/", "local/-=2F"),
    ("s3://b/a//b/", "s3/b/a=2F/b=2F"),
    ("s3://b/k=v/100%/ä b", "s3/b/k=3Dv/100=25/=C3=A4=20b"),
    ("wasbs://c@account.blob.core.windows.net/p", "wasbs/c@account.blob.core.windows.net/p"),
    ("mlflow-artifacts://host:5000/1/r", "mlflow-artifacts/host=3A5000/1/r"),
    ("http://host/api/2.0/mlflow-artifacts/artifacts/1", "http/host/api/2.0/mlflow-artifacts/artifacts/1"),
    (f"mlflow-artifacts:/{PREFIX}/x", f"mlflow-artifacts/-/{PREFIX}/x"),
    (f"mlflow-artifacts:///{PREFIX}/x", f"mlflow-artifacts/-/{PREFIX}/x"),
]


@pytest.mark.parametrize(("uri", "form"), FORMS)
def test_a_foreign_root_gets_a_readable_path(uri: str, form: str) -> None:
    assert shown(uri) == f"{OURS}/{form}"
    if not uri.startswith("mlflow-artifacts:///"):
        assert Candidate(PRIMARY, uri, "") in located(shown(uri))


@pytest.mark.parametrize(
    ("uri", "form"),
    [
        ("mlflow-artifacts:/7/r/artifacts", "mlflow-artifacts:/7/r/artifacts"),
        ("mlflow-artifacts:///7/r", "mlflow-artifacts:/7/r"),
        ("mlflow-artifacts:////7/r", "mlflow-artifacts:/7/r"),
        ("mlflow-artifacts:7", "mlflow-artifacts:/7"),
        ("mlflow-artifacts:/", "mlflow-artifacts:/"),
        (f"mlflow-artifacts:/{PREFIX}s/x", f"mlflow-artifacts:/{PREFIX}s/x"),
        ("models:/churn/1", "models:/churn/1"),
        ("models:/m-1", "models:/m-1"),
        ("runs:/r/model", "runs:/r/model"),
        ("", ""),
    ],
)
def test_what_clients_bring_to_us_anyway_stays(uri: str, form: str) -> None:
    assert shown(uri) == form


def test_a_path_of_another_backend_is_not_the_primarys() -> None:
    uri = client_uri("mlflow-artifacts:/7/r", OTHER, PRIMARY)

    assert uri == f"mlflow-artifacts:/{PREFIX}/{OTHER}/mlflow-artifacts/-/7/r"
    assert located(uri)[0] == Candidate(OTHER, "mlflow-artifacts:/7/r", "")


TRICKY = [
    "/",
    "//",
    ":",
    "=",
    "-",
    ".",
    "..",
    "%2F",
    "=2F",
    "s3:",
    "file:",
    "dbfs:/",
    "local:",
    "mlflow-artifacts:/",
    "@",
]
PIECES = st.one_of(st.sampled_from([*TRICKY, PREFIX, "a", "b"]), st.text(max_size=3))
ANY_URI = st.lists(PIECES, min_size=1, max_size=8).map("".join)
URIS = ANY_URI.filter(lambda uri: uri != "" and not uri.startswith(("models:", "runs:")))
BACKENDS = st.sampled_from([PRIMARY, OTHER])


def normal(uri: str, backend: str) -> str:
    """The primary's own host-less URIs have one slash; all others are kept to the letter."""
    scheme, _, rest = uri.partition(":")
    is_hostless = not rest.startswith("//") or rest[2:3] in {"", "/"}
    own = scheme == "mlflow-artifacts" and ":" in uri and is_hostless and backend == PRIMARY
    return f"mlflow-artifacts:/{rest.lstrip('/')}" if own else uri


@given(URIS, BACKENDS)
@example("s3://\ud83d\ude00/\ud800", PRIMARY)
@example("==", OTHER)
@example("mlflow-artifacts:///_dualtrack", PRIMARY)
def test_a_client_brings_back_what_it_was_shown(uri: str, backend: str) -> None:
    """As it is, and when its path was normalised on the way as clients and servers do."""
    assume(uri.count("/") < 25)
    path = path_of(client_uri(uri, backend, PRIMARY))

    assert path is not None
    assert Candidate(backend, normal(uri, backend), "") in locate(path, PRIMARY)
    if path.startswith(f"{PREFIX}/"):
        assert not {"", ".", ".."} & set(path.split("/"))
        assert not set("%#?+;\\ ") & set(path)


@given(URIS, BACKENDS, URIS, BACKENDS)
@example("file:/a", PRIMARY, "file:///a", PRIMARY)
@example("mlflow-artifacts:/a", PRIMARY, "mlflow-artifacts:/a", OTHER)
def test_no_two_roots_look_alike(one: str, one_backend: str, other: str, other_backend: str) -> None:
    same = (normal(one, one_backend), one_backend) == (normal(other, other_backend), other_backend)

    assert (client_uri(one, one_backend, PRIMARY) == client_uri(other, other_backend, PRIMARY)) is same


@given(URIS, BACKENDS, st.text(min_size=1).filter(lambda rest: not rest.startswith("/")))
def test_files_below_a_root_keep_their_names(root: str, backend: str, rest: str) -> None:
    assume((root + rest).count("/") < 25 and normal(root, backend) != "mlflow-artifacts:/")
    path = path_of(client_uri(root, backend, PRIMARY))

    assert path is not None
    assert Candidate(backend, normal(root, backend), rest) in locate(f"{path}/{rest}", PRIMARY)


@given(URIS.filter(lambda uri: not uri.endswith("/")), BACKENDS, st.from_regex(r"[\w-]+(/[\w-]+)*", fullmatch=True))
def test_what_lies_below_a_root_lies_below_its_client_form(root: str, backend: str, rest: str) -> None:
    assume(rest.isascii() and normal(root, backend) != "mlflow-artifacts:/")

    assert client_uri(f"{root}/{rest}", backend, PRIMARY) == f"{client_uri(root, backend, PRIMARY)}/{rest}"


@given(st.text(), st.booleans())
def test_any_path_can_be_asked_about(path: str, is_ours: bool) -> None:
    """Whatever it answers, it is a split of the path into what `client_uri` would have shown, and a rest."""
    path = f"{PREFIX}/{PRIMARY}/{path}" if is_ours else path
    found = locate(path, PRIMARY)

    assert len(found) <= 32
    for item in found:
        root = path_of(client_uri(item.uri, item.backend, PRIMARY)) if path.startswith(f"{PREFIX}/") else None
        root = item.uri.removeprefix("mlflow-artifacts:/") if root is None else root
        assert path in {root, f"{root}/{item.path}"}


@pytest.mark.parametrize(
    "path",
    [
        PREFIX,
        f"{PREFIX}/",
        f"{PREFIX}/b",
        f"{PREFIX}/b/s3",
        f"{PREFIX}/b/s3/",
        f"{PREFIX}/b//bucket",
        f"{PREFIX}/=/s3/bucket",
        f"{PREFIX}/=FF/s3/bucket",
        f"{PREFIX}/b/=FF/bucket",
        f"{PREFIX}/b/s3/=FF",
        f"{PREFIX}/b/s3/bucket=2",
        f"{PREFIX}/b/s3/bucket=zz",
        f"{PREFIX}/b/s3/b=75cket",
        f"{PREFIX}/b/s3/=c3=a4",
        f"{PREFIX}/b/local/=.",
        f"{PREFIX}/b/models/-/x",
        f"{PREFIX}/{PRIMARY}/mlflow-artifacts/-/7",
        f"{PREFIX}/b/s3/\ud800",
        f"{PREFIX}/\ud800/s3/bucket",
    ],
)
def test_what_nobody_was_shown_leads_nowhere(path: str) -> None:
    """Neither what cannot be read nor a second spelling of what can."""
    assert locate(path, PRIMARY) == []


def test_splits_come_longest_first_and_the_rest_is_raw() -> None:
    """A file's own name may look like an escape: it is not one."""
    assert locate(f"{PREFIX}/b/s3/bucket/a=20b/k=v", PRIMARY) == [
        Candidate("b", "s3://bucket/a b", "k=v"),
        Candidate("b", "s3://bucket", "a=20b/k=v"),
    ]
    assert locate("7/r/artifacts/x", PRIMARY) == [
        Candidate(PRIMARY, "mlflow-artifacts:/7/r/artifacts/x", ""),
        Candidate(PRIMARY, "mlflow-artifacts:/7/r/artifacts", "x"),
        Candidate(PRIMARY, "mlflow-artifacts:/7/r", "artifacts/x"),
        Candidate(PRIMARY, "mlflow-artifacts:/7", "r/artifacts/x"),
    ]


@pytest.mark.parametrize("path", ["/".join("a" * 50), f"{PREFIX}/b/s3/" + "/".join("a" * 50)])
def test_a_deep_path_costs_a_bounded_number_of_looks(path: str) -> None:
    assert len(locate(path, PRIMARY)) == 32


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("mlflow-artifacts:/7/r", "7/r"),
        ("mlflow-artifacts:///7/r", "7/r"),
        ("mlflow-artifacts:/", ""),
        ("http://proxy:5000/api/2.0/mlflow-artifacts/artifacts/7/r", "7/r"),
        ("https://proxy/pfx/api/2.0/mlflow-artifacts/artifacts/7/a%20b?x=1", "7/a b"),
        ("http://proxy/ajax-api/2.0/mlflow-artifacts/artifacts/7", "7"),
        ("http://proxy/api/2.0/mlflow/runs/get", None),
        ("mlflow-artifacts://host/7", None),
        ("s3://bucket/7", None),
        ("/7", None),
        ("", None),
    ],
)
def test_the_path_of_a_clients_uri(uri: str, path: str | None) -> None:
    assert path_of(uri) == path


# --- bodies -----------------------------------------------------------------------------------------------------

ROOT, SEEN = "s3://bucket/7/r/artifacts", f"{OURS}/s3/bucket/7/r/artifacts"


def run(root: str) -> Document:
    info: Document = {"run_id": "r", "run_uuid": "r", "experiment_id": "7", "status": "RUNNING", "artifact_uri": root}
    data: Document = {
        "metrics": [{"key": "artifact_uri", "value": 0.5, "timestamp": 1, "step": 0}],
        "params": [{"key": "source", "value": ROOT}, {"key": "artifact_uri", "value": ROOT}],
        "tags": [{"key": "mlflow.source.name", "value": "/x/train.py"}, {"key": "root_uri", "value": ROOT}],
    }
    dataset: Document = {"name": "d", "digest": "1", "source_type": "s3", "source": ROOT, "schema": "{}"}
    return {"info": info, "data": data, "inputs": {"dataset_inputs": [{"tags": [], "dataset": dataset}]}}


def experiment(root: str) -> Document:
    return {"experiment_id": "7", "name": "e", "artifact_location": root, "tags": [{"key": "source", "value": ROOT}]}


def model(root: str) -> Document:
    info: Document = {"model_id": "m-1", "experiment_id": "7", "artifact_uri": root, "source_run_id": "r"}
    return {"info": info, "data": {"params": [{"key": "source", "value": ROOT}]}}


def version(root: str) -> Document:
    return {"name": "n", "version": "1", "source": root, "run_id": "r", "storage_location": root, "tags": []}


def trace_v2(root: str) -> Document:
    tags: list[JSON] = [{"key": "mlflow.artifactLocation", "value": root}, {"key": "source", "value": ROOT}]
    return {
        "request_id": "t",
        "experiment_id": "7",
        "request_metadata": [{"key": "source", "value": ROOT}],
        "tags": tags,
    }


def trace_v3(root: str) -> Document:
    location: Document = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "7"}}
    assessment: Document = {
        "assessment_name": "a",
        "source": {"source_type": "CODE", "source_id": "/x"},
        "feedback": {"value": {"source": ROOT, "artifact_uri": ROOT}},
    }
    return {
        "trace_id": "tr-1",
        "trace_location": location,
        "trace_metadata": {"source": ROOT, "artifact_uri": ROOT},
        "tags": {"mlflow.artifactLocation": root, "source": ROOT, "artifactUri": ROOT},
        "assessments": [assessment],
    }


def graphql(root: str) -> Document:
    info: Document = {"runId": "r", "runUuid": "r", "experimentId": "7", "artifactUri": root}
    found: Document = {"info": info, "experiment": {"experimentId": "7", "artifactLocation": root}}
    found["modelVersions"] = [{"name": "n", "version": "1", "source": root}]
    found["inputs"] = {"datasetInputs": [{"dataset": {"name": "d", "source": ROOT}}]}
    return {"data": {"mlflowGetRun": {"run": found, "apiError": None}}}


RUN_STATED, EXPERIMENT_STATED = (RUN, "r", ROOT), (EXPERIMENT, "7", ROOT)
Stated = list[tuple[EntityKind, str, str]]
ANSWERS: dict[str, tuple[Callable[[str], Document], Stated]] = {
    "runs/get": (lambda root: {"run": run(root)}, [RUN_STATED]),
    "runs/search": (lambda root: {"runs": [run(root), run(root)], "next_page_token": "x"}, [RUN_STATED] * 2),
    "experiments/get": (lambda root: {"experiment": experiment(root)}, [EXPERIMENT_STATED]),
    "experiments/create": (lambda root: {"name": "e", "artifact_location": root}, []),
    "logged-models/search": (lambda root: {"models": [model(root)]}, [(MODEL, "m-1", ROOT)]),
    "model-versions/get": (lambda root: {"model_version": version(root)}, []),
    "registered-models/get": (lambda root: {"registered_model": {"latest_versions": [version(root)]}}, []),
    "get-download-uri": (lambda root: {"artifact_uri": root}, []),
    "artifacts/list": (lambda root: {"root_uri": root, "files": [{"path": "source", "is_dir": False}]}, []),
    "traces V2": (lambda root: {"traces": [trace_v2(root)]}, []),
    "traces V3": (lambda root: {"trace": {"trace_info": trace_v3(root)}}, []),
    "graphql": (graphql, []),
}
FINE = "mlflow-artifacts:/7/r/artifacts"


@pytest.mark.parametrize("name", ANSWERS)
def test_every_root_in_an_answer_is_renamed_and_nothing_else(name: str) -> None:
    make, _ = ANSWERS[name]

    assert walk(make(ROOT), shown) == make(SEEN)
    assert walk(make(FINE), shown) == make(FINE)
    assert walk(make(""), lambda _: "never") == make("")


@pytest.mark.parametrize("name", ANSWERS)
def test_a_foreign_root_is_seen_at_a_glance(name: str) -> None:
    body = write(ANSWERS[name][0](ROOT))

    assert holds_foreign(body)
    assert holds_foreign(body.replace(b":", b"\n : \t"))
    assert holds_foreign(body.replace(b"/", b"\\/"))
    assert holds_foreign(body.replace(b"artifact", b"\\u0061rtifact").replace(b"o", b"\\u006f"))
    assert holds_foreign(orjson.dumps(body.decode()))


def bare(node: JSON) -> JSON:
    """An answer without the datasets that the glance cannot tell from model versions."""
    if isinstance(node, list):
        return [bare(item) for item in node]
    return {k: bare(v) for k, v in node.items() if k != "dataset"} if isinstance(node, dict) else node


@pytest.mark.parametrize("name", sorted(ANSWERS.keys() - {"traces V3"}))  # there a user's own keys look like ours
def test_an_answer_that_is_fine_is_not_parsed(name: str) -> None:
    node = bare(ANSWERS[name][0](FINE))

    assert not holds_foreign(orjson.dumps(node))
    assert not holds_foreign(json.dumps(node, indent=1).encode())


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_states_the_roots_of_its_entities(name: str) -> None:
    make, stated = ANSWERS[name]

    assert learned(make(ROOT)) == stated
    assert learned(make("")) == []


@pytest.mark.parametrize(
    "node",
    [
        {"run_id": "r", "artifact_uri": ROOT},
        {"model": {"info": {"model_id": "m", "artifact_uri": "models:/m-1"}}},
        {"run": {"info": {"run_id": None, "artifact_uri": ROOT}}},
        {"run": {"info": {"run_id": "r", "artifact_uri": 5}}},
        {"run": {"info": "x", "data": {"info": {"run_id": "r", "artifact_uri": ROOT}}}},
        {"data": {"mlflowGetRun": {"run": {"info": {"run_id": "r", "artifact_uri": ROOT}}}}},
        {"trace": {"run": {"info": {"run_id": "r", "artifact_uri": ROOT}}}},
        {"model_version": {"name": "n", "version": "1", "run_id": "r", "artifact_uri": ROOT}},
        "run_id",
        None,
    ],
)
def test_what_a_user_wrote_states_nothing(node: JSON) -> None:
    assert learned(node) == []


def test_an_entity_states_one_root() -> None:
    """A model knows the run that made it."""
    info: Document = {"source_run_id": "r", "model_id": "m", "artifact_uri": ROOT}
    assert learned({"model": {"info": info}}) == [(MODEL, "m", ROOT)]
    assert learned({"experiment": {"experiment_id": 7, "artifact_location": ROOT}}) == [(EXPERIMENT, "7", ROOT)]
    assert learned({"run_info": {"run_uuid": "r", "artifact_uri": ROOT}}) == [(RUN, "r", ROOT)]


@pytest.mark.parametrize(
    ("uri", "answer"),
    [
        ("mlflow-artifacts:/1/a", True),
        ("mlflow-artifacts:///1/a", True),
        ("mlflow-artifacts:/", True),
        ("mlflow-artifacts://host:5500/1/a", False),
        ("mlflow-artifacts://host", False),
        ("s3://bucket/mlflow-artifacts:/1", False),
        ("/mlruns/1", False),
    ],
)
def test_only_a_root_without_a_host_is_served_by_who_stated_it(uri: str, answer: bool) -> None:
    assert is_hostless(uri) is answer


@pytest.mark.parametrize(
    ("node", "renamed"),
    [
        ({"source": "prompt-template"}, {"source": "prompt-template"}),
        ({"source": "models:/m-1"}, {"source": "models:/m-1"}),
        ({"source": "/mlruns/1"}, {"source": f"{OURS}/local/-/mlruns/1"}),
        ({"source": ROOT, "digest": "1"}, {"source": ROOT, "digest": "1"}),
        ({"source": {"artifact_uri": ROOT}}, {"source": {"artifact_uri": SEEN}}),
        ({"key": "mlflow.artifactLocation", "value": None}, {"key": "mlflow.artifactLocation", "value": None}),
        ({"artifact_uri": None, "root_uri": 5}, {"artifact_uri": None, "root_uri": 5}),
        ({"mlflow.artifactLocation": ROOT}, {"mlflow.artifactLocation": SEEN}),
        ({"key": "artifact_uri", "artifact_uri": ROOT}, {"key": "artifact_uri", "artifact_uri": SEEN}),
    ],
)
def test_what_is_a_root_and_what_is_not(node: JSON, renamed: JSON) -> None:
    assert walk(node, shown) == renamed


WORDS = [
    "artifact_uri",
    "artifactLocation",
    "root_uri",
    "storage_location",
    "source",
    "tags",
    "digest",
    "dataset",
    "key",
    "value",
    "mlflow.artifactLocation",
]
VALUES = st.one_of(
    st.none(),
    st.sampled_from([ROOT, FINE, "/a", "", "x", "runs:/r", "mlflow-artifacts:///a", "mlflow-artifacts://h/a", SEEN]),
    st.sampled_from(["mlflow.artifactLocation", "s3:\u00e9", "\\", '"', "mlflow-artifacts:/", "mlflow-artifacts:/_"]),
    URIS.filter(lambda uri: uri.isprintable()),
)
NODES = st.recursive(
    VALUES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4)
)


@given(st.dictionaries(st.sampled_from(WORDS), NODES, max_size=4))
@example({"key": "mlflow.artifactLocation", "x": 1, "value": ROOT})
@example({"value": ROOT, "key": "mlflow.artifactLocation"})
def test_what_passes_the_glance_needs_nothing(document: dict[str, JSON]) -> None:
    """However it is written: an answer that is passed on unread holds nothing that would have been renamed."""
    for body in (orjson.dumps(document), json.dumps(document).encode(), json.dumps(document, indent=2).encode()):
        if not holds_foreign(body):
            assert walk(document, shown) == document


@given(st.dictionaries(st.sampled_from(WORDS), NODES, max_size=4))
def test_a_walk_that_renames_nothing_changes_nothing(document: dict[str, JSON]) -> None:
    assert walk(document, lambda uri: uri) == document


# --- filters ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "renamed"),
    [
        (f"artifact_uri = '{SEEN}'", f"artifact_uri = '{ROOT}'"),
        (f'attributes.artifact_uri != "{SEEN}"', f'attributes.artifact_uri != "{ROOT}"'),
        (f"attribute.artifact_uri LIKE '{SEEN}'", f"attribute.artifact_uri LIKE '{ROOT}'"),
        (f"attr.artifact_uri ilike '{SEEN}'", f"attr.artifact_uri ilike '{ROOT}'"),
        (f"artifact_uri LIKE '{SEEN}%'", f"artifact_uri LIKE '{SEEN}%'"),
        (f"name='x' AND source_path='{SEEN}'", f"name='x' AND source_path='{ROOT}'"),
        (f"source_path LIKE '{SEEN}'", f"source_path LIKE '{SEEN}'"),
        (f"tags.artifact_uri = '{SEEN}'", f"tags.artifact_uri = '{SEEN}'"),
        (f"params.my_artifact_uri = '{SEEN}'", f"params.my_artifact_uri = '{SEEN}'"),
        (f"tags.a = \"artifact_uri = '{SEEN}'\"", f"tags.a = \"artifact_uri = '{SEEN}'\""),
        (f"tags.`artifact_uri = '{SEEN}'` = 'x'", f"tags.`artifact_uri = '{SEEN}'` = 'x'"),
        (f"tags.a = 'it' AND artifact_uri='{SEEN}'", f"tags.a = 'it' AND artifact_uri='{ROOT}'"),
        ("artifact_uri = ''", "artifact_uri = ''"),
        (f"artifact_uri = '{SEEN}", f"artifact_uri = '{SEEN}"),
        ("metrics.a > 1", "metrics.a > 1"),
        ("", ""),
    ],
)
def test_a_filter_asks_for_the_root_that_is_there(value: str, renamed: str) -> None:
    assert filter_text(value, lambda uri: ROOT if uri == SEEN else "never") == renamed


def test_a_root_never_ends_the_value_that_it_stands_in() -> None:
    assert filter_text("artifact_uri = 'a'", lambda _: "it's") == "artifact_uri = 'a'"
    assert filter_text('artifact_uri = "a"', lambda _: "it's") == 'artifact_uri = "it\'s"'
