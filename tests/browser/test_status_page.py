"""The status page in a real browser, on a real proxy between two real servers."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

import pytest
from aiohttp import web
from playwright.async_api import Page, Route, expect

from dualtrack.emulators.faults import Refuse, Rule
from tests.support.browser import Tab, Visitor
from tests.support.flow import SECRETS, Json, Launcher, Running, Workspace, unique

TOKEN = SECRETS["TOKEN_ADMIN"]
HOSTILE = '<script>document.title = "taken"</script><img src=x onerror="document.title=1">'
RENEWAL = "**/api/v1/page*"  # what the page asks for every 5 s, to put it in the place of the old
RENEW = "document.dispatchEvent(new Event('visibilitychange'))"
REFUSAL = Rule(path="set-tag|log-batch", action=Refuse(status=400, code="INVALID_PARAMETER_VALUE"))
SECRET_REFUSED = "error: Failed to load resource: the server responded with a status of 401 (Unauthorized)"


async def park(proxy: Running, b: Workspace) -> str:
    """Make a run whose tag the secondary refuses; answer its id. The fault is over when this returns."""
    run_id = await proxy.create_run(await proxy.create_experiment(), run_name=unique())
    await proxy.drained()
    await b.control.set_faults(REFUSAL)
    before = (await proxy.backend())["parked"]
    await proxy.set_tag(run_id, "stage", "done")

    async def is_parked() -> bool:
        return bool((await proxy.backend())["parked"] > before)

    await proxy.until(is_parked)
    await b.control.clear_faults()
    return run_id


async def compare(proxy: Running, run_id: str) -> Json:
    """Have a run compared, which the page then tells; answer how it stands."""
    reply = await proxy.admin.call("GET", f"/api/v1/verify?id={run_id}")
    document: Json = (await proxy.admin.call("GET", f"/api/v1/ids/{run_id}")).json["entities"][0]
    assert reply.status == 200
    return {twin["backend"]: twin for twin in document["twins"]}


async def tag_of(b: Workspace, proxy: Running, run_id: str, key: str) -> str | None:
    """Read a tag where the mirror is, past the proxy."""
    twins = (await proxy.admin.call("GET", f"/api/v1/ids/{run_id}")).json["entities"][0]["twins"]
    there = next(twin["id"] for twin in twins if twin["backend"] == "b")
    reply = await proxy.call("GET", f"{b.side.url}/api/2.0/mlflow/runs/get?run_id={there}")
    return {tag["key"]: tag["value"] for tag in reply.json["run"]["data"]["tags"]}.get(key)


async def listen(tab: Tab) -> None:
    """Keep all that the status line says from now on, for `heard`: the next renewal puts other words there."""
    await tab.page.get_by_role("status").evaluate(
        """status => new MutationObserver(changes => {
             for (const {addedNodes} of changes)
               for (const {data} of addedNodes) document.documentElement.dataset.said += `; ${data}`;
           }).observe(status, {childList: true})"""
    )


async def heard(tab: Tab, words: str) -> None:
    await expect(tab.page.locator("html")).to_have_attribute("data-said", re.compile(re.escape(words)))


async def answer_dialog(tab: Tab, token: str = TOKEN, note: str = "") -> None:
    dialog = tab.page.get_by_role("dialog")
    if note:
        await dialog.get_by_label("Why").fill(note)
    await dialog.get_by_label("Admin token").fill(token)
    await dialog.get_by_role("button").last.click()


# --- seeing ---------------------------------------------------------------------------------------------------------


async def test_it_loads(proxy: Running, visitor: Visitor) -> None:
    """Both backends with what they are, nothing fetched from elsewhere, nothing to complain of."""
    tab = await visitor.open("about:blank")
    asked: list[str] = []
    tab.page.on("request", lambda request: asked.append(request.url))

    await tab.page.goto(proxy.admin.url)

    await expect(tab.page).to_have_title("dualtrack status")
    for name, role in (("a", "primary, registry"), ("b", "secondary")):
        card = tab.page.get_by_role("article", name=name, exact=True)
        await expect(card).to_contain_text(role)
        await expect(card).to_contain_text("who am I: whoever the token is for")  # asked when somebody looks
    await expect(tab.page.get_by_role("img", name="Writes that waited for b")).to_be_visible()
    assert {url for url in asked if not url.startswith((proxy.admin.url, "data:"))} == set()
    assert tab.troubles == []


async def test_it_is_live(launch: Launcher, a: Workspace, b: Workspace, visitor: Visitor) -> None:
    """What waits, arrives and is found equal is seen without reloading, and without anybody asking for it."""
    proxy = await launch(a, b, verify={"on_end": True, "settle": "10ms", "pause": "10ms"})
    tab = await visitor.open(proxy.admin.url)
    await expect(tab.page.locator("#short")).to_contain_text("Nothing waits")
    await expect(tab.page.locator("#runs")).to_contain_text("Nothing yet in this process")
    await tab.page.evaluate("window.same = true")

    await b.control.set_faults(Rule(action=Refuse(status=503)))
    run_id = await proxy.log_run(await proxy.create_experiment())

    await expect(tab.page.locator("#short")).to_contain_text("b does not answer. 8 writes wait for it here")
    await b.control.clear_faults()
    await expect(tab.page.locator("#short")).to_contain_text("Nothing waits")
    row = tab.page.locator("#runs tr", has=tab.page.locator(f'[title="{run_id}"]'))
    await expect(row.locator(".badge")).to_have_text("equal")
    assert await tab.page.evaluate("window.same"), "the page was loaded again"
    assert tab.troubles == []


async def test_runs_with_both_links_and_how_they_stand(proxy: Running, b: Workspace, visitor: Visitor) -> None:
    """Equal, differs and pending, each beside the links to the run on both sides."""
    equal = await proxy.log_run(await proxy.create_experiment())
    differs = await park(proxy, b)
    pending = await proxy.create_run(await proxy.create_experiment())
    await proxy.drained()
    ids = {run_id: await compare(proxy, run_id) for run_id in (equal, differs, pending)}
    await b.control.set_faults(Rule(action=Refuse(status=503)))
    await proxy.set_tag(pending, "later", "yes")

    tab = await visitor.open(proxy.admin.url)

    for run_id, words in ((equal, "equal"), (differs, "differs (1)"), (pending, "pending")):
        row = tab.page.locator("#runs tr", has=tab.page.locator(f'[title="{run_id}"]'))
        await expect(row.locator(".badge")).to_have_text(words)
        links = await row.get_by_role("link").evaluate_all("links => links.map(link => link.href)")
        assert links == [ids[run_id]["a"]["web"], ids[run_id]["b"]["web"]]
        assert ids[run_id]["b"]["id"] in links[1]
    await expect(tab.page.locator("#drift")).to_contain_text(f"dualtrack verify --run {differs}")
    assert tab.troubles == []


async def test_search_by_any_id(proxy: Running, visitor: Visitor) -> None:
    """The secondary's id leads to both sides; an id of nobody to what to do about it. The browser's Back works."""
    run_id = await proxy.log_run(await proxy.create_experiment())
    await proxy.drained()
    there = (await compare(proxy, run_id))["b"]["id"]
    tab = await visitor.open(proxy.admin.url)
    box = tab.page.get_by_role("searchbox", name="Search by any id")

    await box.fill(f" {there} ")
    await box.press("Enter")

    found = tab.page.locator("#found")
    await expect(found.get_by_role("heading")).to_have_text(f"What {there} is called")
    await expect(found.get_by_role("heading")).to_be_focused()
    await expect(found.get_by_title(run_id)).to_be_visible()
    await box.fill("nobody's")
    await box.press("Enter")
    await expect(found).to_contain_text("dualtrack ids export")
    await tab.page.go_back()
    await expect(found.get_by_title(run_id)).to_be_visible()
    await expect(box).to_have_value(there)
    assert tab.troubles == []


async def test_names_are_only_words(proxy: Running, b: Workspace, visitor: Visitor) -> None:
    """A run that is named like an attack is shown by that name, and nothing of it runs."""
    run_id = await proxy.create_run(await proxy.create_experiment(), run_name=HOSTILE)
    await proxy.drained()
    await compare(proxy, run_id)

    tab = await visitor.open(f"{proxy.admin.url}/?q={run_id}")

    await expect(tab.page.locator("#runs tbody th")).to_have_text(HOSTILE)
    await expect(tab.page.locator("#found tbody th")).to_have_text(HOSTILE)
    await expect(tab.page.locator("#asof")).to_be_visible()
    async with tab.page.expect_response(RENEWAL):  # and so does what the script puts in
        await tab.page.evaluate(RENEW)
    await expect(tab.page.locator("#runs tbody th")).to_have_text(HOSTILE)
    await expect(tab.page).to_have_title("dualtrack status")
    assert tab.troubles == []


async def test_it_says_when_the_proxy_is_gone(proxy: Running, visitor: Visitor) -> None:
    """What is shown then is old, and says so."""
    tab = await visitor.open(proxy.admin.url)
    await expect(tab.page.get_by_role("status")).to_have_text("live")

    await proxy.stop()

    await expect(tab.page.get_by_role("status")).to_contain_text("not reachable since")
    await expect(tab.page.get_by_role("heading", name="Backends")).to_be_visible()


async def test_without_scripts(proxy: Running, b: Workspace, visitor: Visitor) -> None:
    """Everything is there to read, search works, and the page reloads itself; what needs a script is not offered."""
    run_id = await park(proxy, b)
    tab = await visitor.open("about:blank", java_script_enabled=False)
    page, loaded = tab.page, list[str]()

    async def load_once(route: Route) -> None:
        """A reload of the page while the test types would empty the field."""
        await (route.fulfill(status=204) if loaded else route.continue_())
        loaded.append(route.request.url)

    await page.route(f"{proxy.admin.url}/", load_once)
    await page.goto(proxy.admin.url)

    await expect(page.locator("#parked")).to_contain_text("dualtrack parked retry 1")
    await expect(page.get_by_role("button", name="Retry")).to_have_count(0)
    await expect(page.locator('meta[http-equiv="refresh"]')).to_have_attribute("content", "10")
    await page.get_by_role("searchbox").fill(run_id)
    await page.get_by_role("button", name="Search").click()
    await expect(page.locator("#found").get_by_title(run_id)).to_be_visible()


# --- acting ---------------------------------------------------------------------------------------------------------


async def test_retry(proxy: Running, b: Workspace, visitor: Visitor) -> None:
    """With the token the write arrives; for the next one the page still knows it, until it is reloaded."""
    run_id, other = await park(proxy, b), await park(proxy, b)
    tab = await visitor.open(proxy.admin.url)
    await listen(tab)

    await tab.page.get_by_role("button", name="Retry write 1").click()
    await answer_dialog(tab)

    await heard(tab, "write 1 is queued again")
    await expect(tab.page.get_by_role("button", name="Retry write 1")).to_have_count(0)
    await proxy.drained()
    assert await tag_of(b, proxy, run_id, "stage") == "done"
    await tab.page.get_by_role("button", name="Retry write 2").click()
    await expect(tab.page.get_by_role("dialog").get_by_label("Admin token")).to_be_hidden()
    await tab.page.get_by_role("dialog").get_by_role("button", name="Retry").click()
    await expect(tab.page.locator("#parked")).to_contain_text("Nothing is parked")
    await proxy.drained()
    assert await tag_of(b, proxy, other, "stage") == "done"
    assert await tab.page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])") == (
        '[{},{},""]'
    )
    assert tab.troubles == []


async def test_a_wrong_token_is_refused_in_words(proxy: Running, b: Workspace, visitor: Visitor) -> None:
    """Nothing changes, the page says what to do, and the right one can be given at once."""
    await park(proxy, b)
    tab = await visitor.open(proxy.admin.url)
    await tab.page.get_by_role("button", name="Retry write 1").click()

    await answer_dialog(tab, "wrong")

    dialog = tab.page.get_by_role("dialog")
    await expect(dialog.get_by_role("alert")).to_contain_text("the admin token is missing or wrong")
    await expect(dialog.get_by_label("Admin token")).to_be_focused()
    assert (await proxy.backend())["parked"] == 1
    await answer_dialog(tab)
    await expect(tab.page.locator("#parked")).to_contain_text("Nothing is parked")
    assert tab.troubles == [SECRET_REFUSED]


async def test_discard_needs_a_note(proxy: Running, b: Workspace, visitor: Visitor) -> None:
    """Why something was given up is kept with the record of the loss."""
    run_id = await park(proxy, b)
    tab = await visitor.open(proxy.admin.url)
    await tab.page.get_by_role("button", name="Discard write 1").click()

    await answer_dialog(tab)

    await expect(tab.page.get_by_role("dialog")).to_be_visible()
    assert (await proxy.backend())["parked"] == 1
    await answer_dialog(tab, note="done by hand")
    await expect(tab.page.locator("#losses")).to_contain_text("done by hand")
    await expect(tab.page.locator("#losses").get_by_title(run_id)).to_be_visible()
    assert (await proxy.backend())["parked"] == 0
    assert tab.troubles == []


async def test_what_is_typed_stays(proxy: Running, b: Workspace, visitor: Visitor) -> None:
    """The page renews itself around whoever types in it, and moves neither focus nor scroll."""
    await park(proxy, b)
    tab = await visitor.open(proxy.admin.url, height=300)
    await tab.page.get_by_role("button", name="Discard write 1").focus()
    scrolled = await tab.page.evaluate("scrollY")

    await park(proxy, b)
    await expect(tab.page.locator("#parked")).to_contain_text("2 · ")
    await expect(tab.page.get_by_role("button", name="Discard write 1")).to_be_focused()
    assert await tab.page.evaluate("scrollY") >= scrolled > 0
    await tab.page.keyboard.press("Enter")
    await tab.page.get_by_label("Why").fill("half a sen")
    await park(proxy, b)
    await expect(tab.page.locator("#parked")).to_contain_text("3 · ")

    await expect(tab.page.get_by_label("Why")).to_be_focused()
    await expect(tab.page.get_by_label("Why")).to_have_value("half a sen")
    assert tab.troubles == []


async def test_what_is_selected_stays(proxy: Running, b: Workspace, visitor: Visitor) -> None:
    """Who copies something is not disturbed, and sees that the page waits for that."""
    await park(proxy, b)
    tab = await visitor.open(proxy.admin.url)
    status = tab.page.get_by_role("status")
    await tab.page.locator("#parked .cause").select_text()

    await expect(status).to_have_text("waits while text is selected")

    assert "HTTP 400" in await tab.page.evaluate("getSelection().toString()")
    await tab.page.evaluate("getSelection().removeAllRanges()")
    await expect(status).to_have_text("live")
    assert tab.troubles == []


async def test_what_is_pressed_is_pressed(proxy: Running, b: Workspace, visitor: Visitor) -> None:
    """A renewal between a pointer's way down and up takes no button away; one behind the dialog takes no focus."""
    await park(proxy, b)
    tab = await visitor.open(proxy.admin.url)
    page, status, rows = tab.page, tab.page.get_by_role("status"), tab.page.locator("#parked tbody tr")
    await page.get_by_role("button", name="Retry write 1").hover()
    await page.mouse.down()
    await park(proxy, b)
    await page.evaluate(RENEW)
    await expect(status).to_have_text("waits while you press")
    await page.mouse.up()
    await expect(page.get_by_role("dialog").get_by_label("Admin token")).to_be_focused()
    await page.evaluate(RENEW)
    await expect(rows).to_have_count(2)

    await page.keyboard.press("Escape")

    await expect(page.locator("#retry-1")).to_be_focused()
    assert tab.troubles == []


