"""One backend over plain REST: a call, all pages of a listing, the bytes of a file. Called by `reading` and `files`."""

import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
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
THROTTLED_SECONDS = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, None)  # between attempts; None: no more


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One backend: the address under which `/api/2.0/mlflow` begins, and a bearer token if it wants one.

    `kind` says who keeps its files (`files.READERS`): the MLflow server itself, or a workspace of that vendor.
    """

    name: str
    url: str
    kind: str = "mlflow"
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
    with _opened(side.url.rstrip("/") + f"{API}/{path}{query}", side.token, method, body) as response:
        return None if response is None and is_optional else _read(response, path)


def get(url: str, token: str = "", *, is_optional: bool = False) -> dict[str, JSON] | None:
    """Ask any address for a JSON object; None for a 404 of something that need not be there."""
    with _opened(url, token) as response:
        return None if response is None and is_optional else _read(response, url)


def content(url: str, token: str = "") -> Iterator[bytes] | None:
    """Give what a GET answers, in chunks; None for a 404."""
    opened = ExitStack()
    response = opened.enter_context(_opened(url, token))
    return None if response is None else _chunks(response, opened)


def _chunks(response: HTTPResponse, opened: ExitStack) -> Iterator[bytes]:
    with opened:
        while chunk := response.read(CHUNK_BYTES):
            yield chunk


def _read(response: HTTPResponse | None, what: str) -> dict[str, JSON]:
    if response is None:
        raise RuntimeError(f"{what}: not found")
    answer: dict[str, JSON] = orjson.loads(response.read() or b"{}")
    return answer


@contextmanager
def _opened(url: str, token: str, method: str = "GET", body: bytes | None = None) -> Iterator[HTTPResponse | None]:
    """Send a request; None for a 404, and every other refusal is an error."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    if body is not None:
        headers["Content-Type"] = "application/json"
    request = urllib.request.Request(url, data=body, headers=headers, method=method)  # noqa: S310 - the caller's
    response = _sent(request)
    if response is None:
        yield None
        return
    with response:
        yield response


def _sent(request: urllib.request.Request) -> HTTPResponse | None:
    """Answer the response, None for a 404; a workspace that wants fewer calls a second is asked again."""
    for wait in THROTTLED_SECONDS:
        try:
            response: HTTPResponse = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)  # noqa: S310 - the caller's
        except urllib.error.HTTPError as exc:
            with exc:
                if exc.code == 404:
                    return None
                if exc.code != 429 or wait is None:
                    told = request.full_url.partition("?")[0]  # a signed URL is a secret
                    raise RuntimeError(f"{request.get_method()} {told}: {exc.code} {exc.read()[:500]!r}") from exc
            time.sleep(wait)
        else:
            return response
    raise AssertionError("the last attempt answers or raises")
