"""`python -m dualtrack.emulators KIND --upstream URL --port N --token T`: one emulator in a process of its own.

A process, so that a test can kill or stop it. Binds to loopback only.
"""

import argparse
import os
import ssl
from dataclasses import replace
from pathlib import Path

from aiohttp import web

from dualtrack.emulators import azureml_workspace
from dualtrack.emulators.azureml_scope import DEFAULT_SCOPE
from dualtrack.emulators.azureml_workspace import STRICT, settings_of
from dualtrack.emulators.databricks import Databricks
from dualtrack.emulators.databricks_files import Choices, DatabricksFiles
from dualtrack.emulators.storage import Kind
from dualtrack.emulators.tracking import Dialect, Plain, Settings, Site, make_app


def main() -> None:
    options = _parser().parse_args()
    web.run_app(
        make_app(_settings(options)),
        host="127.0.0.1",
        port=options.port,
        ssl_context=_tls(options.tls),
        print=None,
        shutdown_timeout=2,
    )


def _settings(options: argparse.Namespace) -> Settings:
    token = options.token or os.environ[options.token_env]
    if options.kind == "azureml":
        return settings_of(_choices(options), upstream=options.upstream, token=token, scope=options.scope)
    return Settings(upstream=options.upstream, token=token, dialect=_dialect(options), site=_site(options))


def _choices(options: argparse.Namespace) -> azureml_workspace.Choices:
    """What an Azure ML workspace is like: the service as it is, or MLflow with single properties of the service."""
    if options.strict:
        return replace(STRICT, storage_origin=options.storage_origin)
    return azureml_workspace.Choices(
        has_logged_models=not options.no_logged_models,
        has_own_files=options.own_files,
        has_limits=options.limits,
        storage_origin=options.storage_origin,
    )


def _tls(pem: Path | None) -> ssl.SSLContext | None:
    if pem is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pem)
    return context


def _dialect(options: argparse.Namespace) -> Dialect:
    return Databricks(users=tuple(options.user)) if options.kind == "databricks" else Plain()


def _site(options: argparse.Namespace) -> Site | None:
    """What keeps the workspace's files, if it keeps its own."""
    match options.files:
        case None:
            return None
        case "files-api":
            return DatabricksFiles(Choices(rewrites=True))
        case kind:
            return DatabricksFiles(Choices(rewrites=True, refuses=403, kind=Kind[kind.upper()]))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m dualtrack.emulators", description=__doc__)
    parser.add_argument("kind", choices=("databricks", "azureml", "plain"))
    parser.add_argument("--upstream", required=True, help="the real mlflow server")
    parser.add_argument("--port", type=int, required=True)
    secret = parser.add_mutually_exclusive_group(required=True)
    secret.add_argument("--token", default="", help="the bearer token that clients must send")
    secret.add_argument("--token-env", default="", help="the environment variable that holds it")
    parser.add_argument("--user", action="append", default=["demo@example.com"], help="databricks: a known user")
    kinds = ("files-api", *(kind.name.lower() for kind in Kind))
    parser.add_argument("--files", choices=kinds, help="databricks: dbfs: roots, and what leads to them")
    parser.add_argument("--scope", default=DEFAULT_SCOPE, help="azureml: the workspace's path")
    parser.add_argument("--no-logged-models", action="store_true", help="azureml: 404 for them, as the service does")
    parser.add_argument("--own-files", action="store_true", help="azureml: artifacts as the service keeps them")
    parser.add_argument("--limits", action="store_true", help="azureml: refuse what is over the service's limits")
    parser.add_argument("--strict", action="store_true", help="azureml: all that the service does, and no more than it")
    parser.add_argument("--storage-origin", default="", help="azureml: where signed URLs lead, if not here")
    parser.add_argument("--tls", type=Path, help="serve https by this file of a key and a certificate")
    return parser


if __name__ == "__main__":
    main()
