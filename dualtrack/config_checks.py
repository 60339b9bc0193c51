"""The rules of a configuration that is well-formed: what has to hold between keys, and of the files it names.

Each rule is one small function that yields what it finds; `RULES` and `BACKEND_RULES` are the tables of them, with the
keys that each one reads. A rule whose keys already have a problem is skipped, so that one mistake is reported once and
a guess about a key that could not be read is never reported at all. Called by `config` alone. Pure, but for looking at
the secret and certificate files that the configuration names.
"""

import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from dualtrack.config_model import (
    PORTS,
    Admin,
    AzureAuth,
    Backend,
    BasicAuth,
    BearerAuth,
    Config,
    ForwardAuth,
    Kind,
    NamingRule,
    RunIds,
    Secret,
    TokenAuth,
    is_cloud_host,
    is_loopback,
    split,
    workspace_scope,
)
from dualtrack.config_text import Where, duration_text
from dualtrack.core.azure import CREDENTIALS, CredentialKind

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")  # a label of metrics, a word of the command line, a tag value
_EVERYWHERE = {"0.0.0.0", "::"}  # noqa: S104 - recognised, not bound
_DATABRICKS_RESOURCE = re.compile(
    r"/subscriptions/[^/]+/resourceGroups/[^/]+/providers/Microsoft\.Databricks/workspaces/[^/]+", re.IGNORECASE
)
_AUTHORITY = re.compile(r"(https://)?[A-Za-z0-9.-]+(:\d+)?/?")

# what `auth: {type: azure}` may tell a credential, in the order in which it is asked for
_AZURE_KEYS = ("tenant_id", "client_id", "client_secret", "certificate_path", "certificate_password")

