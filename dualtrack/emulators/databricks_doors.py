"""What a Databricks workspace serves beside MLflow's API and its files: sign-in, who one is, the tree (facts B1, B5).

    GET  /.well-known/databricks-config               {}: a current SDK asks for it first, and goes on without
    GET  /oidc/.well-known/oauth-authorization-server  where tokens are issued
    POST /oidc/v1/token                                a token for a client id and its secret, by HTTP Basic
    GET  /api/2.0/preview/scim/v2/Me                   who the token is for
    GET  /api/2.0/workspace/get-status                 a folder or an experiment by its path

Decides who may come in at all: behind a private link everybody is sent to a login page, and a principal that is no
member shows two more headers with each call. Tokens are kept by `tokens`, folders by `databricks_tree`. It is a `Site`
of `tracking`; `Several` puts it in front of the one that keeps files.
"""

import base64
import binascii
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias
from urllib.parse import quote

from aiohttp import web

from dualtrack.emulators.databricks_tree import Tree
from dualtrack.emulators.tokens import Tokens

JSON: TypeAlias = Any
Ask: TypeAlias = Callable[[str], Awaitable[Mapping[str, JSON]]]
Served: TypeAlias = web.StreamResponse | bool | None

APPLICATION = "2ff814a6-3304-4ab8-85cb-cd0e6f879c1d"  # the audience of Entra tokens, in all Azure clouds (B5)
PROOFS = ("X-Databricks-Azure-Workspace-Resource-Id", "X-Databricks-Azure-SP-Management-Token")
LOGIN = "/login.html?error=private-link-validation-error"
ME, STATUS = "/api/2.0/preview/scim/v2/Me", "/api/2.0/workspace/get-status"
CONFIG = "/.well-known/databricks-config"
DISCOVERY, TOKEN = "/oidc/.well-known/oauth-authorization-server", "/oidc/v1/token"
GRANT = "client_credentials"


class Doors:
    """The doors of one workspace. `clients` are secrets by client id; `needs_proof`: its principals are no members."""

    def __init__(
        self,
        tokens: Tokens,
        tree: Tree,
        clients: Mapping[str, str] | None = None,
        *,
        is_private: bool = False,
        needs_proof: bool = False,
    ) -> None:
        self._tokens = tokens
        self._tree = tree
        self._clients = clients or {}
        self._is_private = is_private
        self._needs_proof = needs_proof

    async def serve(
        self,
        request: web.Request,
        body: bytes | None,  # noqa: ARG002 - the protocol's
        ask: Ask,
        *,
        is_signed_in: bool,
    ) -> Served:
        """Answer what is ours; None for the rest, False for nobody without a token."""
        if self._is_private:
            return web.Response(status=302, headers={"Location": LOGIN})
        match request.method, request.path:
            case "GET", path if path == CONFIG:
                return web.json_response({})
            case "GET", path if path == DISCOVERY:
                return web.json_response(self._endpoints(request))
            case "POST", path if path == TOKEN:
                return await self._issue(request)
        if not request.path.startswith("/api/"):
            return None
        if is_signed_in and self._needs_proof and not all(request.headers.get(name) for name in PROOFS):
            return _error(403, "PERMISSION_DENIED", "User not authorized: not a member of this workspace.")
        return await self._of_api(request, ask, is_signed_in=is_signed_in)

    async def _of_api(self, request: web.Request, ask: Ask, *, is_signed_in: bool) -> Served:
        if request.method != "GET" or request.path not in {ME, STATUS}:
            return None
        if not is_signed_in:
            return False
        return self._me(request) if request.path == ME else await self._status(request, ask)

    def _endpoints(self, request: web.Request) -> JSON:
        origin = f"{request.scheme}://{request.host}/oidc"
        return {
            "issuer": origin,
            "authorization_endpoint": f"{origin}/v1/authorize",
            "token_endpoint": f"{origin}/v1/token",
            "grant_types_supported": [GRANT],
            "token_endpoint_auth_methods_supported": ["client_secret_basic"],
        }

    async def _issue(self, request: web.Request) -> web.Response:
        client, secret = _basic(request.headers.get("Authorization", ""))
        form = await request.post()
        if not client or self._clients.get(client) != secret:
            return _refused(401, "invalid_client", "Client authentication failed")
        if form.get("grant_type") != GRANT or form.get("scope") != "all-apis":
            return _refused(400, "invalid_request", f"grant_type is {GRANT}, scope all-apis")
        token = self._tokens.issue(who=client)
        told = {"token_type": "Bearer", "scope": "all-apis", "expires_in": int(self._tokens.lifetime)}
        return web.json_response({"access_token": token, **told})

    def _me(self, request: web.Request) -> web.Response:
        grant = self._tokens.grant(request.headers.get("Authorization", ""))
        who = (grant.who if grant is not None else "") or self._tree.users[0]
        schema = "urn:ietf:params:scim:schemas:core:2.0:User"
        return web.json_response({"schemas": [schema], "id": "1", "userName": who, "displayName": who, "active": True})

    async def _status(self, request: web.Request, ask: Ask) -> web.Response:
        path = request.query.get("path", "")
        folder = self._tree.object_id(path)
        if folder is not None:
            return web.json_response({"object_type": "DIRECTORY", "path": path, "object_id": folder})
        found = await ask(f"/api/2.0/mlflow/experiments/get-by-name?experiment_name={quote(path, safe='')}")
        if not found or found["experiment"].get("lifecycle_stage") == "deleted":
            return _error(404, "RESOURCE_DOES_NOT_EXIST", f"Path ({path}) doesn't exist.")
        number = int(found["experiment"]["experiment_id"])
        return web.json_response({"object_type": "MLFLOW_EXPERIMENT", "path": path, "object_id": number})

    def rewrite(self, host: str, document: JSON) -> JSON:  # noqa: ARG002 - the protocol's
        return document

    def close(self) -> None:
        return None


class Several:
    """Sites one behind the other: the first that knows a call answers it."""

    def __init__(self, *sites: Any) -> None:
        self._sites = sites

    async def serve(self, request: web.Request, body: bytes | None, ask: Ask, *, is_signed_in: bool) -> Served:
        for site in self._sites:
            served: Served = await site.serve(request, body, ask, is_signed_in=is_signed_in)
            if served is not None:
                return served
        return None

    def rewrite(self, host: str, document: JSON) -> JSON:
        for site in self._sites:
            document = site.rewrite(host, document)
        return document

    def close(self) -> None:
        for site in self._sites:
            site.close()


def _basic(header: str) -> tuple[str, str]:
    try:
        pair = base64.b64decode(header.removeprefix("Basic "), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    client, _, secret = pair.partition(":")
    return client, secret


def _refused(status: int, error: str, description: str) -> web.Response:
    return web.json_response({"error": error, "error_description": description}, status=status)


def _error(status: int, code: str, message: str) -> web.Response:
    return web.json_response({"error_code": code, "message": message}, status=status)
