"""Comparing and mending, asked for over the admin listener: a JSON line per entity as it is known, at the end a sum.

The port is here, because `admin` and `reconcile` do not know one another.
"""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import orjson
from aiohttp import web

from dualtrack.admin.guard import Refusal
from dualtrack.errors import BackendError, JournalError

_STEP = (
    'send {"ids": ["…"], "experiments": ["…"], "since": seconds since the epoch, "backend": "name", '
    '"content": true to read the files}'
)
_FLAGS = {None: False, "false": False, "true": True}


@dataclass(frozen=True, slots=True, kw_only=True)
class Selected:
    """What to look at: entities by any of their ids, experiments by id or name, or everything; on which secondaries.

    `content`: files are read and hashed on the secondary too, where their sizes say nothing.
    """

    ids: tuple[str, ...]
    experiments: tuple[str, ...]
    since: float | None
    backend: str | None
    dry_run: bool
    content: bool


class Verifying(Protocol):
    """What the listener needs of the one who does it. Each yields a document per entity; raises `BackendError`."""

    @property
    def targets(self) -> Sequence[str]: ...

    def verify(self, selected: Selected) -> AsyncIterator[dict[str, Any]]: ...

    def reconcile(self, selected: Selected) -> AsyncIterator[dict[str, Any]]: ...


def verify_routes(
    verifying: Verifying | None, body: Callable[[web.Request], Awaitable[dict[str, Any]]]
) -> Sequence[web.RouteDef]:
    async def verify(request: web.Request) -> web.StreamResponse:
        asked = {
            "ids": request.query.getall("id", []),
            "experiments": request.query.getall("experiment", []),
            "since": _number(request.query.get("since")),
            "backend": request.query.get("backend"),
            "content": _FLAGS.get(request.query.get("content"), "neither true nor false"),
        }
        engine = _engine(verifying)
        return await _stream(request, engine.verify(_selected(asked, engine)))

    async def reconcile(request: web.Request) -> web.StreamResponse:
        engine = _engine(verifying)
        return await _stream(request, engine.reconcile(_selected(await body(request), engine)))

    return (web.get("/api/v1/verify", verify), web.post("/api/v1/reconcile", reconcile))


def _engine(verifying: Verifying | None) -> Verifying:
    if verifying is None or not verifying.targets:
        raise Refusal(409, "there is no secondary to compare with", "configure one")
    return verifying


def _number(given: str | None) -> float | None:
    try:
        return float(given) if given is not None else None
    except ValueError as error:
        raise Refusal(400, f"since is no number: {given!r}", _STEP) from error


def _selected(asked: dict[str, Any], engine: Verifying) -> Selected:
    ids, experiments, since = asked.get("ids", []), asked.get("experiments", []), asked.get("since")
    backend = asked.get("backend")
    content = asked.get("content", False)
    are_lists = all(isinstance(each, list) and all(isinstance(one, str) for one in each) for each in (ids, experiments))
    if not are_lists or not (since is None or isinstance(since, int | float)) or not isinstance(content, bool):
        raise Refusal(400, "this selects nothing", _STEP)
    if backend is not None and backend not in engine.targets:
        raise Refusal(400, f"no secondary is called {backend!r}", f"name one of {', '.join(engine.targets)}")
    return Selected(
        ids=tuple(ids),
        experiments=tuple(experiments),
        since=since,
        backend=backend,
        dry_run=asked.get("dry_run") is True,
        content=content,
    )


async def _stream(request: web.Request, documents: AsyncIterator[dict[str, Any]]) -> web.StreamResponse:
    """Write a line per entity; whatever ends it early is told in the last line, since the head is on its way."""
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    await response.prepare(request)
    states: Counter[str] = Counter()
    error = ""
    try:
        async for document in documents:
            states[str(document["state"])] += 1
            await response.write(orjson.dumps(document) + b"\n")
    except (BackendError, JournalError) as raised:
        error = str(raised)
    await response.write(orjson.dumps({"summary": dict(states), "error": error}) + b"\n")
    await response.write_eof()
    return response