ONE_REGISTRY = "the registry is one backend, because two registries cannot be kept in step"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A problem before its value is looked up; `where` is from the top of the file, or from the backend."""

    where: Where
    message: str
    fix: str


@dataclass(frozen=True, slots=True)
class Rule:
    reads: tuple[Where, ...]
    check: Callable[[Config], Iterator[Finding]]


@dataclass(frozen=True, slots=True)
class BackendRule:
    reads: tuple[Where, ...]
    check: Callable[[Config, str, Backend], Iterator[Finding]]


def check(config: Config, broken: Collection[Where]) -> Iterator[Finding]:
    """Yield all that is wrong. `broken` are the keys that have a problem already; their values are stand-ins."""
    for rule in RULES:
        if not _touches(rule.reads, broken):
            yield from rule.check(config)
    for name, backend in config.backends.items():
        where: Where = ("backends", name)
        inside = [path[2:] for path in broken if path[:2] == where]
        for backend_rule in BACKEND_RULES:
            if not _touches(backend_rule.reads, inside):
                for found in backend_rule.check(config, name, backend):
                    yield Finding(where=(*where, *found.where), message=found.message, fix=found.fix)


def _touches(reads: Collection[Where], broken: Collection[Where]) -> bool:
    """Say whether one of `broken` is a key that is read, lies within one, or contains one."""
    return any(path[: len(key)] == key[: len(path)] for path in broken for key in reads)


def one_of(names: Collection[str]) -> str:
    return f"name one of: {', '.join(names)}" if names else "add a backend, then name it here"


def _known_primary(config: Config) -> Iterator[Finding]:
    if config.backends and config.primary not in config.backends:
        yield Finding(where=("primary",), message="is not one of the backends", fix=one_of(config.backends))


def _known_registry(config: Config) -> Iterator[Finding]:
    if not config.backends or config.registry in config.backends:
        return
    named = [name for name in re.split(r"[\s,+;]+", config.registry) if name in config.backends]
    message = ONE_REGISTRY if len(named) > 1 else "is not one of the backends"
    yield Finding(where=("registry",), message=message, fix=one_of(config.backends))


def _some_backend(config: Config) -> Iterator[Finding]:
    if not config.backends:
        yield Finding(where=("backends",), message="is empty", fix="add at least the primary, with its url")


def _own_address(config: Config, name: str, backend: Backend) -> Iterator[Finding]:
    """Two names for one workspace would write everything twice."""
    names = list(config.backends)
    for earlier in names[: names.index(name)]:
        if backend.url and _identity(config.backends[earlier]) == _identity(backend):
            yield Finding(
                where=("url",),
                message=f"is the same address as that of {earlier}",
                fix="give each backend its own, or remove one of them",
            )


def _identity(backend: Backend) -> str:
    parts = split(backend.base_url)
    if parts is None:
        return backend.url
    # Azure resource ids are compared without case; so is the scheme: one server on http and https is still one.
    path = parts.path.lower() if backend.kind is Kind.AZUREML else parts.path
    port = "" if parts.port in (None, PORTS.get(parts.scheme)) else f":{parts.port}"
    return f"{parts.hostname}{port}{path}"


def _two_listeners(config: Config) -> Iterator[Finding]:
    listen, admin = config.listen, config.admin
    same_host = listen.host == admin.host or _EVERYWHERE & {listen.host, admin.host}
    if listen.port and listen.port == admin.port and same_host:
        yield Finding(
            where=("admin", "port"),
            message="is the port of `listen` on the same host",
            fix=f"write another one, such as {listen.port + 1 if listen.port < 65535 else 5001}",
        )


def _hosts(config: Config) -> Iterator[Finding]:
    for section, host in (("listen", config.listen.host), ("admin", config.admin.host)):
        if not host or re.search(r"[\s/\[\]@]|^[^:]*:\d*$", host):
            yield Finding(
                where=(section, "host"),
                message="is not a host name or an address alone",
                fix="write for example 127.0.0.1 or ::1, and the port under `port`",
            )


def _allowed_hosts(config: Config) -> Iterator[Finding]:
    for index, host in enumerate(config.allowed_hosts):
        if not host or re.search(r"[\s/@]", host):
            yield Finding(
                where=("allowed_hosts", index),
                message="is not a host name",
                fix="write it as clients do in the address, without http:// and path",
            )


def _guarded_listener(config: Config) -> Iterator[Finding]:
    if not is_loopback(config.listen.host) and config.auth is None and not config.insecure:
        yield Finding(
            where=("listen", "host"),
            message="is reachable from other machines, and nobody is asked who they are",
            fix="add `auth`, or listen on 127.0.0.1, or write `insecure: true` if something else guards it",
        )


def _guarded_admin(config: Config) -> Iterator[Finding]:
    admin = config.admin
    if not is_loopback(admin.host) and admin.token is None and admin.token_file is None:
        yield Finding(
            where=("admin", "host"),
            message="is reachable from other machines, and there is no token",
            fix="add `token` or `token_file` under admin, or write 127.0.0.1",
        )


def _retry_order(config: Config) -> Iterator[Finding]:
    delivery = config.delivery
    if delivery.retry_min > delivery.retry_max:
        yield Finding(
            where=("delivery", "retry_min"),
            message=f"is longer than retry_max, {duration_text(delivery.retry_max)}",
            fix="make retry_min the shorter one",
        )


def _pause_order(config: Config) -> Iterator[Finding]:
    breaker = config.breaker
    if breaker.pause_min > breaker.pause_max:
        yield Finding(
            where=("breaker", "pause_min"),
            message=f"is longer than pause_max, {duration_text(breaker.pause_max)}",
            fix="make pause_min the shorter one",
        )


def _admin_secret(config: Config) -> Iterator[Finding]:
    admin: Admin = config.admin
    yield from _secret(("admin",), "token", admin.token, admin.token_file, required=False)


def _listener_secret(config: Config) -> Iterator[Finding]:
    if config.auth is not None:
        yield from _signed(("auth",), config.auth)


def _backend_name(_config: Config, name: str, _backend: Backend) -> Iterator[Finding]:
    if _NAME.fullmatch(name) is None:
        yield Finding(
            where=(),
            message="has a name that is not one short word",
            fix="use letters, digits, `-` and `_`, at most 63 of them",
        )


def _backend_url(_config: Config, _name: str, backend: Backend) -> Iterator[Finding]:
    found = next(_url_trouble(backend), None)
    if found is not None:
        yield Finding(where=("url",), message=found[0], fix=found[1])


def _url_trouble(backend: Backend) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with an address, the worst first: what follows may be a consequence."""
    parts = split(backend.url)
    if parts is None:
        yield "is not a URL", "write https://HOST or https://HOST:PORT/PATH"
        return
    if parts.username is not None or parts.password is not None:
        yield "has credentials in it", "take them out, and put them under `auth` as ${NAME} or a file"
    host = parts.hostname or ""
    if "://" not in backend.url and not (backend.kind is Kind.DATABRICKS and is_cloud_host(host)):
        yield "has no scheme", "put https:// or http:// in front"
    if parts.scheme not in ("http", "https", "azureml", "databricks"):
        yield "is not an HTTP address", "dualtrack speaks MLflow's REST: start `mlflow server` and give its address"
    # what a browser shows of a Databricks workspace (`/?o=123#mlflow`) names the workspace all the same
    if (parts.query or parts.fragment) and backend.kind is not Kind.DATABRICKS:
        yield "has a query", "end the address at its path"
    yield from _kind_trouble(backend, parts.scheme, host, parts.path)


