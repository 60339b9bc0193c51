"""What the acceptance tests share: one proxy in front of the session's two real servers."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from dualtrack.demo.servers import MlflowServer
from tests.support.facade import Facade
from tests.support.proxy import Dualtrack


@pytest.fixture(scope="session")
def proxy(
    mlflow_primary: MlflowServer, mlflow_secondary: MlflowServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Dualtrack]:
    """For tests that stop nothing. Leaves room for any client."""
    with Dualtrack(tmp_path_factory.mktemp("proxy"), mlflow_primary.url, mlflow_secondary.url) as dualtrack:
        yield dualtrack


@pytest.fixture
def primary_facade(mlflow_primary: MlflowServer, tmp_path: Path) -> Iterator[Facade]:
    """In front of the session's primary; not started."""
    facade = Facade(mlflow_primary.url, tmp_path, "primary-facade")
    yield facade
    facade.stop()


@pytest.fixture
def secondary_facade(mlflow_secondary: MlflowServer, tmp_path: Path) -> Iterator[Facade]:
    """In front of the session's secondary; not started."""
    facade = Facade(mlflow_secondary.url, tmp_path, "secondary-facade")
    yield facade
    facade.stop()
