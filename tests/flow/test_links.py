"""Each side's run leads to the other side's page, where that is wanted."""

from typing import Any

import pytest

from dualtrack.core.links import MIRROR_URL, SOURCE_URL
from dualtrack.emulators.faults import DropBefore, Rule
from tests.flow.test_verify import reconciled, verified
from tests.support.files import behind, mirror_of
from tests.support.flow import Json, Launcher, Running, Workspace

HERE, THERE = "https://here.example.org", "https://there.example.org"


async def linking(launch: Launcher, a: Workspace, b: Workspace, links: str) -> Running:
    backends = {"a": {"web_url": HERE}, "b": {"web_url": THERE}}
    return await launch(a, b, links=links, backends=backends)


def tags_of(run: Json) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in run["data"]["tags"] if tag["key"].startswith("dualtrack.")}


async def ours(proxy: Running, run_id: str) -> dict[str, str]:
    return tags_of((await proxy.call("GET", f"runs/get?run_id={run_id}")).json["run"])


async def linked(proxy: Running, b: Workspace, run_id: str, *, both: bool) -> None:
    async def is_linked() -> bool:
        there = SOURCE_URL in tags_of(await mirror_of(b, proxy, run_id))
        return there and (not both or f"{MIRROR_URL}b" in await ours(proxy, run_id))

    await proxy.drained()
    await proxy.until(is_linked)
    await proxy.drained()


async def test_both_sides_lead_to_one_another(launch: Launcher, a: Workspace, b: Workspace) -> None:
    proxy = await linking(launch, a, b, "both")
    experiment_id = await proxy.create_experiment()
    run_id = await proxy.log_run(experiment_id)
    await linked(proxy, b, run_id, both=True)
    mirror = await mirror_of(b, proxy, run_id)
    theirs = mirror["info"]

    assert tags_of(mirror)[SOURCE_URL] == f"{HERE}/#/experiments/{experiment_id}/runs/{run_id}"
    page = f"{THERE}/#/experiments/{theirs['experiment_id']}/runs/{theirs['run_id']}"
    assert (await ours(proxy, run_id))[f"{MIRROR_URL}b"] == page
    found, _ = await verified(proxy, id=run_id)
    assert [one["state"] for one in found] == ["equal"]


async def test_a_link_on_the_primary_outlasts_a_lost_connection(launch: Launcher, a: Workspace, b: Workspace) -> None:
    await a.control.set_faults(Rule(path="runs/set-tag$", first=1, action=DropBefore()))
    proxy = await linking(launch, a, b, "both")
    run_id = await proxy.create_run(await proxy.create_experiment())

    await linked(proxy, b, run_id, both=True)


async def test_a_link_to_a_mirror_is_not_copied_to_it(launch: Launcher, a: Workspace, b: Workspace) -> None:
    """A run that is brought over whole with the link of an earlier mirror gets its own."""
    proxy = await linking(launch, a, b, "secondary")
    before = behind(a, proxy)
    run_id = await before.log_run(await before.create_experiment())
    await before.set_tag(run_id, f"{MIRROR_URL}b", "https://elsewhere.example.org")

    await proxy.set_tag(run_id, "stage", "later")
    await linked(proxy, b, run_id, both=False)

    assert f"{MIRROR_URL}b" not in tags_of(await mirror_of(b, proxy, run_id))
    found, _ = await verified(proxy, id=run_id)
    assert [one["state"] for one in found] == ["equal"]


async def test_a_deleted_run_that_is_brought_over_goes_without_a_link(
    launch: Launcher, a: Workspace, b: Workspace
) -> None:
    """The link comes behind the deletion, and is refused: nobody has to see to that."""
    proxy = await linking(launch, a, b, "secondary")
    before = behind(a, proxy)
    run_id = await before.log_run(await before.create_experiment())
    await before.post("runs/delete", run_id=run_id)
    await reconciled(proxy, ids=[run_id])

    async def is_refused() -> bool:
        return any(entry["status"] == 400 for entry in await b.control.log())

    await proxy.until(is_refused)
    await proxy.drained()

    assert (await proxy.admin.call("GET", "/api/v1/parked")).json["parked"] == []
    mirror = await mirror_of(b, proxy, run_id)
    assert mirror["info"]["lifecycle_stage"] == "deleted"
    assert SOURCE_URL not in tags_of(mirror)
    found, _ = await verified(proxy, id=run_id)
    assert [one["state"] for one in found] == ["equal"]


@pytest.mark.parametrize(("links", "expected"), [("none", set()), ("secondary", {SOURCE_URL})])
async def test_links_are_wanted_or_not(
    launch: Launcher, a: Workspace, b: Workspace, links: Any, expected: set[str]
) -> None:
    proxy = await linking(launch, a, b, links)
    run_id = await proxy.log_run(await proxy.create_experiment())
    if expected:
        await linked(proxy, b, run_id, both=False)
    await proxy.drained()

    marks = {"dualtrack.source", "dualtrack.source_run_id"}
    assert set(tags_of(await mirror_of(b, proxy, run_id))) == marks | expected
    assert await ours(proxy, run_id) == {}
