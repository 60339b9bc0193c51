"""Talks to the admin listener of a running proxy: plain HTTP from the standard library, no event loop.

Goes through no HTTP proxy of the environment and follows no redirect: the token goes to the address given and nowhere
else. Raises only click exceptions, so that commands need not care.
"""

import http.client
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from typing import Any, Final

import orjson

from dualtrack.cli.exits import RefusedError, UnreachableProxyError

_TIMEOUT_SECONDS: Final = 15.0  # a busy proxy on a busy machine is there all the same
_SILENCE_SECONDS: Final = 600.0  # until the next entity is compared: a long history takes its time
_READING_SECONDS: Final = 6 * 3600.0  # the same where all files of an entity are downloaded


def _silence(asked: Mapping[str, Any]) -> float:
    return _READING_SECONDS if asked.get("content") else _SILENCE_SECONDS


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


class AdminClient:
    """The admin API at `url`, which is from `origin`; `token` goes with every request if there is one."""

    def __init__(self, url: str, token: str | None, origin: str = "") -> None:
        self.url = url.rstrip("/")
        self._token = token
        self._origin = f" ({origin})" if origin else ""
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect)

    def status(self) -> dict[str, Any]:
        return self._ask("/api/v1/status")

    def entity(self, some_id: str) -> dict[str, Any]:
        return self._ask(f"/api/v1/ids/{urllib.parse.quote(some_id, safe='')}")

    def entities(self) -> Iterator[dict[str, Any]]:
        """Answer the whole id map, page by page."""
        after: Mapping[str, str] | None = {}
        while after is not None:
            page = self._ask(f"/api/v1/ids?{urllib.parse.urlencode({**after, 'limit': '1000'})}")
            yield from page["entities"]
            after = page["next"]

    def losses(self, key: str = "") -> Iterator[dict[str, Any]]:
        """Answer what was lost, of one ordering key if named, page by page."""
        asked = {"key": key} if key else {}
        after: Mapping[str, str] | None = {}
        while after is not None:
            page = self._ask(f"/api/v1/losses?{urllib.parse.urlencode({**asked, **after, 'limit': '1000'})}")
            yield from page["losses"]
            after = page["next"]

    def parked(self, before: int | None = None) -> dict[str, Any]:
        """Answer the newest parked writes, or the newest of those before a number."""
        return self._ask("/api/v1/parked?limit=1000" + (f"&before={before}" if before is not None else ""))

    def letter(self, number: int) -> dict[str, Any]:
        return self._ask(f"/api/v1/parked/{number}")

    def retry(self, number: int) -> dict[str, Any]:
        return self._ask(f"/api/v1/parked/{number}/retry", {})

    def discard(self, number: int, note: str) -> dict[str, Any]:
        return self._ask(f"/api/v1/parked/{number}/discard", {"note": note})

    def start_backfill(self, selected: dict[str, Any]) -> dict[str, Any]:
        return self._ask("/api/v1/backfill", selected)

    def backfill(self) -> dict[str, Any]:
        return self._ask("/api/v1/backfill")

    def verify(self, asked: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Compare; yield a document per entity, then the sum."""
        given = {name: value for name, value in asked.items() if value not in {None, ()}}
        return self._lines(f"/api/v1/verify?{urllib.parse.urlencode(given, doseq=True)}", silence=_silence(asked))

    def reconcile(self, asked: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Compare and mend; yield a document per entity, then the sum."""
        return self._lines("/api/v1/reconcile", asked, silence=_silence(asked))

    def _lines(self, target: str, body: dict[str, Any] | None = None, *, silence: float) -> Iterator[dict[str, Any]]:
        """Ask for what takes a while, and read it line by line."""
        try:
            with self._opener.open(self._request(target, body), timeout=silence) as response:
                for line in response:
                    yield self._document(line)
        except urllib.error.HTTPError as error:
            with error:
                raise self._refusal(error) from error
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from error

    def _ask(self, target: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        return self._document(self._send(self._request(target, body)))

    def _request(self, target: str, body: dict[str, Any] | None) -> urllib.request.Request:
        data = None if body is None else orjson.dumps(body)
        request = urllib.request.Request(self.url + target, data=data)  # noqa: S310 - http(s) only, see `options`
        request.add_header("Accept", "application/json")
        if data is not None:
            request.add_header("Content-Type", "application/json")
        if self._token:
            request.add_unredirected_header("Authorization", f"Bearer {self._token}")
        return request

    def _send(self, request: urllib.request.Request) -> bytes:
        try:
            with self._opener.open(request, timeout=_TIMEOUT_SECONDS) as response:
                return bytes(response.read())
        except urllib.error.HTTPError as error:
            with error:
                raise self._refusal(error) from error
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: Exception) -> UnreachableProxyError:
        reason = f"{getattr(error, 'reason', error)}".strip() or type(error).__name__
        return UnreachableProxyError(
            f"no dualtrack answers at {self.url}{self._origin}: {reason}. Is `dualtrack serve` running?"
        )

    def _refusal(self, error: urllib.error.HTTPError) -> RefusedError | UnreachableProxyError:
        try:
            document = self._document(error.read())
        except (OSError, http.client.HTTPException) as cut:
            return UnreachableProxyError(f"the answer of {self.url} was cut short: {cut}")
        message = f"{document.get('error', error.reason)}: {document.get('next_step', 'look at the log of the proxy')}"
        return RefusedError(message) if error.code < 500 else UnreachableProxyError(message)

    def _document(self, body: bytes) -> dict[str, Any]:
        try:
            document = orjson.loads(body)
        except orjson.JSONDecodeError:
            document = None
        if not isinstance(document, dict):
            raise UnreachableProxyError(
                f"what answers at {self.url}{self._origin} is not dualtrack's admin listener. Check admin.port"
            )
        return document
