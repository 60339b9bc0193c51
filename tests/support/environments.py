"""Virtual environments of older clients: made once, kept below the project's own, used by scripts of tests.

    client_python("2.22") ─▶ is it there? ─▶ <sys.prefix>/clients/mlflow-2.22-<hash>/bin/python
                                  │ no: under a lock, made aside, tried, renamed into place
                                  └────▶ python -m venv, pip install

`python -m tests.support.environments` makes them all ahead; `make setup` and `make test` do that first. Where pip
installs from is pip's own configuration. An environment that cannot be made is an error and never a reason to skip:
which clients work is a promise. To try another client, add a row to `CLIENTS`.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version as installed
from pathlib import Path

CURRENT = "3"
# The least with which the scripts of tests/acceptance can log and load scikit-learn models, figures, tables and images.
# mlflow-skinny is the client; the rest of mlflow is servers and stores. pandas 3 is newer than these clients.
_MODELS = ("scikit-learn>=1.4", "pandas>=2.2,<3", "matplotlib>=3.8", "pillow>=10")
CLIENTS: dict[str, tuple[str, ...]] = {
    "2.22": ("mlflow-skinny>=2.22.5,<3", *_MODELS),  # the last 2.x: files below the run, `runs/log-model`
    "3.1": ("mlflow-skinny>=3.1.4,<3.2", *_MODELS),  # logged models, but not yet what 3.4 brought
    CURRENT: (),  # the tests' own, the newest that there was when their environment was made
}
# The clouds' own clients, for tests of what they do against the emulators.
VENDORS: dict[str, tuple[str, ...]] = {
    "azureml": ("azureml-mlflow>=1.62.0.post6",),  # it wants the mlflow-skinny that it was made for
}
# Models made from the Prometheus Operator's CRDs; in our own environment their package would add a pytest plugin.
OPERATOR = "prometheus-operator"
SCHEMAS: dict[str, tuple[str, ...]] = {OPERATOR: ("cloudcoil-models-prometheus-operator>=0.80",)}
# What the benchmark compares with; made when it asks.
TOOLS: dict[str, tuple[str, ...]] = {
    "export-import": ("mlflow-export-import==1.2.0", "tabulate"),  # it imports tabulate and does not ask for it
}
_IMPORTS = dict.fromkeys(CLIENTS, "import matplotlib, mlflow.pyfunc, mlflow.sklearn, pandas, PIL") | {
    "azureml": "import mlflow, azureml.mlflow",
    OPERATOR: "import cloudcoil.models.prometheus_operator.v1",
    "export-import": "import mlflow_export_import.bulk.export_experiments",
}
_MAKING_SECONDS = 1200


class EnvironmentFailedError(RuntimeError):
    """An environment could not be made; the message says what pip said."""


def client_python(version: str, folder: Path | None = None) -> Path:
    """Give the python of a client's environment, made if need be; raise `EnvironmentFailedError`."""
    requirements = (CLIENTS | VENDORS | SCHEMAS | TOOLS)[version]
    if not requirements:
        return _current()
    folder = folder or Path(sys.prefix) / "clients"
    place = folder / f"mlflow-{version}-{_fingerprint(requirements)}"
    if not place.exists():
        with locked(folder / f".{place.name}.lock"):
            if not place.exists():
                _make(place, requirements, _IMPORTS[version])
    return _python(place)


def _current() -> Path:
    found = installed("mlflow")
    if found.partition(".")[0] != CURRENT:
        raise EnvironmentFailedError(f"the tests' own mlflow is {found}: `make clean setup` installs the newest")
    return Path(sys.executable)


def _fingerprint(requirements: tuple[str, ...]) -> str:
    made_from = "\n".join((sys.version, *requirements))
    return hashlib.sha256(made_from.encode()).hexdigest()[:12]


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """One process at a time; the lock ends with the process that holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make(place: Path, requirements: tuple[str, ...], imports: str) -> None:
    """Make it beside its place, and move it there when it works: what is there is whole."""
    aside = place.with_name(f".{place.name}.made")
    shutil.rmtree(aside, ignore_errors=True)
    python = str(_python(aside))
    run(sys.executable, "-m", "venv", str(aside))
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements)
    run(python, "-c", imports)
    aside.rename(place)  # nothing in it is called by its path but scripts, which nobody uses


def run(*command: str) -> None:
    """Run a command that makes something; raise `EnvironmentFailedError` with what it said."""
    env = {key: value for key, value in os.environ.items() if key not in {"PYTHONPATH", "PYTHONHOME"}}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=_MAKING_SECONDS, check=False)
    if done.returncode:
        said = f"{done.stdout}{done.stderr}"[-4000:]
        raise EnvironmentFailedError(f"`{' '.join(command)}` ended with code {done.returncode}:\n{said}")


def _python(place: Path) -> Path:
    return place / "bin" / "python"


def main() -> None:
    for version in CLIENTS | VENDORS | SCHEMAS:
        print(f"client {version}: {client_python(version)}", flush=True)


if __name__ == "__main__":
    main()
