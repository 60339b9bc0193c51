"""Addresses: however a workspace's address is written, its base is the same, and what it cannot be is said."""

from pathlib import Path

import pytest

from dualtrack.config import Backend, Kind, parse
from dualtrack.errors import ConfigError

WORKSPACE = "/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/w"
AZURE = f"https://westeurope.api.azureml.ms/mlflow/v2.0{WORKSPACE}"
OLD = f"https://westeurope.experiments.azureml.net/mlflow/v2.0{WORKSPACE}"
GUID = "0a1b2c3d-0000-0000-0000-000000000001.workspace.westeurope"
PRIVATE = f"https://{GUID}.api.azureml.ms/mlflow/v2.0{WORKSPACE}"
CERTIFIED = f"https://{GUID}.cert.api.azureml.ms/mlflow/v2.0{WORKSPACE}"
CHINA = f"https://chinaeast2.api.ml.azure.cn/mlflow/v2.0{WORKSPACE}"
GOV = f"https://usgovvirginia.api.ml.azure.us/mlflow/v2.0{WORKSPACE}"
LOCAL = f"http://127.0.0.1:7/mlflow/v2.0{WORKSPACE}"
BRICKS = "https://adb-1234567890123456.7.azuredatabricks.net"


@pytest.mark.parametrize(
    ("url", "base_url"),
    [
        # what Azure reports, and what people make of it (facts A1)
        (f"azureml://westeurope.api.azureml.ms/mlflow/v1.0{WORKSPACE}", AZURE),
        (f"azureml://westeurope.api.azureml.ms/mlflow/v1.0{WORKSPACE}?", AZURE),
        (f"azureml://westeurope.api.azureml.ms/mlflow/v2.0{WORKSPACE}", AZURE),
        (f"azureml://westeurope.api.azureml.ms/mlflow/v2.0{WORKSPACE}/", AZURE),
        (f"azureml://westeurope.api.azureml.ms{WORKSPACE}", AZURE),
        (f"https://westeurope.api.azureml.ms/mlflow/v1.0{WORKSPACE}", AZURE),
        (f"https://westeurope.api.azureml.ms/mlflow/v1.0{WORKSPACE}?", AZURE),
        (f"https://westeurope.api.azureml.ms/mlflow/v2.0{WORKSPACE}", AZURE),
        (f"https://westeurope.api.azureml.ms/mlflow/v2.0{WORKSPACE}/api/2.0/mlflow", AZURE),
        (f"https://westeurope.api.azureml.ms:443/mlflow/v2.0{WORKSPACE}", AZURE),
        (f"https://WestEurope.API.azureml.ms/mlflow/v2.0{WORKSPACE}", AZURE),
        (f"azureml://westeurope.api.azureml.ms/history/v1.0{WORKSPACE}", AZURE),
        (f"azureml://westeurope.experiments.azureml.net/history/v1.0{WORKSPACE}", OLD),
        (f"https://westeurope.experiments.azureml.net/history/v1.0{WORKSPACE}?", OLD),
        # private link, sovereign clouds
        (f"azureml://{GUID}.api.azureml.ms/mlflow/v1.0{WORKSPACE}", PRIVATE),
        (f"https://{GUID}.cert.api.azureml.ms/mlflow/v2.0{WORKSPACE}", CERTIFIED),
        (f"azureml://chinaeast2.api.ml.azure.cn/mlflow/v1.0{WORKSPACE}?", CHINA),
        (f"https://usgovvirginia.api.ml.azure.us/mlflow/v1.0{WORKSPACE}", GOV),
    ],
)
def test_azure_ml_addresses(url: str, base_url: str) -> None:
    assert_is(url, Kind.AZUREML, base_url)


@pytest.mark.parametrize(
    ("url", "base_url"),
    [
        (BRICKS, BRICKS),
        (f"{BRICKS}/", BRICKS),
        (f"{BRICKS}:443", BRICKS),
        (BRICKS.removeprefix("https://"), BRICKS),
        (f"{BRICKS.removeprefix('https://')}/", BRICKS),
        (BRICKS.replace("https", "databricks"), BRICKS),
        (BRICKS.replace("adb", "ADB"), BRICKS),
        # as a browser shows them
        (f"{BRICKS}/?o=1234567890123456", BRICKS),
        (f"{BRICKS}?o=1234567890123456", BRICKS),
        (f"{BRICKS}/?o=1234567890123456#mlflow/experiments", BRICKS),
        (f"{BRICKS}/ml/experiments/123/runs/abc?o=1", BRICKS),
        (f"{BRICKS.removeprefix('https://')}/?o=1", BRICKS),
        (f"{BRICKS}/api/2.0/mlflow", BRICKS),
        # the other clouds
        ("https://x.databricks.azure.cn/?o=1", "https://x.databricks.azure.cn"),
        ("x.databricks.azure.us", "https://x.databricks.azure.us"),
        ("https://dbc-1.cloud.databricks.com/", "https://dbc-1.cloud.databricks.com"),
        ("https://dbc-1.cloud.databricks.us", "https://dbc-1.cloud.databricks.us"),
        ("1.2.gcp.databricks.com", "https://1.2.gcp.databricks.com"),
    ],
)
def test_databricks_addresses(url: str, base_url: str) -> None:
    assert_is(url, Kind.DATABRICKS, base_url)


@pytest.mark.parametrize(
    ("url", "kind", "base_url"),
    [
        ("https://mlflow.example.org/team/", Kind.MLFLOW, "https://mlflow.example.org/team"),
        ("http://[::1]:5100/", Kind.MLFLOW, "http://[::1]:5100"),
        ("http://MLflow:80/", Kind.MLFLOW, "http://mlflow"),
        (f"http://127.0.0.1:7/mlflow/v1.0{WORKSPACE}", Kind.AZUREML, LOCAL),
        ("http://127.0.0.1:7/", Kind.AZUREML, "http://127.0.0.1:7"),
        ("http://127.0.0.1:7/prefix/?o=1", Kind.DATABRICKS, "http://127.0.0.1:7/prefix"),
    ],
)
def test_addresses_of_a_named_kind(url: str, kind: Kind, base_url: str) -> None:
    """A gateway of one's own may have a path in front; that of a cloud's host is that of a page."""
    assert Backend.model_validate({"url": url, "kind": kind}).base_url == base_url


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("azureml://westeurope.api.azureml.ms/mlflow/v2.0", "names no Azure ML workspace"),
        ("azureml://westeurope.api.azureml.ms/mlflow/v2.0/registries/r", "names no Azure ML workspace"),
        ("https://westeurope.experiments.azureml.net/history/v1.0", "names no Azure ML workspace"),
        (f"{AZURE}?sig=1", "has a query"),
        ("databricks://profile", "names a profile"),
        ("databricks", "has no scheme"),
        ("databricks-uc", "has no scheme"),
        ("https://u:p@adb-1.2.azuredatabricks.net", "has credentials in it"),
    ],
)
def test_what_is_no_workspace_is_said(url: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        configured(url)


def assert_is(url: str, kind: Kind, base_url: str) -> None:
    """Inferred, accepted by every rule, and the same again when its base is written."""
    backend = configured(url)
    assert (backend.kind, backend.base_url) == (kind, base_url)
    assert configured(base_url).base_url == base_url


def configured(url: str) -> Backend:
    return parse(f"primary: a\nregistry: a\nbackends: {{a: {{url: '{url}'}}}}\n", {}, Path()).backends["a"]
