"""Where commands take the configuration from, and the running proxy they talk to.

    --config FILE, $DUALTRACK_CONFIG, ./dualtrack.yaml      the first that is given
    serve --primary …                                       instead of any file
    status, ids, parked, drain                              without any file: the default address

Imported by commands only once they run: pydantic and YAML are not needed for `--help`.
"""

import os
from pathlib import Path

import click
from pydantic import ValidationError

from dualtrack.cli.client import AdminClient
from dualtrack.config import Admin, Config, Store, from_urls, load
from dualtrack.config_checks import check
from dualtrack.config_text import dotted
from dualtrack.errors import ConfigError, Problem

DEFAULT_FILE = Path("dualtrack.yaml")
_TOKEN_VARIABLE = "DUALTRACK_ADMIN_TOKEN"  # noqa: S105 - the name of a variable
_ANY_HOST = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - bound to all, reached on loopback


def load_config(path: Path | None) -> Config:
    """Load the file given, or the default one. Raise `ConfigError`."""
    return load(path or DEFAULT_FILE, os.environ)


def load_for_serving(
    path: Path | None,
    *,
    primary: str | None = None,
    secondary: str | None = None,
    registry: str | None = None,
    port: int | None = None,
    admin_port: int | None = None,
    store: str | None = None,
) -> Config:
    """Load a file, or make the simplest configuration from URLs; options win over the file. Raise `ConfigError`."""
    if primary is not None:
        if _is_given("config_path"):
            raise click.UsageError("--config and --primary exclude each other: one says it all, or the other")
        return from_urls(primary, secondary, registry, port=port, admin_port=admin_port, store=store)
    for name, value in (("--secondary", secondary), ("--registry", registry)):
        if value is not None:
            raise click.UsageError(f"{name} goes with --primary; in a file write it there")
    return _override(load_config(path), port, admin_port, store)


def between(config: Config, source: str | None, target: str | None) -> tuple[Config, tuple[str, ...]]:
    """Answer what to bring over with, and to which backends. Raise `ConfigError`.

    From the primary the configuration stays as it is. Between two others it becomes one of their own, with a journal
    beside the configured one: ids there are those of another primary.
    """
    for option, name in (("--from", source), ("--to", target)):
        if name is not None and name not in config.backends:
            raise click.BadOptionUsage(option, f"{option}: no backend is called {name!r}: {', '.join(config.backends)}")
    source = source or config.primary
    if source == target:
        raise click.UsageError(f"--from and --to are both {source}")
    if source == config.primary:
        targets = (target,) if target is not None else tuple(config.secondaries)
        if not targets:
            raise click.UsageError("there is no secondary in this configuration to bring anything to")
        return config, targets
    if target is None:
        raise click.UsageError("--from another backend than the primary needs --to")
    return _between(config, source, target), (target,)


def _between(config: Config, source: str, target: str) -> Config:
    path, spool = config.store.path, config.spool.dir
    suffix = f"{source}-to-{target}"
    journal = path.with_name(f"{path.stem}-{suffix}{path.suffix}")
    changed = config.model_copy(
        update={
            "primary": source,
            "registry": source,
            "backends": {name: config.backends[name] for name in (source, target)},
            "store": _store(config.store, f"sqlite:///{journal}"),
            "spool": config.spool.model_copy(update={"dir": spool and spool.with_name(f"{spool.name}-{suffix}")}),
        }
    )
    return _checked(changed)


def connect(path: Path | None, admin_url: str | None) -> AdminClient:
    """Make a client of the running proxy. Raise `ConfigError`.

    With `admin_url` no file is needed; one that is named is read for the token, if the environment has none.
    """
    token = os.environ.get(_TOKEN_VARIABLE)
    if admin_url is not None:
        needs_file = token is None and path is not None
        return AdminClient(admin_url, _token(load_config(path).admin) if needs_file else token)
    if path is None and not DEFAULT_FILE.exists():
        return AdminClient(_address(Admin()), token, "the default: no configuration file here, and no --config")
    admin = load_config(path).admin
    return AdminClient(_address(admin), _token(admin) or token, f"admin of {path or DEFAULT_FILE}")


def _is_given(parameter: str) -> bool:
    source = click.get_current_context().get_parameter_source(parameter)
    return source is click.core.ParameterSource.COMMANDLINE


def _override(config: Config, port: int | None, admin_port: int | None, store: str | None) -> Config:
    changes: dict[str, object] = {}
    if port is not None:
        changes["listen"] = config.listen.model_copy(update={"port": port})
    if admin_port is not None:
        changes["admin"] = config.admin.model_copy(update={"port": admin_port})
    if store is not None:
        changes["store"] = _store(config.store, store)
    return _checked(config.model_copy(update=changes))


def _checked(changed: Config) -> Config:
    problems = [
        Problem(path=dotted(found.where), value="", message=found.message, fix=found.fix)
        for found in check(changed, [])
    ]
    if problems:
        raise ConfigError(problems)
    return changed


def _store(store: Store, url: str) -> Store:
    try:
        return Store.model_validate({**store.model_dump(), "url": url}, context={"base_dir": Path.cwd()})
    except ValidationError as error:
        message = error.errors(include_input=False)[0]["msg"]
        fix = "write sqlite:///var/lib/dualtrack/journal.db"
        raise ConfigError([Problem(path="--store", value="", message=message, fix=fix)]) from error


def _address(admin: Admin) -> str:
    host = _ANY_HOST.get(admin.host, admin.host)
    return f"http://[{host}]:{admin.port}" if ":" in host else f"http://{host}:{admin.port}"


def _token(admin: Admin) -> str | None:
    secret = admin.admin_token
    return secret.get_secret_value() if secret is not None else None
