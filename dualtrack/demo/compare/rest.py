"""One backend over plain REST: a call, all pages of a listing, the bytes of a file. Called by `reading`."""

import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPResponse
from typing import Any, TypeAlias

import orjson

JSON: TypeAlias = Any

API = "/api/2.0/mlflow"
# Azure ML refuses 1,000 and more rows of history (facts/backends A7); MLflow servers take any page size up to here.
HISTORY_PAGE = 500
TIMEOUT_SECONDS = 60
CHUNK_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One backend: the address under which `/api/2.0/mlflow` begins, and a bearer token if it wants one."""

    name: str
    url: str
    token: str = field(default="", repr=False)


def pages(
    side: Side, method: str, path: str, key: str, fields: Mapping[str, JSON], *, is_optional: bool = False
) -> Iterator[dict[str, JSON]]:
    """List what an endpoint answers under `key`, page after page."""
    token = ""
    while True:
        given = {**fields, **({"page_token": token} if token else {})}
        answer = call(side, method, path, given, is_optional=is_optional) or {}
        yield from answer.get(key, ())
        token = answer.get("next_page_token", "")
        if not token:
            return


def call(
    side: Side, method: str, path: str, fields: Mapping[str, JSON], *, is_optional: bool = False
) -> dict[str, JSON] | None:
    """Call one MLflow endpoint; None for a 404 of something that need not be there."""
    body = orjson.dumps(fields) if method == "POST" else None
    query = "" if body is not None else "?" + urllib.parse.urlencode(fields)
    try:
        with _opened(side, method, f"{API}/{path}{query}", body) as response:
            answer: dict[str, JSON] = orjson.loads(response.read() or b"{}")
            return answer
    except urllib.error.HTTPError as exc:
        with exc:
            if exc.code == 404 and is_optional:
                return None
            raise _told(side, method, path, exc) from exc


def content(side: Side, path: str, fields: Mapping[str, str]) -> Iterator[bytes]:
    """Give what a GET answers, in chunks; `path` is the whole path of the route."""
    try:
        with _opened(side, "GET", f"{path}?{urllib.parse.urlencode(fields)}", None) as response:
            while chunk := response.read(CHUNK_BYTES):
                yield chunk
    except urllib.error.HTTPError as exc:
        with exc:
            raise _told(side, "GET", path, exc) from exc


@contextmanager
def _opened(side: Side, method: str, target: str, body: bytes | None) -> Iterator[HTTPResponse]:
    headers = {"Content-Type": "application/json"}
    if side.token:
        headers["Authorization"] = f"Bearer {side.token}"
    url = side.url.rstrip("/") + target
    request = urllib.request.Request(url, data=body, headers=headers, method=method)  # noqa: S310 - the caller's
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:  # noqa: S310 - the caller's
        yield response


def _told(side: Side, method: str, path: str, exc: urllib.error.HTTPError) -> RuntimeError:
    return RuntimeError(f"{side.name}: {method} {path}: {exc.code} {exc.read()[:500]!r}")
