"""Every file below deploy/ is in this table, with the test that fails if it breaks.

For whoever adds a file: one row, its path below deploy/ (`*` takes a folder of the same kind), and the test file below
tests/ that reads or runs it. A file without a row fails here, and so does a row without a file.
"""

from fnmatch import fnmatch
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
DEPLOY = TESTS.parent / "deploy"

COVERED: dict[str, str] = {
    "README.md": "acceptance/test_readme.py",
    "*/README.md": "acceptance/test_readme.py",
    # --- databricks
    "databricks/dualtrack-init.sh": "deploy/test_databricks_init.py",
    "databricks/dualtrack-supervise.sh": "deploy/test_databricks_init.py",
    "databricks/dualtrack.yaml": "deploy/test_databricks_init.py",
    "databricks/cluster.json": "deploy/test_databricks_init.py",
    "databricks/drain.py": "deploy/test_databricks_init.py",
    # --- synapse
    "synapse/dualtrack_session.py": "deploy/test_synapse.py",
    "synapse/dualtrack.yaml": "deploy/test_synapse.py",
    "synapse/spark-conf.json": "deploy/test_synapse.py",
    "synapse/requirements.txt": "deploy/test_synapse.py",
    # --- systemd
    "systemd/dualtrack.service": "deploy/test_systemd.py",
    "systemd/dualtrack.yaml": "deploy/test_systemd.py",
    "systemd/dualtrack.env": "deploy/test_systemd.py",
    # --- container, compose
    "container/Dockerfile": "deploy/test_container.py",
    "container/Dockerfile.dockerignore": "deploy/test_container.py",
    "compose/compose.yaml": "deploy/test_compose.py",
    "compose/dualtrack.yaml": "deploy/test_compose.py",
    "compose/prometheus.yml": "deploy/test_compose.py",
    "compose/env.example": "deploy/test_compose.py",
    # --- kubernetes, helm
    "kubernetes/base/*": "deploy/test_kubernetes.py",
    "kubernetes/overlays/*": "deploy/test_kubernetes.py",
    "kubernetes/components/*": "deploy/test_kubernetes.py",
    "helm/dualtrack/templates/*": "deploy/test_helm.py",
    "helm/dualtrack/ci/*": "deploy/test_helm.py",
    "helm/dualtrack/Chart.yaml": "deploy/test_helm.py",
    "helm/dualtrack/values.yaml": "deploy/test_helm.py",
    "helm/dualtrack/values.schema.json": "deploy/test_helm.py",
    "helm/dualtrack/.helmignore": "deploy/test_helm.py",
    # --- prometheus, grafana
    "prometheus/dualtrack.rules.yml": "deploy/test_prometheus.py",
    "prometheus/prometheus.yml": "deploy/test_prometheus.py",
    "grafana/dualtrack.json": "deploy/test_dashboard.py",
}


def shipped() -> list[str]:
    files = (path for path in DEPLOY.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return sorted(path.relative_to(DEPLOY).as_posix() for path in files)


@pytest.mark.parametrize("file", shipped())
def test_a_test_covers_it(file: str) -> None:
    assert [test for pattern, test in COVERED.items() if fnmatch(file, pattern)], "no row in COVERED"


def is_named(pattern: str, text: str) -> bool:
    """Answer whether a test's text has the file's name, or its kind (`*.sh`); of `folder/*`, the folder's name."""
    place = Path(pattern)
    if place.name == "*":
        return place.parent.name in text
    return place.name in text or (bool(place.suffix) and f"*{place.suffix}" in text)


@pytest.mark.parametrize(("pattern", "test"), COVERED.items())
def test_the_row_is_true(pattern: str, test: str) -> None:
    """The file is there, and the test names it."""
    assert [file for file in shipped() if fnmatch(file, pattern)], "no such file"
    assert is_named(pattern, (TESTS / test).read_text()), f"{test} does not name {pattern}"


@pytest.mark.parametrize("pattern", ["kubernetes/base/*", "container/Dockerfile", "helm/dualtrack/.helmignore"])
def test_a_star_alone_names_nothing(pattern: str) -> None:
    assert not is_named(pattern, "2 * 3, and *.yaml")
