"""The databricks-sdk's unified sign-in: personal token, OAuth, Azure CLI, profile, whatever its variables say.

The library blocks, and asks for tokens without a time-out, so it is called in a thread. Its own cache is used only for
tokens whose end it does not tell: a configuration made anew is the one way to a new token that it offers.
"""

import time
from typing import Any

from dualtrack.backends.auth.cached import Signature, signature
from dualtrack.backends.auth.threads import Threads
from dualtrack.backends.auth.words import first_words
from dualtrack.errors import UnauthorizedError

_PATIENCE = 30.0
_ASK_AGAIN = 60.0  # a token that does not say when it ends: personal ones never do, those of a notebook may
# the SDK repeats its look-ups for minutes when a host does not answer, unless told otherwise
_BOUNDS: dict[str, Any] = {"http_timeout_seconds": 10, "retry_timeout_seconds": 15, "disable_async_token_refresh": True}


class DatabricksTokens:
    """A `Source` of what the SDK signs requests with. `profile` is one of `~/.databrickscfg`."""

    def __init__(self, backend: str, host: str, profile: str | None) -> None:
        self._backend = backend
        self._host = host
        self._profile = profile
        self._threads = Threads(backend)
        self._config: Any = None

    @property
    def patience(self) -> float:
        return _PATIENCE

    @property
    def hint(self) -> str:
        return "check the DATABRICKS_* variables or the profile"

    async def fetch(self, *, fresh: bool) -> Signature:
        """Ask the SDK. Raise `UnauthorizedError`."""
        try:
            return await self._threads.run(lambda: self._ask(fresh=fresh))
        except Exception as error:
            cause = f"databricks-sdk: {first_words(error)}"
            raise UnauthorizedError(self._backend, "sign-in", cause, self.hint) from error

    def _ask(self, *, fresh: bool) -> Signature:
        asked_at = time.time()
        if fresh or self._config is None or _end_of(self._config) is not None:
            self._config = _configuration(self._host, self._profile)
        headers = dict(self._config.authenticate())
        ends_at = _end_of(self._config)
        return signature(
            headers, asked_at, ends_at=ends_at, renew_at=asked_at + _ASK_AGAIN if ends_at is None else None
        )

    async def close(self) -> None:
        return None


def _configuration(host: str, profile: str | None) -> Any:
    """Make a configuration, which signs in. Blocks; raises what the SDK raises."""
    from databricks.sdk.core import Config  # noqa: PLC0415 - seconds to import
    from databricks.sdk.credentials_provider import DefaultCredentials  # noqa: PLC0415

    class Discovering(DefaultCredentials):
        """The SDK's own order; where the host does not say who issues tokens, the workspace does (facts B5).

        Without it, OAuth for machines fails on a host that has no `/.well-known/databricks-config` (SDK 0.156).
        """

        def __call__(self, cfg: Any) -> Any:
            if not getattr(cfg, "discovery_url", None):
                cfg.discovery_url = f"{cfg.host}/oidc/.well-known/oauth-authorization-server"
            return super().__call__(cfg)

    strategy: Any = Discovering()  # the SDK's own default is not of the type that it asks for either
    return Config(host=host, profile=profile, credentials_strategy=strategy, **_BOUNDS)


def _end_of(config: Any) -> float | None:
    """Answer when the token ends; None for what is no OAuth token, or does not say."""
    try:
        expiry = config.oauth_token().expiry
    except (AttributeError, ValueError):
        return None
    return float(expiry.timestamp()) if expiry is not None else None
