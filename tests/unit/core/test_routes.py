"""The route table is consistent, and `classify` finds the right row for every spelling of a request, or none."""

import re
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualtrack.core.routes import ROUTES, Ajax, Goes, Group, Kind, Match, Route, classify

MIRRORED = {Group.EXPERIMENTS, Group.RUNS, Group.METRICS, Group.INPUTS_OUTPUTS, Group.LOGGED_MODELS}
LOST = {
    Group.TRACES,
    Group.ASSESSMENTS,
    Group.DATASETS,
    Group.SCORERS,
    Group.ISSUES,
    Group.LABEL_SCHEMAS,
    Group.REVIEW_QUEUES,
    Group.ARTIFACTS,
}
SERVER = {
    Group.GATEWAY,
    Group.MCP_SERVERS,
    Group.PROMPT_OPTIMIZATION,
    Group.JOBS,
    Group.WORKSPACES,
    Group.ASSISTANT,
    Group.MISC,
    Group.AUTH,
    Group.UI,
}
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
RUNS = "/api/2.0/mlflow/runs"
MCP = "/api/3.0/mlflow/mcp-servers"
ROWS = {route.operation: route for route in ROUTES}


def paths(route: Route) -> tuple[str, ...]:
    """The route's path under every prefix, its parameters still in it."""
    if route.ajax is Ajax.BARE:
        return (route.path,)
    return (f"/api/{route.path}", f"/ajax-api/{route.path}")


def filled(path: str) -> tuple[str, dict[str, str]]:
    """A request path for a template, and the parameters that it holds."""
    params = {
        name: f"{name}-1/x y%ü" if open_ else f"{name}-1 %ü" for name, open_ in re.findall(r"{(\w+)(:path)?}", path)
    }
    return re.sub(r"{(\w+)(:path)?}", lambda hit: quote(params[hit[1]]), path), params


def operation(method: str, path: str) -> str | None:
    match = classify(method, path)
    return match.route.operation if match else None


def test_operations_are_unique_labels() -> None:
    """An operation names one row, and is fit for a metrics label."""
    assert len(ROWS) == len(ROUTES)
    assert [name for name in ROWS if not re.fullmatch(r"[a-z][A-Za-z0-9]+", name)] == []


def test_no_two_rows_share_a_method_and_a_path() -> None:
    """Whatever their parameters are called, two rows never claim the same requests."""
    claims = [(method, re.sub(r"{\w+(:path)?}", "{}", route.path)) for route in ROUTES for method in route.methods]

    assert len(set(claims)) == len(claims)


def test_every_group_and_every_placement_is_used() -> None:
    """The enumerations hold nothing that the table does not."""
    assert {route.group for route in ROUTES} == set(Group) == MIRRORED | LOST | SERVER | registry()
    assert {route.goes for route in ROUTES} == set(Goes)
    assert {route.kind for route in ROUTES} == set(Kind)
    assert {route.ajax for route in ROUTES} == set(Ajax)


def registry() -> set[Group]:
    return {group for group in Group if group.startswith("registry:")}


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.operation)
def test_every_row_is_found_under_every_prefix(route: Route) -> None:
    """Each row answers for each of its methods, HEAD for GET, under /api and /ajax-api alike, parameters decoded."""
    methods = [*route.methods, *(["HEAD"] if "GET" in route.methods else [])]
    for template in paths(route):
        path, params = filled(template)
        for method in methods:
            assert classify(method, path) == Match(route, params)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.operation)
def test_ids_in_a_path_are_listed(route: Route) -> None:
    """A path parameter that is an id of the tracking or registry side is among the row's ids."""
    in_path = set(re.findall(r"{(\w+_id|artifact_path)(?::path)?}", route.path))

    assert in_path <= set(route.ids)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.operation)
def test_placement(route: Route) -> None:
    """Placement follows from group and kind, with a few exceptions."""
    assert route.goes is expected_goes(route)


def expected_goes(route: Route) -> Goes:
    exceptions = {"version": Goes.LOCAL, "createPromptlabRun": Goes.UNMIRRORED}
    if route.operation in exceptions:
        return exceptions[route.operation]
    if route.group in registry():
        return Goes.REGISTRY
    if route.group is Group.ARTIFACTS:  # what the primary reads from its store by itself is a read like any other
        return Goes.PRIMARY if route.operation in {"listArtifacts", "getArtifact"} else Goes.FILES
    if route.kind is not Kind.WRITE or route.group in SERVER:
        return Goes.PRIMARY
    return Goes.MIRROR if route.group in MIRRORED else Goes.UNMIRRORED


