"""A run as it stands on a plain MLflow server, found by dualtrack's mark; blocking, for tests of whole processes."""

import urllib.parse
import urllib.request
from typing import Any

import orjson

from tests.support.servers import call


def mirrors(url: str, run_id: str) -> list[dict[str, Any]]:
    """The runs of a server that mirror this one of the primary."""
    found = call(url, "experiments/search", {"max_results": 1000})["experiments"]
    asked = {
        "experiment_ids": [item["experiment_id"] for item in found],
        "filter": f"tags.`dualtrack.source_run_id` = '{run_id}'",
    }
    return list(call(url, "runs/search", asked).get("runs", []))


def values(run: dict[str, Any]) -> tuple[dict[str, str], dict[str, float]]:
    """The params and the last metrics of a run."""
    data = run["data"]
    params, metrics = ({item["key"]: item["value"] for item in data.get(kind, [])} for kind in ("params", "metrics"))
    return params, metrics


def run_of(url: str, run_id: str) -> dict[str, Any]:
    run: dict[str, Any] = _get(url, "runs/get", run_id=run_id)["run"]
    return run


def history(url: str, run_id: str, key: str) -> list[dict[str, Any]]:
    """All points of one metric; more than a page of them are more than a test logs."""
    points: list[dict[str, Any]] = _get(url, "metrics/get-history", run_id=run_id, metric_key=key)["metrics"]
    return points


def _get(url: str, path: str, **query: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{url}/api/2.0/mlflow/{path}?{urllib.parse.urlencode(query)}", timeout=60) as answer:
        document: dict[str, Any] = orjson.loads(answer.read())
        return document
