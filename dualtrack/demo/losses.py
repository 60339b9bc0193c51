"""What the proxy has on record of a secondary's losses, asked of its admin listener page by page. Called by `demo`."""

from collections.abc import Iterator
from urllib.parse import urlencode

from dualtrack.demo.compare import Loss
from dualtrack.demo.compare.rest import get

PAGE = 500


def read_losses(admin: str, backend: str) -> Iterator[Loss]:
    """Yield all of them, the newest first."""
    asked: dict[str, str | int] | None = {}
    while asked is not None:
        page = get(f"{admin}/api/v1/losses?{urlencode({'backend': backend, 'limit': PAGE, **asked})}") or {}
        for row in page["losses"]:
            yield Loss(**{name: str(row[name]) for name in ("key", "kind", "item", "reason", "detail")})
        asked = page["next"]
