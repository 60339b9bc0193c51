"""Each mirrored write as the call that means the same elsewhere; and the questions that find things again."""

import re
from dataclasses import replace
from urllib.parse import parse_qs, urlsplit

import orjson
import pytest

from dualtrack.core.coalesce import Batch
from dualtrack.core.exchange import JSON, Call, Document, Exchange
from dualtrack.core.ids import BackendId, ClientId, EntityKind, Ref, Twin
from dualtrack.core.routes import classify
from dualtrack.translate.document import objects, parse, write
from dualtrack.translate.mlflow import (
    API,
    batch_call,
    batch_document,
    batch_references,
    experiment_by_name,
    found_by_mark,
    get_call,
    history_page,
    mark_of,
    marks,
    references,
    search_by_mark,
    search_created,
    set_experiment_tag,
    split_tags,
    started_before,
    translate,
)
from dualtrack.translate.operations import OPERATIONS, read
from tests.support.exchanges import EXCHANGES, EXPERIMENT, MODEL, MODEL_JSON, PARENT, RUN, TWINS, pair, post

X, R, P, M = (TWINS[ref].backend_id for ref in (EXPERIMENT, RUN, PARENT, MODEL))
MODEL_THERE = (
    MODEL_JSON.replace(RUN.client_id, R).replace(MODEL.client_id, M)  # nothing else in it changes
)
RUN_MARKS: list[JSON] = [pair("dualtrack.source_run_id", RUN.client_id), pair("dualtrack.source", "main")]
MODEL_MARKS: list[JSON] = [pair("dualtrack.source_model_id", MODEL.client_id), pair("dualtrack.source", "main")]
LOSS: Document = {"key": "loss", "value": 0.5, "timestamp": 1_700_000_001_000, "step": 3}

CASES: dict[str, tuple[str, str, Document]] = {
    # found by its translated name, in a place of the other backend's own choice
    "createExperiment": (
        "POST",
        "experiments/create",
        {
            "name": "churn",
            "tags": [
                pair("team", "a"),
                pair("dualtrack.source_experiment_id", "7"),
                pair("dualtrack.source", "main"),
            ],
        },
    ),
    "updateExperiment": ("POST", "experiments/update", {"experiment_id": X, "new_name": "/Users/ann/stay"}),
    "deleteExperiment": ("POST", "experiments/delete", {"experiment_id": X}),
    "restoreExperiment": ("POST", "experiments/restore", {"experiment_id": X}),
    "setExperimentTag": ("POST", "experiments/set-experiment-tag", {"experiment_id": X, "key": "team", "value": "b"}),
    "deleteExperimentTag": ("POST", "experiments/delete-experiment-tag", {"experiment_id": X, "key": "team"}),
    # from the primary's answer: its run name, start time, user and tags
    "createRun": (
        "POST",
        "runs/create",
        {
            "experiment_id": X,
            "user_id": "ann",
            "start_time": 1_700_000_000_000,
            "run_name": "bold-fox-12",
            "tags": [
                pair("mlflow.user", "ann"),
                pair("mlflow.runName", "bold-fox-12"),
                pair("mlflow.parentRunId", P),
                *RUN_MARKS,
            ],
        },
    ),
    "updateRun": (
        "POST",
        "runs/update",
        {"run_id": R, "run_uuid": R, "status": "FINISHED", "end_time": 1_700_000_009_000, "run_name": "new"},
    ),
    "deleteRun": ("POST", "runs/delete", {"run_id": R}),
    "restoreRun": ("POST", "runs/restore", {"run_id": R}),
    "logMetric": ("POST", "runs/log-metric", {"run_id": R, "run_uuid": R, **LOSS, "model_id": M}),
    "logParam": ("POST", "runs/log-parameter", {"run_id": R, "run_uuid": R, "key": "depth", "value": "3"}),
    "setTag": ("POST", "runs/set-tag", {"run_id": R, "run_uuid": R, "key": "mlflow.parentRunId", "value": P}),
    "logBatch": (
        "POST",
        "runs/log-batch",
        {
            "run_id": R,
            "metrics": [{**LOSS, "run_id": R, "model_id": M, "dataset_name": "cancer", "dataset_digest": "d1"}],
            "params": [pair("depth", "3")],
            "tags": [
                pair("mlflow.rootRunId", P),
                pair("mlflow.sourceRunId", P),
                pair("mlflow.log-model.history", f"[{MODEL_THERE}]"),
                pair("note", f"run_id {RUN.client_id} in words stays"),
            ],
        },
    ),
    "deleteTag": ("POST", "runs/delete-tag", {"run_id": R, "key": "note"}),
    "logInputs": (
        "POST",
        "runs/log-inputs",
        {**parse(EXCHANGES["logInputs"].body), "run_id": R, "models": [{"model_id": M}]},
    ),
    "logOutputs": ("POST", "runs/outputs", {"run_id": R, "models": [{"model_id": M, "step": 0}]}),
    "logModel": ("POST", "runs/log-model", {"run_id": R, "model_json": MODEL_THERE}),
    "createLoggedModel": (
        "POST",
        "logged-models",
        {
            "experiment_id": X,
            "name": "model",
            "model_type": "sklearn",
            "source_run_id": R,
            "params": [pair("depth", "3")],
            "tags": [pair("mlflow.user", "ann"), *MODEL_MARKS],
        },
    ),
    "finalizeLoggedModel": ("PATCH", f"logged-models/{M}", {"model_id": M, "status": "LOGGED_MODEL_READY"}),
    "logLoggedModelParams": ("POST", f"logged-models/{M}/params", {"model_id": M, "params": [pair("a", "1")]}),
    "setLoggedModelTags": ("PATCH", f"logged-models/{M}/tags", {"model_id": M, "tags": [pair("stage", "new")]}),
    "deleteLoggedModelTag": ("DELETE", f"logged-models/{M}/tags/stage%20x", {}),
    "deleteLoggedModel": ("DELETE", f"logged-models/{M}", {}),
}