def test_exactly_these_writes_are_mirrored() -> None:
    """The mirrored operations are a list that one can count; a change of it is meant."""
    assert {route.operation for route in ROUTES if route.goes is Goes.MIRROR} == {
        "createExperiment", "updateExperiment", "deleteExperiment", "restoreExperiment", "setExperimentTag",
        "deleteExperimentTag", "createRun", "updateRun", "deleteRun", "restoreRun", "logParam", "setTag", "deleteTag",
        "logMetric", "logBatch", "logInputs", "logOutputs", "logModel", "createLoggedModel", "finalizeLoggedModel",
        "deleteLoggedModel", "logLoggedModelParams", "setLoggedModelTags", "deleteLoggedModelTag",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("method", "path", "name", "kind", "goes"),
    [
        ("POST", f"{RUNS}/create", "createRun", Kind.WRITE, Goes.MIRROR),
        ("POST", f"{RUNS}/log-batch", "logBatch", Kind.WRITE, Goes.MIRROR),
        ("POST", f"{RUNS}/search", "searchRuns", Kind.READ, Goes.PRIMARY),
        ("POST", f"{RUNS}/log-model", "logModel", Kind.WRITE, Goes.MIRROR),
        ("POST", "/ajax-api/2.0/mlflow/runs/create-promptlab-run", "createPromptlabRun", Kind.WRITE, Goes.UNMIRRORED),
        ("POST", "/api/2.0/mlflow/traces", "startTrace", Kind.WRITE, Goes.UNMIRRORED),
        ("POST", "/api/3.0/mlflow/traces", "startTraceV3", Kind.WRITE, Goes.UNMIRRORED),
        ("POST", "/api/3.0/mlflow/traces/search", "searchTracesV3", Kind.READ, Goes.PRIMARY),
        ("POST", "/api/2.0/mlflow/traces/link-prompts", "linkPromptsToTrace", Kind.WRITE, Goes.UNMIRRORED),
        ("POST", "/v1/traces", "otlpSpans", Kind.WRITE, Goes.UNMIRRORED),
        ("GET", "/api/2.0/mlflow/model-versions/get", "getModelVersion", Kind.READ, Goes.REGISTRY),
        ("GET", "/model-versions/get-artifact", "getModelVersionArtifact", Kind.READ, Goes.REGISTRY),
        ("POST", "/api/2.0/mlflow/webhooks", "createWebhook", Kind.WRITE, Goes.REGISTRY),
        ("POST", "/api/2.0/mlflow/registered-models/alias", "setRegisteredModelAlias", Kind.WRITE, Goes.REGISTRY),
        ("POST", "/graphql", "graphql", Kind.READ, Goes.PRIMARY),
        ("GET", "/version", "version", Kind.HEALTH, Goes.LOCAL),
        ("GET", "/health", "health", Kind.HEALTH, Goes.PRIMARY),
        ("GET", "/", "uiIndex", Kind.UI, Goes.PRIMARY),
    ],
)  # fmt: skip
def test_known_requests(method: str, path: str, name: str, kind: Kind, goes: Goes) -> None:
    match = classify(method, path)

    assert match is not None
    assert (match.route.operation, match.route.kind, match.route.goes) == (name, kind, goes)


def test_methods_that_share_a_row() -> None:
    """Two methods with one meaning are one row; two meanings on one path are two."""
    assert ROWS["searchExperiments"].methods == ("GET", "POST")
    assert operation("GET", "/api/2.0/mlflow/experiments/search") == "searchExperiments"
    assert operation("POST", "/api/2.0/mlflow/experiments/search") == "searchExperiments"
    assert operation("GET", "/ajax-api/2.0/mlflow/gateway-proxy") == "readGatewayProxy"
    assert operation("POST", "/ajax-api/2.0/mlflow/gateway-proxy") == "sendGatewayProxy"


def test_a_static_path_allocates_no_match() -> None:
    """The hot path hands out one prepared value, whose parameters nobody can change."""
    first = classify("POST", f"{RUNS}/log-metric")

    assert first is classify("POST", f"{RUNS}/log-metric")
    assert first is not None
    assert first.params == {}
    with pytest.raises(TypeError):
        first.params["run_id"] = "1"  # type: ignore[index]  # that it cannot be written is the point


def test_parameters_are_decoded_once() -> None:
    """A path parameter comes as the server sees it; an encoded percent sign stays one."""
    match = classify("DELETE", "/api/2.0/mlflow/logged-models/m-1/tags/a%20b%2525%C3%BC")

    assert match is not None
    assert match.params == {"model_id": "m-1", "tag_key": "a b%25ü"}


