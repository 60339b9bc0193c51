"""The MLflow UI of the primary, used through the proxy as a person uses it; what they change arrives on both sides."""

import re
import struct
import zlib
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Page, Response, expect

from tests.support.browser import Tab, Visitor
from tests.support.files import mirror_of, put, run_root
from tests.support.flow import Running, Workspace, unique

WORDS = "what the file says"
# Plotly draws a plot anew as more of it is known
DRAWN = """wanted => [...document.querySelectorAll('.js-plotly-plot')].some(plot => (plot.data ?? []).some(
  ({x, y}) => JSON.stringify([Array.from(x ?? []), Array.from(y ?? [])]) === JSON.stringify(wanted)))"""


def picture(width: int, height: int) -> bytes:
    """Make a PNG of one colour."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = (b"\0" + b"\x20\x60\xc0" * width) * height
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@dataclass(kw_only=True)
class Ui:
    """The UI in a tab, with a run to look at, and what the proxy answered with an error status."""

    proxy: Running
    tab: Tab
    name: str
    experiment_id: str
    run_id: str
    errors: list[tuple[str, int]] = field(default_factory=list)

    @property
    def page(self) -> Page:
        return self.tab.page

    def hear(self, answer: Response) -> None:
        if answer.status >= 400:
            parts = urlsplit(answer.url)
            self.errors.append((f"{parts.path}?{parts.query}", answer.status))

    async def open(self, path: str) -> None:
        await self.page.goto(f"{self.proxy.url}/#/experiments{path}")

    async def open_run(self, tab: str = "") -> None:
        await self.open(f"/{self.experiment_id}/runs/{self.run_id}{tab}")

    async def assert_as_direct(self) -> None:
        """Fail if the UI met anything that it would not meet on the primary itself."""
        assert [trouble for trouble in self.tab.troubles if trouble.startswith("exception")] == []
        for target, status in self.errors:
            direct = await self.proxy.call("GET", f"{self.proxy.primary.side.url}{target}")
            assert direct.status == status, target


@pytest.fixture
async def ui(proxy: Running, visitor: Visitor) -> Ui:
    name = unique("ui")
    experiment_id = await proxy.create_experiment(name)
    run_id = await proxy.log_run(experiment_id, points=5)
    root = await run_root(proxy, run_id)
    await put(proxy, root, "notes.txt", WORDS.encode())
    await put(proxy, root, "plots/dot.png", picture(8, 4))
    tab = await visitor.open("about:blank")
    ui = Ui(proxy=proxy, tab=tab, name=name, experiment_id=experiment_id, run_id=run_id)
    tab.page.on("response", ui.hear)
    return ui


async def test_from_the_experiments_to_a_run(ui: Ui) -> None:
    await ui.open("")
    await ui.page.get_by_role("link", name=ui.name).click()
    await ui.page.wait_for_url(re.compile(f"#/experiments/{ui.experiment_id}/"))  # the page goes on to a view by itself
    await ui.open(f"/{ui.experiment_id}/runs")
    await ui.page.locator(f'a[href*="{ui.run_id}"]').first.click()

    await expect(ui.page.get_by_text("About this run")).to_be_visible()
    await expect(ui.page.get_by_text(ui.run_id, exact=True).first).to_be_visible()
    await expect(ui.page.get_by_text("Metrics (1)")).to_be_visible()
    await expect(ui.page.get_by_text("Parameters (1)")).to_be_visible()
    await ui.tab.shoot("mlflow-run", full=False)
    await ui.assert_as_direct()


async def test_a_metric_is_drawn(ui: Ui) -> None:
    """All of its points, as a line."""
    await ui.open_run("/model-metrics")

    chart = ui.page.locator(".js-plotly-plot").first
    await expect(chart.locator("path.js-line").first).to_have_attribute("d", re.compile(r"^M.*L"))
    await ui.page.wait_for_function(DRAWN, arg=[list(range(5)), [1 / (step + 1) for step in range(5)]])
    await ui.tab.shoot("mlflow-metric", full=False)
    await ui.assert_as_direct()


async def test_files_are_previewed(ui: Ui) -> None:
    """A text by its words, a picture by its pixels, from below a folder."""
    await ui.open_run("/artifacts")

    await ui.page.get_by_text("notes.txt").first.click()
    await expect(ui.page.get_by_text(WORDS)).to_be_visible()
    await ui.page.get_by_text("plots").first.click()
    await ui.page.get_by_text("dot.png").first.click()
    image = ui.page.locator('img[src^="blob:"]').first
    await expect(image).to_be_visible()
    assert await image.evaluate("async image => (await image.decode(), [image.naturalWidth, image.naturalHeight])") == [
        8,
        4,
    ]
    await ui.tab.shoot("mlflow-artifact", full=False)
    await ui.assert_as_direct()


async def test_an_edited_tag_arrives_on_both_sides(ui: Ui, b: Workspace) -> None:
    await ui.open_run()
    await ui.page.get_by_role("button", name="Edit tags").click()
    dialog = ui.page.get_by_role("dialog")
    box = dialog.get_by_role("combobox")
    await box.fill("reviewed")
    await expect(ui.page.get_by_role("option", name="reviewed", exact=True)).to_have_count(1)  # what Enter takes
    await expect(box).to_have_attribute("aria-activedescendant", re.compile("_list_0$"))
    await box.press("Enter")
    await dialog.get_by_label("Value", exact=True).fill("by größe ✓")
    await dialog.get_by_role("button", name="Add tag").click()

    await dialog.get_by_role("button", name="Save tags").click()

    await expect(dialog).to_be_hidden()
    await expect(ui.page.get_by_text("by größe ✓")).to_be_visible()
    await ui.proxy.drained()
    mirrored = {tag["key"]: tag["value"] for tag in (await mirror_of(b, ui.proxy, ui.run_id))["data"]["tags"]}
    assert mirrored["reviewed"] == "by größe ✓"
    assert mirrored["stage"] == "done"
    await ui.assert_as_direct()
