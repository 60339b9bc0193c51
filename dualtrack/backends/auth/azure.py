"""Entra ID through azure-identity: any credential of `core.azure.CREDENTIALS`, one scope per service.

The asynchronous classes are used where there is one. The two that ask a person exist only as blocking ones: they wait
in a thread, the code to enter is in the log, and requests meanwhile get a clear error instead of waiting for a person.

A token that was refused has to be replaced, and azure-identity gives the one that it holds until shortly before its
end. So an asynchronous credential is made anew, which forgets its tokens; a person is not asked again for that, but
the claim that the new token be younger than now goes with the request, as after a challenge of continuous access
evaluation.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from dualtrack.backends.auth.cached import Signature, signature
from dualtrack.backends.auth.threads import Threads
from dualtrack.backends.auth.words import first_words
from dualtrack.core.azure import CREDENTIALS
from dualtrack.errors import UnauthorizedError

_PATIENCE, _PERSONS_PATIENCE = 30.0, 900.0  # a device code is good for 15 minutes

log = logging.getLogger("dualtrack.sign_in")


class Token(Protocol):
    """azure-core's `AccessTokenInfo`: instants are seconds since the epoch."""

    token: str
    expires_on: int
    refresh_on: int | None


class Credential(Protocol):
    async def get_token_info(self, *scopes: str, options: Any = None) -> Token: ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """What lets a principal in that is not a member of a Databricks workspace (facts B5).

    `resource_id` is the workspace's in Azure; `scope` that of the management token that proves a role on it.
    """

    resource_id: str
    scope: str


def make_credential(backend: str, name: str, given: Mapping[str, str], authority: str | None) -> Callable[[], Any]:
    """Answer what makes the credential `name`; `given` are keys of its row in `CREDENTIALS`. Making it may block."""
    kind = CREDENTIALS[name]
    spelled = {"client_id": "managed_identity_client_id"} if kind.class_name == "DefaultAzureCredential" else {}
    if kind.class_name == "CertificateCredential":
        spelled = {"certificate_password": "password"}
    arguments: dict[str, Any] = {spelled.get(key, key): value for key, value in given.items()}
    if authority and kind.has_authority:
        arguments["authority"] = authority
    if kind.class_name == "DeviceCodeCredential":
        arguments["prompt_callback"] = _prompt(backend)

    def make() -> Any:
        import azure.identity  # noqa: PLC0415 - seconds to import
        import azure.identity.aio  # noqa: PLC0415

        return getattr(azure.identity if kind.asks_a_person else azure.identity.aio, kind.class_name)(**arguments)

    return make


def _prompt(backend: str) -> Callable[[str, str, datetime], None]:
    def prompt(address: str, code: str, until: datetime) -> None:
        # a warning, so that it is seen at every level at which a person looks at all
        log.warning("sign in to %s: open %s and enter the code %s before %s", backend, address, code, until)

    return prompt


class AzureTokens:
    """A `Source` of Entra ID tokens. `credential` is a name in `CREDENTIALS`; `make` makes one, in a thread."""

    def __init__(
        self,
        backend: str,
        credential: str,
        make: Callable[[], Any],
        scope: str,
        membership: Membership | None = None,
    ) -> None:
        self._backend = backend
        self._kind = CREDENTIALS[credential]
        self._make = make
        self._scope = scope
        self._membership = membership
        self._threads = Threads(backend)
        self._credential: Credential | None = None
        self._has_failed = False  # some credentials remember for ever that nobody answered them once

    @property
    def patience(self) -> float:
        return _PERSONS_PATIENCE if self._kind.asks_a_person else _PATIENCE

    @property
    def hint(self) -> str:
        return self._kind.fix

    async def fetch(self, *, fresh: bool) -> Signature:
        """Get the token, or both of them. Raise `UnauthorizedError`."""
        asked_at = time.time()
        try:
            credential = await self._made(anew=(fresh or self._has_failed) and not self._kind.asks_a_person)
            self._has_failed = True
            options = {"claims": _younger_than(asked_at)} if fresh and self._kind.asks_a_person else {}
            token = await credential.get_token_info(self._scope, options=options)
            proof = None
            if self._membership is not None:
                proof = await credential.get_token_info(self._membership.scope, options=options)
            self._has_failed = False
        except Exception as error:
            cause = f"azure-identity: {first_words(error)}"
            raise UnauthorizedError(self._backend, "sign-in", cause, self.hint) from error
        return self._signed(token, proof, asked_at)

    def _signed(self, token: Token, proof: Token | None, asked_at: float) -> Signature:
        headers = {"Authorization": f"Bearer {token.token}"}
        tokens = [token]
        if self._membership is not None and proof is not None:
            headers["X-Databricks-Azure-Workspace-Resource-Id"] = self._membership.resource_id
            headers["X-Databricks-Azure-SP-Management-Token"] = proof.token
            tokens.append(proof)
        return signature(
            headers,
            asked_at,
            ends_at=min(each.expires_on for each in tokens),
            renew_at=min((each.refresh_on for each in tokens if each.refresh_on is not None), default=None),
        )

    async def _made(self, *, anew: bool) -> Credential:
        if self._credential is not None and anew:
            await self.close()
        if self._credential is None:
            made = await self._threads.run(self._make)
            self._credential = _InThread(made, self._threads) if self._kind.asks_a_person else made
        assert self._credential is not None
        return self._credential

    async def close(self) -> None:
        if self._credential is not None:
            credential, self._credential = self._credential, None
            await credential.close()


def _younger_than(instant: float) -> str:
    return f'{{"access_token":{{"nbf":{{"essential":true,"value":"{instant:.0f}"}}}}}}'


class _InThread:
    """A credential that exists only in its blocking form."""

    def __init__(self, credential: Any, threads: Threads) -> None:
        self._credential = credential
        self._threads = threads

    async def get_token_info(self, *scopes: str, options: Any = None) -> Token:
        token: Token = await self._threads.run(lambda: self._credential.get_token_info(*scopes, options=options))
        return token

    async def close(self) -> None:
        self._credential.close()