def _kind_trouble(backend: Backend, scheme: str, host: str, path: str) -> Iterator[tuple[str, str]]:
    if scheme in ("azureml", "databricks") and backend.kind != scheme:
        yield f"is an address of {scheme}, but kind is {backend.kind}", "remove `kind`, or write the https:// address"
    if scheme == "databricks" and "." not in host:
        yield (
            "names a profile, not an address",
            "write the workspace's https:// address, and the profile as `auth: {type: databricks, profile: NAME}`",
        )
    is_azure = scheme == "azureml" or (backend.kind is Kind.AZUREML and is_cloud_host(host))
    if is_azure and not workspace_scope(path):
        yield (
            "names no Azure ML workspace",
            "copy what `az ml workspace show --query mlflow_tracking_uri` prints: …/subscriptions/…/workspaces/NAME",
        )


def _not_ourselves(config: Config, _name: str, backend: Backend) -> Iterator[Finding]:
    """A proxy whose backend is itself passes a request on for ever."""
    parts = split(backend.base_url)
    if parts is None or not config.listen.port:
        return
    port = parts.port or PORTS.get(parts.scheme)
    host = parts.hostname or ""
    is_here = host == config.listen.host or (
        is_loopback(host) and (is_loopback(config.listen.host) or config.listen.host in _EVERYWHERE)
    )
    if port == config.listen.port and is_here:
        yield Finding(
            where=("url",),
            message="is where dualtrack itself listens",
            fix="change the port under `listen`, or give the address of the MLflow server",
        )


def _web_url(_config: Config, _name: str, backend: Backend) -> Iterator[Finding]:
    if backend.web_url is None:
        return
    parts = split(backend.web_url)
    has_scheme = backend.web_url.startswith(("http://", "https://"))
    if parts is None or not has_scheme or parts.username is not None:
        yield Finding(
            where=("web_url",),
            message="is not an address that a browser opens",
            fix="write https://HOST/PATH, without credentials",
        )


def _forward_to_primary_only(config: Config, name: str, backend: Backend) -> Iterator[Finding]:
    if isinstance(backend.auth, ForwardAuth) and name != config.primary:
        yield Finding(
            where=("auth", "type"),
            message="works on the primary alone: no client is there when a secondary is written to",
            fix="write token, basic, azure, databricks or none",
        )


def _links(config: Config) -> Iterator[Finding]:
    primary = config.backends.get(config.primary)
    if config.links == "both" and primary is not None and isinstance(primary.auth, ForwardAuth):
        yield Finding(
            where=("links",),
            message="wants a tag on the primary, which only clients can sign in to (auth: forward)",
            fix="write secondary or none, or give the primary a credential of dualtrack's own",
        )


def _backend_secret(_config: Config, _name: str, backend: Backend) -> Iterator[Finding]:
    if isinstance(backend.auth, TokenAuth | BasicAuth):
        yield from _signed(("auth",), backend.auth)


