"""Who may come in: Host, Origin and credentials of a request, decided from its headers alone. Pure.

Credentials are compared in constant time. A page of another site must not be able to write here through somebody's
browser, so a write with a foreign Origin is refused; one of our own UI passes, and the header goes no further.
"""

import base64
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """The one Authorization value that is let in, as MLflow clients send it."""

    expected: str

    @classmethod
    def bearer(cls, token: str) -> "Credentials":
        return cls(expected=f"Bearer {token}")

    @classmethod
    def basic(cls, username: str, password: str) -> "Credentials":
        pair = base64.b64encode(f"{username}:{password}".encode()).decode()
        return cls(expected=f"Basic {pair}")

    def __repr__(self) -> str:
        return "Credentials(**********)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """`allowed_hosts` are names without port, lower case; `*` allows any."""

    allowed_hosts: frozenset[str]
    credentials: Credentials | None = None

    def objection(self, method: str, headers: Mapping[str, str]) -> tuple[int, str, str] | None:
        """Answer status, error code and message of what is wrong with a request, or None."""
        host = headers.get("Host", "")
        if not self._allows(host):
            return 403, "PERMISSION_DENIED", f"host {host!r} is not served here; add it to allowed_hosts"
        origin = headers.get("Origin")
        if origin and method not in _SAFE and not _is_same(origin, host):
            return 403, "PERMISSION_DENIED", f"a write from a page of {origin!r} is refused"
        if self.credentials is not None and not self._knows(headers.get("Authorization", "")):
            message = "credentials are needed: MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and _PASSWORD"
            return 401, "UNAUTHENTICATED", message
        return None

    def _allows(self, host: str) -> bool:
        return "*" in self.allowed_hosts or host_name(host) in self.allowed_hosts

    def _knows(self, given: str) -> bool:
        assert self.credentials is not None
        # bytes that are no UTF-8 arrive as surrogates
        return hmac.compare_digest(given.encode(errors="surrogateescape"), self.credentials.expected.encode())


def host_name(host: str) -> str:
    """The name in a Host header, without port and brackets."""
    if host.startswith("["):
        return host[1 : host.find("]")].lower()
    return host.partition(":")[0].lower()


def _is_same(origin: str, host: str) -> bool:
    try:
        place = urlsplit(origin).netloc.lower()
    except ValueError:
        return False
    return bool(place) and place == host.lower()
