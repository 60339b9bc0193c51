"""The configuration as frozen values: every key, its type, its default and why that is the default.

Holds no rule that looks at two keys (`config_checks` does) and reads no file but a secret's. Imported through
`dualtrack.config`. Models hide their input in errors, because an input may be a secret.
"""

import ipaddress
import re
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, NoReturn, TypeAlias
from urllib.parse import SplitResult, urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationInfo,
    model_validator,
)
from pydantic_core import PydanticCustomError

from dualtrack.config_text import parse_duration, parse_size, size_text
from dualtrack.errors import ConfigError, Problem

Secret = SecretStr

MIB = 1024**2
GIB = 1024**3
CUSTOM = "dualtrack"  # the type of our own pydantic errors, which carry their fix


def refuse(message: str, fix: str) -> NoReturn:
    """Raise what pydantic collects; `config` makes a `Problem` of it."""
    raise PydanticCustomError(CUSTOM, "{message}", {"message": message, "fix": fix})


def _duration(given: object) -> object:
    if isinstance(given, timedelta):
        return given
    fix = "write a number with a unit: 250ms, 5s, 2m, 1h or 1d"
    if not isinstance(given, str):
        refuse("is not a duration", fix)
    try:
        return parse_duration(given)
    except ValueError as error:
        refuse(str(error), fix)


def _positive(duration: timedelta) -> timedelta:
    if duration <= timedelta():
        refuse("has to be longer than nothing", "write for example 10s")
    return duration


def _never(given: object) -> object:
    return None if given == "never" else given


def _size(given: object) -> object:
    if isinstance(given, int) and not isinstance(given, bool):
        return given
    fix = "write bytes, or a number with a unit: 256KiB, 64MiB, 10GB"
    if not isinstance(given, str):
        refuse("is not a size", fix)
    try:
        return parse_size(given)
    except ValueError as error:
        refuse(str(error), fix)


def _at_least(minimum: int) -> AfterValidator:
    def check(size: int) -> int:
        if size < minimum:
            refuse(f"is less than {size_text(minimum)}", f"write {size_text(minimum)} or more")
        return size

    return AfterValidator(check)


def _base_dir(info: ValidationInfo) -> Path:
    context = info.context
    return context["base_dir"] if isinstance(context, dict) else Path()


def _anchored(path: Path, info: ValidationInfo) -> Path:
    return _base_dir(info) / path


Duration = Annotated[timedelta, BeforeValidator(_duration)]
Wait = Annotated[timedelta, BeforeValidator(_duration), AfterValidator(_positive)]
Forever = Annotated[Wait | None, BeforeValidator(_never)]
AnyPath = Annotated[Path, AfterValidator(_anchored)]
Port = Annotated[int, Field(ge=0, le=65535)]  # 0: the system picks a free one, which tests and the demo use
Count = Annotated[int, Field(ge=1)]


class Model(BaseModel):
    """A section. A key without a value means its default, so that a section can be emptied by comments."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, validate_default=True)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, given: object) -> object:
        if given is None:
            return {}
        if not isinstance(given, dict):
            return given
        return {key: value for key, value in given.items() if value is not None or key not in cls.model_fields}


def resolve(secret: Secret | None, file: Path | None) -> Secret | None:
    """Answer a secret from wherever it is. A file is read now; raise `ConfigError` when it went away since `load`."""
    if file is None:
        return secret
    try:
        return Secret(file.read_text(encoding="utf-8").strip())
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not text"
        problem = Problem(
            path=str(file),
            value="",
            message=f"the secret cannot be read: {reason}",
            fix="make the file readable for this user",
        )
        raise ConfigError([problem]) from error


class Listen(Model):
    """Where MLflow clients connect."""

    host: str = "127.0.0.1"  # loopback: nobody else's network reaches it unasked
    port: Port = 5000  # what `mlflow server` uses, so clients and documents fit


class Admin(Model):
    """Where probes, metrics and the command line connect."""

    host: str = "127.0.0.1"
    port: Port = 5001  # beside the main one
    token: Secret | None = None  # without one, whatever changes something is switched off
    token_file: AnyPath | None = None

    @property
    def admin_token(self) -> Secret | None:
        return resolve(self.token, self.token_file)


class BearerAuth(Model):
    """What clients send with `MLFLOW_TRACKING_TOKEN`."""

    type: Literal["bearer"] = "bearer"
    token: Secret | None = None
    token_file: AnyPath | None = None

    @property
    def secret(self) -> Secret | None:
        return resolve(self.token, self.token_file)


class BasicAuth(Model):
    """A user and a password: of clients (`MLFLOW_TRACKING_USERNAME`), or of dualtrack on a backend."""

    type: Literal["basic"] = "basic"
    username: str
    password: Secret | None = None
    password_file: AnyPath | None = None

    @property
    def secret(self) -> Secret | None:
        return resolve(self.password, self.password_file)


class TokenAuth(Model):
    """A bearer token that dualtrack sends. A file may be renewed while dualtrack runs."""

    type: Literal["token"] = "token"
    token: Secret | None = None
    token_file: AnyPath | None = None

    @property
    def secret(self) -> Secret | None:
        return resolve(self.token, self.token_file)


class NoAuth(Model):
    type: Literal["none"] = "none"


class ForwardAuth(Model):
    """The client's own Authorization header goes to the primary. Nobody is there to send one to a secondary."""

    type: Literal["forward"] = "forward"


