"""Redirects to a page on which a person signs in: on an API they are a refusal, and following one is no success.

A workspace behind a private link sends `/login.html?error=private-link-validation-error` to who comes over the public
network (facts B5). Nobody can sign in there through a proxy that keeps cookies to itself, so clients get an MLflow
error instead: 403, which their libraries show at once, where a 503 would be repeated for minutes.
"""

import orjson
from yarl import URL

from dualtrack.ports import Whole

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_PAGES = frozenset({"login.html", "login", "signin", "sign-in", "authorize"})
_PRIVATE_LINK = "private-link"


def leads_to_login(status: int, location: str) -> bool:
    """Say whether an answer sends its reader to a login page: Databricks' own, or that of an identity provider."""
    if status not in _REDIRECTS or not location:
        return False
    try:
        url = URL(location)
    except ValueError:
        return False
    return url.name.lower() in _PAGES or (url.host or "").startswith("login.")


def login_advice(location: str) -> str:
    """Say what to do about it."""
    if _PRIVATE_LINK in location:
        return (
            "the workspace takes calls from its private link only: run dualtrack inside that network, or check its DNS"
        )
    return "check the backend's `auth`, and that its url is that of an API"


def refusal(backend: str, location: str) -> Whole:
    """Answer what a client gets in the redirect's place. The query of `location` may hold what nobody should read."""
    page = location.partition("?")[0]
    message = f"{backend} sends this call to a login page ({page}) instead of answering it: {login_advice(location)}"
    body = orjson.dumps({"error_code": "PERMISSION_DENIED", "message": message})
    headers = (("Content-Type", "application/json"), ("Content-Length", str(len(body))))
    return Whole(status=403, reason="Forbidden", headers=headers, body=body)