async def test_keyboard_only(proxy: Running, b: Workspace, visitor: Visitor) -> None:
    """Skip link, search, and a retry with the token, without a pointer; what has the focus can be seen."""
    run_id = await park(proxy, b)
    tab = await visitor.open(proxy.admin.url)
    keys, page = tab.page.keyboard, tab.page

    await keys.press("Tab")
    await expect(page.get_by_role("link", name="Skip to the status")).to_be_focused()
    await keys.press("Tab")
    await expect(page.get_by_role("searchbox")).to_be_focused()
    assert await page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    await keys.type(run_id)
    await keys.press("Enter")
    await expect(page.locator("#found-title")).to_be_focused()
    await reach(page, "retry-1")
    await keys.press("Enter")
    await expect(page.get_by_role("dialog").get_by_label("Admin token")).to_be_focused()
    await keys.press("Escape")
    await expect(page.locator("#retry-1")).to_be_focused()
    await keys.press("Space")
    await keys.type(TOKEN)
    await keys.press("Enter")

    await expect(page.locator("#parked")).to_contain_text("Nothing is parked")
    assert tab.troubles == []


async def reach(page: Page, wanted: str) -> None:
    """Press Tab until the element has the focus, all of the page's once at most."""
    for _ in range(60):
        await page.keyboard.press("Tab")
        if await page.evaluate("document.activeElement.id") == wanted:
            return
    raise AssertionError(f"Tab never comes to {wanted}")