class AzureAuth(Model):
    """Entra ID through azure-identity. Which keys a credential needs and takes: `core.azure.CREDENTIALS`."""

    type: Literal["azure"] = "azure"
    credential: str = "default"  # or a class of azure-identity, such as ManagedIdentityCredential
    tenant_id: str | None = None
    client_id: str | None = None
    client_secret: Secret | None = None
    client_secret_file: AnyPath | None = None
    certificate_path: AnyPath | None = None
    certificate_password: Secret | None = None
    certificate_password_file: AnyPath | None = None
    scope: str | None = None  # by kind and cloud: resource manager for Azure ML, the Databricks application there
    authority: str | None = None  # by the host's cloud; in the public one azure-identity's own: AZURE_AUTHORITY_HOST
    # of a Databricks workspace, in Azure: lets in a principal that is no member of it, but has a role on it
    workspace_resource_id: str | None = None

    @property
    def given(self) -> dict[str, str]:
        """Answer what the credential is told, by key; secrets in the clear."""
        secrets = {
            "client_secret": resolve(self.client_secret, self.client_secret_file),
            "certificate_password": resolve(self.certificate_password, self.certificate_password_file),
        }
        plain = {"tenant_id": self.tenant_id, "client_id": self.client_id, "certificate_path": self.certificate_path}
        return {key: str(value) for key, value in plain.items() if value is not None} | {
            key: secret.get_secret_value() for key, secret in secrets.items() if secret is not None
        }


class DatabricksAuth(Model):
    """The databricks-sdk's unified sign-in: token, OAuth, Azure CLI, profile."""

    type: Literal["databricks"] = "databricks"
    profile: str | None = None  # the SDK's own: DATABRICKS_* variables, else DEFAULT


ListenerAuth: TypeAlias = BearerAuth | BasicAuth
BackendAuth: TypeAlias = TokenAuth | BasicAuth | NoAuth | ForwardAuth | AzureAuth | DatabricksAuth


class NamingRule(StrEnum):
    KEEP = "keep"
    LAST_SEGMENT = "last-segment"
    REPLACE = "replace"
    TEMPLATE = "template"


class ExperimentNames(Model):
    """What an experiment of the primary is called on this backend."""

    rule: NamingRule = NamingRule.KEEP  # Azure ML takes no `/` in a name, so there it is last-segment
    on_collision: Literal["qualify", "park"] = "qualify"  # both experiments arrive without anybody being asked
    template: str | None = None
    default_experiment: str | None = None  # None: as the rule makes it from the primary's name


class OnLimit(StrEnum):
    """What becomes of a name or value that a backend does not take whole, or of one item too many."""

    SHORTEN = "shorten"  # its beginning and a hash; what cannot be shortened is left out
    OVERFLOW = "overflow"  # the same, and the whole of it in `dualtrack/overflow.json` of the run
    SKIP = "skip"  # left out


class RunIds(StrEnum):
    """Which id a mirrored run has on an Azure ML workspace."""

    SERVER = "server"  # its own
    SAME = "same"  # the primary's, through the run history API, which is not documented as stable


