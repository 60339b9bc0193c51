"""The admin listener: health, metrics, and the journal as people and their tools see it.

Routes are one table at the end. Answers come from the `StatusSource`, the journal and the metrics handed in; nothing
here asks a backend, so the listener answers whatever state the backends are in. `guard` says who may ask what. `app`
builds it with `make_admin`; the command line and, later, the status page read it.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from itertools import groupby
from typing import Any, Final

import orjson
from aiohttp import web

from dualtrack.admin.backfill import Backfilling, backfill_routes
from dualtrack.admin.guard import Refusal, answer, guard, set_headers
from dualtrack.admin.page import UNKNOWN_ID
from dualtrack.admin.records import NoRecords, Records
from dualtrack.admin.site import Watched, page_routes
from dualtrack.admin.status import Status, StatusSource
from dualtrack.admin.verify import Verifying, verify_routes
from dualtrack.core.ids import Twin
from dualtrack.core.links import public_url, web_link
from dualtrack.metrics import Metrics
from dualtrack.ports import Parked, RecordedLoss
from dualtrack.translate.giving_up import lost_items

_BODY_SHOWN_BYTES: Final = 64 * 1024
_REQUEST_BYTES: Final = 64 * 1024
_NOTE_CHARACTERS: Final = 500
_LIMIT: Final = 100
_LIMIT_MAX: Final = 1000


def make_admin(
    status: StatusSource,
    journal: Records | None,
    metrics: Metrics,
    *,
    token: str | None,
    allowed_hosts: frozenset[str],
    now: Callable[[], float],
    read_needs_token: bool = False,
    backfills: Backfilling | None = None,
    verifying: Verifying | None = None,
    watched: Watched | None = None,
) -> web.Application:
    """Build the application. `allowed_hosts` are names or addresses, with or without a port; `*` allows any.

    `read_needs_token` is for a listener beyond loopback: all of `/api` then needs the token. Without a token nothing
    can be changed.
    """
    check = guard(token=token, allowed_hosts=allowed_hosts, read_needs_token=read_needs_token)
    app = web.Application(client_max_size=_REQUEST_BYTES, middlewares=[check])
    app.on_response_prepare.append(set_headers)
    records = journal or NoRecords()
    app.add_routes([*_health(status, records, metrics, now), *_entities(status, records), *_letters(records, now)])
    app.add_routes([*backfill_routes(backfills, _body), *verify_routes(verifying, _body)])
    app.add_routes(page_routes(status, records, watched or Watched(), now, is_locked=read_needs_token))
    return app


def _health(
    status: StatusSource, journal: Records, metrics: Metrics, now: Callable[[], float]
) -> Sequence[web.RouteDef]:
    async def livez(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        is_ready, reason = status.ready()
        return answer({"ready": is_ready, "reason": reason}, status=200 if is_ready else 503)

    async def exposition(_: web.Request) -> web.Response:
        await refresh(metrics, journal, now())
        content_type = "text/plain; version=0.0.4; charset=utf-8"
        return web.Response(body=metrics.exposition(), headers={"Content-Type": content_type})

    async def show(_: web.Request) -> web.Response:
        return answer(_shown(await status.status()))

    return (
        web.get("/livez", livez),
        web.get("/readyz", readyz),
        web.get("/metrics", exposition),
        web.get("/api/v1/status", show),
    )


def _entities(status: StatusSource, journal: Records) -> Sequence[web.RouteDef]:
    async def one(request: web.Request) -> web.Response:
        some_id = request.match_info["id"]
        twins = await journal.find(some_id)
        if not twins:
            raise Refusal(404, f"no backend calls anything {some_id!r}", UNKNOWN_ID)
        return answer({"id": some_id, "entities": _entity_rows(twins, await status.status())})

    async def page(request: web.Request) -> web.Response:
        after = (request.query.get("after_kind", ""), request.query.get("after_id", ""))
        twins, is_last = await _page(journal, after, _limit(request))
        last = None if is_last else {"after_kind": twins[-1].ref.kind, "after_id": twins[-1].ref.client_id}
        return answer({"entities": _entity_rows(twins, await status.status()), "next": last})

    async def losses(request: web.Request) -> web.Response:
        asked, limit = request.query, _limit(request)
        rows = await journal.losses(
            asked.get("key"), backend=asked.get("backend"), before=_before(request), limit=limit
        )
        last = {"before": rows[-1].loss_id} if len(rows) == limit else None
        return answer({"losses": [_loss(row) for row in rows], "next": last})

    return (
        web.get("/api/v1/ids", page),
        web.get("/api/v1/ids/{id}", one),
        web.get("/api/v1/losses", losses),
    )


def _letters(journal: Records, now: Callable[[], float]) -> Sequence[web.RouteDef]:
    async def every(request: web.Request) -> web.Response:
        found = await journal.parked(limit=_limit(request), before=_before(request))
        return answer({"parked": [_letter(letter) for letter in found]})

    async def one(request: web.Request) -> web.Response:
        found = await journal.parked(parked_id=_number(request), limit=1)
        if not found:
            raise _unknown_letter(request)
        return answer(_letter(found[0]) | {"exchange": _exchange(found[0])})

    async def retry(request: web.Request) -> web.Response:
        await _body(request)
        if not await journal.retry_parked(_number(request), now()):
            raise _unknown_letter(request)
        return answer({"retried": _number(request)})

    async def discard(request: web.Request) -> web.Response:
        note = _note(await _body(request))
        found = await journal.parked(parked_id=_number(request), limit=1)
        exchange = found[0].exchange if found else None
        items = lost_items(exchange) if exchange is not None else ()
        if not await journal.discard_parked(_number(request), note, items):
            raise _unknown_letter(request)
        return answer({"discarded": _number(request), "note": note})

    letter = r"/api/v1/parked/{number:\d{1,18}}"
    return (
        web.get("/api/v1/parked", every),
        web.get(letter, one),
        web.post(f"{letter}/retry", retry),
        web.post(f"{letter}/discard", discard),
    )


async def refresh(metrics: Metrics, journal: Records, now: float) -> None:
    """Set the gauges that describe the journal; they are read when somebody asks, not on every write."""
    for backlog in await journal.backlogs():
        lag = 0.0 if backlog.oldest_at is None else max(0.0, now - backlog.oldest_at)
        metrics.journal_entries.labels(backlog.backend).set(backlog.entries)
        metrics.lag.labels(backlog.backend).set(lag)
        metrics.parked_entries.labels(backlog.backend).set(backlog.parked)
    usage = await journal.usage()
    metrics.journal_bytes.set(usage.used_bytes)
    metrics.journal_capacity.set(usage.capacity_bytes)
    metrics.journal_quarantined.set(usage.quarantined)


# --- what is shown --------------------------------------------------------------------------------------------------


def _shown(status: Status) -> dict[str, Any]:
    """Name a backend's undelivered entries its backlog; take credentials out of addresses, if anyone put them there."""
    shown = asdict(status)
    for backend in shown["backends"]:
        backend["url"] = public_url(backend["url"])
        backend["web_url"] = public_url(backend["web_url"])
        backend["backlog"] = backend.pop("entries")
    return shown


