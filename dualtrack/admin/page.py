"""What the status page says: a pure function from what is known to what the template shows.

    Facts (read by `site`) ─▶ make_page ─▶ Page ─▶ status.html

Words, order and tones are decided here, and nothing is asked. A tone is never the only sign: each has its words. Names,
causes and ids are hostile text that the template escapes; commands that show one quote it for a shell.
"""

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, assert_never
from urllib.parse import quote, urlsplit

from dualtrack.admin.chart import Chart, draw
from dualtrack.admin.status import BackendStatus, Status
from dualtrack.core.ids import BackendId, Ref, Twin
from dualtrack.core.links import public_url, web_link
from dualtrack.core.standing import Standing, State
from dualtrack.core.wording import age, instant, size
from dualtrack.ports import Parked, RecordedLoss

Tone: TypeAlias = Literal["good", "busy", "warn", "bad", "quiet"]

UNKNOWN_ID: Final = "it may be older than this proxy, or not a run, experiment or model; see `dualtrack ids export`"
_ID_SHOWN: Final = 12


# --- what is known --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Entity:
    """One run, experiment or model; each map is by backend. `held`: writes wait there, True if for a person.

    `lossy` names the backends that are on record as not holding all of it.
    """

    ref: Ref
    twins: Mapping[str, Twin]
    standings: Mapping[str, Standing]
    held: Mapping[str, bool]
    lossy: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What was read for one page. `who` is whom each backend takes us for; `found` is None without a search."""

    now: float
    status: Status
    who: Mapping[str, str]
    samples: Mapping[str, Sequence[tuple[float, int]]]
    runs: Sequence[Entity]
    parked: Sequence[Parked]
    drifting: Sequence[Standing]
    losses: Sequence[RecordedLoss]
    query: str = ""
    found: Sequence[Entity] | None = None


# --- what is shown --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Badge:
    tone: Tone
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """`full` is what a cut text stands for; without `href` it is only text."""

    text: str
    full: str
    href: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """An entity on one backend: where it is, and on a secondary how it stands."""

    backend: str
    link: Link | None
    badge: Badge | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EntityRow:
    kind: str
    name: str
    own: Link
    sides: tuple[Side, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendCard:
    name: str
    kind: str
    roles: str
    home: Link
    who: str
    badge: Badge
    trouble: str
    counts: tuple[tuple[str, str, Tone], ...]
    chart: Chart | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ParkedRow:
    number: int
    backend: str
    own: Link
    operation: str
    reason: str
    cause: str
    next_step: str
    waited: str
    at: str
    holds: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftRow:
    kind: str
    backend: str
    name: str
    own: Link
    count: int
    compared: str
    command: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LossRow:
    backend: str
    kind: str
    own: Link
    item: str
    reason: str
    detail: str
    times: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Meter:
    label: str
    words: str
    percent: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    version: str
    at: str
    up_for: str
    open_entries: int
    notices: tuple[Badge, ...]
    columns: tuple[tuple[BackendCard, ...], ...]
    meters: tuple[Meter, ...]
    names: tuple[str, ...]
    runs: tuple[EntityRow, ...]
    parked: tuple[ParkedRow, ...]
    parked_more: int
    drifting: tuple[DriftRow, ...]
    losses: tuple[LossRow, ...]
    losses_total: int
    query: str
    found: tuple[EntityRow, ...] | None
    unknown_id: str


def make_page(facts: Facts) -> Page:
    status = facts.status
    parked = tuple(_parked(letter, facts.now) for letter in facts.parked)
    return Page(
        version=status.version,
        at=instant(facts.now),
        up_for=age(max(0.0, facts.now - status.started_at)),
        open_entries=status.open_entries,
        notices=tuple(_notices(facts)),
        columns=_columns(facts),
        meters=tuple(_meters(status)),
        names=tuple(backend.name for backend in status.backends),
        runs=_rows(facts.runs, status),
        parked=parked,
        parked_more=max(0, sum(backend.parked for backend in status.backends) - len(parked)),
        drifting=tuple(_drift(standing, facts.now) for standing in facts.drifting),
        losses=tuple(_loss(row) for row in facts.losses),
        losses_total=sum(backend.losses for backend in status.backends),
        query=facts.query,
        found=None if facts.found is None else _rows(facts.found, status),
        unknown_id=UNKNOWN_ID,
    )


# --- the short answer -----------------------------------------------------------------------------------------------


def _notices(facts: Facts) -> Iterator[Badge]:
    """What a person should know first; when all is well, that."""
    notices = [*_process_notices(facts.status)]
    for backend in facts.status.backends:
        notices += _backend_notices(backend)
    if facts.drifting:
        notices.append(Badge(tone="warn", words="Some of what was compared differs, and nothing on record says why."))
    alone = len(facts.status.backends) == 1
    words = "One backend alone: nothing is mirrored." if alone else "Nothing waits: all that was written arrived."
    yield from notices or [Badge(tone="quiet" if alone else "good", words=words)]


def _process_notices(status: Status) -> Iterator[Badge]:
    if not status.ready:
        yield Badge(tone="bad", words=f"Not ready: {status.reason}.")
    elif status.journal.is_full:
        yield Badge(tone="bad", words="The journal is full: new writes reach the primary alone.")
    if quarantined := status.journal.quarantined:
        words = f"Set aside as damaged: {_count(quarantined, 'record')}. `dualtrack reconcile` mends what they held."
        yield Badge(tone="warn", words=words)


def _backend_notices(backend: BackendStatus) -> Iterator[Badge]:
    is_away = backend.up is False or backend.breaker == "open"
    if is_away and backend.role == "primary":
        yield Badge(tone="bad", words=f"{backend.name} does not answer, and it is the primary: clients are told so.")
    elif is_away:
        waits = f"{_count(backend.entries, 'write')} wait{'s' if backend.entries == 1 else ''}"
        kept = f"{waits} for it here, to go out when it is back." if backend.entries else "Nothing waits for it."
        yield Badge(tone="bad", words=f"{backend.name} does not answer. {kept}")
    elif backend.entries:
        lag = f", the oldest for {age(backend.lag_seconds)}" if backend.lag_seconds is not None else ""
        yield Badge(tone="busy", words=f"{_count(backend.entries, 'write')} on the way to {backend.name}{lag}.")
    if backend.parked:
        yield Badge(
            tone="warn", words=f"{_count(backend.parked, 'parked write')} of {backend.name}: a person has to decide."
        )


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


# --- backends -------------------------------------------------------------------------------------------------------


def _columns(facts: Facts) -> tuple[tuple[BackendCard, ...], ...]:
    """The primary, and beside it the secondaries."""
    roles = ("primary", "secondary")
    columns = (tuple(_card(each, facts) for each in facts.status.backends if each.role == role) for role in roles)
    return tuple(column for column in columns if column)


def _card(backend: BackendStatus, facts: Facts) -> BackendCard:
    is_secondary = backend.role == "secondary"
    samples = facts.samples.get(backend.name, ())
    url = public_url(backend.web_url or backend.url)
    return BackendCard(
        name=backend.name,
        kind=backend.kind,
        roles=backend.role + (", registry" if backend.is_registry else ""),
        home=Link(text=urlsplit(url).netloc, full=url, href=url),
        who=facts.who.get(backend.name, "not asked yet"),
        badge=_state(backend, facts.now),
        trouble=backend.last_error if is_secondary else "",
        counts=_counts(backend) if is_secondary else (),
        chart=draw(backend.name, samples, facts.now, backend.entries) if is_secondary else None,
    )


def _state(backend: BackendStatus, now: float) -> Badge:
    if backend.breaker == "open":
        left = (backend.breaker_until or now) - now
        return Badge(tone="bad", words=f"paused, asks again {f'in {age(left)}' if left >= 1 else 'now'}")
    if backend.breaker == "half-open":
        return Badge(tone="busy", words="trying whether it is back")
    return {
        True: Badge(tone="good", words="up"),
        False: Badge(tone="bad", words="down"),
        None: Badge(tone="quiet", words="not asked yet"),
    }[backend.up]


def _counts(backend: BackendStatus) -> tuple[tuple[str, str, Tone], ...]:
    return (
        ("waiting", f"{backend.entries:,}", "busy" if backend.entries else "quiet"),
        ("lag", age(backend.lag_seconds), "busy" if backend.lag_seconds else "quiet"),
        ("parked", f"{backend.parked:,}", "warn" if backend.parked else "quiet"),
        ("lost, on record", f"{backend.losses:,}", "quiet"),
    )


def _meters(status: Status) -> Iterator[Meter]:
    for label, used, capacity in (
        ("Journal", status.journal.used_bytes, status.journal.capacity_bytes),
        ("Files that wait", status.spool_used_bytes, status.spool_capacity_bytes),
    ):
        if capacity:
            percent = min(100, round(100 * used / capacity))
            yield Meter(label=label, words=f"{size(used)} of {size(capacity)}", percent=percent)


# --- entities -------------------------------------------------------------------------------------------------------


def _rows(entities: Iterable[Entity], status: Status) -> tuple[EntityRow, ...]:
    return tuple(_row(entity, status) for entity in entities)


def _row(entity: Entity, status: Status) -> EntityRow:
    names = [*(row.name for row in entity.standings.values()), *(twin.name for twin in entity.twins.values())]
    return EntityRow(
        kind=entity.ref.kind,
        name=next(filter(None, names), ""),
        own=_search(entity.ref.client_id),
        sides=tuple(_side(entity, backend) for backend in status.backends),
    )


def _side(entity: Entity, backend: BackendStatus) -> Side:
    twin, link = entity.twins.get(backend.name), None
    if twin is None and backend.role == "primary":  # clients use its ids
        twin = Twin(ref=entity.ref, backend=backend.name, backend_id=BackendId(entity.ref.client_id))
    if twin is not None and not twin.is_discarded:
        link = Link(
            text=_cut(twin.backend_id),
            full=twin.backend_id,
            href=web_link(backend.kind, backend.web_url or backend.url, twin),
        )
    badge = _standing(entity, backend.name) if backend.role == "secondary" else None
    return Side(backend=backend.name, link=link, badge=badge)


def _standing(entity: Entity, backend: str) -> Badge:
    """Say how an entity stands on a secondary: what waits goes before what was compared."""
    twin, known = entity.twins.get(backend), entity.standings.get(backend)
    if twin is not None and twin.is_discarded:
        return Badge(tone="quiet", words="left out")
    if backend in entity.held:
        held = Badge(tone="warn", words="held by a parked write")
        return held if entity.held[backend] else Badge(tone="busy", words="pending")
    if known is None or known.state is None:
        return Badge(tone="quiet", words="not compared yet")
    if known.is_stale:
        return Badge(tone="quiet", words="changed since compared")
    return _compared(known.state, known.drift, is_lossy=backend in entity.lossy)


def _compared(state: State, drift: int, *, is_lossy: bool) -> Badge:
    match state:
        case State.DRIFT:
            return Badge(tone="warn", words=f"differs ({drift:,})")
        case State.EQUAL:
            return Badge(tone="good", words="equal")
        case State.EXPLAINED:
            return Badge(tone="good", words="equal but for recorded losses" if is_lossy else "differs as explained")
        case State.PENDING:
            return Badge(tone="busy", words="pending")
        case State.DISCARDED:
            return Badge(tone="quiet", words="left out")
        case _:
            assert_never(state)


# --- lists ----------------------------------------------------------------------------------------------------------


def _parked(letter: Parked, now: float) -> ParkedRow:
    return ParkedRow(
        number=letter.parked_id,
        backend=letter.backend,
        own=_search(letter.key.partition(":")[2]),
        operation=letter.operation,
        reason=letter.reason,
        cause=letter.cause,
        next_step=letter.next_step,
        waited=age(max(0.0, now - letter.parked_at)),
        at=instant(letter.parked_at),
        holds=letter.holds,
    )


def _drift(standing: Standing, now: float) -> DriftRow:
    return DriftRow(
        kind=standing.ref.kind,
        backend=standing.backend,
        name=standing.name,
        own=_search(standing.ref.client_id),
        count=standing.drift,
        compared=age(max(0.0, now - (standing.compared_at or now))),
        command=f"dualtrack verify --run {shlex.quote(standing.ref.client_id)}",
    )


def _loss(row: RecordedLoss) -> LossRow:
    kind, _, client_id = row.key.partition(":")
    return LossRow(
        backend=row.backend,
        kind=kind,
        own=_search(client_id),
        item=f"{row.loss.kind} {row.loss.item}".strip(),
        reason=row.loss.reason,
        detail=row.loss.detail,
        times=row.times,
    )


def _search(client_id: str) -> Link:
    """Name an entity by the client's id, and lead to what it is called elsewhere."""
    return Link(text=_cut(client_id), full=client_id, href=f"/?q={quote(client_id, safe='')}")


def _cut(text: str) -> str:
    return text if len(text) <= _ID_SHOWN + 4 else f"{text[:_ID_SHOWN]}…"
