"""Who may enter an emulated workspace: tokens, each with its own end (facts/backends, "Both" item 2).

Decides whether a bearer token is good now, and issues new ones. Several are good at once: the standing ones, which a
test or the demo was given, and those that were issued, which end `lifetime` seconds after their issue. What is issued
looks like a JWT, because clients read when it ends and whom it is for; nobody signed it. `tracking` asks for each call;
`databricks_doors` and the route `/__emulator__/identity` issue.
"""

import base64
import json
import secrets
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from math import inf

LIFETIME = 3600.0  # seconds; about that of both clouds' tokens (B5)
SCHEME = "Bearer "


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What a token is good for. `audience` is empty for one that names none, such as a personal access token."""

    who: str = ""
    audience: str = ""
    ends_at: float = inf


class Tokens:
    """The tokens of one workspace. `audiences` are those that it takes, any if there are none."""

    def __init__(
        self,
        *standing: str,
        lifetime: float = LIFETIME,
        audiences: Collection[str] = (),
        now: Callable[[], float] = time.time,
    ) -> None:
        self.lifetime = lifetime
        self.issued = 0
        self._audiences = frozenset(map(_plain, audiences))
        self._now = now
        self._grants = {token: Grant() for token in standing}
        self._of_issue: set[str] = set()

    def add(self, token: str, *, lifetime: float = inf, who: str = "") -> None:
        """Take a token from now on, for so many seconds."""
        self._grants[token] = Grant(who=who, ends_at=self._now() + lifetime)

    def issue(self, *, who: str = "", audience: str = "") -> str:
        """Make a token that ends after `lifetime`; those that have ended are forgotten."""
        now = self._now()
        self._grants = {token: grant for token, grant in self._grants.items() if grant.ends_at > now}
        self._of_issue &= self._grants.keys()
        self.issued += 1
        claims = {"aud": audience, "sub": who, "oid": who, "iat": int(now), "exp": int(now + self.lifetime)}
        token = _jwt({**claims, "jti": secrets.token_hex(8)})
        self._grants[token] = Grant(who=who, audience=audience, ends_at=now + self.lifetime)
        self._of_issue.add(token)
        return token

    def revoke(self) -> None:
        """End all tokens that were issued; the standing ones stay."""
        for token in self._of_issue:
            self._grants.pop(token, None)
        self._of_issue.clear()

    def grant(self, header: str) -> Grant | None:
        """Answer what an `Authorization` header is good for now; None if it is not."""
        found = self._grants.get(header.removeprefix(SCHEME)) if header.startswith(SCHEME) else None
        if found is None or found.ends_at <= self._now():
            return None
        is_for_us = not self._audiences or not found.audience or _plain(found.audience) in self._audiences
        return found if is_for_us else None


def _plain(audience: str) -> str:
    """An audience as resources and scopes both name it."""
    return audience.removesuffix("/.default").rstrip("/").lower()


def _jwt(claims: dict[str, object]) -> str:
    parts = [json.dumps(part).encode() for part in ({"alg": "none", "typ": "JWT"}, claims)]
    return ".".join([*(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts), "unsigned"])