def called(exchange: Exchange, name: str = "") -> Call:
    return translate(read(exchange), TWINS, "main", name)


def query(call: Call) -> dict[str, list[str]]:
    return parse_qs(urlsplit(call.target).query)


def test_every_mirrored_operation_has_a_case() -> None:
    assert set(CASES) == set(OPERATIONS)


@pytest.mark.parametrize("operation", CASES)
def test_each_operation_is_said_in_the_other_sides_ids(operation: str) -> None:
    """Method, target and body; a create from the primary's answer, with the marks by which it is found again."""
    method, path, document = CASES[operation]
    call = called(EXCHANGES[operation], "churn" if "Experiment" in operation else "")

    assert (call.operation, call.method, call.target) == (operation, method, f"{API}/{path}")
    assert parse(call.body) == document


@pytest.mark.parametrize("operation", CASES)
def test_a_call_is_of_the_same_kind_as_what_it_repeats(operation: str) -> None:
    """Its target is again a row of the route table, and it has a body if and only if the original had."""
    call = called(EXCHANGES[operation], "churn")
    match = classify(call.method, call.target)

    assert match is not None
    assert match.route.operation == operation
    assert bool(call.body) == bool(EXCHANGES[operation].body)


@pytest.mark.parametrize("operation", CASES)
def test_no_id_of_the_client_is_left_but_in_marks(operation: str) -> None:
    call = called(EXCHANGES[operation], "churn")
    document = parse(call.body)
    kept = [tag for tag in objects(document.get("tags")) if not re.search("dualtrack|in words", str(tag))]
    said = f"{call.target} { {**document, 'tags': kept} }"

    for ref in (RUN, PARENT, MODEL):
        assert said.count(ref.client_id) == said.count(TWINS[ref].backend_id)


@pytest.mark.parametrize("operation", CASES)
def test_what_is_needed_is_known_beforehand(operation: str) -> None:
    """With nothing but the twins of its references, a write is translated in full; its own subject comes first."""
    reading = read(EXCHANGES[operation])
    needed = references(reading)
    twins = {reference.ref: TWINS[reference.ref] for reference in needed}

    assert translate(reading, twins, "main") == translate(reading, TWINS, "main")
    if not reading.operation.creates:
        assert needed[0].ref == reading.subject
        assert not needed[0].soft


def test_an_unanswered_create_needs_what_its_request_names() -> None:
    reading = read(replace(EXCHANGES["createRun"], answer=b""))

    assert [reference.ref for reference in references(reading)] == [EXPERIMENT]


def test_a_rename_without_a_rule_stays() -> None:
    assert parse(called(EXCHANGES["updateExperiment"]).body)["new_name"] == "/Users/ann/stay"


def test_an_unknown_reference_stays_as_it_is() -> None:
    """A parent that nobody knows is a note, not a reason to lose the tag."""
    reading = read(EXCHANGES["setTag"])
    call = translate(reading, {RUN: TWINS[RUN]}, "main")

    assert parse(call.body)["value"] == PARENT.client_id


def test_marks_of_an_earlier_mirror_are_replaced() -> None:
    """After a change of primaries a run carries marks already; a server refuses a create with a key twice."""
    info: Document = {"run_id": RUN.client_id, "experiment_id": "7"}
    old: list[JSON] = [pair("dualtrack.source_run_id", "old"), pair("dualtrack.source", "other"), pair("a", "1")]
    create = post("createRun", "runs/create", {"experiment_id": "7"}, {"run": {"info": info, "data": {"tags": old}}})

    assert parse(called(create).body)["tags"] == [pair("a", "1"), *RUN_MARKS]


