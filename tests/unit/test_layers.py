"""The shape of the package: who may import what. Prints file, line and offender of each import that may not be.

`MAY` is the table of layers: for each, the parts of dualtrack and the third-party packages that it may import beside
itself and the standard library. Where a layer has `*`, anything goes.
"""

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

import dualtrack

ROOT: Final = Path(dualtrack.__file__).parent
OURS: Final = "dualtrack"


@dataclass(frozen=True, slots=True)
class May:
    """What a layer may import beside itself: layers, third-party packages, and no modules of `without`."""

    layers: str = ""
    packages: str = ""
    without: str = ""

    def allows(self, module: str, layer: str | None) -> bool:
        """Say whether an import of `module`, which belongs to `layer` of ours or to none, is in the table."""
        top = module.partition(".")[0]
        if any(module == name or module.startswith(f"{name}.") for name in self.without.split()):
            return False
        if layer is not None:
            return self.layers == "*" or layer in self.layers.split()
        if top in sys.stdlib_module_names:
            return True
        names = self.packages.split()
        return "*" in names or any(module == name or module.startswith(f"{name}.") for name in names)


# modules of the standard library that talk to the world, watch it, or wait
IO: Final = (
    "asyncio http logging multiprocessing os pathlib random secrets socket sqlite3 ssl subprocess threading time"
    " urllib.request"
)
NO_SQL: Final = "sqlite3"

MAY: Final = {
    "errors": May(without=IO),
    "core": May("errors", without=IO),
    "translate": May("errors core", "orjson yaml", without=IO),
    "ports": May("core errors", without=IO),
    "proxy": May("core translate ports errors metrics", "aiohttp.web multidict orjson structlog", NO_SQL),
    "delivery": May("core translate ports errors metrics", "structlog", NO_SQL),
    "reconcile": May("core translate ports errors metrics", "structlog", NO_SQL),
    "admin": May(
        "core translate ports errors metrics", "aiohttp.web aiohttp.typedefs jinja2 multidict orjson structlog", NO_SQL
    ),
    "models": May("core translate ports errors", "mlflow", NO_SQL),
    "backends": May(
        "core ports errors metrics", "aiohttp httptools multidict yarl orjson azure databricks mlflow tenacity", NO_SQL
    ),
    "store": May("core ports errors"),
    "metrics": May(packages="prometheus_client", without=NO_SQL),
    "config": May("core errors", "pydantic pydantic_core yaml", NO_SQL),
    "emulators": May("", "aiohttp", NO_SQL),
    # the composition root, and what only it and the command line use
    "app": May("*", "aiohttp.web structlog uvloop", NO_SQL),
    "cli": May("*", "click rich pydantic uvloop orjson", NO_SQL),
    "demo": May("emulators errors translate", "*", NO_SQL),
    "logs": May("", "structlog pydantic orjson", NO_SQL),
    "clock": May(without=NO_SQL),
    "lifespan": May("", "structlog", NO_SQL),
    "__main__": May("cli", without=NO_SQL),
    "__init__": May(without=IO),
}
# layers that only these import
ONLY_FOR: Final = {
    "config": {"app", "cli"},
    "app": {"cli"},
    "cli": {"__main__"},
    "demo": {"cli"},
    "emulators": {"demo"},
    "models": {"app"},
    "store": {"app"},
    "backends": {"app"},
    "logs": {"app", "cli"},
    "clock": {"app", "cli"},
    "lifespan": {"app", "cli"},
}


@dataclass(frozen=True, slots=True)
class Import:
    """One imported module, and the file and line that import it."""

    path: Path
    line: int
    module: str

    def __str__(self) -> str:
        return f"{self.path.relative_to(ROOT.parent)}:{self.line}: {layer_of(self.path)} imports {self.module}"


def layer_of(path: Path) -> str:
    """The layer that a file belongs to: its folder, or its own name; `config_*` is `config`."""
    first = path.relative_to(ROOT).parts[0].removesuffix(".py")
    return "config" if first.startswith("config_") else first


def target_of(module: str) -> str | None:
    """The layer of ours that a module name belongs to; None for the rest of the world."""
    top, _, rest = module.partition(".")
    if top != OURS:
        return None
    first = rest.partition(".")[0] or "__init__"
    return "config" if first.startswith("config_") else first


