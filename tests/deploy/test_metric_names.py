"""Metrics are a contract: what is shown, watched or written about is there, and nothing that is there goes unshown."""

import re
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from dualtrack.metrics import Metrics

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "deploy" / "grafana" / "dualtrack.json"
# what outside checks ask for (design 2.5)
PROMISED = """
requests_total request_duration_seconds upstream_duration_seconds overhead_seconds journal_entries journal_bytes
journal_capacity_bytes journal_commit_seconds lag_seconds delivered_total retried_total parked_total parked_entries
coalesced_writes_total lossy_total breaker_state backend_up throttled_total create_dedupe_hits_total
artifact_bytes_total spool_bytes verify_runs_total drift_total repairs_total registry_refused_total
unknown_route_total build_info
"""
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum"), "gauge": ("",)}


def families() -> dict[str, tuple[str, ...]]:
    """Every metric that there is, and the names of its samples."""
    return {
        family.name: tuple(family.name + suffix for suffix in SUFFIXES[family.type])
        for family in Metrics().registry.collect()
    }


def named(text: str) -> set[str]:
    return set(re.findall(r"\bdualtrack_[a-z_]+", text))


def dashboard() -> str:
    """All that the dashboard asks, its titles and descriptions left out."""
    found: list[str] = []

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            found.extend(str(node[key]) for key in ("expr", "definition") if key in node)
        for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
            walk(child)

    walk(orjson.loads(DASHBOARD.read_bytes()))
    return "\n".join(found)


def alerts() -> str:
    document = yaml.safe_load((ROOT / "deploy/prometheus/dualtrack.rules.yml").read_text())
    return "\n".join(rule["expr"] for group in document["groups"] for rule in group["rules"])


MODULES = {path.stem for path in (ROOT / "deploy").rglob("*.py")}  # named alike, and no metrics


def prose() -> dict[str, str]:
    pages = [ROOT / "README.md", *(ROOT / "deploy").rglob("*.md")]
    return {str(page.relative_to(ROOT)): page.read_text() for page in pages}


SOURCES = {"the dashboard": dashboard(), "the alerts": alerts(), **prose()}


@pytest.mark.parametrize("source", SOURCES)
def test_every_metric_that_is_named_is_there(source: str) -> None:
    """In prose a histogram is called by its own name."""
    samples = {name for family, names in families().items() for name in (*names, family)}

    assert named(SOURCES[source]) - MODULES <= samples


def test_something_is_named() -> None:
    assert len(named(SOURCES["the dashboard"])) > 30
    assert len(named(SOURCES["the alerts"])) > 10
    assert named(SOURCES["README.md"])


def test_every_metric_is_on_the_dashboard() -> None:
    """But for what the Prometheus client tells of any process, of which some is."""
    shown = named(SOURCES["the dashboard"])
    missing = {family for family, samples in families().items() if not shown & set(samples)}

    assert {name for name in missing if not name.startswith("dualtrack_process_")} == set()


def test_the_promised_metrics_are_there() -> None:
    samples = {name for family, names in families().items() for name in (*names, family)}

    assert {f"dualtrack_{name}" for name in PROMISED.split()} <= samples


def test_labels_are_bounded() -> None:
    """Backend, operation, outcome, kind: never an id."""
    collectors = set(Metrics().registry._collector_to_names)
    labels = {label for collector in collectors for label in getattr(collector, "_labelnames", ())}

    assert labels == {"backend", "operation", "outcome", "kind"}