def _azure(_config: Config, _name: str, backend: Backend) -> Iterator[Finding]:
    auth = backend.auth
    if not isinstance(auth, AzureAuth):
        return
    kind = CREDENTIALS.get(auth.credential)
    if kind is None:
        yield Finding(
            where=("auth", "credential"),
            message="is not a credential that can be named here",
            fix=f"write one of: {', '.join(CREDENTIALS)}",
        )
    else:
        yield from _credential_keys(auth, kind)
    if auth.authority is not None and _AUTHORITY.fullmatch(auth.authority) is None:
        yield Finding(
            where=("auth", "authority"),
            message="is not the host of an authority",
            fix="write for example login.microsoftonline.us, or leave it out: it follows from the url's cloud",
        )
    yield from _membership(auth, backend)


def _credential_keys(auth: AzureAuth, kind: CredentialKind) -> Iterator[Finding]:
    where: Where = ("auth",)
    given = {key for key in _AZURE_KEYS if getattr(auth, key) is not None or getattr(auth, f"{key}_file", None)}
    for key in _AZURE_KEYS:
        if key in given and key not in kind.keys:
            users = ", ".join(dict.fromkeys(each.class_name for each in CREDENTIALS.values() if key in each.keys))
            yield Finding(
                where=(*where, key if getattr(auth, key) is not None else f"{key}_file"),
                message=f"is not used by {kind.class_name}",
                fix=f"remove it, or name a `credential` that takes it: {users}",
            )
        elif key in kind.needs and key not in given:
            yield Finding(where=where, message=f"has no {key}, which {kind.class_name} needs", fix=f"add `{key}`")
    yield from _secret(where, "client_secret", auth.client_secret, auth.client_secret_file, required=False)
    yield from _secret(
        where, "certificate_password", auth.certificate_password, auth.certificate_password_file, required=False
    )
    if auth.certificate_path is not None and not _is_readable(auth.certificate_path):
        yield Finding(
            where=(*where, "certificate_path"),
            message="cannot be read",
            fix="name a PEM or PKCS12 file that this user can read",
        )


def _membership(auth: AzureAuth, backend: Backend) -> Iterator[Finding]:
    resource = auth.workspace_resource_id
    if resource is not None and backend.kind is not Kind.DATABRICKS:
        yield Finding(
            where=("auth", "workspace_resource_id"),
            message=f"is for Databricks, and this backend is {backend.kind}",
            fix="remove it",
        )
    elif resource is not None and _DATABRICKS_RESOURCE.fullmatch(resource) is None:
        yield Finding(
            where=("auth", "workspace_resource_id"),
            message="is not the resource id of a Databricks workspace",
            fix="copy it from the portal: /subscriptions/…/providers/Microsoft.Databricks/workspaces/NAME",
        )


