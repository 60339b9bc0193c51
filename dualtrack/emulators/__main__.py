"""`python -m dualtrack.emulators KIND --upstream URL --port N --token T`: one emulator in a process of its own.

A process, so that a test can kill or stop it. Binds to loopback only.
"""

import argparse
import os

from aiohttp import web

from dualtrack.emulators.azureml import DEFAULT_SCOPE, AzureML
from dualtrack.emulators.azureml_artifacts import AzureArtifacts
from dualtrack.emulators.databricks import Databricks
from dualtrack.emulators.databricks_files import Choices, DatabricksFiles
from dualtrack.emulators.storage import Kind
from dualtrack.emulators.tracking import Dialect, Plain, Settings, Site, make_app


def main() -> None:
    options = _parser().parse_args()
    settings = Settings(
        upstream=options.upstream,
        token=options.token or os.environ[options.token_env],
        dialect=_dialect(options),
        site=_site(options),
    )
    web.run_app(make_app(settings), host="127.0.0.1", port=options.port, print=None, shutdown_timeout=2)


def _dialect(options: argparse.Namespace) -> Dialect:
    match options.kind:
        case "databricks":
            return Databricks(users=tuple(options.user))
        case "azureml":
            return AzureML(
                scope=options.scope, has_logged_models=not options.no_logged_models, has_limits=options.limits
            )
        case _:
            return Plain()


def _site(options: argparse.Namespace) -> Site | None:
    """What keeps the workspace's files, if it keeps its own."""
    if options.kind == "azureml":
        return AzureArtifacts(options.scope) if options.own_files else None
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
    return parser


if __name__ == "__main__":
    main()
