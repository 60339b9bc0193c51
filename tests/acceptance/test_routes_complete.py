"""The table and the installed MLflow server agree: no endpoint of it is unknown, no row of ours is stale."""

import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import orjson
import pytest

from dualtrack.core.routes import ROUTES, Ajax, Group, Route, classify

pytestmark = pytest.mark.acceptance

MEASURED = (3, 17)  # the mlflow that the table was read from; an older server lacks rows

# Runs in a process of its own: importing the server warns, reads the environment and starts threads. It records what
# create_fastapi_app includes, and reads the Flask app that is mounted below.
LIST_ROUTES = """
import json
from fastapi import FastAPI

found, include = [], FastAPI.include_router

def record(app, router, *, prefix="", **options):
    for route in router.routes:
        found.extend((method, prefix + route.path) for method in getattr(route, "methods", None) or ())
    include(app, router, prefix=prefix, **options)

FastAPI.include_router = record

import mlflow.server.fastapi_app
from mlflow.server import app
from mlflow.server.handlers import get_endpoints

found.extend((method, rule.rule) for rule in app.url_map.iter_rules() for method in rule.methods)
found.extend((method, path) for path, _, methods in get_endpoints() for method in methods)
print(json.dumps(sorted(set(found))))
"""

Endpoint = tuple[str, str]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> set[Endpoint]:
    """Every (method, path) of the installed server, parameters written our way; HEAD and OPTIONS are automatic."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LIST_ROUTES],
        cwd=tmp_path_factory.mktemp("mlflow"),
        env={"PATH": os.environ["PATH"], "HOME": str(Path.home())},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    listed: list[Endpoint] = [(method, path) for method, path in orjson.loads(done.stdout.splitlines()[-1])]
    return {(method, braces(path)) for method, path in listed if method not in {"HEAD", "OPTIONS"}}


def braces(path: str) -> str:
    """Rewrite Flask's `<path:x>` and `<x>` as `{x:path}` and `{x}`."""
    return re.sub(r"<(\w+)>", r"{\1}", re.sub(r"<path:(\w+)>", r"{\1:path}", path))


def nameless(path: str) -> str:
    return re.sub(r"{\w+", "{", path)


def declared(route: Route) -> set[Endpoint]:
    """What the row says that a server has."""
    prefixes = {
        Ajax.BOTH: ["/api/", "/ajax-api/"],
        Ajax.AJAX: ["/ajax-api/"],
        Ajax.API: ["/api/"],
        Ajax.BARE: [""],
    }
    return {(method, prefix + route.path) for prefix in prefixes[route.ajax] for method in route.methods}


def is_known(method: str, path: str) -> bool:
    """Say whether a request to this endpoint finds the row that was written for it."""
    match = classify(method, re.sub(r"{(\w+)(:path)?}", r"\1-1", path))
    return match is not None and (method, nameless(path)) in {
        (method, nameless(template)) for method, template in declared(match.route)
    }


def names(endpoints: set[Endpoint]) -> str:
    return "".join(f"\n  {method} {path}" for method, path in sorted(endpoints, key=lambda pair: pair[::-1]))


def test_every_endpoint_of_the_server_has_a_row(served: set[Endpoint]) -> None:
    """A new mlflow brings new endpoints: each is placed on purpose, not found out by its loss."""
    missing = {endpoint for endpoint in served if not is_known(*endpoint)}

    assert len(served) > 100, "the server's route list was not read"
    assert not missing, f"mlflow {version('mlflow')} has endpoints that core/routes.py lacks:{names(missing)}"


@pytest.mark.skipif(
    tuple(map(int, version("mlflow").split(".")[:2])) < MEASURED, reason="older than the table: it lacks rows"
)
def test_every_row_is_an_endpoint_of_the_server(served: set[Endpoint]) -> None:
    """A row that no server has is stale, but for those that only a server with other options has."""
    shapes = {(method, nameless(path)) for method, path in served}
    stale = {
        (method, path)
        for route in ROUTES
        if not is_optional(route)
        for method, path in declared(route)
        if (method, nameless(path)) not in shapes
    }

    assert not stale, f"core/routes.py has rows that mlflow {version('mlflow')} lacks:{names(stale)}"


def is_optional(route: Route) -> bool:
    """Exempt the basic-auth app, which needs `mlflow[auth]`, and `/metrics`, which needs `--expose-prometheus`."""
    return route.group is Group.AUTH or route.operation == "serverMetrics"
