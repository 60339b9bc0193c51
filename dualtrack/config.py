"""One YAML file, typed, checked and explained.

Decides whether a configuration can be used, and says everything that is wrong with it at once, each thing with its
path, its value and its fix. It never reads the process's environment (variables come in), never reaches a network,
and never shows a secret. Only `app` and `cli` import it. The work is in three parts beside this one:

    text ──config_text──▶ plain values ──config_model──▶ frozen models ──config_checks──▶ rules between keys
                │ YAML, ${NAME}            │ types, limits                      │ names, addresses, secrets
                └──────────────────────────┴──────────── problems ──────────────┘

A section that cannot be read does not hide what is wrong elsewhere: values with a problem are taken out, and the
rules that do not need them still run. The alternative, rules as model validators, reports one layer at a time.

Relative paths, in the file and in `store.url`, are relative to the working directory, not to the file: so does every
other path on the command line.
"""

import copy
import difflib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol, get_args

from pydantic import BaseModel, ValidationError

from dualtrack.config_checks import ONE_REGISTRY, check, one_of
from dualtrack.config_model import (
    CUSTOM,
    Admin,
    AzureAuth,
    Backend,
    BackendAuth,
    BasicAuth,
    BearerAuth,
    Breaker,
    Config,
    DatabricksAuth,
    Delivery,
    ExperimentNames,
    ForwardAuth,
    Kind,
    Limits,
    Listen,
    ListenerAuth,
    Log,
    NamingRule,
    NoAuth,
    OnLimit,
    RunIds,
    Secret,
    Shutdown,
    Spool,
    Store,
    TokenAuth,
    infer_kind,
    is_loopback,
)
from dualtrack.config_text import (
    Document,
    Where,
    dotted,
    duration_text,
    is_reference,
    parse_duration,
    parse_size,
    read,
    size_text,
)
from dualtrack.errors import ConfigError, Problem

__all__ = [
    "load",
    "parse",
    "from_urls",
    "explain",
    "Config",
    "Listen",
    "Admin",
    "ListenerAuth",
    "BackendAuth",
    "BearerAuth",
    "BasicAuth",
    "TokenAuth",
    "NoAuth",
    "OnLimit",
    "RunIds",
    "ForwardAuth",
    "AzureAuth",
    "DatabricksAuth",
    "ExperimentNames",
    "NamingRule",
    "Kind",
    "Backend",
    "Store",
    "Spool",
    "Limits",
    "Delivery",
    "Breaker",
    "Shutdown",
    "Log",
    "Secret",
    "infer_kind",
    "parse_duration",
    "duration_text",
    "parse_size",
    "size_text",
]

_SECRETS = {"token", "password", "client_secret", "certificate_password"}
_SHOWN_AUTH = {
    *("type", "username", "profile", "credential", "tenant_id", "client_id", "scope", "authority"),
    *("workspace_resource_id", "certificate_path"),
    *("token_file", "password_file", "client_secret_file", "certificate_password_file"),
}
_CREDENTIALS = re.compile(r"^([a-z][a-z0-9+.-]*://)?.*@", re.DOTALL | re.IGNORECASE)
_QUERY = re.compile(r"[?#].+", re.DOTALL)
_LONGEST = 100
_ROUNDS = 4  # taking a value out can uncover what it hid; a model is three levels deep