class Kind(StrEnum):
    MLFLOW = "mlflow"
    DATABRICKS = "databricks"
    AZUREML = "azureml"


# Hosts by cloud: facts A1 (azure-ai-ml's cloud table) and B1 ("Per-workspace URLs", databricks-sdk).
_HOSTS = {
    ".api.azureml.ms": Kind.AZUREML,
    ".experiments.azureml.net": Kind.AZUREML,  # of old tracking URIs
    ".api.ml.azure.cn": Kind.AZUREML,
    ".api.ml.azure.us": Kind.AZUREML,
    ".azuredatabricks.net": Kind.DATABRICKS,
    ".databricks.azure.us": Kind.DATABRICKS,
    ".databricks.azure.cn": Kind.DATABRICKS,
    ".cloud.databricks.com": Kind.DATABRICKS,
    ".cloud.databricks.us": Kind.DATABRICKS,
    ".gcp.databricks.com": Kind.DATABRICKS,
}
PORTS = {"http": 80, "https": 443}
_SCHEMES = {"azureml": Kind.AZUREML, "databricks": Kind.DATABRICKS}
_AUTH = {Kind.AZUREML: "azure", Kind.DATABRICKS: "databricks", Kind.MLFLOW: "none"}
_WORKSPACE = re.compile(
    r"/subscriptions/[^/]+/resourceGroups/[^/]+/providers/Microsoft\.MachineLearningServices/workspaces/[^/]+",
    re.IGNORECASE,
)


def split(url: str) -> SplitResult | None:
    """Take a URL apart; None when it is none. One without a scheme is taken as `https`: see `config_checks`."""
    try:
        parts = urlsplit(url if "://" in url else f"https://{url}")
        _ = parts.port  # raises for a port that is not a number
    except ValueError:
        return None
    return parts if parts.hostname else None


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def workspace_scope(path: str) -> str:
    """Find the workspace in the path of an Azure ML address; empty when it names none."""
    found = _WORKSPACE.search(path)
    return found.group() if found else ""


def infer_kind(url: str) -> Kind:
    parts = split(url)
    if parts is None:
        return Kind.MLFLOW
    host = parts.hostname or ""  # in lower case
    by_host = (kind for suffix, kind in _HOSTS.items() if host.endswith(suffix))
    return _SCHEMES.get(parts.scheme) or next(by_host, Kind.MLFLOW)


def is_cloud_host(host: str) -> bool:
    return host.endswith(tuple(_HOSTS))


class Backend(Model):
    """One MLflow server or workspace. `kind`, `auth` and the naming rule follow from the URL when absent."""

    url: str
    kind: Kind = Kind.MLFLOW
    auth: BackendAuth = Field(default=NoAuth(), discriminator="type")
    experiment_names: ExperimentNames = ExperimentNames()
    connect_timeout: Wait = timedelta(seconds=10)  # a dead host is noticed before a client gives up (120 s)
    read_timeout: Wait = timedelta(seconds=120)  # MLflow's own; large searches on a cloud take this long
    ca_file: AnyPath | None = None  # None: the system's authorities
    web_url: str | None = None  # None: links are made from `url`
    # local artifact roots are on this machine's disk too; None: if the URL is loopback, where nothing else makes sense
    local_artifacts: bool | None = None
    on_limit: OnLimit = OnLimit.OVERFLOW  # nothing is lost; always recorded as a loss of the run as well
    run_ids: RunIds = RunIds.SERVER  # `same` uses an API that is not documented as stable
    # hosts besides its own that an artifact root may name (http, ftp, hdfs); clients choose roots, so none by default
    artifact_hosts: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _by_kind(cls, given: object) -> object:
        """Fill in what depends on the kind."""
        if not isinstance(given, dict) or not isinstance(given.get("url"), str):
            return given
        kind = given.get("kind") or infer_kind(given["url"])
        filled = {**given, "kind": kind}
        if filled.get("auth") is None:
            filled["auth"] = {"type": next((way for each, way in _AUTH.items() if each == kind), "none")}
        names = filled.get("experiment_names") or {}
        if kind == Kind.AZUREML and isinstance(names, dict) and names.get("rule") is None:
            filled["experiment_names"] = {**names, "rule": NamingRule.LAST_SEGMENT}
        return filled

    @property
    def has_local_artifacts(self) -> bool:
        """Answer whether a local path that the server names as an artifact root is to be read and written here."""
        if self.local_artifacts is not None:
            return self.local_artifacts
        parts = split(self.base_url)
        return parts is not None and is_loopback(parts.hostname or "")

    @property
    def host(self) -> str:
        parts = split(self.url)
        return (parts.hostname or "") if parts is not None else ""

    @property
    def base_url(self) -> str:
        """Answer what MLflow's REST paths are appended to: one form, however the address was written."""
        parts = split(self.url)
        if parts is None:
            return self.url
        scheme = "https" if parts.scheme in _SCHEMES else parts.scheme
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if parts.port in (None, PORTS.get(scheme)) else f":{parts.port}"
        return f"{scheme}://{host}{port}{self._base_path(parts.path)}".rstrip("/")

    def _base_path(self, path: str) -> str:
        if self.kind is Kind.DATABRICKS and is_cloud_host(self.host):
            return ""  # the path of a browser's address is that of a page
        scope = workspace_scope(path) if self.kind is Kind.AZUREML else ""
        # facts A1: the host and the workspace count, the version is always v2.0 for mlflow 2 and 3
        return f"/mlflow/v2.0{scope}" if scope else path


