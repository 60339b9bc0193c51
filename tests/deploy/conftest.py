"""What the tests of deploy/ share: this tree as a wheel, and what it depends on; servers that no other module knows."""

from pathlib import Path

import pytest

from tests.support.packages import build_wheel, link_dependencies
from tests.support.servers import server_fixtures

# What deploy/ ships compares and repairs all that a server has, so the servers that the session shares are not for it:
# hundreds of their experiments have no mirror, and some of their runs were made to be refused.
mlflow_servers, mlflow_primary, mlflow_secondary = server_fixtures("module")


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def dependencies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for PYTHONPATH: pip finds the requirements of our wheel there, and downloads nothing."""
    return link_dependencies(tmp_path_factory.mktemp("dependencies") / "site")
