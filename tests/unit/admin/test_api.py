"""The admin listener over real HTTP, on a real journal: what each route shows, and whom it turns away."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import pytest
from aiohttp import ClientResponse
from aiohttp.test_utils import TestClient, TestServer

from dualtrack.admin.api import make_admin
from dualtrack.admin.status import BackendStatus, Status
from dualtrack.core.exchange import Exchange
from dualtrack.core.ids import BackendId, ClientId, EntityKind, Ref, Twin
from dualtrack.core.loss import LossKind
from dualtrack.errors import JournalError
from dualtrack.metrics import Metrics
from dualtrack.ports import Loss, Parking, Progress, Settlement, Usage
from dualtrack.store.sqlite import SqliteJournal

TOKEN = "the-admin-token"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
JSON_TYPE = {"Content-Type": "application/json"}
RUN = Ref(EntityKind.RUN, ClientId("run-of-a"))
CREATE = Exchange(operation="createRun", method="POST", path="/api/2.0/mlflow/runs/create", query="x=1", body=b"{}")

Client: TypeAlias = "TestClient[Any, Any]"
Start: TypeAlias = Callable[..., Awaitable[Client]]


@dataclass
class Source:
    """A process whose state the test decides."""

    journal: SqliteJournal
    is_ready: bool = True
    reason: str = ""
    error: JournalError | None = None
    urls: dict[str, str] = field(
        default_factory=lambda: {"a": "http://user:hunter2@a.test?token=hunter2", "b": "http://b.test"}
    )

    def ready(self) -> tuple[bool, str]:
        return self.is_ready, self.reason

    async def status(self) -> Status:
        if self.error is not None:
            raise self.error
        return Status(
            version="1.2.3",
            started_at=100.0,
            ready=self.is_ready,
            reason=self.reason,
            primary="a",
            registry="a",
            backends=(
                BackendStatus(name="a", kind="mlflow", role="primary", url=self.urls["a"], is_registry=True, up=True),
                BackendStatus(
                    name="b", kind="mlflow", role="secondary", url=self.urls["b"], is_registry=False, entries=7
                ),
            ),
            journal=await self.journal.usage(),
            open_entries=0,
        )


@pytest.fixture
def source(journal: SqliteJournal) -> Source:
    return Source(journal)


@pytest.fixture
async def start(source: Source, journal: SqliteJournal) -> AsyncIterator[Start]:
    clients: list[Client] = []

    async def make(
        *, token: str | None = TOKEN, read_needs_token: bool = False, hosts: tuple[str, ...] = ("127.0.0.1",)
    ) -> Client:
        app = make_admin(
            source,
            journal,
            Metrics(),
            token=token,
            allowed_hosts=frozenset(hosts),
            now=time.time,
            read_needs_token=read_needs_token,
        )
        client: Client = TestClient(TestServer(app))
        await client.start_server()
        clients.append(client)
        return client

    yield make
    for client in clients:
        await client.close()


@pytest.fixture
async def client(start: Start) -> Client:
    return await start()


async def read(response: ClientResponse, status: int = 200) -> Any:
    document = await response.json()
    assert response.status == status, document
    return document


async def queue(journal: SqliteJournal, exchange: Exchange = CREATE) -> int:
    """Acknowledge one write; answer its seq."""
    entry_id = await journal.open(exchange)
    await journal.settle(Settlement(entry_id=entry_id, key=RUN.key))
    return journal.last_seq()


async def park(journal: SqliteJournal, exchange: Exchange = CREATE, *, holds: bool = True) -> int:
    seq = await queue(journal, exchange)
    parking = Parking(seq=seq, exchange=exchange, reason="refused", cause="HTTP 400", holds=holds)
    await journal.record(Progress(backend="b", key=RUN.key, done=(seq,), parkings=(parking,)))
    return (await journal.parked())[0].parked_id


def twin(ref: Ref, backend: str, backend_id: str, root: str = "") -> Twin:
    return Twin(ref=ref, backend=backend, backend_id=BackendId(backend_id), name="my run", root=root)


# --- health -----------------------------------------------------------------------------------------------------------


async def test_livez_says_ok(client: Client) -> None:
    response = await client.get("/livez")

    assert (response.status, (await response.text()).strip()) == (200, "ok")


async def test_readyz_follows_the_process(client: Client, source: Source) -> None:
    assert (await read(await client.get("/readyz")))["ready"] is True

    source.is_ready, source.reason = False, "the journal is full"

    assert await read(await client.get("/readyz"), 503) == {"ready": False, "reason": "the journal is full"}


async def test_metrics_show_the_journal_as_it_is_now(client: Client, journal: SqliteJournal) -> None:
    await queue(journal)
    await park(journal)

    response = await client.get("/metrics")

    lines = (await response.text()).splitlines()
    assert response.content_type == "text/plain"
    assert 'dualtrack_journal_entries{backend="b"} 1.0' in lines
    assert 'dualtrack_parked_entries{backend="b"} 1.0' in lines
    assert "dualtrack_journal_capacity_bytes 1.6777216e+07" in lines
    assert "dualtrack_journal_quarantined_records 0.0" in lines
    assert any(line.startswith('dualtrack_lag_seconds{backend="b"} ') for line in lines)
    assert any(line.startswith("dualtrack_journal_bytes ") for line in lines)


async def test_index_links_to_the_rest(client: Client) -> None:
    response = await client.get("/")

    assert response.content_type == "text/html"
    assert 'href="/api/v1/status"' in await response.text()


# --- reading ----------------------------------------------------------------------------------------------------------


async def test_status_names_the_backlog_and_hides_credentials(client: Client) -> None:
    response = await client.get("/api/v1/status")

    text = await response.text()
    document = await response.json()
    assert [backend["name"] for backend in document["backends"]] == ["a", "b"]
    assert document["backends"][0]["url"] == "http://a.test"
    assert document["backends"][1]["backlog"] == 7
    assert document["journal"]["capacity_bytes"] == 1 << 24
    assert "hunter2" not in text


async def test_any_id_finds_every_twin(client: Client, journal: SqliteJournal) -> None:
    root = "mlflow-artifacts:/4/run-of-b/artifacts"
    await journal.learn([twin(RUN, "a", "run-of-a"), twin(RUN, "b", "run-of-b", root)])

    by_primary = await read(await client.get("/api/v1/ids/run-of-a"))
    by_secondary = await read(await client.get("/api/v1/ids/run-of-b"))

    assert by_primary["entities"] == by_secondary["entities"]
    (entity,) = by_primary["entities"]
    assert (entity["kind"], entity["client_id"]) == ("run", "run-of-a")
    assert [row["id"] for row in entity["twins"]] == ["run-of-a", "run-of-b"]
    assert [row["web"] for row in entity["twins"]] == [
        "http://a.test/#/runs/run-of-a",
        "http://b.test/#/experiments/4/runs/run-of-b",
    ]


async def test_one_id_may_name_several_entities(client: Client, journal: SqliteJournal) -> None:
    experiment = Ref(EntityKind.EXPERIMENT, ClientId("1"))
    other = Ref(EntityKind.EXPERIMENT, ClientId("2"))
    await journal.learn([twin(experiment, "a", "1"), twin(experiment, "b", "2"), twin(other, "a", "2")])

    document = await read(await client.get("/api/v1/ids/2"))

    assert sorted(entity["client_id"] for entity in document["entities"]) == ["1", "2"]


async def test_an_unknown_id_is_404_with_a_next_step(client: Client) -> None:
    document = await read(await client.get("/api/v1/ids/nobody"), 404)

    assert "nobody" in document["error"]
    assert "ids export" in document["next_step"]


async def test_a_discarded_twin_is_said_to_be_so(client: Client, journal: SqliteJournal) -> None:
    await journal.learn([twin(RUN, "a", "run-of-a"), twin(RUN, "gone", "")])

    document = await read(await client.get("/api/v1/ids/run-of-a"))

    (entity,) = document["entities"]
    assert [(row["backend"], row["discarded"], row["web"]) for row in entity["twins"]][1] == ("gone", True, "")


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 100])
async def test_export_pages_hold_whole_entities(client: Client, journal: SqliteJournal, limit: int) -> None:
    """Whatever the page size, every twin appears exactly once."""
    refs = [Ref(EntityKind.RUN, ClientId(f"run-{number}")) for number in range(5)]
    await journal.learn([twin(ref, name, f"{ref.client_id}-{name}") for ref in refs for name in ("a", "b")])

    seen: list[str] = []
    query: dict[str, str] | None = {}
    while query is not None:
        page = await read(await client.get("/api/v1/ids", params={**query, "limit": str(limit)}))
        seen += [row["id"] for entity in page["entities"] for row in entity["twins"]]
        query = page["next"]

    assert seen == [f"{ref.client_id}-{name}" for ref in refs for name in ("a", "b")]


async def test_export_of_an_empty_map_is_empty(client: Client) -> None:
    assert await read(await client.get("/api/v1/ids")) == {"entities": [], "next": None}


@pytest.mark.parametrize("limit", ["0", "-1", "many", "1e3", "9999999999", "²"])
async def test_a_bad_limit_is_refused(client: Client, limit: str) -> None:
    assert "limit" in (await read(await client.get("/api/v1/parked", params={"limit": limit}), 400))["error"]


async def test_losses_are_listed_by_key(client: Client, journal: SqliteJournal) -> None:
    loss = Loss(kind=LossKind.TAG, item="note", reason="shortened", detail="too long")
    await journal.record(Progress(backend="b", key=RUN.key, losses=(loss, loss)))

    every = await read(await client.get("/api/v1/losses"))
    mine = await read(await client.get("/api/v1/losses", params={"key": RUN.key}))
    others = await read(await client.get("/api/v1/losses", params={"key": "run:other"}))

    assert every == mine
    assert mine["losses"] == [
        {
            "backend": "b",
            "key": RUN.key,
            "kind": "tag",
            "item": "note",
            "reason": "shortened",
            "detail": "too long",
            "times": 2,
        }
    ]
    assert others == {"losses": [], "next": None}


async def test_losses_come_in_pages_and_by_backend(client: Client, journal: SqliteJournal) -> None:
    losses = tuple(Loss(kind=LossKind.PARAM, item=str(number), reason="over_limit", detail="") for number in range(3))
    await journal.record(Progress(backend="b", key=RUN.key, losses=losses))

    first = await read(await client.get("/api/v1/losses", params={"limit": 2, "backend": "b"}))
    rest = await read(await client.get("/api/v1/losses", params={"limit": 2, "backend": "b", **first["next"]}))
    elsewhere = await read(await client.get("/api/v1/losses", params={"backend": "c"}))

    assert [row["item"] for row in first["losses"] + rest["losses"]] == ["2", "1", "0"]
    assert (rest["next"], elsewhere["losses"]) == (None, [])
    assert "before" in (await read(await client.get("/api/v1/losses", params={"before": "x"}), 400))["error"]


# --- parked -----------------------------------------------------------------------------------------------------------


async def test_a_parked_write_is_shown_with_its_request(client: Client, journal: SqliteJournal) -> None:
    body = b'{"tag": "\xff' + b"x" * 100_000
    number = await park(journal, Exchange(operation="setTag", method="POST", path="/api/2.0/x", query="q=1", body=body))

    listed = await read(await client.get("/api/v1/parked"))
    shown = await read(await client.get(f"/api/v1/parked/{number}"))

    assert [letter["id"] for letter in listed["parked"]] == [number]
    assert "exchange" not in listed["parked"][0]
    exchange = shown["exchange"]
    assert (exchange["method"], exchange["path"], exchange["query"]) == ("POST", "/api/2.0/x", "q=1")
    assert exchange["body"].startswith('{"tag": "\N{REPLACEMENT CHARACTER}xx')
    assert len(exchange["body"]) <= 65536
    assert (exchange["body_bytes"], exchange["body_is_cut"]) == (len(body), True)


@pytest.mark.parametrize("number", ["99", "999999999999999999", "9999999999999999999999", "one", "-1"])
async def test_an_unknown_parked_write_is_404(client: Client, number: str) -> None:
    await read(await client.get(f"/api/v1/parked/{number}"), 404)
    await read(await client.post(f"/api/v1/parked/{number}/retry", json={}, headers=BEARER), 404)
    await read(await client.post(f"/api/v1/parked/{number}/discard", json={"note": "n"}, headers=BEARER), 404)


async def test_retrying_queues_the_write_again(client: Client, journal: SqliteJournal) -> None:
    number = await park(journal)

    assert await read(await client.post(f"/api/v1/parked/{number}/retry", json={}, headers=BEARER)) == {
        "retried": number
    }

    assert await journal.parked() == []
    assert (await journal.backlogs())[0].entries == 1


async def test_a_retry_needs_no_body_beyond_its_type(client: Client, journal: SqliteJournal) -> None:
    number = await park(journal)

    await read(await client.post(f"/api/v1/parked/{number}/retry", headers={**BEARER, **JSON_TYPE}))


async def test_discarding_keeps_the_note(client: Client, journal: SqliteJournal) -> None:
    number = await park(journal)

    await read(await client.post(f"/api/v1/parked/{number}/discard", json={"note": " by hand "}, headers=BEARER))

    assert await journal.parked() == []
    (kept,) = await journal.losses()
    assert (kept.key, kept.loss.detail) == (RUN.key, "createRun: by hand")


async def test_discarding_gives_up_what_the_write_said_and_no_more(client: Client, journal: SqliteJournal) -> None:
    """A later difference of another param of that run is drift."""
    body = b'{"run_id": "r1", "params": [{"key": "depth", "value": "3"}]}'
    number = await park(
        journal, Exchange(operation="logBatch", method="POST", path="/api/2.0/x", body=body), holds=False
    )

    await read(await client.post(f"/api/v1/parked/{number}/discard", json={"note": "n"}, headers=BEARER))

    (kept,) = await journal.losses()
    assert kept.loss == Loss(kind=LossKind.PARAM, item="depth", reason="discarded", detail="logBatch: n")


@pytest.mark.parametrize(
    "body", [b"{}", b'{"note": ""}', b'{"note": 3}', b'{"note": "' + b"x" * 501 + b'"}', b"[]", b"{", b'"n"']
)
async def test_discarding_without_a_proper_note_changes_nothing(
    client: Client, journal: SqliteJournal, body: bytes
) -> None:
    number = await park(journal)

    response = await client.post(f"/api/v1/parked/{number}/discard", data=body, headers={**BEARER, **JSON_TYPE})

    await read(response, 400)
    assert len(await journal.parked()) == 1


async def test_a_huge_body_is_refused(client: Client, journal: SqliteJournal) -> None:
    number = await park(journal)

    response = await client.post(f"/api/v1/parked/{number}/discard", json={"note": "x" * 100_000}, headers=BEARER)

    await read(response, 413)


# --- who may ask ------------------------------------------------------------------------------------------------------

FOREIGN = [
    {"Origin": "http://evil.test"},
    {"Origin": "null"},
    {"Origin": "ftp://127.0.0.1"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
]


@pytest.mark.parametrize("headers", FOREIGN)
async def test_a_page_of_another_site_changes_nothing(
    client: Client, journal: SqliteJournal, headers: dict[str, str]
) -> None:
    number = await park(journal)

    await read(await client.post(f"/api/v1/parked/{number}/retry", json={}, headers={**BEARER, **headers}), 403)

    assert len(await journal.parked()) == 1


@pytest.mark.parametrize("headers", FOREIGN)
async def test_a_page_of_another_site_asks_for_nothing(client: Client, headers: dict[str, str]) -> None:
    """An image of `/api/v1/verify?content=true` would read all files of a workspace. A link to us is fine."""
    await read(await client.get("/api/v1/status", headers=headers), 403)
    await read(await client.get("/api/v1/verify?content=true", headers=headers), 403)
    assert (await client.get("/", headers=headers)).status == 200


async def test_our_own_page_may_change_things(client: Client, journal: SqliteJournal) -> None:
    number = await park(journal)
    headers = {**BEARER, "Origin": str(client.make_url("")).rstrip("/"), "Sec-Fetch-Site": "same-origin"}

    await read(await client.post(f"/api/v1/parked/{number}/retry", json={}, headers=headers))


async def test_a_form_changes_nothing(client: Client, journal: SqliteJournal) -> None:
    number = await park(journal)

    await read(await client.post(f"/api/v1/parked/{number}/retry", data={"a": "b"}, headers=BEARER), 415)

    assert len(await journal.parked()) == 1


WRONG = ["", "Bearer", "Bearer wrong", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x", "Bearer \xff"]


@pytest.mark.parametrize("authorization", WRONG)
async def test_a_wrong_token_changes_nothing(client: Client, journal: SqliteJournal, authorization: str) -> None:
    number = await park(journal)

    response = await client.post(f"/api/v1/parked/{number}/retry", json={}, headers={"Authorization": authorization})

    document = await read(response, 401)
    assert response.headers["WWW-Authenticate"].startswith("Bearer")
    assert TOKEN not in str(document)
    assert len(await journal.parked()) == 1


@pytest.mark.parametrize("token", [None, ""])
async def test_without_a_configured_token_nothing_can_be_changed(
    start: Start, journal: SqliteJournal, token: str | None
) -> None:
    client = await start(token=token)
    number = await park(journal)

    document = await read(
        await client.post(f"/api/v1/parked/{number}/retry", json={}, headers={"Authorization": "Bearer "}), 403
    )

    assert "admin.token: ${DUALTRACK_ADMIN_TOKEN}" in document["next_step"]
    assert len(await journal.parked()) == 1


async def test_beyond_loopback_reading_needs_the_token_too(start: Start) -> None:
    client = await start(read_needs_token=True)

    for path in ("/api/v1/status", "/api/v1/ids", "/api/v1/ids/x", "/api/v1/parked", "/api/v1/losses", "/api/nothing"):
        await read(await client.get(path), 401)
    for path in ("/livez", "/readyz", "/metrics", "/"):
        assert (await client.get(path)).status == 200
    await read(await client.get("/api/v1/status", headers=BEARER))


async def test_a_foreign_host_header_is_refused_everywhere(client: Client) -> None:
    for path in ("/", "/livez", "/readyz", "/metrics", "/api/v1/status", "/nothing"):
        for host in ("evil.test", "evil.test:80", "127.0.0.1.evil.test", "[", ""):
            document = await read(await client.get(path, headers={"Host": host}), 403)
            assert "allowed_hosts" in document["next_step"]


async def test_allowed_hosts_come_with_and_without_a_port(start: Start) -> None:
    client = await start(hosts=("Proxy.test", "::1", "only.test:8080"))

    for host in ("proxy.test", "PROXY.test:5001", "[::1]:5001", "only.test:8080"):
        assert (await client.get("/livez", headers={"Host": host})).status == 200
    assert (await client.get("/livez", headers={"Host": "only.test"})).status == 403


async def test_a_star_allows_any_host(start: Start) -> None:
    client = await start(hosts=("*",))

    assert (await client.get("/livez", headers={"Host": "10.0.0.7:5001"})).status == 200


async def test_every_answer_carries_the_security_headers(client: Client) -> None:
    for path, status in (("/", 200), ("/metrics", 200), ("/api/v1/status", 200), ("/nothing", 404)):
        response = await client.get(path)
        assert response.status == status
        assert response.headers["Cache-Control"] == "no-store"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Content-Security-Policy"].startswith("default-src 'none'")


# --- trouble ----------------------------------------------------------------------------------------------------------


async def test_unknown_paths_and_methods_are_json_errors(client: Client) -> None:
    assert (await read(await client.get("/api/v1/nothing"), 404))["next_step"]
    response = await client.put("/api/v1/status", json={}, headers=BEARER)
    await read(response, 405)
    assert "GET" in response.headers["Allow"]


async def test_a_journal_that_cannot_be_read_is_a_503(client: Client, source: Source) -> None:
    source.error = JournalError("the journal failed: disk I/O error")

    document = await read(await client.get("/api/v1/status"), 503)

    assert "disk I/O error" in document["error"]


async def test_without_a_journal_everything_is_empty(source: Source) -> None:
    """One backend alone: no journal, yet every page answers."""
    app = make_admin(source, None, Metrics(), token=TOKEN, allowed_hosts=frozenset({"127.0.0.1"}), now=time.time)
    async with TestClient(TestServer(app)) as client:
        assert await read(await client.get("/api/v1/ids")) == {"entities": [], "next": None}
        assert await read(await client.get("/api/v1/parked")) == {"parked": []}
        assert await read(await client.get("/api/v1/losses")) == {"losses": [], "next": None}
        assert (await client.get("/metrics")).status == 200
        await read(await client.get("/api/v1/ids/x"), 404)
        await read(await client.get("/api/v1/parked/1"), 404)
        await read(await client.post("/api/v1/parked/1/retry", json={}, headers=BEARER), 404)
        await read(await client.post("/api/v1/parked/1/discard", json={"note": "n"}, headers=BEARER), 404)


def test_usage_is_what_the_journal_says() -> None:
    """The status passes the journal's own numbers on: the field names are a contract of the JSON."""
    names = set(Usage.__dataclass_fields__)

    assert names == {"used_bytes", "capacity_bytes", "entries", "quarantined", "is_full"}