# --- who may ----------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def another_site(text: str) -> AsyncIterator[str]:
    """Serve one page at another origin."""

    async def show(_: web.Request) -> web.Response:
        return web.Response(text=text, content_type="text/html")

    app = web.Application()
    app.router.add_get("/", show)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://localhost:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


ATTACKS = {
    "with the token": "{method: 'POST', headers: {'Content-Type': 'application/json', Authorization: 'Bearer TOKEN'}}",
    "as a simple request": "{method: 'POST', mode: 'no-cors', body: '{}'}",
    "with cookies": "{method: 'POST', mode: 'no-cors', credentials: 'include', body: new URLSearchParams({a: 1})}",
}


async def test_another_site_changes_nothing(proxy: Running, b: Workspace, visitor: Visitor) -> None:
    """A page elsewhere that knows the address, even the token: no request of its changes or reads anything."""
    await park(proxy, b)
    retry = f"{proxy.admin.url}/api/v1/parked/1/retry"
    form = f'<form method=post action="{retry}"><button>Win a prize</button></form>'
    async with another_site(f"<title>elsewhere</title>{form}") as url:
        for attack in ATTACKS.values():
            tab = await visitor.open(url)
            options = attack.replace("TOKEN", TOKEN)
            told = await tab.page.evaluate(f"fetch('{retry}', {options}).then(a => a.type, e => e.name)")
            assert told in {"opaque", "TypeError"}, "nothing of an answer may be read"
        read = await tab.page.evaluate(f"fetch('{proxy.admin.url}/api/v1/status').then(a => a.text(), e => e.name)")
        await tab.page.get_by_role("button", name="Win a prize").click()
        await expect(tab.page.locator("body")).to_contain_text("a page of another site may ask and change nothing here")

    assert read == "TypeError"
    assert (await proxy.backend())["parked"] == 1