_SQLITE = "sqlite:"
_DEFAULT_STORE = "sqlite:///./dualtrack.db"  # beside whoever starts it: needs no rights and no folder


def store_path(url: str) -> Path:
    """Answer the file of a SQLite URL. Raise `ValueError` when it names none.

    `sqlite:///var/lib/x.db` is the absolute path (as in the documents; `sqlite:////var/lib/x.db` is the same);
    `sqlite:///./x.db` and `sqlite:x.db` are relative. SQLAlchemy reads the first as relative, which put journals
    where nobody looked for them; a bare `sqlite:///x.db` is refused, since it is meant that way.
    """
    if not url.startswith(_SQLITE):
        raise ValueError("is not a SQLite address")
    rest = url.removeprefix(_SQLITE)
    if rest.startswith("//") and not rest.startswith("///"):
        raise ValueError("names a host, and SQLite is a file")
    name = rest.removeprefix("///") if rest.startswith("///") else rest
    if not name.strip("/.") or name.endswith("/") or ":memory:" in name or "?" in name:
        raise ValueError("names no file")
    if rest.startswith("///") and not name.startswith(("./", "../")):
        return Path("/" + name.lstrip("/"))
    return Path(name)


def _anchored_store(url: str, info: ValidationInfo) -> str:
    fix = "write sqlite:///var/lib/dualtrack/journal.db for an absolute path, sqlite:///./journal.db for a relative one"
    if url.startswith(("postgresql:", "postgres:")):
        refuse("names PostgreSQL, which comes with a later release", fix)
    try:
        path = store_path(url)
    except ValueError as error:
        refuse(str(error), fix)
    if (
        url.startswith("sqlite:///")
        and not url.startswith("sqlite:////")
        and len(path.parts) == 2
        and path.is_absolute()
    ):
        refuse(f"is the file {path} in the root folder", f"write sqlite:///.{path} for one in the working directory")
    path = _base_dir(info) / path
    return f"{_SQLITE}///{path}" if path.is_absolute() else f"{_SQLITE}{path}"  # forms that read as the same again


class Store(Model):
    """The journal."""

    url: Annotated[str, AfterValidator(_anchored_store)] = _DEFAULT_STORE
    max_size: Annotated[int, BeforeValidator(_size), _at_least(MIB)] = 10 * GIB  # days of backlog, and fits a laptop
    on_full: Literal["refuse", "primary-only"] = "refuse"  # a client that is told can wait; a gap cannot be undone

    @property
    def path(self) -> Path:
        return store_path(self.url)


class Spool(Model):
    """Where uploaded files wait for the secondaries."""

    dir: AnyPath | None = None  # None: beside the journal
    max_size: Annotated[int, BeforeValidator(_size), _at_least(MIB)] = 20 * GIB
    # direct: acknowledge without a copy, and fetch the file from the primary later: a dead mirror holds up nobody
    on_full: Literal["refuse", "direct"] = "direct"