def modules(node: ast.AST) -> Iterator[str]:
    """The modules that a statement imports: `from a import b` may mean `a.b` or a name in `a`."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    if isinstance(node, ast.ImportFrom):
        for alias in node.names:
            name = f"{node.module}.{alias.name}"
            yield name if _is_module(name) else str(node.module)


def _is_module(name: str) -> bool:
    place = ROOT.parent / name.replace(".", "/")
    return place.is_dir() or place.with_suffix(".py").is_file() or name in {"aiohttp.web", "urllib.request"}


def imports_in(path: Path, source: str) -> list[Import]:
    tree = ast.parse(source)
    return [Import(path, getattr(node, "lineno", 0), module) for node in ast.walk(tree) for module in modules(node)]


def may(found: Import) -> bool:
    own, target = layer_of(found.path), target_of(found.module)
    if target is not None and own not in ONLY_FOR.get(target, {own}) | {target}:
        return False
    if target == "__init__":
        return True  # the version
    return target == own or MAY[own].allows(found.module, target)


FILES: Final = sorted(ROOT.rglob("*.py"))
IMPORTS: Final = [found for path in FILES for found in imports_in(path, path.read_text())]


def test_every_file_belongs_to_a_layer() -> None:
    """A new part of the package is a new row of the table."""
    assert {layer_of(path) for path in FILES} == set(MAY)


def test_every_import_is_in_the_table() -> None:
    offenders = [str(found) for found in IMPORTS if not may(found)]

    assert not offenders, "\n" + "\n".join(offenders)


def test_core_knows_its_types() -> None:
    """`Any` is for where JSON is parsed, which is not here."""
    offenders = [
        f"{path.relative_to(ROOT.parent)}:{node.lineno}: Any"
        for path in FILES
        if layer_of(path) == "core"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and any(alias.name == "Any" for alias in node.names)
    ]

    assert not offenders, "\n" + "\n".join(offenders)


def test_there_is_no_cycle_between_layers() -> None:
    """Imports run one way: layers can be taken off one after the other, each free of what remains."""
    needs = {
        layer: {
            target
            for found in IMPORTS
            if layer_of(found.path) == layer and (target := target_of(found.module)) not in {None, layer, "__init__"}
        }
        for layer in MAY
    }
    remaining = set(MAY)
    while free := {layer for layer in remaining if not needs[layer] & remaining}:
        remaining -= free

    assert remaining == set()


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("core/x.py", "import sqlite3"),
        ("core/x.py", "import asyncio"),
        ("core/x.py", "from time import monotonic"),
        ("core/x.py", "from dualtrack.translate.names import NameRule"),
        ("core/x.py", "import orjson"),
        ("translate/x.py", "from dualtrack import ports"),
        ("translate/x.py", "def late():\n    import aiohttp"),
        ("errors.py", "from dualtrack.core.ids import Ref"),
        ("ports.py", "from dualtrack.translate.names import NameRule"),
        ("proxy/x.py", "from aiohttp import ClientSession"),
        ("proxy/x.py", "import aiohttp"),
        ("proxy/x.py", "from dualtrack.delivery.worker import Worker"),
        ("proxy/x.py", "from dualtrack.backends.http import HttpBackend"),
        ("delivery/x.py", "from aiohttp import web"),
        ("delivery/x.py", "from dualtrack.store.sqlite import SqliteJournal"),
        ("reconcile/x.py", "from dualtrack.delivery import plan"),
        ("admin/x.py", "import sqlite3"),
        ("backends/x.py", "from dualtrack.store import sqlite"),
        ("store/x.py", "import aiohttp"),
        ("metrics.py", "import structlog"),
        ("metrics.py", "from dualtrack.core.ids import Ref"),
        ("config_x.py", "from dualtrack.app import run"),
        ("delivery/x.py", "from dualtrack.config import Config"),
        ("proxy/x.py", "from dualtrack import logs"),
        ("store/x.py", "from dualtrack.clock import SystemClock"),
        ("emulators/x.py", "from dualtrack.core.ids import Ref"),
        ("app.py", "import sqlite3"),
        ("app.py", "from aiohttp import ClientSession"),
        ("cli/x.py", "import aiohttp"),
    ],
)
def test_the_table_forbids(path: str, source: str) -> None:
    """Each kind of offence is seen, in functions too."""
    assert not all(may(found) for found in imports_in(ROOT / path, source))


def test_an_offender_is_named_by_file_and_line() -> None:
    (found,) = imports_in(ROOT / "core" / "x.py", "\n\nimport sqlite3\n")

    assert str(found) == f"{Path('dualtrack/core/x.py')}:3: core imports sqlite3"
