"""The picture of the status page that the README shows, of two emulated workspaces with something of everything."""

import math
from collections.abc import AsyncIterator

import pytest
from aiohttp import ClientSession
from playwright.async_api import expect

from dualtrack.demo.servers import MlflowServer
from dualtrack.emulators.faults import Refuse, Rule
from tests.support.browser import Visitor
from tests.support.clouds import Cloud, azureml, databricks
from tests.support.flow import SECRETS, Json, Launcher, Running
from tests.support.identity import jwt

REFUSED = Refuse(status=400, code="INVALID_PARAMETER_VALUE")
# where people would find them, were they not emulated
WEB: Json = {
    "databricks": {"web_url": "https://adb-1234567890123456.7.azuredatabricks.net"},
    "azureml": {
        "web_url": "https://ml.azure.com/subscriptions/5f1e/resourceGroups/ml/providers"
        "/Microsoft.MachineLearningServices/workspaces/churn",
        "experiment_names": {"rule": "last-segment"},
    },
}


@pytest.fixture
async def primary(
    mlflow_primary: MlflowServer, session: ClientSession, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Cloud]:
    monkeypatch.setitem(SECRETS, "TOKEN_DATABRICKS", "a-secret-of-databricks")
    async with databricks("databricks", mlflow_primary, session) as made:
        yield made


@pytest.fixture
async def secondary(
    mlflow_secondary: MlflowServer, session: ClientSession, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Cloud]:
    monkeypatch.setitem(SECRETS, "TOKEN_AZUREML", jwt(appid="7c2f0d9e-dualtrack", tid="contoso"))
    async with azureml("azureml", mlflow_secondary, session) as made:
        yield made


async def train(proxy: Running, experiment: str, name: str) -> str:
    run_id = await proxy.create_run(experiment, run_name=name)
    for step in range(5):
        await proxy.log_metric(run_id, value=1 / (step + 1), step=step)
    await proxy.finish(run_id)
    return run_id


def remember(proxy: Running) -> None:
    """An hour with an outage in it, which no test can wait for."""
    now = proxy.app._clock.now()
    for minute in range(60):
        outage = max(0, minute - 18) * 41 if minute < 36 else 738 * math.exp(-(minute - 36) / 3)
        proxy.app.samples.add(now - 60 * (60 - minute), {"azureml": round(outage) + minute * 7 % 5})


async def test_the_picture_of_the_readme(launch: Launcher, primary: Cloud, secondary: Cloud, visitor: Visitor) -> None:
    """What it shows is there: who, the chart, runs on both sides, a parked write, a loss."""
    proxy = await launch(primary, secondary, backends=WEB)
    remember(proxy)
    await proxy.admin.call("GET", "/")  # somebody looks, so it is asked who we are
    experiment = await proxy.create_experiment("/Shared/churn")
    runs = [await train(proxy, experiment, f"xgboost depth {depth}") for depth in (4, 6, 8)]
    await proxy.set_tag(runs[0], "mlflow.note.content", "All that was tried, and why. " * 50)
    await proxy.drained()
    await secondary.control.set_faults(Rule(path="runs/(set-tag|log-batch)$", action=REFUSED))
    await proxy.set_tag(runs[1], "stage", "candidate")

    async def is_parked() -> bool:
        return bool((await proxy.backend("azureml"))["parked"])

    await proxy.until(is_parked)
    await secondary.control.clear_faults()
    runs += [await train(proxy, experiment, "baseline"), await train(proxy, experiment, "lightgbm")]
    await proxy.drained()
    await proxy.admin.call("GET", f"/api/v1/verify?experiment={experiment}")
    await secondary.control.set_faults(Rule(action=Refuse(status=503)))
    for step in range(5, 42):
        await proxy.log_metric(runs[-1], value=1 / step, step=step)

    tab = await visitor.open(proxy.admin.url, width=1200, device_scale_factor=1.5)

    page = tab.page
    await expect(page.get_by_role("article", name="azureml")).to_contain_text("application 7c2f0d9e-dualtrack")
    await expect(page.locator("#runs .badge", has_text="equal")).to_have_count(3)
    await expect(page.locator("#runs .badge", has_text="differs")).to_have_count(1)
    await expect(page.locator("#runs .badge", has_text="pending")).to_have_count(1)
    await expect(page.locator("#parked")).to_contain_text("dualtrack parked retry 1")
    await expect(page.locator("#losses")).to_contain_text("mlflow.note.content")
    await tab.shoot("status-page")
    assert tab.troubles == []