class Limits(Model):
    """What one client may take."""

    # A mirrored write is held in memory: the journal keeps it whole. MLflow's own batches stay under 1 MB.
    max_body: Annotated[int, BeforeValidator(_size), _at_least(MIB)] = 32 * MIB
    max_headers: Annotated[int, BeforeValidator(_size), _at_least(4096)] = 32 * 1024  # Entra tokens are some KiB
    body_timeout: Wait = timedelta(seconds=60)  # per silence: a half-sent request gives its connection back
    idle_timeout: Wait = timedelta(seconds=75)  # longer than the 60 s of common load balancers
    max_connections: Count = 1000  # under the usual 1024 open files


class Delivery(Model):
    """How the secondaries are written to."""

    workers: Count = 8  # runs in parallel per backend; below every known request rate
    linger: Duration = timedelta(milliseconds=250)  # what arrives together leaves in one batch
    attempt_timeout: Wait = timedelta(seconds=60)
    retry_min: Wait = timedelta(seconds=1)
    retry_max: Wait = timedelta(minutes=5)  # so that a repaired backend is noticed within minutes
    read_ahead: Annotated[int, BeforeValidator(_size), _at_least(64 * 1024)] = 4 * MIB  # per worker, in memory
    give_up: Forever = None  # never: an outage of a week loses nothing


class Verify(Model):
    """When the proxy compares by itself, one entity after the other, and what it does about a difference."""

    on_end: bool = True  # when a run's end has reached a secondary
    on_start: bool = True  # what was on its way when the process began, once it has arrived
    on_parked: bool = True  # a write was parked: what else differs there
    settle: Duration = timedelta(seconds=10)  # after it: late writes of a run's end come within it
    sweep: Forever = timedelta(hours=24)  # all that is mirrored, newest first; then again after this long
    pause: Wait = timedelta(seconds=1)  # between two: each reads a run whole, and deliveries need the rates
    repair: bool = True  # what still differs at a second look, unless something of it is parked


class Breaker(Model):
    """When a backend that fails is left alone for a while."""

    failures: Count = 5  # in a row
    pause_min: Wait = timedelta(seconds=2)
    pause_max: Wait = timedelta(seconds=60)


class Shutdown(Model):
    """How long a stop may take."""

    grace: Duration = timedelta(seconds=20)  # requests; Kubernetes kills after 30 s
    deliveries: Duration = timedelta(seconds=5)  # what is not delivered stays in the journal


class Log(Model):
    format: Literal["console", "json", "auto"] = "auto"  # console on a terminal, JSON elsewhere
    level: Literal["debug", "info", "warning", "error"] = "info"


class Config(Model):
    """All of it. `config.load` makes one that also passed the rules."""

    listen: Listen = Listen()
    admin: Admin = Admin()
    primary: str
    registry: str
    backends: dict[str, Backend]
    store: Store = Store()
    spool: Spool = Spool()
    links: Literal["none", "secondary", "both"] = "none"  # a tag more on each run, and Azure ML takes 50
    artifacts: Literal["proxy", "direct"] = "proxy"  # works for clients that cannot reach the backends' storage
    auth: ListenerAuth | None = Field(default=None, discriminator="type")
    insecure: bool = False  # true: listen beyond loopback without auth
    allowed_hosts: tuple[str, ...] = ()  # Host headers besides the loopback names
    limits: Limits = Limits()
    delivery: Delivery = Delivery()
    verify: Verify = Verify()
    breaker: Breaker = Breaker()
    registry_wait: Wait = timedelta(seconds=30)  # for a run's queued writes, within a client's own 120 s
    shutdown: Shutdown = Shutdown()
    log: Log = Log()

    @property
    def primary_backend(self) -> Backend:
        return self.backends[self.primary]

    @property
    def spool_dir(self) -> Path:
        """Answer where uploaded files wait: beside the journal, unless said otherwise."""
        return self.spool.dir or self.store.path.with_name(self.store.path.stem + "-spool")

    @property
    def secondaries(self) -> dict[str, Backend]:
        """Answer every backend but the primary, in the order of the file."""
        return {name: backend for name, backend in self.backends.items() if name != self.primary}
