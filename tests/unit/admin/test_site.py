"""The status page over real HTTP, on a real journal: what is in it, what it may do, and what it escapes."""

import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from html.parser import HTMLParser
from typing import Any, TypeAlias

import pytest
from aiohttp.test_utils import TestClient, TestServer

from dualtrack.admin.api import make_admin
from dualtrack.admin.site import Watched
from dualtrack.admin.status import BackendStatus, Status
from dualtrack.core.exchange import Exchange
from dualtrack.core.ids import BackendId, ClientId, EntityKind, Ref, Twin
from dualtrack.core.loss import LossKind
from dualtrack.core.standing import State
from dualtrack.metrics import Metrics
from dualtrack.ports import Loss, Parking, Progress, Settlement
from dualtrack.reconcile.standings import Standings
from dualtrack.store.sqlite import SqliteJournal

TOKEN = "the-admin-token"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
HOSTILE = "\"><script>alert(1)</script><img src=x onerror=alert(1)>' {{ 7*7 }}"
RUN = Ref(EntityKind.RUN, ClientId(f"run {HOSTILE}"))

Client: TypeAlias = "TestClient[Any, Any]"
Start: TypeAlias = Callable[..., Awaitable[Client]]


class Source:
    """A process whose every word is hostile."""

    def __init__(self, journal: SqliteJournal) -> None:
        self._journal = journal

    def ready(self) -> tuple[bool, str]:
        return False, HOSTILE

    async def status(self) -> Status:
        urls = {"a": "http://user:hunter2@a.test?token=hunter2", "b": "http://b.test"}
        return Status(
            version=HOSTILE,
            started_at=0.0,
            ready=False,
            reason=HOSTILE,
            primary="a",
            registry="a",
            backends=(
                BackendStatus(name="a", kind="mlflow", role="primary", url=urls["a"], is_registry=True),
                BackendStatus(
                    name="b",
                    kind="mlflow",
                    role="secondary",
                    url=urls["b"],
                    is_registry=False,
                    last_error=HOSTILE,
                    parked=1,
                ),
            ),
            journal=await self._journal.usage(),
            open_entries=3,
        )


@pytest.fixture
def standings() -> Standings:
    return Standings(Metrics())


@pytest.fixture
async def start(journal: SqliteJournal, standings: Standings) -> AsyncIterator[Start]:
    clients: list[Client] = []

    async def make(*, read_needs_token: bool = False) -> Client:
        app = make_admin(
            Source(journal),
            journal,
            Metrics(),
            token=TOKEN,
            allowed_hosts=frozenset({"127.0.0.1"}),
            now=time.time,
            read_needs_token=read_needs_token,
            watched=Watched(standings=standings, who=lambda: {"a": HOSTILE}),
        )
        client: Client = TestClient(TestServer(app))
        await client.start_server()
        clients.append(client)
        return client

    yield make
    for client in clients:
        await client.close()


async def fill(journal: SqliteJournal, standings: Standings) -> None:
    """One of everything, under a hostile name."""
    await journal.learn(
        Twin(ref=RUN, backend=name, backend_id=BackendId(f"{HOSTILE}{name}"), name=HOSTILE) for name in ("a", "b")
    )
    exchange = Exchange(operation=HOSTILE, method="POST", path="/x", query="", body=b"{}")
    entry_id = await journal.open(exchange)
    await journal.settle(Settlement(entry_id=entry_id, key=RUN.key))
    seq = journal.last_seq()
    loss = Loss(kind=LossKind.PARAM, item=HOSTILE, reason=HOSTILE, detail=HOSTILE)
    parking = Parking(seq=seq, exchange=exchange, reason=HOSTILE, cause=HOSTILE, holds=True)
    await journal.record(Progress(backend="b", key=RUN.key, done=(seq,), parkings=(parking,), losses=(loss,)))
    standings.compared(RUN, "b", 1.0, State.DRIFT, drift=2, name=HOSTILE)


