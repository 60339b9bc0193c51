"""Databricks as an MLflow client sees it: experiments live in the workspace tree, errors are `error_code` + `message`.

Decides which calls a workspace has and takes: names by its tree (`databricks_tree`), sizes by its limits
(`databricks_limits`), rates by its buckets (`buckets`). What the service does and a plain server does not is a field
of `Terms`, all off by default but the names; `STRICT` is the service as it is known. Ids are the real server's, as
they come; the default experiment passes as it is. A deleted experiment keeps its name, as the real server has it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from dualtrack.emulators.buckets import Buckets, Tells
from dualtrack.emulators.databricks_limits import Limits
from dualtrack.emulators.databricks_tree import Refusal, Tree, plain
from dualtrack.emulators.tracking import Call, Changed, Plain, Reply, named_experiment

# What the service has of what a plain server serves (facts B1, B3, B4, B8; traces v4 are for clients that store spans
# in Unity Catalog: 404, so that they fall back). A choice: the service's whole list is not known.
PATHS = re.compile(
    r"/api/2\.0/mlflow/(?:experiments|runs|metrics|artifacts|logged-models|registered-models|model-versions|traces"
    r"|databricks|transition-requests|comments|registry-webhooks)(?:/|$)"
    r"|/api/3\.0/mlflow/traces(?:/|$)"
    r"|/api/2\.0/(?:workspace|fs|preview/scim)/"
)
REGISTRY = re.compile(r"/mlflow/(?:registered-models|model-versions)/(.+)$")
SOURCES = ("dbfs:", "runs:")  # of a model version; others are copied there by the client first (B8)


class Registry(StrEnum):
    """How the workspace registry is (B8)."""

    ANY = "any"  # as a plain server has it
    WORKSPACE = "workspace"  # no aliases, and only sources on Databricks
    OFF = "off"  # as in workspaces of new accounts


# What a token that is not good, or not any more, is answered by: the service has said it in all of these ways (issues
# databrickslabs/splunk-integration#55, databricks-vscode#583, mlflow#6734).
BAD_TOKEN: dict[int, tuple[str | int, str]] = {
    400: ("BAD_REQUEST", "io.jsonwebtoken.ExpiredJwtException: Token is expired"),
    401: ("UNAUTHENTICATED", "Credential was not sent or is not valid."),
    403: (403, "Invalid access token. [ReqId: 00000000-0000-0000-0000-000000000000]"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What the service holds its clients to. `rates` scales the rates of `buckets`; 0 is none at all.

    `bad_token` is the status by which a token is refused, one of `BAD_TOKEN`.
    """

    has_own_paths: bool = False
    has_limits: bool = False
    rates: float = 0.0
    tells: Tells = Tells.NOTHING
    registry: Registry = Registry.ANY
    bad_token: int = 401


STRICT = Terms(has_own_paths=True, has_limits=True, rates=1.0, registry=Registry.WORKSPACE)


class Databricks(Plain):
    """The rules of one workspace."""

    def __init__(
        self, users: tuple[str, ...] = ("demo@example.com",), terms: Terms | None = None, tree: Tree | None = None
    ) -> None:
        self.terms = terms or Terms()
        self.tree = tree or Tree(users)
        self.buckets = Buckets(self.terms.rates, self.terms.tells) if self.terms.rates else None
        self._limits = Limits() if self.terms.has_limits else None

    def locate(self, path: str) -> str | None:
        """Have no discovery of OAuth unless `databricks_doors` serves it: the SDK asks without a token, often (B1)."""
        if self.terms.has_own_paths and not PATHS.match(path):
            return None
        return None if path.startswith(("/.well-known/", "/oidc/")) else path

    def unauthorized(self) -> Reply:
        code, message = BAD_TOKEN[self.terms.bad_token]
        return Reply(status=self.terms.bad_token, document={"error_code": code, "message": message})

    def answer(self, call: Call) -> Reply | Changed | None:
        headers = self.buckets.refusal(call.path) if self.buckets is not None else None
        if headers is not None:
            return self._said(429, "REQUEST_LIMIT_EXCEEDED", "Too many requests for this workspace.", headers)
        if call.method == "POST" and call.path == "/api/2.0/workspace/mkdirs":
            return self._refused(self.tree.make(str(call.document.get("path", "")))) or Reply(status=200, document={})
        if self._limits is not None:
            refused = self._refused(self._limits.refusal(call.path, call.document, call.query, call.size))
            if refused is not None:
                return refused
        return self._named(call) or self._about_folder(call) or self._registered(call)

    def _named(self, call: Call) -> Reply | Changed | None:
        """Check the name that an experiment is to have, and store it as the workspace does."""
        name = named_experiment(call)
        if name is None:
            return None
        refusal = self._refused(self.tree.check(name))
        if refusal is not None or plain(name) == name:
            return refusal
        field = "name" if call.path.endswith("/create") else "new_name"
        return Changed(document={**call.document, field: plain(name)})

    def _about_folder(self, call: Call) -> Reply | None:
        given = call.query.get("experiment_id") or call.document.get("experiment_id")
        if "/mlflow/experiments/" not in call.path or not self.tree.has_id(str(given)):
            return None
        message = f"Node {given} is a folder; expected an experiment or a notebook"
        return self.error(400, "INVALID_PARAMETER_VALUE", message)

    def _registered(self, call: Call) -> Reply | None:
        found = REGISTRY.search(call.path)
        if found is None or self.terms.registry is Registry.ANY:
            return None
        if self.terms.registry is Registry.OFF:
            # status and code are not known
            message = "Legacy workspace model registry is disabled. Use models in Unity Catalog."
            return self.error(403, "FEATURE_DISABLED", message)
        if found[1] == "alias":
            return self.unknown()
        source = str(call.document.get("source", ""))
        if call.path.endswith("model-versions/create") and not source.startswith(SOURCES):
            message = f"Got an invalid source '{source}': it has to be in this workspace's storage."
            return self.error(400, "INVALID_PARAMETER_VALUE", message)
        return None

    def _refused(self, refusal: Refusal | None) -> Reply | None:
        return self.error(refusal.status, refusal.code, refusal.message) if refusal is not None else None

    def _said(self, status: int, code: str, message: str, headers: Mapping[str, str]) -> Reply:
        return Reply(status=status, document={"error_code": code, "message": message}, headers=headers)
