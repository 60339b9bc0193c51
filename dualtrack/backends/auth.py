"""Who dualtrack is on a backend: request headers, cached by whoever issues them and refreshed once on a 401.

Vendors' sign-in libraries are imported when the first token is asked for, not before: they cost seconds and tens of
megabytes. Their blocking calls run in a worker thread, so no client waits for a sign-in of the other side.
"""

import asyncio
import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from dualtrack.errors import UnauthorizedError

# Facts E: one scope per service; the Databricks one is the application id of Azure Databricks in every Azure cloud.
SCOPES = {
    "azureml": "https://management.azure.com/.default",
    "databricks": "2ff814a6-3304-4ab8-85cb-cd0e6f879c1d/.default",
}


_SIGN_IN_SECONDS = 60.0  # the SDK repeats its look-ups for minutes when a host does not answer


class SignIn(Protocol):
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


class TokenFile:
    """A bearer token in a file that somebody else renews; read again when the file changes, and on a 401."""

    def __init__(self, backend: str, path: Path) -> None:
        self._backend = backend
        self._path = path
        self._read: tuple[int, dict[str, str]] | None = None

    async def headers(self, *, fresh: bool = False) -> Mapping[str, str]:
        try:
            changed = self._path.stat().st_mtime_ns
            if fresh or self._read is None or self._read[0] != changed:
                self._read = (changed, {"Authorization": f"Bearer {self._token()}"})
        except OSError as error:
            raise self._useless(error.strerror or "cannot be read") from error
        return self._read[1]

    def _token(self) -> str:
        try:
            token = self._path.read_text().strip()
        except UnicodeDecodeError:
            raise self._useless("is not text") from None  # the cause would hold the bytes
        if not token or any(character.isspace() for character in token):
            raise self._useless("holds no token")
        return token

    def _useless(self, reason: str) -> UnauthorizedError:
        return UnauthorizedError(self._backend, "sign-in", f"token file {self._path}: {reason}", "write a token there")

    async def close(self) -> None:
        return None


class Azure:
    """Entra ID through azure-identity, which caches tokens and refreshes them before they end."""

    def __init__(self, backend: str, credential: str, scope: str, authority: str | None) -> None:
        self._backend = backend
        self._name = credential
        self._scope = scope
        self._authority = authority
        self._credential: Any = None

    async def headers(self, *, fresh: bool = False) -> Mapping[str, str]:  # noqa: ARG002 - the library decides
        try:
            if self._credential is None:
                self._credential = await asyncio.to_thread(self._make)
            token = await self._credential.get_token(self._scope)
        except Exception as error:
            raise UnauthorizedError(
                self._backend,
                "sign-in",
                f"azure-identity: {str(error).splitlines()[0] if str(error) else type(error).__name__}",
                "check the AZURE_* variables, or `az login`",
            ) from error
        return {"Authorization": f"Bearer {token.token}"}

    def _make(self) -> Any:
        import azure.identity.aio as identity  # noqa: PLC0415 - seconds to import

        wanted = "DefaultAzureCredential" if self._name == "default" else self._name
        extra = {"authority": self._authority} if self._authority else {}
        return getattr(identity, wanted)(**extra)

    async def close(self) -> None:
        if self._credential is not None:
            await self._credential.close()


class Databricks:
    """The databricks-sdk's unified sign-in (personal token, OAuth, Azure CLI, profiles), asked per request."""

    def __init__(self, backend: str, host: str, profile: str | None) -> None:
        self._backend = backend
        self._host = host
        self._profile = profile
        self._config: Any = None

    async def headers(self, *, fresh: bool = False) -> Mapping[str, str]:  # noqa: ARG002 - the library decides
        try:
            async with asyncio.timeout(_SIGN_IN_SECONDS):
                return await asyncio.to_thread(self._ask)
        except Exception as error:
            raise UnauthorizedError(
                self._backend,
                "sign-in",
                f"databricks-sdk: {str(error).splitlines()[0] if str(error) else type(error).__name__}",
                "check the DATABRICKS_* variables or the profile",
            ) from error

    def _ask(self) -> dict[str, str]:
        from databricks.sdk.core import Config  # noqa: PLC0415 - seconds to import

        if self._config is None:
            self._config = Config(host=self._host, profile=self._profile)
        return dict(self._config.authenticate())

    async def close(self) -> None:
        return None