@pytest.mark.parametrize("name", ["a/b c.txt", "50%/+/ü.png", "line\nbreak", "a//b", "dir/", "../x", "%2F"])
def test_an_artifact_path_takes_the_rest(name: str) -> None:
    """Everything after the prefix is the artifact's path; whether it is a safe one is judged elsewhere."""
    match = classify("PUT", f"/api/2.0/mlflow-artifacts/artifacts/{quote(name)}")

    assert match == Match(ROWS["uploadArtifact"], {"artifact_path": name})


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("POST", "/api/2.0/mlflow/runs/cre%61te", "createRun"),
        ("POST", "/api/2.0/mlflow/runs%2Fcreate", "createRun"),
        ("POST", "/%61jax-api/2.0/mlflow/runs/create", "createRun"),
        ("POST", "/api/2.0/mlflow/registered%2Dmodels/create", "createRegisteredModel"),
        ("PATCH", "/%61jax-api/2.0/mlflow/logged%2dmodels/m-1", "finalizeLoggedModel"),
    ],
)
def test_an_encoded_spelling_is_the_same_request(method: str, path: str, name: str) -> None:
    """The server decodes and then routes; an encoded letter must not hide a write from us."""
    assert operation(method, path) == name


@pytest.mark.parametrize(
    ("method", "path", "name", "params"),
    [
        ("GET", f"{MCP}/endpoints", "searchMcpEndpoints", {}),
        ("GET", f"{MCP}/io.x/y", "getMcpServer", {"name": "io.x/y"}),
        ("GET", f"{MCP}/io.x/y/versions", "searchMcpVersions", {"name": "io.x/y"}),
        ("DELETE", f"{MCP}/a/tags/k/l", "deleteMcpServerTag", {"name": "a", "key": "k/l"}),
        ("DELETE", f"{MCP}/a/versions/1/tags/k", "deleteMcpVersionTag", {"name": "a", "version": "1", "key": "k"}),
        ("GET", "/api/3.0/mlflow/traces/batchGet", "batchGetTraces", {}),
        ("GET", "/api/3.0/mlflow/traces/tr-1", "getTraceInfoV3", {"trace_id": "tr-1"}),
        ("POST", "/gateway/proxy/mlflow/invocations", "gatewayInvocations", {"endpoint_name": "proxy"}),
        (
            "POST",
            "/gateway/gemini/v1beta/models/m:streamGenerateContent",
            "gatewayGeminiStream",
            {"endpoint_name": "m"},
        ),
    ],
)  # fmt: skip
def test_the_more_specific_row_wins(method: str, path: str, name: str, params: dict[str, str]) -> None:
    """Where two rows fit, the answer is the one that the server's own order gives."""
    assert classify(method, path) == Match(ROWS[name], params)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/2.0/mlflow/runs/unheard-of"),
        ("POST", "/api/3.0/mlflow/runs/create"),
        ("POST", "/api/2.0/mlflow/runs/create/"),
        ("POST", "/api/2.0/mlflow//runs/create"),
        ("POST", "//api/2.0/mlflow/runs/create"),
        ("POST", "/api/2.0/mlflow/Runs/create"),
        ("POST", "api/2.0/mlflow/runs/create"),
        ("POST", "/2.0/mlflow/runs/create"),
        ("GET", "/api/2.0/mlflow/runs/create"),
        ("post", "/api/2.0/mlflow/runs/create"),
        ("HEAD", "/api/2.0/mlflow/runs/create"),
        ("OPTIONS", "/api/2.0/mlflow/runs/create"),
        ("PATCH", "/api/2.0/mlflow/logged-models/m-1/"),
        ("PATCH", "/api/2.0/mlflow/logged-models/"),
        ("PUT", "/api/2.0/mlflow-artifacts/artifacts/"),
        ("GET", "/api/version"),
        ("GET", "/version/"),
        ("GET", ""),
        ("", ""),
    ],
)
def test_anything_else_is_unknown(method: str, path: str) -> None:
    assert classify(method, path) is None


@given(
    method=st.one_of(st.sampled_from(METHODS), st.text(max_size=8)),
    path=st.one_of(
        st.text(st.characters(), max_size=200),
        st.text("/%2Ffapi.0mlow-{}:\n", max_size=200),
        st.lists(
            st.sampled_from([*"/%é\n", "%2F", "%", "%zz", "%ff", *paths(ROUTES[0]), "/api/2.0/mlflow/traces", "x"])
        ).map("".join),
    ),
)
def test_classify_is_total(method: str, path: str) -> None:
    """For any two strings at all there is an answer, and it is a row or nothing."""
    match = classify(method, path)

    assert match is None or match.route in ROUTES


@given(route=st.sampled_from(ROUTES), value=st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_a_parameter_survives_its_encoding(route: Route, value: str) -> None:
    """Whatever a parameter holds, its request finds a row, and the value comes back whole."""
    value = value.replace("/", "_")
    path = re.sub(r"{\w+(:path)?}", lambda _: quote(value, safe=""), paths(route)[0])

    match = classify(route.methods[0], path)

    assert match is not None
    assert route.methods[0] in match.route.methods
    assert set(match.params.values()) <= {value}
