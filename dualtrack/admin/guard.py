"""Who may ask the admin listener what (design section 11), and the shape of every refusal.

    any request        the Host header names an allowed host             else 403
    changes (POST)     not from another site, JSON body                  else 403, 415
                       a token is configured, and is sent                else 403, 401
    reads below /api   the token too, when `read_needs_token`            else 403, 401

The Host check defeats DNS rebinding; the Origin and Sec-Fetch-Site checks, with a content type that no HTML form can
send, keep a page that the operator happens to visit from acting in their name. No cache keeps an answer, and no browser
runs one, but for the status page, which says itself what it may do (`site`). Never decides what a request does; `api`
installs it around every route.
"""

import hmac
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias
from urllib.parse import urlsplit

import orjson
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from dualtrack.errors import JournalError

Check: TypeAlias = Callable[[web.Request], "Refusal | None"]

HEADERS: Final = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
}
_CHANGING: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_API: Final = "/api/"  # what is read there may be costly: a comparison of everything, file by file
_FOREIGN: Final = frozenset({"cross-site", "same-site"})
_CONFIGURE_IT: Final = (
    "set `admin.token: ${DUALTRACK_ADMIN_TOKEN}` in the configuration and that variable in the environment of"
    " `dualtrack serve`, then restart it"
)
_SEND_IT: Final = "send `Authorization: Bearer <admin.token>`; the command line reads $DUALTRACK_ADMIN_TOKEN"


class Refusal(Exception):  # noqa: N818 - an answer, not an error of ours
    """An answer that ends the handling of a request: what is wrong, and what to do next."""

    def __init__(self, status: int, error: str, next_step: str, *, allow: str = "") -> None:
        super().__init__(error)
        self.status = status
        self.error = error
        self.next_step = next_step
        self.allow = allow

    def response(self) -> web.Response:
        response = answer({"error": self.error, "next_step": self.next_step}, status=self.status)
        if self.status == 401:
            response.headers["WWW-Authenticate"] = 'Bearer realm="dualtrack admin"'
        if self.allow:
            response.headers["Allow"] = self.allow
        return response


def answer(document: object, status: int = 200) -> web.Response:
    """Answer JSON. Dataclasses, tuples and enums are written as one expects."""
    return web.Response(body=orjson.dumps(document), status=status, content_type="application/json", charset="utf-8")


def guard(*, token: str | None, allowed_hosts: frozenset[str], read_needs_token: bool) -> Middleware:
    """Build the middleware that turns away whoever may not ask, before any handler sees the request."""
    checks: tuple[Check, ...] = (_host(allowed_hosts), _origin, _content_type, _token(token, read_needs_token))

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        for find_fault in checks:
            if (refusal := find_fault(request)) is not None:
                return refusal.response()
        return await _shaped(handler(request))

    return check


async def set_headers(_request: web.Request, response: web.StreamResponse) -> None:
    """Put the security headers on an answer, whoever made it (a hook of `on_response_prepare`)."""
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)


async def _shaped(handling: Awaitable[web.StreamResponse]) -> web.StreamResponse:
    """Give every refusal that arises in the handling its JSON shape."""
    try:
        return await handling
    except Refusal as refusal:
        return refusal.response()
    except JournalError as error:
        return Refusal(503, str(error), "look at the disk of store.url, then ask again").response()
    except web.HTTPError as error:
        allow = error.headers.get("Allow", "")
        step = f"use {allow}" if allow else "`/` lists what there is"
        return Refusal(error.status, f"{error.reason}", step, allow=allow).response()


def _host(allowed: frozenset[str]) -> Check:
    known = frozenset(host.lower() for host in allowed)

    def find_fault(request: web.Request) -> Refusal | None:
        given = request.headers.get("Host", "").lower()
        if "*" in known or given in known or _hostname(given) in known:
            return None
        return Refusal(403, "this Host header is not allowed here", "add the host to `allowed_hosts`, or use 127.0.0.1")

    return find_fault


def _hostname(host: str) -> str:
    """Answer a Host header without its port; an IPv6 address keeps no brackets."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _origin(request: web.Request) -> Refusal | None:
    if request.method not in _CHANGING and not request.path.startswith(_API):  # a link to the page may be anywhere
        return None
    origin = request.headers.get("Origin")
    is_own = origin is None or _is_own(origin, request.headers.get("Host", ""))
    if is_own and request.headers.get("Sec-Fetch-Site", "").lower() not in _FOREIGN:
        return None
    return Refusal(
        403, "a page of another site may ask and change nothing here", "use the command line, or the page at /"
    )


def _is_own(origin: str, host: str) -> bool:
    scheme, separator, rest = origin.partition("://")
    return bool(separator) and scheme.lower() in {"http", "https"} and rest.lower() == host.lower()


def _content_type(request: web.Request) -> Refusal | None:
    if request.method not in _CHANGING or request.content_type == "application/json":
        return None
    return Refusal(415, "the body must be JSON", "send `Content-Type: application/json`")


def _token(token: str | None, read_needs_token: bool) -> Check:
    def find_fault(request: web.Request) -> Refusal | None:
        is_guarded = read_needs_token and request.path.startswith(_API)
        if request.method not in _CHANGING and not is_guarded:
            return None
        if not token:
            return Refusal(403, "no admin token is configured", _CONFIGURE_IT)
        if _is_sent(token, request.headers.get("Authorization", "")):
            return None
        return Refusal(401, "the admin token is missing or wrong", _SEND_IT)

    return find_fault


def _is_sent(token: str, authorization: str) -> bool:
    scheme, _, sent = authorization.partition(" ")
    given = sent.strip().encode("utf-8", "surrogateescape")
    return hmac.compare_digest(given, token.encode()) and scheme.lower() == "bearer"
