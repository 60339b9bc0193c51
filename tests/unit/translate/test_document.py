"""Bodies as clients send them become one spelling each, or are refused; nothing crashes the reader."""

import math

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dualtrack.core.exchange import JSON, Document
from dualtrack.translate.document import MalformedError, field, objects, parse, parse_inner, text, write

scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text()
nodes: st.SearchStrategy[JSON] = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=10
)


WORDS = st.sampled_from(["run", "id", "uuid", "v2", "max", "x1"])


@pytest.mark.parametrize(
    ("body", "document"),
    [
        (b"", {}),
        (b"{}", {}),
        (b' {"run_id": "r"}\n', {"run_id": "r"}),
        (b'{"runId": "r", "runUuid": "r"}', {"run_id": "r", "run_uuid": "r"}),
        (b'{"metrics": [{"modelId": "m"}]}', {"metrics": [{"model_id": "m"}]}),
        (b'{"models": [{"artifactUri": "x"}], "Key": 1}', {"models": [{"artifact_uri": "x"}], "Key": 1}),
        (b'{"key": "camelCase", "value": "aB"}', {"key": "camelCase", "value": "aB"}),
        (rb'"{\"runId\": \"\u00fc\"}"', {"run_id": "ü"}),
        (b'{"value": NaN}', {"value": "NaN"}),
        (b'{"value": Infinity, "step": 1}', {"value": "Infinity", "step": 1}),
        (b'{"value": -Infinity}', {"value": "-Infinity"}),
        (b'{"value": [1e999, -1e999, 1.5]}', {"value": ["Infinity", "-Infinity", 1.5]}),
        (
            b'{"value": NaN, "id": 123456789012345678901234567890}',
            {"value": "NaN", "id": 123456789012345678901234567890},
        ),
        (b'\xef\xbb\xbf{"bom": 1}', {"bom": 1}),
    ],
)
def test_every_spelling_becomes_one(body: bytes, document: Document) -> None:
    """What a server takes is read: camelCase, a string that holds JSON, Python's words for what is no number."""
    assert parse(body) == document


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b"[1, 2]",
        b"null",
        b"1",
        b'"text"',
        b'"\\"twice\\""',
        b"  ",
        b"\xff\xfe\xfd",
        b'{"a": \xff}',
        b'{"lone": "\\ud800"}',
        b'"\\ud800"',
        b'{"a": ' + b"9" * 5000 + b"}",
        b'{"a":' * 100_000,
        b"[" * 2000 + b"]" * 2000,
    ],
    ids=range(15),
)
def test_what_is_no_object_is_refused(body: bytes) -> None:
    """One error for all of it, so that a client gets a clear 4xx."""
    with pytest.raises(MalformedError):
        parse(body)


@pytest.mark.parametrize("depth", [101, 500, 900, 3000])
@pytest.mark.parametrize(("start", "end"), [(b"[", b"]"), (b'{"aB":', b"}")])
def test_a_bottomless_body_is_refused(depth: int, start: bytes, end: bytes) -> None:
    """A server ignores unknown fields however deep they are; what walks the document here must not run out of stack."""
    with pytest.raises(MalformedError):
        parse(b'{"junk":' + start * depth + b"1" + end * depth + b"}")


def test_a_wide_body_is_not_a_deep_one() -> None:
    metrics: list[JSON] = [{"key": "m", "step": step} for step in range(1000)]
    deep: JSON = 1
    for _ in range(99):
        deep = [deep]

    assert parse(orjson.dumps({"metrics": metrics})) == {"metrics": metrics}
    assert parse(orjson.dumps({"deep": deep})) == {"deep": deep}


@given(st.binary() | nodes.map(orjson.dumps))
@example(b'{"a": 1e400}')
def test_reading_never_fails_otherwise(body: bytes) -> None:
    """Any bytes at all: an object or `MalformedError`, and what was read can be written."""
    try:
        document = parse(body)
    except MalformedError:
        return

    assert parse(write(document)) == document


@given(st.dictionaries(st.lists(WORDS, min_size=1, max_size=4).map("_".join), st.integers(0, 9), max_size=5))
def test_camel_case_means_the_same(document: dict[str, int]) -> None:
    """The two spellings that a server takes are one after reading."""
    camel = {
        name.split("_")[0] + "".join(map(str.capitalize, name.split("_")[1:])): document[name] for name in document
    }

    assert parse(orjson.dumps(camel)) == document


def test_keys_inside_a_string_are_the_users_own() -> None:
    assert parse_inner('{"myKey": {"Other": NaN}}') == {"myKey": {"Other": "NaN"}}
    assert parse_inner("[]") == []


@pytest.mark.parametrize("value", ["", "{", "\ud800", '"\ud800"', "[" * 500 + "]" * 500])
def test_a_string_that_is_no_json_is_refused(value: str) -> None:
    with pytest.raises(MalformedError):
        parse_inner(value)


def test_integers_beyond_64_bits_are_written_out() -> None:
    assert write({"id": 10**30, "step": 1}) == b'{"id": 1%s, "step": 1}' % (b"0" * 30)
    assert write({"id": "ü"}) == '{"id":"ü"}'.encode()


@pytest.mark.parametrize(
    ("node", "found"),
    [("r", "r"), ("", ""), (7, "7"), (10**30, "1" + "0" * 30), (True, ""), (None, ""), (1.5, ""), ([], "")],
)
def test_ids_may_be_numbers(node: JSON, found: str) -> None:
    assert text(node) == found


@given(nodes)
def test_objects_are_those_in_a_list(node: JSON) -> None:
    found = objects(node)

    assert all(isinstance(item, dict) for item in found)
    assert objects([node, "x", 1]) == ([node] if isinstance(node, dict) else [])


def test_a_path_ends_where_something_is_missing() -> None:
    document: Document = {"run": {"info": {"run_id": "r", "end_time": None}, "data": [1]}}

    assert field(document, "run", "info", "run_id") == "r"
    assert field(document, "run", "info", "end_time", "more") is None
    assert field(document, "run", "data", "tags") is None
    assert field(document) is document
    assert field(math.pi, "x") is None
