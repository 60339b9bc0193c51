"""What stands for answers that a primary cannot give, and when."""

import orjson
import pytest
from aiohttp import web

from dualtrack.proxy.errors import Refusal
from dualtrack.proxy.lacking import check_registry, in_its_place, within_pages

SEARCH = "searchLoggedModels"
UNKNOWN = orjson.dumps({"error_code": "ENDPOINT_NOT_FOUND", "message": "no"})
MISSING = orjson.dumps({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no such experiment"})


@pytest.mark.parametrize("body", [b"", UNKNOWN, b"<html>Not Found</html>"])
def test_a_server_without_logged_models_has_none(body: bytes) -> None:
    """Azure ML's empty body, the same in MLflow's words, and the page of an older MLflow."""
    response = web.Response(status=404, body=body, headers={"X-Dualtrack": "read"})
    given = in_its_place(SEARCH, response)

    assert (given.status, given.body, given.headers["X-Dualtrack"]) == (200, b"{}", "read")
    assert given.content_type == "application/json"


@pytest.mark.parametrize(
    ("operation", "status", "body"),
    [(SEARCH, 404, MISSING), (SEARCH, 500, b""), (SEARCH, 200, b"{}"), ("getRun", 404, b""), ("getRun", 404, UNKNOWN)],
)
def test_every_other_answer_is_left_as_it_is(operation: str, status: int, body: bytes) -> None:
    response = web.Response(status=status, body=body)

    assert in_its_place(operation, response) is response


@pytest.mark.parametrize(
    ("query", "asked"),
    [
        ("run_id=r&max_results=25000&metric_key=a%2Fb", "run_id=r&max_results=999&metric_key=a%2Fb"),
        ("max_results=999", "max_results=999"),
        ("max_results=5&page_token=x", "max_results=5&page_token=x"),
        ("max_results=many", "max_results=many"),
        ("run_id=r", "run_id=r"),
        ("", ""),
    ],
)
def test_no_page_is_larger_than_the_primary_takes(query: str, asked: str) -> None:
    assert within_pages("getMetricHistory", query, 999) == asked
    assert within_pages("searchRuns", query, 999) == query


@pytest.mark.parametrize(
    "path",
    [
        "/api/2.0/mlflow/unity-catalog/registered-models/create",
        "/ajax-api/2.0/mlflow/unity-catalog/model-versions/get",
        "/api/2.1/unity-catalog/models/main.default.m",
    ],
)
def test_a_call_to_unity_catalog_is_told_where_to_go(path: str) -> None:
    with pytest.raises(Refusal, match="set_registry_uri") as caught:
        check_registry(path)

    assert (caught.value.status, caught.value.error_code) == (501, "NOT_IMPLEMENTED")


@pytest.mark.parametrize(
    "path", ["/api/2.0/mlflow/registered-models/get", "/api/2.0/mlflow/runs/get", "/unity-catalog/"]
)
def test_any_other_call_is_no_business_of_it(path: str) -> None:
    check_registry(path)
