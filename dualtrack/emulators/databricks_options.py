"""The Databricks emulator's flags, and the workspace that they describe; for `__main__`.

`--strict` is the service as it is known: its paths, names, limits, rates and registry, `dbfs:` roots and sign-in by
OAuth for machines (with `--client`). Any of them can be told otherwise beside it.
"""

import argparse
from dataclasses import replace

from dualtrack.emulators.buckets import Tells
from dualtrack.emulators.databricks import BAD_TOKEN, STRICT, Databricks, Registry, Terms
from dualtrack.emulators.databricks_doors import Doors, Several
from dualtrack.emulators.databricks_files import Choices, DatabricksFiles
from dualtrack.emulators.databricks_tree import Tree
from dualtrack.emulators.storage import Kind
from dualtrack.emulators.tokens import Tokens

FILES_API = "files-api"


def add_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("databricks")
    group.add_argument("--user", action="append", default=["demo@example.com"], help="a known user")
    kinds = (FILES_API, *(kind.name.lower() for kind in Kind))
    group.add_argument("--files", choices=kinds, help="dbfs: roots, and what leads to them")
    group.add_argument("--strict", action="store_true", help="all that the service does and a plain server does not")
    group.add_argument("--rates", type=float, metavar="SCALE", help="refuse calls beyond the service's rates, scaled")
    group.add_argument("--retry-after", choices=list(Tells), default=Tells.NOTHING, help="what such a refusal says")
    group.add_argument("--registry", choices=list(Registry), help="the workspace registry")
    group.add_argument("--client", action="append", default=[], metavar="ID=SECRET", help="for OAuth for machines")
    group.add_argument("--private-link", action="store_true", help="send everybody to a login page")
    group.add_argument("--long-ids", action="store_true", help="experiment ids of 18 digits, as the service's are")
    group.add_argument("--bad-token", type=int, choices=BAD_TOKEN, default=401, help="how a token is refused")
    group.add_argument("--no-member", action="store_true", help="ask for the two headers of a non-member")


def make_workspace(options: argparse.Namespace, tokens: Tokens) -> tuple[Databricks, Several]:
    """Make the rules and the sites of one workspace, which share its folders."""
    tree = Tree(tuple(options.user))
    clients = dict(pair.split("=", 1) for pair in options.client)
    doors = Doors(tokens, tree, clients, is_private=options.private_link, needs_proof=options.no_member)
    kind = options.files or (FILES_API if options.strict else None)
    sites = [doors] if kind is None else [doors, _files(kind)]
    return Databricks(terms=_terms(options), tree=tree), Several(*sites)


def _terms(options: argparse.Namespace) -> Terms:
    terms = STRICT if options.strict else Terms()
    told = {
        "has_limits": options.limits or None,
        "rates": options.rates,
        "registry": options.registry and Registry(options.registry),
    }
    given = {key: value for key, value in told.items() if value is not None}
    return replace(terms, tells=Tells(options.retry_after), bad_token=options.bad_token, **given)


def _files(kind: str) -> DatabricksFiles:
    if kind == FILES_API:
        return DatabricksFiles(Choices(rewrites=True))
    return DatabricksFiles(Choices(rewrites=True, refuses=403, kind=Kind[kind.upper()]))