def _entity_rows(twins: Iterable[Twin], status: Status) -> list[dict[str, Any]]:
    """Group the rows of the id map by entity; rows of one entity follow one another."""
    homes = {backend.name: (backend.kind, backend.web_url or backend.url) for backend in status.backends}
    return [
        {"kind": ref.kind, "client_id": ref.client_id, "twins": [_twin(twin, homes) for twin in group]}
        for ref, group in groupby(twins, key=lambda twin: twin.ref)
    ]


def _twin(twin: Twin, homes: dict[str, tuple[str, str]]) -> dict[str, Any]:
    home = homes.get(twin.backend)
    return {
        "backend": twin.backend,
        "id": twin.backend_id,
        "name": twin.name,
        "artifact_root": twin.root,
        "discarded": twin.is_discarded,
        "web": web_link(*home, twin) if home else "",
    }


async def _page(journal: Records, after: tuple[str, str], limit: int) -> tuple[list[Twin], bool]:
    """Answer whole entities beyond `after`, about `limit` rows of them, and whether that is the end.

    The map pages by row. An entity whose rows a page cuts in two is left to the next page, unless it is all there is.
    """
    while True:
        twins = await journal.export_ids(after, limit)
        if len(twins) < limit:
            return twins, True
        whole = [twin for twin in twins if twin.ref != twins[-1].ref]
        if whole:
            return whole, False
        limit *= 2


def _loss(row: RecordedLoss) -> dict[str, Any]:
    return {"backend": row.backend, "key": row.key, **asdict(row.loss), "times": row.times}


def _letter(letter: Parked) -> dict[str, Any]:
    return {
        "id": letter.parked_id,
        "backend": letter.backend,
        "key": letter.key,
        "operation": letter.operation,
        "reason": letter.reason,
        "cause": letter.cause,
        "parked_at": letter.parked_at,
        "holds": letter.holds,
        "next_step": letter.next_step,
    }


def _exchange(letter: Parked) -> dict[str, Any] | None:
    exchange = letter.exchange
    if exchange is None:
        return None
    return {
        "method": exchange.method,
        "path": exchange.path,
        "query": exchange.query,
        "body": exchange.body[:_BODY_SHOWN_BYTES].decode(errors="replace"),
        "body_bytes": len(exchange.body),
        "body_is_cut": len(exchange.body) > _BODY_SHOWN_BYTES,
    }


# --- what is asked --------------------------------------------------------------------------------------------------


def _number(request: web.Request) -> int:
    return int(request.match_info["number"])


def _unknown_letter(request: web.Request) -> Refusal:
    step = "it may have been retried or discarded already; `dualtrack parked list` shows what there is"
    return Refusal(404, f"nothing is parked under {_number(request)}", step)


def _limit(request: web.Request) -> int:
    limit = _positive(request.query.get("limit", str(_LIMIT)), digits=8)
    if limit is None:
        raise Refusal(400, "limit is not a positive number", f"ask for 1 to {_LIMIT_MAX}")
    return min(limit, _LIMIT_MAX)


def _before(request: web.Request) -> int | None:
    """Where the page before ended; None for the first one."""
    text = request.query.get("before")
    before = None if text is None else _positive(text, digits=18)
    if text is not None and before is None:
        raise Refusal(400, "before is not a positive number", "take it from `next` of the page before")
    return before


def _positive(text: str, *, digits: int) -> int | None:
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= digits else 0
    return number or None


async def _body(request: web.Request) -> dict[str, Any]:
    """Read a JSON object; nothing at all counts as an empty one."""
    text = await request.read()
    try:
        document = orjson.loads(text or b"{}")
    except orjson.JSONDecodeError:
        document = None
    if not isinstance(document, dict):
        raise Refusal(400, "the body is not a JSON object", 'send {} or {"note": "why"}')
    return document


def _note(body: dict[str, Any]) -> str:
    note = body.get("note")
    if not isinstance(note, str) or not note.strip() or len(note) > _NOTE_CHARACTERS:
        step = f'send {{"note": "why"}}, at most {_NOTE_CHARACTERS} characters; it is kept with the loss'
        raise Refusal(400, "discarding needs a note", step)
    return note.strip()
