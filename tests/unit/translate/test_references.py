"""Every id in a body is found, the same ones are replaced, and replacing them back gives the body again."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualtrack.core.exchange import JSON, Document
from dualtrack.core.ids import EntityKind
from dualtrack.translate.document import parse
from dualtrack.translate.references import FIELDS, HISTORY_TAG, RUN_TAGS, Reference, find, sorted_history, walk
from tests.support.exchanges import EXCHANGES, EXPERIMENT, MODEL, PARENT, RUN

BODIES = {
    f"{name}.{part}": body
    for name, exchange in EXCHANGES.items()
    for part, body in (("body", exchange.body), ("answer", exchange.answer))
    if body
}
NAMES = {EntityKind.EXPERIMENT: "x", EntityKind.RUN: "r", EntityKind.MODEL: "m"}


def there(reference: Reference) -> str:
    """Another backend's id, from which the client's can be told."""
    return f"{NAMES[reference.ref.kind]}~{reference.ref.client_id}"


def back(reference: Reference) -> str:
    kind, _, client_id = reference.ref.client_id.partition("~")
    assert kind == NAMES[reference.ref.kind]
    return client_id


def same(reference: Reference) -> str:
    return reference.ref.client_id


def settled(node: JSON) -> JSON:
    """The body with JSON in strings unpacked, so that spacing inside them does not count."""
    if isinstance(node, dict):
        return {name: settled(value) for name, value in node.items()}
    if isinstance(node, list):
        return [settled(item) for item in node]
    if isinstance(node, str) and node.startswith(("{", "[")):
        return settled(orjson.loads(node))
    return node


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_there_and_back_is_the_same(body: bytes) -> None:
    """Client to backend to client, over every mirrored operation."""
    document = parse(body)
    moved = walk(document, there)

    assert settled(walk(moved, back)) == settled(document)
    assert {there(reference) for reference in find(document)} == {same(reference) for reference in find(moved)}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_what_is_found_is_what_is_replaced(body: bytes) -> None:
    document = parse(body)
    asked: list[Reference] = []

    def note(reference: Reference) -> str:
        asked.append(reference)
        return same(reference)

    walked = walk(document, note)

    assert set(asked) == set(find(document))
    assert settled(walked) == settled(document)


FOUND = {
    "updateExperiment.body": {EXPERIMENT},
    "createRun.body": {EXPERIMENT},
    "createRun.answer": {EXPERIMENT, RUN, PARENT},
    "updateRun.body": {RUN},
    "logMetric.body": {RUN, MODEL},
    "logParam.body": {RUN},
    "setTag.body": {RUN, PARENT},
    "logBatch.body": {RUN, PARENT, MODEL},
    "logInputs.body": {RUN, MODEL},
    "logOutputs.body": {RUN, MODEL},
    "logModel.body": {RUN, MODEL},
    "createLoggedModel.body": {EXPERIMENT, RUN},
    "createLoggedModel.answer": {EXPERIMENT, RUN, MODEL},
    "finalizeLoggedModel.body": {MODEL},
}


@pytest.mark.parametrize("name", FOUND)
def test_ids_are_where_mlflow_puts_them(name: str) -> None:
    found = {reference.ref for reference in find(parse(BODIES[name]))}

    assert found == FOUND[name]


def test_the_tags_that_name_a_run_are_known() -> None:
    """Facts section 3, and the two that older clients and Databricks set."""
    assert {"mlflow.parentRunId", "mlflow.rootRunId", "mlflow.sourceRunId"} == RUN_TAGS


@pytest.mark.parametrize("key", sorted(RUN_TAGS))
def test_a_tag_may_name_a_run(key: str) -> None:
    """Softly: a server does not check it, so nobody has to know that run."""
    tag: Document = {"key": key, "value": "r1"}

    assert [(found.ref.key, found.soft) for found in find({"tags": [tag]})] == [("run:r1", True)]
    assert walk([tag], there) == [{"key": key, "value": "r~r1"}]
    assert find({"key": key, "value": ""}) == []


def test_a_tag_request_names_its_run_and_another() -> None:
    """set-tag is a tag itself: its own run is a hard reference, the parent in its value a soft one."""
    found = find({"run_id": "r1", "key": "mlflow.parentRunId", "value": "r2"})

    assert {(reference.ref.client_id, reference.soft) for reference in found} == {("r1", False), ("r2", True)}


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize(("value", "moved"), [("a", "~a"), (7, "~7"), ("", ""), (None, None), (True, True)])
def test_an_id_may_be_a_number_or_absent(field: str, value: JSON, moved: JSON) -> None:
    walked = walk({"deep": [{field: value}]}, there)

    assert walked == {"deep": [{field: f"{NAMES[FIELDS[field]]}{moved}" if value in {"a", 7} else moved}]}


@pytest.mark.parametrize(
    "value", ["", "no json", '{"run_id":', "[" * 500, "\ud800", '{"camelCase": 1}', "[1, 2]", '"r"']
)
def test_a_string_without_ids_stays_as_it_is(value: str) -> None:
    """To the letter, whatever it is."""
    assert walk({"model_json": value}, there) == {"model_json": value}
    assert walk({"key": HISTORY_TAG, "value": value}, there) == {"key": HISTORY_TAG, "value": value}


def test_json_in_a_string_keeps_all_but_the_ids() -> None:
    """Its keys are the user's own: none is respelled."""
    inner = (
        '[{"run_id": "r1", "metadata": {"myKey": {"Other": "runId"}}, "x": NaN, "n": 123456789012345678901234567890}]'
    )
    moved = walk({"key": HISTORY_TAG, "value": inner}, there)

    assert moved == {
        "key": HISTORY_TAG,
        "value": '[{"run_id": "r~r1", "metadata": {"myKey": {"Other": "runId"}}, "x": "NaN",'
        ' "n": 123456789012345678901234567890}]',
    }


def test_json_in_a_string_is_referred_to_softly() -> None:
    """History is a note: it never holds a write back."""
    found = find(parse(EXCHANGES["logModel"].body))

    assert [(reference.ref, reference.soft) for reference in found] == [(RUN, False), (MODEL, True), (RUN, True)]


ids = st.text(st.characters(codec="utf-8", exclude_characters="~"), min_size=1, max_size=5)
fields = st.dictionaries(st.sampled_from([*FIELDS, "name", "value", "status"]), ids)
bodies = st.recursive(
    fields | st.builds(lambda key, value: {"key": key, "value": value}, st.sampled_from(sorted(RUN_TAGS)) | ids, ids),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["run", "info", "metrics"]), inner),
    max_leaves=8,
)


@given(bodies)
def test_any_body_comes_back(body: JSON) -> None:
    """Finding equals replacing, and there and back is the same, for bodies of every shape."""
    moved = walk(body, there)

    assert walk(moved, back) == body
    assert {there(reference) for reference in find(body)} == {same(reference) for reference in find(moved)}
    assert walk(body, same) == body


@pytest.mark.parametrize(
    ("written", "sorted_one"),
    [
        ('[{"b": 1, "a": [{"d": 1, "c": 2}]}]', '[{"a":[{"c":2,"d":1}],"b":1}]'),
        ('[{"id": "m2"}, {"id": "m1"}]', '[{"id":"m1"},{"id":"m2"}]'),
        ("{}", "{}"),
        ("no JSON", "no JSON"),
    ],
)
def test_a_history_has_one_spelling(written: str, sorted_one: str) -> None:
    """Servers space it, and append to it, as they like."""
    assert sorted_history(written) == sorted_one
