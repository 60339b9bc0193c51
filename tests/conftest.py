"""Fixtures for all tests: two real MLflow servers per session."""

from tests.support.servers import server_fixtures

mlflow_servers, mlflow_primary, mlflow_secondary = server_fixtures("session")
