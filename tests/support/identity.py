"""A workspace and whoever issues its tokens, on one loopback port: real HTTP for the vendors' own sign-in libraries.

It serves a managed identity as App Service does (`IDENTITY_ENDPOINT`), an Entra authority for service principals (over
TLS alone, as azure-identity demands), Databricks' OAuth for machines, and an API that takes only tokens that it issued
and that have not ended.
"""

import asyncio
import base64
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

import tests.support.vendors  # noqa: F401 - before anybody waits for it

CLIENT_SECRET = "s3cr3t-of-the-client"
IDENTITY_HEADER = "s3cr3t-of-the-identity-endpoint"


def jwt(**claims: Any) -> str:
    """A token that says so; nobody signed it."""
    parts = [base64.urlsafe_b64encode(orjson.dumps(part)).decode().rstrip("=") for part in ({"alg": "none"}, claims)]
    return ".".join([*parts, "unsigned"])


@dataclass
class Workspace:
    """An API and its issuer, and what they are told to do.

    `life`: seconds that tokens live. `token`: the one that is issued every time. `issuing`: cleared, sign-ins hang.
    `refusal`: status and words for a token that is not good.
    `refuses`: they get a 400. `takes_none`: no token is good enough. `tells_issuer`: discovery names who issues tokens.
    """

    url: str = ""
    life: int = 3600
    refuses: bool = False
    takes_none: bool = False
    tells_issuer: bool = True
    token: str = ""
    refusal: tuple[int, str] = (401, "no valid token")
    claims: dict[str, Any] = field(default_factory=dict)
    user: str | None = "ann@example.com"
    answer: web.Response | None = None
    issued: list[str] = field(default_factory=list)
    scopes: list[str] = field(default_factory=list)
    heard: list[dict[str, str]] = field(default_factory=list)
    sign_ins: int = 0
    issuing: asyncio.Event = field(default_factory=asyncio.Event)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    _ends: dict[str, float] = field(default_factory=dict)

    def revoke(self) -> None:
        """Take back all tokens."""
        self._ends.clear()

    async def _issue(self, scope: str) -> dict[str, Any] | None:
        self.sign_ins += 1
        self.scopes.append(scope)
        self.asked.set()
        await self.issuing.wait()
        if self.refuses:
            return None
        token = self.token or jwt(number=self.sign_ins, **self.claims)
        self.issued.append(token)
        self._ends[token] = time.time() + self.life
        return {"access_token": token, "token_type": "Bearer", "expires_in": self.life}

    async def managed_identity(self, request: web.Request) -> web.Response:
        assert request.headers["X-IDENTITY-HEADER"] == IDENTITY_HEADER
        resource = request.query["resource"]
        issued = await self._issue(resource)
        if issued is None:
            return web.json_response({"error": "invalid_request", "error_description": "no such identity"}, status=400)
        return web.json_response({**issued, "resource": resource})

    async def discovery(self, _: web.Request) -> web.Response:
        return web.json_response({"oidc_endpoint": f"{self.url}/oidc"} if self.tells_issuer else {})

    async def endpoints(self, _: web.Request) -> web.Response:
        return web.json_response({"token_endpoint": f"{self.url}/oidc/v1/token", "authorization_endpoint": self.url})

    async def machine_token(self, request: web.Request) -> web.Response:
        pair = base64.b64decode(request.headers["Authorization"].removeprefix("Basic ")).decode()
        issued = await self._issue("all-apis")
        if issued is None or pair != f"a-client:{CLIENT_SECRET}":
            return web.json_response({"error": "invalid_client", "error_description": "who are you"}, status=400)
        return web.json_response(issued)

    async def authority(self, request: web.Request) -> web.Response:
        form = await request.post()
        issued = await self._issue(str(form["scope"]))
        is_known = form.get("client_secret") == CLIENT_SECRET or "client_assertion" in form
        if issued is None or not is_known or request.match_info["tenant"] != "a-tenant":
            said = {"error": "invalid_client", "error_description": "AADSTS7000215: Invalid client secret provided."}
            return web.json_response(said, status=401)
        return web.json_response(issued)

    def _is_signed(self, request: web.Request) -> bool:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        return not self.takes_none and self._is_known(token)

    def _is_known(self, token: str) -> bool:
        return self._ends.get(token, 0.0) > time.time() or token.startswith("dapi")

    async def api(self, request: web.Request) -> web.Response:
        self.heard.append(dict(request.headers))
        if not self._is_signed(request):
            status, message = self.refusal
            return web.json_response({"error_code": "UNAUTHENTICATED", "message": message}, status=status)
        if self.answer is not None:
            return web.Response(status=self.answer.status, headers=self.answer.headers, body=self.answer.body)
        if request.path.endswith("/scim/v2/Me"):
            return web.json_response({"userName": self.user}, status=200 if self.user else 403)
        return web.json_response({"experiments": [{"experiment_id": "0"}]})


def certified(folder: Path, *hosts: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Make a certificate for localhost and `hosts`; give what serves by it and who trusts it.

    Writes cert.pem, which is all that one has to trust, and both.pem, with the key.
    """
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName(host) for host in ("localhost", *hosts)]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    public = certificate.public_bytes(serialization.Encoding.PEM)
    plain = serialization.NoEncryption()
    secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    (folder / "cert.pem").write_bytes(public)
    (folder / "both.pem").write_bytes(secret + public)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(folder / "both.pem")
    return server, ssl.create_default_context(cafile=str(folder / "cert.pem"))


@asynccontextmanager
async def serving(tls: ssl.SSLContext | None = None) -> AsyncIterator[Workspace]:
    """Serve one in this event loop; whoever still waits for a token is let go at the end."""
    workspace = Workspace()
    workspace.issuing.set()
    app = web.Application()
    app.router.add_get("/msi/token", workspace.managed_identity)
    app.router.add_get("/.well-known/databricks-config", workspace.discovery)
    app.router.add_get("/oidc/.well-known/oauth-authorization-server", workspace.endpoints)
    app.router.add_post("/oidc/v1/token", workspace.machine_token)
    app.router.add_post("/{tenant}/oauth2/v2.0/token", workspace.authority)
    app.router.add_route("*", "/{path:.*}", workspace.api)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        place = "https://localhost" if tls else "http://127.0.0.1"
        workspace.url = f"{place}:{runner.addresses[0][1]}"
        yield workspace
    finally:
        workspace.issuing.set()
        await runner.cleanup()