def load(path: Path, environ: Mapping[str, str]) -> Config:
    """Read a configuration file. Raise `ConfigError` with every problem."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        reason = f"the configuration cannot be read: {error.strerror}"
    except UnicodeDecodeError:
        reason = "the configuration is not UTF-8 text"
    else:
        return parse(text, environ, Path.cwd())
    fix = "name the file with --config FILE or $DUALTRACK_CONFIG; config/minimal.yaml is one to start from"
    raise _error([Problem(path=str(path), value="", message=reason, fix=fix)])


def parse(text: str, environ: Mapping[str, str], base_dir: Path) -> Config:
    """Read a configuration from `text`; relative paths in it start at `base_dir`. Raise `ConfigError`."""
    document = read(text, environ)
    if document.tree:
        return _settle(document, base_dir)
    raise _error(document.problems or [_problem(document, (), "is empty", "start from config/minimal.yaml")])


def from_urls(
    primary: str,
    secondary: str | None,
    registry: str | None,
    *,
    host: str | None = None,
    port: int | None = None,
    admin_port: int | None = None,
    store: str | None = None,
    base_dir: Path | None = None,
) -> Config:
    """Make the simplest configuration, as `serve --primary URL --secondary URL --registry NAME` does.

    The backends are called `primary` and `secondary`; kind and sign-in follow from each URL. Raise `ConfigError`.
    """
    urls = {"primary": primary, "secondary": secondary}
    tree: dict[str, object] = {
        "primary": "primary",
        "registry": registry,
        "backends": {name: {"url": url} for name, url in urls.items() if url is not None},
        "listen": {"host": host, "port": port},
        "admin": {"port": admin_port},
        "store": {"url": store},
    }
    return _settle(Document(tree=tree, written=dict(_scalars(tree, ()))), base_dir or Path.cwd())


def _scalars(value: object, where: Where) -> Iterator[tuple[Where, str]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _scalars(item, (*where, key))
    elif value is not None:
        yield where, str(value)


def _settle(document: Document, base_dir: Path) -> Config:
    """Make models of a document and apply the rules, or raise everything that is wrong."""
    problems: dict[str, Problem] = {}
    for problem in document.problems:
        _add(problems, problem)
    for where, written in document.written.items():
        if where[-1] in _SECRETS and written and not is_reference(written):
            _add(problems, _literal(where))
    config, broken = _model(document, base_dir, problems)
    if config is not None:
        unreadable = [where for where in _places(document.tree, ()) if dotted(where) in problems]
        for found in check(config, [*broken, *unreadable]):
            _add(problems, _problem(document, found.where, found.message, found.fix))
    if problems or config is None:
        raise _error(problems.values())
    return config


def _error(problems: Iterable[Problem]) -> ConfigError:
    """Make the error, each fix a sentence of its own."""
    return ConfigError([replace(problem, fix=problem.fix[:1].upper() + problem.fix[1:]) for problem in problems])


def _add(problems: dict[str, Problem], problem: Problem) -> None:
    """Keep the first problem of a path: what is found later about the same value follows from it."""
    problems.setdefault(problem.path, problem)


def _places(value: object, where: Where) -> Iterator[Where]:
    yield where
    items: Iterable[tuple[str | int, object]] = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, item in items:
        yield from _places(item, (*where, key))


def _literal(where: Where) -> Problem:
    return Problem(
        path=dotted(where),
        value="",
        message="is a secret written into the file",
        fix=f"write ${{NAME}} and set that variable, or put it into a file and name that under `{where[-1]}_file`",
    )


def _model(document: Document, base_dir: Path, problems: dict[str, Problem]) -> tuple[Config | None, list[Where]]:
    """Validate; on trouble note it, take the values in question out, and try again so that the rules can run."""
    tree = copy.deepcopy(document.tree)
    if tree.get("store") is None:
        tree["store"] = {}  # a default model would not learn `base_dir`
    broken: list[Where] = []
    for _ in range(_ROUNDS):
        try:
            return Config.model_validate(tree, context={"base_dir": base_dir}), broken
        except ValidationError as error:
            for details in error.errors(include_input=False, include_url=False):
                where, way = _where(details["loc"])
                broken.append(where)
                message, fix = _words(details["type"], details.get("ctx") or {}, details["msg"], where, way, tree)
                _add(problems, _problem(document, where, message, fix))
                _take_out(tree, where, is_missing=details["type"] == "missing")
    return None, broken


def _where(loc: Where) -> tuple[Where, str]:
    """Answer the path in the file, and the way of signing in that pydantic names in the middle of it."""
    parent = 0 if loc[:1] == ("auth",) else 2 if loc[:1] == ("backends",) and loc[2:3] == ("auth",) else None
    if parent is None or len(loc) == parent + 1:
        return loc, ""
    return (*loc[: parent + 1], *loc[parent + 2 :]), str(loc[parent + 1])


def _take_out(tree: dict[str, object], where: Where, *, is_missing: bool) -> None:
    place: object = tree
    for part in where[:-1]:
        place = place.get(str(part)) if isinstance(place, dict) else None
    if isinstance(place, dict) and where:
        place.pop(where[-1], None)
        if is_missing:
            place[where[-1]] = {} if where == ("backends",) else ""
    elif len(where) > 1:  # an item of a list: the list goes
        _take_out(tree, where[:-1], is_missing=False)


class _Say(Protocol):
    def __call__(self, context: Mapping[str, object]) -> tuple[str, str]: ...


_WORDS: dict[str, _Say] = {
    CUSTOM: lambda context: (str(context["message"]), str(context["fix"])),
    "missing": lambda _: ("is missing", "add it"),
    "int_type": lambda _: ("is not a whole number", "write digits only"),
    "int_parsing": lambda _: ("is not a whole number", "write digits only"),
    "int_from_float": lambda _: ("is not a whole number", "write digits only"),
    "bool_type": lambda _: ("is neither true nor false", "write true or false"),
    "bool_parsing": lambda _: ("is neither true nor false", "write true or false"),
    "string_type": lambda _: ("is not text", "write it in quotes"),
    "path_type": lambda _: ("is not a path", "write it in quotes"),
    "literal_error": lambda context: ("is not known here", f"write {context['expected']}"),
    "enum": lambda context: ("is not known here", f"write {context['expected']}"),
    "union_tag_invalid": lambda context: ("is not a way to sign in here", f"write {context['expected_tags']}"),
    "union_tag_not_found": lambda _: ("has no type", "add `type`"),
    "greater_than_equal": lambda context: (f"is less than {context['ge']}", f"write {context['ge']} or more"),
    "less_than_equal": lambda context: (f"is more than {context['le']}", f"write {context['le']} or less"),
    "model_type": lambda _: ("is not a section of keys", "write its keys below it, indented"),
    "model_attributes_type": lambda _: ("is not a section of keys", "write its keys below it, indented"),
    "dict_type": lambda _: ("is not a section of keys", "write its keys below it, indented"),
    "tuple_type": lambda _: ("is not a list", "write [one, two], or one per line after a dash"),
}


def _words(
    kind: str, context: Mapping[str, object], text: str, where: Where, way: str, tree: Mapping[str, object]
) -> tuple[str, str]:
    """Say a pydantic error plainly, with its fix."""
    if kind == "extra_forbidden":
        return "is not a key of the configuration", _nearest(str(where[-1]), _keys(where[:-1], way))
    if where in (("primary",), ("registry",)) and kind in ("missing", "string_type"):
        backends = tree.get("backends")
        message = ONE_REGISTRY if where == ("registry",) else "is missing" if kind == "missing" else "is not a name"
        return message, one_of(list(backends) if isinstance(backends, dict) else [])
    say = _WORDS.get(kind)
    return say(context) if say else (text, "correct it")


def _nearest(key: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1)
    return f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}"


def _keys(where: Where, way: str) -> list[str]:
    """Answer the keys that a section knows."""
    if not where:
        return list(Config.model_fields)
    if where[-1] == "auth":
        models: tuple[type[BaseModel], ...] = get_args(ListenerAuth if len(where) == 1 else BackendAuth)
        return [key for model in models if model.model_fields["type"].default == way for key in model.model_fields]
    owner = Backend if where[0] == "backends" else Config
    if owner is Backend and len(where) == 2:
        return list(Backend.model_fields)
    section = owner.model_fields[str(where[-1])].annotation
    return list(section.model_fields) if isinstance(section, type) and issubclass(section, BaseModel) else []


def _problem(document: Document, where: Where, message: str, fix: str) -> Problem:
    known = where if where and message != "is not a key of the configuration" else ()
    return Problem(path=dotted(where) or "the file", value=_shown(document, known), message=message, fix=fix)


def _shown(document: Document, where: Where) -> str:
    """Answer what the file says there, as written: variables unexpanded, and nothing that may be a secret."""
    written = document.written.get(where, "")
    key = str(where[-1]) if where else ""
    if key in _SECRETS or (("auth" in where[:-1]) and key not in _SHOWN_AUTH) or key == "auth":
        return written if is_reference(written) else ""
    clean = _QUERY.sub("?…", _CREDENTIALS.sub(r"\1…@", written))
    return clean if len(clean) <= _LONGEST else f"{clean[:_LONGEST]}…"


_KINDS = {Kind.MLFLOW: "MLflow", Kind.DATABRICKS: "Databricks", Kind.AZUREML: "Azure Machine Learning"}
_SIGN_IN = {
    "token": "a token",
    "basic": "a user name and password",
    "none": "no sign-in",
    "forward": "the client's own credentials",
    "azure": "Entra ID",
    "databricks": "Databricks sign-in",
}
_NAMES = {
    NamingRule.KEEP: "keep their names",
    NamingRule.LAST_SEGMENT: "are called by the last part of their name",
    NamingRule.REPLACE: "have what is not a letter, digit, - or _ replaced in their names",
    NamingRule.TEMPLATE: "are called",
}
_FILES = {
    "proxy": "pass through here to the primary, and on to the secondaries",
    "direct": "are written by clients to the primary's storage, and copied when a run ends",
}
_SPOOL_FULL = {
    "refuse": "uploads are refused with a clear 503 until there is room",
    "direct": "files are fetched from the primary later",
}
_FULL = {
    "refuse": "writes are refused with a clear 503 until there is room",
    "primary-only": "writes go to the primary alone, and an alarm says so",
}


def explain(config: Config) -> str:
    """Say in plain words what a configuration means. Shows no secret."""
    return "\n".join([*_front(config), *_sides(config), *_keeping(config), *_notes(config)])


def _front(config: Config) -> Iterator[str]:
    yield f"Clients connect to   {_address(config.listen)} (MLFLOW_TRACKING_URI)"
    if config.auth is not None:
        yield f"  they sign in with  {'a bearer token' if isinstance(config.auth, BearerAuth) else 'user and password'}"
    elif is_loopback(config.listen.host):
        yield "  they sign in with  nothing: only this machine reaches it"
    else:
        yield "  they sign in with  nothing: insecure is true"
    has_token = config.admin.token is not None or config.admin.token_file is not None
    changes = "changes need the token" if has_token else "changes are off: there is no token"
    yield f"Administration       {_address(config.admin)}, {changes}"


def _address(place: Listen | Admin) -> str:
    host = f"[{place.host}]" if ":" in place.host else place.host
    return f"http://{host}:{place.port or 'any free port'}"


def _sides(config: Config) -> Iterator[str]:
    yield f"Primary              {config.primary}: {_described(config.primary_backend)}"
    yield "  it answers every tracking call; clients see its ids"
    for name, backend in config.secondaries.items():
        names = backend.experiment_names
        template = f" {names.template}" if names.rule is NamingRule.TEMPLATE else ""
        clash = "get a suffix" if names.on_collision == "qualify" else "are parked"
        yield f"Secondary            {name}: {_described(backend)}"
        yield f"  every tracking write is repeated there; experiments {_NAMES[names.rule]}{template}, clashes {clash}"
        if backend.run_ids is RunIds.SAME:
            yield "  runs have the primary's ids there, by an API that its service does not call stable"
    if not config.secondaries:
        yield "Secondary            none: everything goes to the primary, and nothing is journaled"
    yield f"Registry calls       go to {config.registry}, and nowhere else"


def _described(backend: Backend) -> str:
    auth = backend.auth
    by = f" ({auth.credential})" if isinstance(auth, AzureAuth) and auth.credential != "default" else ""
    return f"{_KINDS[backend.kind]} at {backend.base_url}, with {_SIGN_IN[auth.type]}{by}"


def _keeping(config: Config) -> Iterator[str]:
    give_up = config.delivery.give_up
    patience = "for ever" if give_up is None else f"for {duration_text(give_up)}, then the write is parked"
    yield f"Journal              {config.store.path}, at most {size_text(config.store.max_size)}"
    yield f"  when it is full    {_FULL[config.store.on_full]}"
    yield f"Undelivered writes   are tried again {patience}"
    if config.secondaries:
        yield f"Files                {_FILES[config.artifacts]}"
        yield f"  until delivered    in {config.spool_dir}, at most {size_text(config.spool.max_size)}"
        yield f"  when it is full    {_SPOOL_FULL[config.spool.on_full]}"


def _notes(config: Config) -> Iterator[str]:
    if not is_loopback(config.listen.host) and not config.allowed_hosts:
        yield "Note                 allowed_hosts is empty: clients that use this machine's name or address are refused"
    for name, backend in config.secondaries.items():
        rule = backend.experiment_names.rule
        is_absolute = rule is NamingRule.TEMPLATE or (
            rule is NamingRule.KEEP and config.primary_backend.kind is Kind.DATABRICKS
        )
        if backend.kind is Kind.DATABRICKS and not is_absolute:
            yield (
                f"Note                 {name} takes only absolute experiment names: "
                "use rule template, such as /Shared/mirror/{name}"
            )