async def test_another_site_cannot_frame_it(proxy: Running, visitor: Visitor) -> None:
    """Nobody lays the Retry button under a pointer that means something else."""
    async with another_site(f'<iframe src="{proxy.admin.url}"></iframe>') as url:
        tab = await visitor.open("about:blank")
        async with tab.page.expect_console_message(lambda message: "frame-ancestors" in message.text):
            await tab.page.goto(url)

        (frame,) = tab.page.frames[1:]
        await expect(frame.get_by_text("Backends")).to_have_count(0)


async def test_beyond_loopback_it_asks_for_the_token(
    launch: Launcher, a: Workspace, b: Workspace, visitor: Visitor
) -> None:
    """No data without it; with it everything, search included, until the page is left."""
    proxy = await launch(a, b, admin={"host": "127.0.0.2"}, allowed_hosts=["127.0.0.2"])
    url = f"http://127.0.0.2:{proxy.config.admin.port}"
    tab = await visitor.open(url)
    page, field = tab.page, tab.page.get_by_label("Admin token").first

    await expect(field).to_be_focused()
    await expect(page.get_by_role("heading", name="Backends")).to_have_count(0)
    await field.fill("wrong")
    await field.press("Enter")
    await expect(page.locator("#unlock").get_by_role("alert")).to_contain_text("missing or wrong")
    await field.fill(TOKEN)
    await field.press("Enter")
    await expect(page.get_by_role("heading", name="Backends")).to_be_visible()
    await expect(field).to_be_hidden()
    await page.get_by_role("searchbox").fill("nobody")
    await page.get_by_role("searchbox").press("Enter")
    await expect(page.locator("#found")).to_contain_text("Nothing is called nobody")
    assert tab.troubles == [SECRET_REFUSED]
    await page.reload()
    await expect(field).to_be_focused()
    await expect(page.get_by_role("heading", name="Backends")).to_have_count(0)