class Seen(HTMLParser):
    """Which elements and attributes a browser would make of it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.handlers: set[str] = set()
        self.links: set[str] = set()
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.handlers |= {name for name, _ in attrs if name.startswith("on") or name == "style"}
        self.links |= {value or "" for name, value in attrs if name in {"href", "src", "action"}}

    def handle_data(self, data: str) -> None:
        self.words.append(data)


async def test_hostile_names_are_only_words(start: Start, journal: SqliteJournal, standings: Standings) -> None:
    """Whatever a name, a cause or an id holds, it makes no element, no attribute and no link of its own."""
    await fill(journal, standings)
    client = await start()

    response = await client.get("/api/v1/page", params={"q": RUN.client_id})

    text = await response.text()
    seen = Seen(text)
    assert response.status == 200
    assert not seen.tags & {"script", "img", "style", "iframe"}
    assert seen.handlers == set()
    assert {link.split(":")[0] for link in seen.links if not link.startswith("/")} == {"http"}
    assert "".join(seen.words).count(HOSTILE) >= 10
    assert "49" not in re.findall(r"\d+", "".join(seen.words).replace(HOSTILE, ""))
    assert "hunter2" not in text


async def test_the_query_is_only_words(start: Start) -> None:
    client = await start()

    for path in ("/", "/api/v1/page"):
        text = await (await client.get(path, params={"q": HOSTILE})).text()
        seen = Seen(text)
        assert "img" not in seen.tags
        assert seen.handlers == set()
        assert "Nothing is called" in text


async def test_any_id_is_found(start: Start, journal: SqliteJournal) -> None:
    ref = Ref(EntityKind.EXPERIMENT, ClientId("41"))
    await journal.learn([Twin(ref=ref, backend=name, backend_id=BackendId(f"{name}-41")) for name in ("a", "b")])
    client = await start()

    for some_id in ("41", " a-41 ", "b-41"):
        text = await (await client.get("/", params={"q": some_id})).text()
        assert 'href="http://a.test/#/experiments/a-41"' in text
        assert 'href="http://b.test/#/experiments/b-41"' in text


async def test_only_the_page_s_own_script_may_run(start: Start) -> None:
    """A policy with a nonce that no other answer has; nothing is inline that lacks it."""
    client = await start()

    first, second = await client.get("/"), await client.get("/")

    policies = [answer.headers["Content-Security-Policy"] for answer in (first, second)]
    assert policies[0] != policies[1]
    (nonce,) = set(re.findall(r"'nonce-([^']+)'", policies[0]))
    assert f"script-src 'nonce-{nonce}';" in policies[0]
    for directive in ("default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'"):
        assert directive in policies[0]
    assert "unsafe" not in policies[0]
    text = await first.text()
    assert set(re.findall(r"<(?:script|style)[^>]*>", text)) == {
        f'<script nonce="{nonce}">',
        f'<style nonce="{nonce}">',
    }


async def test_the_live_part_is_what_the_page_holds(start: Start) -> None:
    client = await start()

    whole, live = [await (await client.get(path)).text() for path in ("/", "/api/v1/page")]

    sections = re.findall(r'<section id="(\w+)"', live)
    assert re.findall(r'<section id="(\w+)"', whole) == sections
    assert len(sections) == len(set(sections)) > 5
    assert "<script" not in live
    assert "<main" not in live


async def test_beyond_loopback_the_page_holds_nothing(
    start: Start, journal: SqliteJournal, standings: Standings
) -> None:
    """What it shows comes with the token, like all of the API."""
    await fill(journal, standings)
    client = await start(read_needs_token=True)

    shell = await client.get("/")
    refused = await client.get("/api/v1/page")
    live = await client.get("/api/v1/page", headers=BEARER)

    text = await shell.text()
    assert shell.status == 200
    assert "<section" not in text
    assert "b.test" not in text
    assert refused.status == 401
    assert "b.test" in await live.text()


async def test_without_a_journal_the_page_answers(journal: SqliteJournal) -> None:
    hosts = frozenset({"127.0.0.1"})
    app = make_admin(Source(journal), None, Metrics(), token=TOKEN, allowed_hosts=hosts, now=time.time)
    async with TestClient(TestServer(app)) as client:
        text = await (await client.get("/", params={"q": "x"})).text()

    assert "Nothing yet in this process" in text
    assert "Nothing is parked" in text
