"""Starting a backfill, and how far it is. The port is here, because `admin` and `reconcile` do not know one another."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from aiohttp import web

from dualtrack.admin.guard import Refusal, answer

_PATIENCE_SECONDS = 300.0
_STEP = (
    'send {"to": "name", "experiments": ["…"], "filter": "…", "since": seconds since the epoch, '
    '"patience": seconds, "counts": true for a total}'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ordered:
    """What to bring to `target`, and for how many seconds of trouble it goes on; `counts` asks for a total."""

    target: str
    experiments: tuple[str, ...]
    wanted: str
    since: float | None
    patience: float
    counts: bool


class Backfilling(Protocol):
    """What the listener needs of the one who does it."""

    @property
    def targets(self) -> Sequence[str]: ...

    def order(self, ordered: Ordered) -> bool:
        """Begin one; False when one is under way."""
        ...

    def shown(self) -> dict[str, Any]:
        """Answer how far the last one is."""
        ...


def backfill_routes(
    backfills: Backfilling | None, body: Callable[[web.Request], Awaitable[dict[str, Any]]]
) -> Sequence[web.RouteDef]:
    async def begin(request: web.Request) -> web.Response:
        asked = await body(request)
        if backfills is None or not backfills.targets:
            raise Refusal(409, "there is no secondary to bring anything to", "configure one")
        target = asked.get("to") or backfills.targets[0]
        if target not in backfills.targets:
            raise Refusal(400, f"no secondary is called {target!r}", f"name one of {', '.join(backfills.targets)}")
        if not backfills.order(_ordered(target, asked)):
            raise Refusal(409, "a backfill is under way", "GET /api/v1/backfill shows how far it is")
        return answer(backfills.shown(), status=202)

    async def show(_: web.Request) -> web.Response:
        return answer(backfills.shown() if backfills is not None else {"state": "none"})

    return (web.post("/api/v1/backfill", begin), web.get("/api/v1/backfill", show))


def _ordered(target: str, asked: dict[str, Any]) -> Ordered:
    experiments, wanted, since = asked.get("experiments", []), asked.get("filter", ""), asked.get("since")
    patience, counts = asked.get("patience", _PATIENCE_SECONDS), asked.get("counts", False)
    is_right = isinstance(wanted, str) and isinstance(counts, bool) and (since is None or _is_number(since))
    is_list = isinstance(experiments, list) and all(isinstance(each, str) for each in experiments)
    if not (is_right and is_list and _is_number(patience) and patience >= 0):
        raise Refusal(400, "this selects nothing", _STEP)
    return Ordered(
        target=target, experiments=tuple(experiments), wanted=wanted, since=since, patience=patience, counts=counts
    )


def _is_number(given: object) -> bool:
    return isinstance(given, int | float) and not isinstance(given, bool)