# --- looks ------------------------------------------------------------------------------------------------------------

# WCAG 2.2, 1.4.3: the ratio of each text to what lies behind it, as the browser computed both
CONTRASTS = """() => {
  const parse = text => text.match(/[\\d.]+/g).map(Number);
  const channel = value => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const behind = element => {
    for (let at = element; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
      if (colour[3] !== 0) throw new Error(`half transparent: ${at.outerHTML.slice(0, 80)}`);
    }
    throw new Error('nothing lies behind');
  };
  const found = [], texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const add = (words, colour, element) => {
    const [one, other] = [luminance(parse(colour)), luminance(behind(element))].sort((a, b) => b - a);
    found.push([(one + 0.05) / (other + 0.05), words.trim().slice(0, 40)]);
  };
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    if (texts.currentNode.data.trim() && element.checkVisibility() && !element.closest('script, style, noscript'))
      add(texts.currentNode.data, getComputedStyle(element).color, element);
  }
  for (const input of document.querySelectorAll('input'))
    if (input.checkVisibility()) add('placeholder', getComputedStyle(input, '::placeholder').color, input);
  return found;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_contrast_and_width(
    proxy: Running, b: Workspace, visitor: Visitor, scheme: Literal["light", "dark"]
) -> None:
    """Every text stands out 4.5 to 1 in each scheme, and nothing is wider than a phone, whatever the names."""
    run_id = await proxy.create_run(await proxy.create_experiment(), run_name=f"{HOSTILE}{'long' * 60}")
    await proxy.set_tag(run_id, "too-long", "x" * 200)
    await park(proxy, b)
    for each in (run_id, await park(proxy, b)):
        await compare(proxy, each)
    await b.control.set_faults(Rule(action=Refuse(status=503)))
    await proxy.set_tag(run_id, "later", "yes")
    tab = await visitor.open(f"{proxy.admin.url}/?q={run_id}", scheme=scheme)
    page = tab.page
    await expect(page.locator("#short")).to_contain_text("does not answer")

    await tab.shoot(f"status-{scheme}")
    ratios = await page.evaluate(CONTRASTS)
    await tab.page.get_by_role("button", name="Discard write 1").click()
    ratios += await page.evaluate(CONTRASTS)
    await tab.shoot(f"status-dialog-{scheme}", full=False)
    await page.keyboard.press("Escape")
    await page.set_viewport_size({"width": 380, "height": 800})
    await tab.shoot(f"status-phone-{scheme}")

    assert len(ratios) > 100
    assert [each for each in ratios if each[0] < 4.5] == []
    assert await page.evaluate("document.documentElement.scrollWidth") <= 380
    assert tab.troubles == []
