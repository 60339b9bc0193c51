"""`python -m dualtrack.emulators KIND --upstream URL --port N --token T`: one emulator in a process of its own.

A process, so that a test can kill or stop it. Binds to loopback only.
"""

import argparse
import json
import os
import ssl
from dataclasses import replace
from math import inf
from pathlib import Path

from aiohttp import web

from dualtrack.emulators.azureml_scope import AUDIENCE, DEFAULT_SCOPE
from dualtrack.emulators.azureml_workspace import STRICT, Choices, settings_of
from dualtrack.emulators.databricks_ids import long_ids
from dualtrack.emulators.databricks_options import add_options, make_workspace
from dualtrack.emulators.faults import parse_rules
from dualtrack.emulators.tokens import LIFETIME, Tokens
from dualtrack.emulators.tracking import Settings, make_app


def main() -> None:
    options = _parser().parse_args()
    rules = parse_rules([json.loads(text) for text in options.fault])  # noqa: TID251 - no orjson here
    app = make_app(replace(_settings(options, _tokens(options)), rules=rules))
    place = {"host": "127.0.0.1", "port": options.port, "ssl_context": _tls(options.tls)}
    web.run_app(app, **place, print=None, shutdown_timeout=2)


def _settings(options: argparse.Namespace, tokens: Tokens) -> Settings:
    match options.kind:
        case "databricks":
            dialect, site = make_workspace(options, tokens)
            chain = (long_ids,) if options.long_ids else ()
            return Settings(upstream=options.upstream, tokens=tokens, dialect=dialect, site=site, middlewares=chain)
        case "azureml":
            return settings_of(_choices(options), upstream=options.upstream, tokens=tokens, scope=options.scope)
        case _:
            return Settings(upstream=options.upstream, tokens=tokens)


def _tokens(options: argparse.Namespace) -> Tokens:
    audiences = options.audience or ([AUDIENCE] if (options.kind, options.strict) == ("azureml", True) else [])
    tokens = Tokens(options.token or os.environ[options.token_env], lifetime=options.lifetime, audiences=audiences)
    for given in options.also_token:
        token, _, seconds = given.rpartition(":")
        tokens.add(token or seconds, lifetime=float(seconds) if token else inf)
    return tokens


def _choices(options: argparse.Namespace) -> Choices:
    """What an Azure ML workspace is like: the service as it is, or MLflow with single properties of the service."""
    if options.strict:
        return replace(STRICT, storage_origin=options.storage_origin)
    return Choices(
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
    parser.add_argument("--storage-origin", default="", help="azureml: where signed URLs lead, if not here")
    parser.add_argument("--tls", type=Path, metavar="PEM", help="serve https; the file has a key and a certificate")
    return parser


if __name__ == "__main__":
    main()
