"""`python -m dualtrack.emulators KIND --upstream URL --port N --token T`: one emulator in a process of its own.

A process, so that a test can kill or stop it. Binds to loopback only.
"""

import argparse
import json
import os
from math import inf

from aiohttp import web

from dualtrack.emulators.azureml import DEFAULT_SCOPE, AzureML
from dualtrack.emulators.azureml_artifacts import AzureArtifacts
from dualtrack.emulators.databricks_options import add_options, make_workspace
from dualtrack.emulators.faults import parse_rules
from dualtrack.emulators.tokens import LIFETIME, Tokens
from dualtrack.emulators.tracking import Dialect, Plain, Settings, Site, make_app


def main() -> None:
    options = _parser().parse_args()
    tokens = _tokens(options)
    dialect, site = _kind(options, tokens)
    rules = parse_rules([json.loads(text) for text in options.fault])  # noqa: TID251 - no orjson here
    settings = Settings(upstream=options.upstream, tokens=tokens, dialect=dialect, site=site, rules=rules)
    web.run_app(make_app(settings), host="127.0.0.1", port=options.port, print=None, shutdown_timeout=2)


def _tokens(options: argparse.Namespace) -> Tokens:
    tokens = Tokens(
        options.token or os.environ[options.token_env], lifetime=options.lifetime, audiences=options.audience
    )
    for given in options.also_token:
        token, _, seconds = given.rpartition(":")
        tokens.add(token or seconds, lifetime=float(seconds) if token else inf)
    return tokens


def _kind(options: argparse.Namespace, tokens: Tokens) -> tuple[Dialect, Site | None]:
    match options.kind:
        case "databricks":
            return make_workspace(options, tokens)
        case "azureml":
            site = AzureArtifacts(options.scope) if options.own_files else None
            has_models = not options.no_logged_models
            return AzureML(scope=options.scope, has_logged_models=has_models, has_limits=options.limits), site
        case _:
            return Plain(), None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m dualtrack.emulators", description=__doc__)
    parser.add_argument("kind", choices=("databricks", "azureml", "plain"))
    parser.add_argument("--upstream", required=True, help="the real mlflow server")
    parser.add_argument("--port", type=int, required=True)
    secret = parser.add_mutually_exclusive_group(required=True)
    secret.add_argument("--token", default="", help="the bearer token that clients must send")
    secret.add_argument("--token-env", default="", help="the environment variable that holds it")
    parser.add_argument(
        "--also-token", action="append", default=[], metavar="T[:SECONDS]", help="one more, and its life"
    )
    parser.add_argument("--lifetime", type=float, default=LIFETIME, help="seconds that issued tokens live")
    parser.add_argument("--audience", action="append", default=[], help="take tokens that name one only if this one")
    parser.add_argument(
        "--fault", action="append", default=[], metavar="JSON", help="a rule, as POST …/faults takes it"
    )
    parser.add_argument("--limits", action="store_true", help="refuse what is over the service's limits")
    add_options(parser)
    parser.add_argument("--scope", default=DEFAULT_SCOPE, help="azureml: the workspace's path")
    parser.add_argument("--no-logged-models", action="store_true", help="azureml: 404 for them, as the service does")
    parser.add_argument("--own-files", action="store_true", help="azureml: artifacts as the service keeps them")
    return parser


if __name__ == "__main__":
    main()
