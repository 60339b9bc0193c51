"""What clients take for granted and a primary does not have."""

import pytest

from dualtrack.proxy.errors import Refusal
from dualtrack.proxy.lacking import check_registry, within_pages


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
