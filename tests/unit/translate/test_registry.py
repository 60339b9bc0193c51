"""Registry calls for a registry elsewhere: what names a run, a model or a place is renamed, the rest is not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualtrack.core.exchange import JSON, Document
from dualtrack.core.ids import ClientId, EntityKind, Ref
from dualtrack.translate.registry import (
    Name,
    Place,
    as_ref,
    filter_text,
    from_query,
    names,
    roots_above,
    to_query,
    uri,
    walk,
)

ROOT, ROOT_THERE = "mlflow-artifacts:/7/r/artifacts", "dbfs:/databricks/mlflow/9/s/artifacts"


def there(item: Name | Place) -> str:
    """The registry's word for it."""
    if isinstance(item, Place):
        return item.uri.replace(ROOT, ROOT_THERE)
    return item.value if item.value.endswith("-b") else f"{item.value}-b"


def back(item: Name | Place) -> str:
    if isinstance(item, Place):
        return item.uri.replace(ROOT_THERE, ROOT)
    return item.value.removesuffix("-b")


def same(item: Name | Place) -> str:
    return item.value if isinstance(item, Name) else item.uri


BODIES: list[tuple[Document, Document]] = [
    (
        {"name": "churn", "source": f"{ROOT}/model", "run_id": "r"},
        {"name": "churn", "source": f"{ROOT_THERE}/model", "run_id": "r-b"},
    ),
    (
        {"name": "churn", "source": "models:/m-1", "model_id": "m-1"},
        {"name": "churn", "source": "models:/m-1-b", "model_id": "m-1-b"},
    ),
    (
        {"name": "churn", "source": "runs:/r/model", "run_id": ""},
        {"name": "churn", "source": "runs:/r-b/model", "run_id": ""},
    ),
    ({"artifact_uri": f"{ROOT}/model"}, {"artifact_uri": f"{ROOT_THERE}/model"}),
    (
        {"model_versions": [{"run_id": "r", "version": "1", "tags": [{"key": "run_id", "value": "r"}]}]},
        {"model_versions": [{"run_id": "r-b", "version": "1", "tags": [{"key": "run_id", "value": "r"}]}]},
    ),
    (
        {"name": "prompt", "key": "_mlflow_experiment_ids", "value": ",7,8,"},
        {"name": "prompt", "key": "_mlflow_experiment_ids", "value": ",7-b,8-b,"},
    ),
    (
        {"tags": [{"key": "_mlflow_experiment_ids", "value": "7"}, {"key": "x", "value": "7"}]},
        {"tags": [{"key": "_mlflow_experiment_ids", "value": "7-b"}, {"key": "x", "value": "7"}]},
    ),
    ({"filter": "run_id = 'r'"}, {"filter": "run_id = 'r-b'"}),
    ({"filter_string": "run_id='r'", "max_results": 5}, {"filter_string": "run_id='r-b'", "max_results": 5}),
    (
        {"name": "run_id = 'r'", "description": "models:/m-1", "run_link": None},
        {"name": "run_id = 'r'", "description": "models:/m-1", "run_link": None},
    ),
    ({"key": "_mlflow_experiment_ids", "value": None}, {"key": "_mlflow_experiment_ids", "value": None}),
]


@pytest.mark.parametrize(("client", "registry"), BODIES)
def test_bodies_are_renamed_both_ways(client: Document, registry: Document) -> None:
    """There and back is the same, and nothing else in a body changes."""
    assert walk(client, there) == registry
    assert walk(registry, back) == client


@pytest.mark.parametrize(("client", "registry"), BODIES)
def test_all_that_is_renamed_was_listed(client: Document, registry: Document) -> None:
    """What `names` lists is what has to be looked up before `walk`, each once."""
    listed = names(client)
    looked_up = {item: there(item) for item in listed}

    assert len(looked_up) == len(listed)
    assert walk(client, looked_up.__getitem__) == registry
    assert walk(client, same) == client


@pytest.mark.parametrize(
    ("value", "renamed"),
    [
        ("runs:/r/model/a b", "runs:/r-b/model/a b"),
        ("runs:/r", "runs:/r-b"),
        ("runs:///r/model", "runs:/r-b/model"),
        ("models:/m-1", "models:/m-1-b"),
        ("models:/churn/3", "models:/churn/3"),
        ("models:/churn@best", "models:/churn@best"),
        ("models:/m-1/3", "models:/m-1/3"),
        (f"{ROOT}/model", f"{ROOT_THERE}/model"),
        ("s3://bucket/x", "s3://bucket/x"),
        ("/local/path", "/local/path"),
        ("", ""),
    ],
)
def test_a_uri_is_renamed_by_what_it_names(value: str, renamed: str) -> None:
    """`models:/name/version` is the registry's own name and stays."""
    assert uri(value, there) == renamed


