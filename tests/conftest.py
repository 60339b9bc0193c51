"""Fixtures for all tests: two real MLflow servers per session, started when the first test asks."""

from collections.abc import Iterator

import pytest

from dualtrack.demo.servers import MlflowServer
from tests.support.servers import ServerPair, wanted_servers


@pytest.fixture(scope="session")
def mlflow_servers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerPair]:
    pair = ServerPair(tmp_path_factory.mktemp("mlflow"), wanted_servers(request.session))
    yield pair
    pair.stop()


@pytest.fixture(scope="session")
def mlflow_primary(mlflow_servers: ServerPair) -> MlflowServer:
    return mlflow_servers.get("mlflow_primary")


@pytest.fixture(scope="session")
def mlflow_secondary(mlflow_servers: ServerPair) -> MlflowServer:
    """Its experiment ids differ from the primary's from the start."""
    return mlflow_servers.get("mlflow_secondary")
