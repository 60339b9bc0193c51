"""What every way of signing in offers, and those that never change."""

import base64
from collections.abc import Mapping
from typing import Protocol


class SignIn(Protocol):
    """Signs requests. Two may ask at once; whoever asks may be cancelled."""

    async def headers(self, *, fresh: bool = False) -> Mapping[str, str]:
        """Answer the headers that sign a request; `fresh` after a 401. Raise `UnauthorizedError`."""
        ...

    async def close(self) -> None: ...


class Fixed:
    """Headers that never change: a token from the environment, a user and password, or none at all."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._headers = dict(headers)

    async def headers(self, *, fresh: bool = False) -> Mapping[str, str]:  # noqa: ARG002 - nothing to refresh
        return self._headers

    async def close(self) -> None:
        return None


def bearer(token: str) -> Fixed:
    return Fixed({"Authorization": f"Bearer {token}"})


def basic(username: str, password: str) -> Fixed:
    pair = base64.b64encode(f"{username}:{password}".encode()).decode()
    return Fixed({"Authorization": f"Basic {pair}"})