def _is_readable(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return bool(file.read(1))
    except (OSError, ValueError):
        return False


def _template(_config: Config, _name: str, backend: Backend) -> Iterator[Finding]:
    names = backend.experiment_names
    where: Where = ("experiment_names", "template")
    fix = "write for example /Shared/mirror/{name}"
    if names.rule is NamingRule.TEMPLATE and names.template is None:
        yield Finding(where=where, message="is missing: the rule is `template`", fix=fix)
    elif names.template is not None and "{name}" not in names.template:
        yield Finding(where=where, message="has no {name}, so all experiments would be one", fix=fix)
    elif names.template is not None and names.rule is not NamingRule.TEMPLATE:
        yield Finding(where=where, message=f"is not used: the rule is `{names.rule}`", fix="write `rule: template`")


def _run_ids(config: Config, name: str, backend: Backend) -> Iterator[Finding]:
    if backend.run_ids is not RunIds.SAME:
        return
    if backend.kind is not Kind.AZUREML:
        message = f"`same` is for Azure ML, and this backend is {backend.kind}"
        yield Finding(where=("run_ids",), message=message, fix="remove it")
    elif name == config.primary:
        yield Finding(where=("run_ids",), message="is for secondaries: the primary gives the ids", fix="remove it")


def _ca_file(_config: Config, _name: str, backend: Backend) -> Iterator[Finding]:
    if backend.ca_file is not None:
        trouble, _ = _peek(backend.ca_file)
        if trouble:
            yield Finding(where=("ca_file",), message=trouble, fix="give a readable PEM file, or remove the key")


def _signed(where: Where, auth: BearerAuth | TokenAuth | BasicAuth) -> Iterator[Finding]:
    if isinstance(auth, BasicAuth):
        yield from _secret(where, "password", auth.password, auth.password_file, required=True)
        if not auth.username or ":" in auth.username:
            yield Finding(
                where=(*where, "username"),
                message="is empty or has a colon, which basic auth cannot send",
                fix="write the name alone",
            )
    else:
        yield from _secret(where, "token", auth.token, auth.token_file, required=True)


def _secret(where: Where, key: str, secret: Secret | None, file: Path | None, *, required: bool) -> Iterator[Finding]:
    """One secret from exactly one place, and something in it that fits into a header."""
    file_key = f"{key}_file"
    if secret is not None and file is not None:
        yield Finding(
            where=(*where, key), message=f"is given beside {file_key}", fix=f"keep one of {key} and {file_key}"
        )
    elif secret is not None:
        yield from _content((*where, key), secret.get_secret_value(), "set the variable to the secret")
    elif file is not None:
        trouble, text = _peek(file)
        fix = "write the secret there, readable for this user, or correct the path"
        if trouble:
            yield Finding(where=(*where, file_key), message=trouble, fix=fix)
        else:
            yield from _content((*where, file_key), text.strip(), fix)
    elif required:
        yield Finding(
            where=where, message=f"has no {key}", fix=f"add `{key}: ${{NAME}}` or `{file_key}: /run/secrets/…`"
        )


def _content(where: Where, text: str, fix: str) -> Iterator[Finding]:
    if not text:
        yield Finding(where=where, message="is empty", fix=fix)
    elif not text.isprintable():
        yield Finding(where=where, message="holds more than one line, or control characters", fix=fix)


def _peek(path: Path) -> tuple[str, str]:
    """Answer what is wrong with a file, and its text."""
    try:
        return "", path.read_text(encoding="utf-8")
    except OSError as error:
        return f"cannot be read: {error.strerror}", ""
    except ValueError:  # not UTF-8, or a path with a null byte
        return "cannot be read: it is not text", ""


RULES: tuple[Rule, ...] = (
    Rule((("primary",),), _known_primary),
    Rule((("registry",),), _known_registry),
    Rule((("backends",),), _some_backend),
    Rule((("links",),), _links),
    Rule((("listen",), ("admin",)), _two_listeners),
    Rule((("listen", "host"), ("admin", "host")), _hosts),
    Rule((("allowed_hosts",),), _allowed_hosts),
    Rule((("listen", "host"), ("auth",), ("insecure",)), _guarded_listener),
    Rule((("admin",),), _guarded_admin),
    Rule((("delivery", "retry_min"), ("delivery", "retry_max")), _retry_order),
    Rule((("breaker", "pause_min"), ("breaker", "pause_max")), _pause_order),
    Rule((("admin", "token"), ("admin", "token_file")), _admin_secret),
    Rule((("auth",),), _listener_secret),
)

BACKEND_RULES: tuple[BackendRule, ...] = (
    BackendRule((), _backend_name),
    BackendRule((("url",), ("kind",)), _backend_url),
    BackendRule((("url",), ("kind",)), _not_ourselves),
    BackendRule((("url",), ("kind",)), _own_address),
    BackendRule((("web_url",),), _web_url),
    BackendRule((("auth", "type"),), _forward_to_primary_only),
    BackendRule((("auth",),), _backend_secret),
    BackendRule((("auth",), ("kind",), ("url",)), _azure),
    BackendRule((("experiment_names",),), _template),
    BackendRule((("ca_file",),), _ca_file),
    BackendRule((("run_ids",), ("kind",)), _run_ids),
)
