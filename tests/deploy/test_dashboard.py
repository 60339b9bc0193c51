"""grafana/dualtrack.json: a real Prometheus scrapes a real proxy, and every panel of it has something to show."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from dualtrack.core.difference import DriftKind
from dualtrack.core.ids import EntityKind
from dualtrack.core.standing import State
from dualtrack.demo.servers import MlflowServer
from dualtrack.emulators.faults import DropAfter, Refuse, Rule
from dualtrack.metrics import Metrics
from tests.deploy.test_prometheus import ALERTS
from tests.support.dashboard import DASHBOARD, PANELS, shows_all
from tests.support.files import behind, mirror_of, put, run_root
from tests.support.flow import Launcher, Running, Workspace, workspace
from tests.support.prometheus import Prometheus, scraping

# what the story does not do: nothing damages the journal
UNTOLD = {"dualtrack_journal_quarantined_records"}

# --- as it stands ---------------------------------------------------------------------------------------------------


def test_the_rows_are_what_people_look_for() -> None:
    rows = [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"]

    assert rows == ["Overview", "Backend $backend", "Journal", "Delivery", "Artifacts", "Reconcile"]


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: f"{panel['id']} {panel['title']}")
def test_a_panel_says_what_it_shows(panel: dict[str, Any]) -> None:
    """In words and in units; and it asks the Prometheus, the proxies and the backends that are chosen."""
    assert len(panel["description"]) > 10
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert all('instance=~"$instance"' in target["expr"] for target in panel["targets"])
    assert all(target["expr"].count("{") == target["expr"].count("$instance") for target in panel["targets"])


def test_panels_have_places_of_their_own() -> None:
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    overlaps = [(one, other) for one, other in combinations(places, 2) if overlap(one, other)]

    assert overlaps == []
    assert all(place["x"] + place["w"] <= 24 for place in places)
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(places)


def overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    is_beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
    is_below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
    return not (is_beside or is_below)


def test_every_alert_is_linked_from_a_panel() -> None:
    linked = {link["title"] for panel in PANELS for link in panel["links"]}

    assert linked == {alert["alert"] for alert in ALERTS}


# --- a story in which everything happens ------------------------------------------------------------------------------


async def trouble(proxy: Running, b: Workspace, prometheus: Prometheus) -> str:
    """The secondary is down for a while: writes and a file wait, then go in batches. Answers the experiment."""
    experiment_id = await proxy.create_experiment()
    await proxy.drained()
    await b.control.set_faults(Rule(action=Refuse(status=503)))
    run_id = await proxy.log_run(experiment_id, points=20)
    root = await run_root(proxy, run_id)
    await put(proxy, root, "small.bin", b"x" * 1000)
    await put(proxy, root, "large.bin", b"x" * 1_500_000)  # more than the spool takes
    for shown in ("breaker_state > 0", "lag_seconds > 0", "journal_entries > 0", "spool_bytes > 0"):
        await prometheus.sees(f"dualtrack_{shown}")
    await b.control.clear_faults()
    await proxy.drained()
    return experiment_id


async def answers_lost(proxy: Running, a: Workspace, b: Workspace, prometheus: Prometheus) -> None:
    """A 429, an answer that never came to a create there, and one to a write here that cannot be asked about yet."""
    await b.control.set_faults(
        Rule(path="runs/create", nth=1, action=DropAfter()), Rule(path="runs/update", nth=1, action=Refuse(status=429))
    )
    run_id = await proxy.log_run(await proxy.create_experiment())
    await proxy.drained()
    await a.control.set_faults(
        Rule(path="runs/set-tag", nth=1, action=DropAfter()), Rule(path="runs/get", action=Refuse(status=503))
    )
    lost = await proxy.call("POST", "runs/set-tag", {"run_id": run_id, "key": "k", "value": "v"})
    assert lost.status == 503
    await prometheus.sees("dualtrack_journal_open_entries > 0")
    await a.control.clear_faults()


async def refusals(proxy: Running, b: Workspace, prometheus: Prometheus) -> None:
    """A tag that is parked, a registry that cannot be proxied, a path that nobody knows, a file of nobody."""
    run_id = await proxy.create_run(await proxy.create_experiment())
    await proxy.drained()
    await b.control.set_faults(
        Rule(path="log-batch|set-tag", action=Refuse(status=400, code="INVALID_PARAMETER_VALUE"))
    )
    await proxy.set_tag(run_id, "unwelcome", "1")
    await prometheus.sees("dualtrack_parked_entries > 0")
    await b.control.clear_faults()
    for method, path, status in (
        ("POST", "unity-catalog/registered-models/create", 501),
        ("GET", "nothing/of/the/kind", 404),
        ("PUT", "/api/2.0/mlflow-artifacts/artifacts/loose/file.txt", 200),
    ):
        assert (await proxy.call(method, path, b"x" if method == "PUT" else None)).status == status


async def changes_behind(proxy: Running, b: Workspace, experiment_id: str, prometheus: Prometheus) -> None:
    """Somebody changes a mirror, and makes a run on the primary past the proxy: one is repaired, one brought over."""
    run_id = await proxy.log_run(experiment_id)
    await proxy.drained()
    there = (await mirror_of(b, proxy, run_id))["info"]["run_id"]
    await behind(b, proxy).post("runs/set-tag", run_id=there, key="stage", value="other")
    earlier = await behind(proxy.primary, proxy).create_run(experiment_id)
    await proxy.log_metric(earlier)
    assert (await proxy.admin.call("GET", f"/api/v1/verify?id={run_id}")).status == 200
    await prometheus.sees('ALERTS{alertname="DualtrackDrift"} == 1')
    for _ in range(2):
        assert (await proxy.admin.call("GET", f"/api/v1/verify?id={run_id}")).status == 200
        assert (await proxy.admin.call("POST", "/api/v1/reconcile", {"ids": [run_id]})).status == 200
        await proxy.drained()


async def unmoved(prometheus: Prometheus) -> set[str]:
    """The metrics that stood at 0 all the time, or were never seen."""
    found = set()
    for family in Metrics().registry.collect():
        name = family.name + {"counter": "_total", "histogram": "_count"}.get(family.type, "")
        if not await prometheus.ask(f"max_over_time({name}[1h]) > 0"):
            found.add(family.name)
    return found


@dataclass(frozen=True, kw_only=True)
class Site:
    """A proxy whose spool takes one small file, between two workspaces."""

    proxy: Running
    a: Workspace
    b: Workspace
    session: ClientSession


@pytest.fixture
async def site(mlflow_primary: MlflowServer, mlflow_secondary: MlflowServer, tmp_path: Path) -> AsyncIterator[Site]:
    async with (
        ClientSession() as session,
        workspace("a", mlflow_primary, session) as a,
        workspace("b", mlflow_secondary, session) as b,
    ):
        launch = Launcher(tmp_path, session)
        yield Site(proxy=await launch(a, b, spool={"max_size": "1MiB"}), a=a, b=b, session=session)
        await launch.close()


async def test_what_may_be_counted_stands_at_zero_from_the_start(site: Site) -> None:
    """A rate sees the first of it. An idle secondary is neither up nor down."""
    known = site.proxy.app.metrics.registry.get_sample_value

    for name, label, values in (
        ("drift", "kind", DriftKind),
        ("verify_runs", "outcome", State),
        ("adoptions", "kind", EntityKind),
        ("create_dedupe_hits", "kind", EntityKind),
        ("retried", "kind", ("backend", "entry")),
        ("upstream_calls", "outcome", ("2xx", "3xx", "4xx", "5xx", "unanswered")),
    ):
        assert [known(f"dualtrack_{name}_total", {"backend": "b", label: value}) for value in values] == [0] * len(
            values
        )
    assert known("dualtrack_backend_up", {"backend": "b"}) is None
    assert known("dualtrack_signed_in", {"backend": "b"}) is None


@pytest.mark.timeout(900)
async def test_every_panel_has_something_to_show(site: Site, tmp_path: Path) -> None:
    """And every metric has moved; the shipped alerts are evaluated, and those that are due are raised."""
    proxy, a, b = site.proxy, site.a, site.b
    async with scraping(proxy.admin.url.removeprefix("http://"), tmp_path, site.session) as prometheus:
        await prometheus.sees("up == 1")
        experiment_id = await trouble(proxy, b, prometheus)
        await answers_lost(proxy, a, b, prometheus)
        await refusals(proxy, b, prometheus)
        await changes_behind(proxy, b, experiment_id, prometheus)
        # rates need two scrapes of what came last
        (scrapes,) = await prometheus.ask("count_over_time(up[10m])")
        await prometheus.sees(f"count_over_time(up[10m]) > {scrapes + 2}")
        await shows_all(prometheus)
        still = await unmoved(prometheus)
        groups = (await prometheus.get("rules"))["groups"]
        await prometheus.sees('last_over_time(ALERTS{alertname="DualtrackBackendFailing"}[1h])')
        await prometheus.sees('ALERTS{alertname="DualtrackParked"}')
        await prometheus.sees('absent(ALERTS{alertname=~"DualtrackDrift|DualtrackDown"})')  # what drifted is repaired

    assert still == UNTOLD
    rules = [rule for group in groups for rule in group["rules"]]
    assert [(rule["name"], rule["lastError"]) for rule in rules if rule["health"] != "ok"] == []
    assert len(rules) == len(ALERTS)