def test_a_model_without_parameters_is_created_too() -> None:
    create = post("createLoggedModel", "logged-models", {}, {"model": {"info": {"model_id": MODEL.client_id}}})

    assert parse(called(create).body) == {"params": [], "tags": MODEL_MARKS}


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("logged-models/m-1/tags/m-1", "logged-models/a%2Fb/tags/m-1"),
        ("logged-models/m%2D1/tags/a%20b", "logged-models/a%2Fb/tags/a%20b"),
        ("logged-models/m-1/tags/50%25", "logged-models/a%2Fb/tags/50%25"),
    ],
)
def test_ids_in_a_path_are_replaced_where_they_stand(path: str, target: str) -> None:
    """However the client wrote them, and whatever else is in the path."""
    exchange = Exchange(operation="deleteLoggedModelTag", method="DELETE", path=f"{API}/{path}", query="a=b")
    ref = Ref(EntityKind.MODEL, ClientId("m-1"))
    twins = {ref: Twin(ref=ref, backend="b", backend_id=BackendId("a/b"))}

    assert translate(read(exchange), twins, "main").target == f"{API}/{target}?a=b"


# --- batches ------------------------------------------------------------------------------------------------------


def test_a_batch_is_one_call_for_its_run() -> None:
    batch = Batch(
        metrics=({**LOSS, "model_id": MODEL.client_id},),
        tags=(pair("mlflow.parentRunId", PARENT.client_id), pair("a", "b")),
        done=(1, 2),
    )
    call = batch_call(batch_document(batch, RUN, TWINS))

    assert (call.operation, call.method, call.target) == ("logBatch", "POST", f"{API}/runs/log-batch")
    assert parse(call.body) == {
        "run_id": R,
        "metrics": [{**LOSS, "model_id": M}],
        "tags": [pair("mlflow.parentRunId", P), pair("a", "b")],
    }


def test_a_batch_refers_to_its_run_first() -> None:
    batch = Batch(
        metrics=({**LOSS, "run_id": RUN.client_id, "model_id": MODEL.client_id},),
        params=(pair("depth", "3"),),
        tags=(pair("mlflow.parentRunId", PARENT.client_id), pair("mlflow.rootRunId", RUN.client_id)),
    )
    found = [(reference.ref, reference.soft) for reference in batch_references(batch, RUN)]

    assert found == [(RUN, False), (MODEL, False), (PARENT, True)]


# --- finding things -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "operation", "target"),
    [
        (EntityKind.EXPERIMENT, "getExperiment", "experiments/get?experiment_id=a%2Fb"),
        (EntityKind.RUN, "getRun", "runs/get?run_id=a%2Fb"),
        (EntityKind.MODEL, "getLoggedModel", "logged-models/a%2Fb"),
    ],
)
def test_an_entity_is_read_by_its_id(kind: EntityKind, operation: str, target: str) -> None:
    assert get_call(kind, "a/b") == Call(operation=operation, method="GET", target=f"{API}/{target}")


def test_an_experiment_is_found_by_its_name() -> None:
    call = experiment_by_name("/Users/ann & co/ü")

    assert (call.operation, call.method) == ("getExperimentByName", "GET")
    assert query(call) == {"experiment_name": ["/Users/ann & co/ü"]}


def test_an_experiment_is_marked_after_the_fact() -> None:
    call = set_experiment_tag("12", pair("k", "v"))

    assert call.target == f"{API}/experiments/set-experiment-tag"
    assert parse(call.body) == {"experiment_id": "12", "key": "k", "value": "v"}


@pytest.mark.parametrize(("token", "sent"), [("", {}), ("next=", {"page_token": ["next="]})])
def test_a_history_is_read_in_pages(token: str, sent: dict[str, list[str]]) -> None:
    call = history_page("r", "loss/val", token, 500)

    assert call.operation == "getMetricHistory"
    assert query(call) == {"run_id": ["r"], "metric_key": ["loss/val"], "max_results": ["500"], **sent}


@pytest.mark.parametrize(
    ("ref", "path", "only"),
    [(RUN, "runs/search", {"run_view_type": "ALL"}), (MODEL, "logged-models/search", {})],
)
def test_a_mirror_is_searched_by_its_mark(ref: Ref, path: str, only: Document) -> None:
    """Deleted runs as well, or a create would be repeated for one."""
    call = search_by_mark(ref, "12")

    assert call.target == f"{API}/{path}"
    assert parse(call.body) == {
        "experiment_ids": ["12"],
        "filter": f"tags.`dualtrack.source_{ref.kind}_id` = '{ref.client_id}'",
        "max_results": 10,
        **only,
    }


