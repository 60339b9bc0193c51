"""A model that a client logs and registers through the proxy can be loaded in every way, from either side."""

import re
from pathlib import Path
from urllib.parse import quote

import pytest

from dualtrack.demo.servers import MlflowServer
from tests.support.clients import run_script
from tests.support.environments import CLIENTS, client_python
from tests.support.facade import Facade
from tests.support.holdings import check_models, check_predictions, files_of, twin_of
from tests.support.proxy import PRIMARY, SECONDARY, Dualtrack
from tests.support.wire import ask

pytestmark = pytest.mark.acceptance

REGISTRY = re.compile(r"registered-models|model-versions")
API = "/api/2.0/mlflow"


def registry_calls(facade: Facade) -> list[str]:
    return [seen["path"] for seen in facade.requests() if REGISTRY.search(seen["path"])]


@pytest.mark.parametrize("home", [PRIMARY, SECONDARY])
@pytest.mark.parametrize("version", CLIENTS)
def test_a_model_is_logged_registered_and_loaded(
    version: str,
    home: str,
    mlflow_primary: MlflowServer,
    mlflow_secondary: MlflowServer,
    primary_facade: Facade,
    secondary_facade: Facade,
    tmp_path: Path,
) -> None:
    """Through the proxy and from each server alone it predicts the same; one backend alone hears of the registry."""
    python = client_python(version)
    facades = {PRIMARY: primary_facade.start(), SECONDARY: secondary_facade.start()}
    tokens = {name: facade.token for name, facade in facades.items()}
    other = SECONDARY if home == PRIMARY else PRIMARY
    name = f"größe {version} on {home}"
    with Dualtrack(tmp_path, primary_facade.url, secondary_facade.url, tokens=tokens, registry=home) as proxy:
        done = run_script("log_models", proxy.url, tmp_path, name, "--register", name, python=python)
        proxy.drain()
        champion = f"models:/{name}@champion"
        again = run_script("load_model", proxy.url, tmp_path, champion, "--registry-uri", proxy.url, python=python)
        got = ask(proxy.url, "GET", f"{API}/model-versions/get?name={quote(name)}&version=1").document["model_version"]

    check_predictions(done)
    assert again["predictions"] == {champion: done["expected"]}
    assert (got["run_id"], got["current_stage"], got["aliases"]) == (done["run_id"], "Production", ["champion"])
    assert got.get("model_id") in (None, "", done["model_id"])
    assert registry_calls(facades[other]) == []
    assert len(registry_calls(facades[home])) > 5
    servers = (mlflow_primary.url, mlflow_secondary.url)
    check_models(*servers, done, (name, home), tmp_path, python)


@pytest.mark.parametrize("home", [PRIMARY, SECONDARY])
def test_a_version_s_files_in_the_ui(
    home: str, mlflow_primary: MlflowServer, mlflow_secondary: MlflowServer, tmp_path: Path
) -> None:
    """A registered version is shown from where it is registered, a logged model as the client wrote it."""
    name = f"shown on {home}"
    with Dualtrack(tmp_path, mlflow_primary.url, mlflow_secondary.url, registry=home) as proxy:
        done = run_script("log_models", proxy.url, tmp_path, name, "--register", name)
        proxy.drain()
        model = f"{API}/logged-models/{done['model_id']}/artifacts"
        of_model = ask(proxy.url, "GET", f"/ajax-api{model[4:]}/files?artifact_file_path=MLmodel")
        listed = ask(proxy.url, "GET", f"{model}/directories")
        of_version = ask(proxy.url, "GET", f"/model-versions/get-artifact?path=MLmodel&name={quote(name)}&version=1")

    ours = files_of(mlflow_primary.url, done["model_id"], tmp_path)
    theirs = files_of(mlflow_secondary.url, twin_of(mlflow_secondary.url, done["model_id"]), tmp_path)
    home_text = {PRIMARY: ours, SECONDARY: theirs}[home].texts["MLmodel"]
    assert (of_model.status, of_model.body.decode()) == (200, ours.texts["MLmodel"])
    assert (of_version.status, of_version.body.decode()) == (200, home_text)
    assert {item["path"] for item in listed.document["files"]} == set(ours.files)
    assert listed.document["root_uri"].rstrip("/") == ours.root
