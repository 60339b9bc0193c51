"""The status page as it is served: reads what `page` needs, renders the template, and says what the page may do.

    GET /             the whole page; without its data where reading needs the token, which the page then asks for
    GET /api/v1/page  its live part, which the page's script fetches again and again

Both take `?q=ID`. What a script may do is set by a Content-Security-Policy with a nonce of this answer: no script or
style runs that is not in the template, whatever a run is called. Nothing here asks a backend or changes anything:
retry and discard are the routes of `api`, and `guard` stands before all of them.
"""

import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from itertools import groupby
from typing import Final, Protocol

from aiohttp import web
from jinja2 import Environment, StrictUndefined, Template

from dualtrack.admin.chart import Samples
from dualtrack.admin.page import Entity, Facts, Page, make_page
from dualtrack.admin.records import Records
from dualtrack.admin.status import Status, StatusSource
from dualtrack.core.ids import EntityKind, Ref, Twin
from dualtrack.core.standing import Standing

_RUNS: Final = 20
_LETTERS: Final = 50
_DRIFTING: Final = 20
_LOSSES: Final = 20
_QUERY_CHARACTERS: Final = 500
_POLICY: Final = (
    "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src data:; connect-src 'self';"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


class Standings(Protocol):
    """How entities stand, as far as this process saw them written or compared."""

    def of(self, ref: Ref, backend: str) -> Standing | None: ...

    def recent(self, kind: EntityKind, limit: int) -> Sequence[Ref]: ...

    def drifting(self, backend: str | None = None, limit: int = 100) -> Sequence[Standing]: ...


class NoStandings:
    """Nothing was seen yet."""

    def of(self, ref: Ref, backend: str) -> Standing | None:  # noqa: ARG002
        return None

    def recent(self, kind: EntityKind, limit: int) -> Sequence[Ref]:  # noqa: ARG002
        return ()

    def drifting(self, backend: str | None = None, limit: int = 100) -> Sequence[Standing]:  # noqa: ARG002
        return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """What this process remembers beside the journal. `who` answers what is known, and never waits for a backend."""

    standings: Standings = field(default_factory=NoStandings)
    samples: Samples = field(default_factory=Samples)
    who: Callable[[], Mapping[str, str]] = dict


def page_routes(
    source: StatusSource, records: Records, watched: Watched, now: Callable[[], float], *, is_locked: bool
) -> Sequence[web.RouteDef]:
    """Serve the page. `is_locked`: reading needs the token, so the page itself holds nothing."""
    template = _template()

    async def read_page(request: web.Request) -> Page:
        query = request.query.get("q", "").strip()[:_QUERY_CHARACTERS]
        return make_page(await _facts(source, records, watched, now(), query))

    async def whole(request: web.Request) -> web.Response:
        nonce = secrets.token_urlsafe(16)
        page = None if is_locked else await read_page(request)
        response = _html(template.render(page=page, is_whole=True, nonce=nonce, query=request.query.get("q", "")))
        response.headers["Content-Security-Policy"] = _POLICY.format(nonce=nonce)
        return response

    async def live(request: web.Request) -> web.Response:
        return _html(template.render(page=await read_page(request), is_whole=False))

    return (web.get("/", whole), web.get("/api/v1/page", live))


def _template() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(files("dualtrack.admin").joinpath("status.html").read_text("utf-8"))


def _html(text: str) -> web.Response:
    return web.Response(text=text, content_type="text/html")


# --- reading --------------------------------------------------------------------------------------------------------


async def _facts(source: StatusSource, records: Records, watched: Watched, now: float, query: str) -> Facts:
    status, standings = await source.status(), watched.standings
    recent = [(ref, await _twins(records, ref, status)) for ref in standings.recent(EntityKind.RUN, _RUNS)]
    found = [(ref, list(twins)) for ref, twins in groupby(await records.find(query), key=_ref)] if query else None
    held = await _held(records, status, [ref for ref, _ in (*recent, *(found or ()))])

    async def entities(rows: Iterable[tuple[Ref, list[Twin]]]) -> list[Entity]:
        return [
            Entity(
                ref=ref,
                twins={twin.backend: twin for twin in twins},
                standings={name: row for name in held if (row := standings.of(ref, name)) is not None},
                held={name: keys[ref.key] for name, keys in held.items() if ref.key in keys},
                lossy=frozenset(row.backend for row in await records.losses(ref.key)),
            )
            for ref, twins in rows
        ]

    return Facts(
        now=now,
        status=status,
        who=watched.who(),
        samples={backend.name: watched.samples.of(backend.name) for backend in status.backends},
        runs=await entities(recent),
        parked=await records.parked(limit=_LETTERS),
        drifting=standings.drifting(limit=_DRIFTING),
        losses=await records.losses(limit=_LOSSES),
        query=query,
        found=None if found is None else await entities(found),
    )


def _ref(twin: Twin) -> Ref:
    return twin.ref


async def _twins(records: Records, ref: Ref, status: Status) -> list[Twin]:
    rows = [await records.twin(ref, backend.name) for backend in status.backends]
    return [twin for twin in rows if twin is not None]


async def _held(records: Records, status: Status, refs: Sequence[Ref]) -> dict[str, dict[str, bool]]:
    """Answer, by secondary and ordering key, what waits; True for what waits for a person."""
    keys = list({ref.key for ref in refs})
    secondaries = [backend.name for backend in status.backends if backend.role == "secondary"]
    return {name: await records.waiting(name, keys) for name in secondaries}