@pytest.mark.parametrize(
    ("value", "renamed"),
    [
        ("run_id = 'r'", "run_id = 'r-b'"),
        ('run_id="r"', 'run_id="r-b"'),
        ("attributes.run_id = 'r' AND name = 'r'", "attributes.run_id = 'r-b' AND name = 'r'"),
        ("run_id IN ('r', \"q\")", "run_id IN ('r-b', \"q-b\")"),
        ("run_id in ('r','q') AND name='x'", "run_id in ('r-b','q-b') AND name='x'"),
        ("run_id IN ()", "run_id IN ()"),
        (f"source_path = '{ROOT}/model'", f"source_path = '{ROOT_THERE}/model'"),
        ("source_path = 'runs:/r/model'", "source_path = 'runs:/r-b/model'"),
        ("tags.parent_run_id = 'r'", "tags.parent_run_id = 'r'"),
        ("name LIKE '%churn%'", "name LIKE '%churn%'"),
        ("", ""),
    ],
)
def test_filters_name_runs_and_places(value: str, renamed: str) -> None:
    assert filter_text(value, there) == renamed


def test_a_filter_lists_each_run_once() -> None:
    node: Document = {"query": {"filter": "run_id IN ('a', 'b') OR run_id = 'a'"}, "body": {"run_id": "b"}}

    assert set(names(node)) == {Name(EntityKind.RUN, "a"), Name(EntityKind.RUN, "b")}
    assert len(names(node)) == 2


@pytest.mark.parametrize(
    ("value", "roots"),
    [
        ("dbfs:/a/b/c", ["dbfs:/a/b/c", "dbfs:/a/b", "dbfs:/a"]),
        ("mlflow-artifacts:/7/r/", ["mlflow-artifacts:/7/r", "mlflow-artifacts:/7"]),
        ("/a/b", ["/a/b", "/a"]),
        ("s3://bucket/a", ["s3://bucket/a", "s3://bucket", "s3:/"]),
        ("file", []),
        ("", []),
    ],
)
def test_roots_above_a_uri_come_longest_first(value: str, roots: list[str]) -> None:
    assert roots_above(value) == roots


@given(st.text(), st.lists(st.text(st.characters(exclude_characters="/:"), min_size=1), min_size=1, max_size=20))
def test_a_root_is_found_below_which_a_uri_lies(scheme: str, parts: list[str]) -> None:
    """Whatever is appended to a root, the root is among those above."""
    root = f"{scheme.replace(':', '').replace('/', '')}:/{parts[0]}"
    below = "/".join([root, *parts[1:]])

    assert root in roots_above(below)
    assert roots_above(below)[0] == below
    assert all(below.startswith(above) for above in roots_above(below))


@given(st.lists(st.tuples(st.text(), st.text())))
def test_a_query_survives_as_a_document(pairs: list[tuple[str, str]]) -> None:
    """Repeated fields stay repeated and in order; only the fields themselves may be gathered."""
    again = to_query(from_query(pairs))

    assert sorted(again) == sorted(pairs)
    assert {key: [value for name, value in again if name == key] for key, _ in pairs} == {
        key: [value for name, value in pairs if name == key] for key, _ in pairs
    }


def test_a_query_is_renamed_like_a_body() -> None:
    query = from_query([("run_id", "r"), ("filter", "run_id = 'r'"), ("name", "a"), ("name", "b")])
    renamed = walk(query, there)

    assert isinstance(renamed, dict)
    assert to_query(renamed) == [("run_id", "r-b"), ("filter", "run_id = 'r-b'"), ("name", "a"), ("name", "b")]


@pytest.mark.parametrize("node", [None, 1, "run_id", True, [], {}, [[]], {"run_id": 5}, {"source": ["x"]}])
def test_what_names_nothing_stays(node: JSON) -> None:
    assert names(node) == []
    assert walk(node, there) == node


def test_a_name_is_a_ref() -> None:
    assert as_ref(Name(EntityKind.MODEL, "m-1")) == Ref(EntityKind.MODEL, ClientId("m-1"))