def test_an_odd_id_cannot_leave_its_quotes() -> None:
    call = search_by_mark(Ref(EntityKind.RUN, ClientId("a' OR '1")), "12")

    assert parse(call.body)["filter"] == "tags.`dualtrack.source_run_id` = 'a OR 1'"


def marked(kind: EntityKind, entity_id: str, tags: list[JSON]) -> Document:
    if kind is EntityKind.RUN:
        return {"info": {"run_id": entity_id}, "data": {"tags": tags}}
    return {"info": {"model_id": entity_id, "tags": tags}}


@pytest.mark.parametrize(
    ("kind", "ref", "listed", "one", "own"),
    [
        (EntityKind.RUN, RUN, "runs", "run", RUN_MARKS),
        (EntityKind.MODEL, MODEL, "models", "model", MODEL_MARKS),
    ],
)
def test_what_a_search_found_is_checked(kind: EntityKind, ref: Ref, listed: str, one: str, own: list[JSON]) -> None:
    """A server may not know the filter; and another proxy's mirror of the same id is not ours."""
    answer: Document = {
        listed: [
            marked(kind, "other", [pair(f"dualtrack.source_{kind}_id", "another")]),
            marked(kind, "foreign", [own[0], pair("dualtrack.source", "elsewhere")]),
            marked(kind, "unmarked", []),
            marked(kind, "ours", own),
            marked(kind, "early", own[:1]),
        ]
    }
    found = found_by_mark(kind, answer, ref, "main")

    assert found == [{one: marked(kind, "ours", own)}, {one: marked(kind, "early", own[:1])}]
    assert found_by_mark(kind, {}, ref, "main") == []


@pytest.mark.parametrize("ref", [EXPERIMENT, RUN, MODEL])
def test_marks_lead_back(ref: Ref) -> None:
    assert marks(ref, "main") == [
        pair(f"dualtrack.source_{ref.kind}_id", ref.client_id),
        pair("dualtrack.source", "main"),
    ]


def test_an_experiments_mark_is_read() -> None:
    tags: list[JSON] = [*marks(EXPERIMENT, "main"), pair("a", "b")]

    assert mark_of({"tags": tags}) == ("7", "main")
    assert mark_of({"tags": [pair("a", "b")]}) == ("", "")
    assert mark_of(None) == ("", "")


@pytest.mark.parametrize(
    ("sent", "started"), [(1_700_000_000_000, 1_700_000_000_000), ("17", 17), (None, 0), ("²", 0), ("5" * 5000, 0)]
)
def test_an_unanswered_run_is_searched_by_its_start(sent: JSON, started: int) -> None:
    create = post("createRun", "runs/create", {"experiment_id": "7", "start_time": sent})
    call = search_created(read(create))

    assert call.target == f"{API}/runs/search"
    assert parse(call.body) == {
        "experiment_ids": ["7"],
        "filter": f"attributes.start_time = {started}",
        "run_view_type": "ALL",
        "max_results": 100,
    }


def test_an_unanswered_run_is_searched_page_by_page() -> None:
    """Where a search takes no number, the newest come first, and what is older than the create ends it."""
    reading = read(post("createRun", "runs/create", {"experiment_id": "7", "start_time": 17}))
    newest = parse(search_created(reading, "next", by_start=False).body)

    assert parse(search_created(reading, "next").body)["page_token"] == "next"
    assert (newest["page_token"], newest["order_by"]) == ("next", ["attributes.start_time DESC"])
    assert "filter" not in newest
    assert started_before(reading, [{"info": {"start_time": 18}}, {"info": {"start_time": 16}}])
    assert not started_before(reading, [{"info": {"start_time": 18}}, {"info": {"start_time": 17}}])
    assert not started_before(reading, [])


def test_an_unanswered_model_is_searched_among_the_young() -> None:
    call = search_created(read(replace(EXCHANGES["createLoggedModel"], answer=b"")))

    assert call.target == f"{API}/logged-models/search"
    assert orjson.loads(call.body) == {
        "experiment_ids": ["7"],
        "max_results": 50,
        "order_by": [{"field_name": "creation_time", "ascending": False}],
    }


def test_a_create_keeps_the_tags_that_it_has_room_for() -> None:
    """Our marks are always among them, and nothing is lost."""
    tags = [pair(f"k{number}", "v") for number in range(4)] + [pair("dualtrack.source", "a")]
    call = Call(
        operation="createExperiment", method="POST", target="/x", body=write({"name": "n", "tags": list[JSON](tags)})
    )
    cut, later = split_tags(call, 3)
    kept = objects(parse(cut.body)["tags"])

    assert [tag["key"] for tag in kept] == ["dualtrack.source", "k0", "k1"]
    assert [tag["key"] for tag in later] == ["k2", "k3"]
    assert parse(cut.body)["name"] == "n"
    assert split_tags(call, 5) == split_tags(call, None) == (call, [])
