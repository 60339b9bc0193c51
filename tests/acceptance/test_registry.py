"""The model registry on either backend, with the real client: one backend has it, the other hears nothing of it."""

import re
from pathlib import Path
from typing import Any

import pytest

from dualtrack.demo.compare import Side, read_registry
from dualtrack.demo.servers import MlflowServer
from tests.support.clients import run_script
from tests.support.facade import Facade
from tests.support.proxy import PRIMARY, SECONDARY, Dualtrack
from tests.support.servers import call
from tests.support.sides import assert_equal, mirror_of
from tests.support.wire import ask

pytestmark = pytest.mark.acceptance

REGISTRY = re.compile(r"registered-models|model-versions")
API = "/api/2.0/mlflow"


def check_answers(done: dict[str, Any]) -> None:
    """The client meets its own ids, whoever has the registry."""
    run_id, model = done["run_id"], done["model"]
    assert done["created"] == done["got"] == done["by_alias"] == run_id
    assert done["source"] == f"runs:/{run_id}/model"
    assert done["found"] == done["among"] == done["latest"] == [run_id]
    assert done["tags"] == {"checked": "yes"}
    assert model["source"] == f"models:/{model['model_id']}"
    assert model["version_model_id"] in ("", model["model_id"])
    assert done["prompt"] == "Say {{word}}"


def registry_calls(facade: Facade) -> list[str]:
    return [seen["path"] for seen in facade.requests() if REGISTRY.search(seen["path"])]


@pytest.mark.parametrize("home", [PRIMARY, SECONDARY])
def test_one_backend_has_the_registry(
    home: str,
    mlflow_primary: MlflowServer,
    mlflow_secondary: MlflowServer,
    primary_facade: Facade,
    secondary_facade: Facade,
    tmp_path: Path,
) -> None:
    """All of the registry works, in the client's ids, and not one of its calls reaches the other backend (P6)."""
    facades = {PRIMARY: primary_facade.start(), SECONDARY: secondary_facade.start()}
    servers = {PRIMARY: mlflow_primary, SECONDARY: mlflow_secondary}
    other = SECONDARY if home == PRIMARY else PRIMARY
    before = read_registry(Side(name=other, url=servers[other].url))
    tokens = {name: facade.token for name, facade in facades.items()}
    name = f"größe-on-{home}"
    with Dualtrack(tmp_path, primary_facade.url, secondary_facade.url, tokens=tokens, registry=home) as proxy:
        done = run_script("registry", proxy.url, tmp_path, f"registry on {home}", name)

        proxy.drain()
    check_answers(done)
    assert registry_calls(facades[other]) == []
    assert len(registry_calls(facades[home])) > 10
    assert read_registry(Side(name=other, url=servers[other].url)) == before
    versions = [item for item in read_registry(Side(name=home, url=servers[home].url)).versions if item.name == name]
    theirs = done["run_id"] if home == PRIMARY else mirror_of(mlflow_secondary.url, done["run_id"])["info"]["run_id"]
    assert {item.source for item in versions} >= {f"runs:/{theirs}/model"}
    assert theirs in {item.run_id for item in versions}
    assert_equal(mlflow_primary.url, mlflow_secondary.url, done["experiment_id"], runs=2)


def test_a_version_waits_for_its_run(mlflow_primary: MlflowServer, secondary_facade: Facade, tmp_path: Path) -> None:
    """With the registry on a secondary that is down, the client is told why, and that it may come back."""
    secondary_facade.start()
    tokens = {SECONDARY: secondary_facade.token}
    limits = {"registry": SECONDARY, "registry_wait": "1s"}
    with Dualtrack(tmp_path, mlflow_primary.url, secondary_facade.url, tokens=tokens, **limits) as proxy:
        assert ask(proxy.url, "POST", f"{API}/registered-models/create", {"name": "waits"}).status == 200
        secondary_facade.stop()
        run_id = call(proxy.url, "runs/create", {"experiment_id": "0"})["run"]["info"]["run_id"]
        version = {"name": "waits", "source": f"runs:/{run_id}/model", "run_id": run_id}

        refused = ask(proxy.url, "POST", f"{API}/model-versions/create", version)

        assert refused.status == 503
        assert refused.went == "registry"
        assert refused.document["error_code"] == "TEMPORARILY_UNAVAILABLE"
        assert int(refused.headers["retry-after"]) >= 1
        assert run_id in refused.document["message"]
        assert "secondary" in refused.document["message"]
        assert "registry_wait" in refused.document["message"]
        assert proxy.metric("dualtrack_registry_refused_total") == 1
        unreachable = ask(proxy.url, "GET", f"{API}/registered-models/get?name=waits")
        assert unreachable.status == 503
        assert unreachable.document["error_code"] == "TEMPORARILY_UNAVAILABLE"
        secondary_facade.start()
        proxy.drain()
        made = ask(proxy.url, "POST", f"{API}/model-versions/create", version)
        assert made.status == 200, made.body
        assert made.document["model_version"]["run_id"] == run_id
    assert registry_entries(proxy) == 0


def registry_entries(proxy: Dualtrack) -> int:
    """Registry calls that the journal's files mention in any way, those in the spool included."""
    files = [path for path in proxy.config_dir.glob("journal*/**/*") if path.is_file()]
    files += [path for path in proxy.config_dir.glob("journal*") if path.is_file()]
    assert files
    return sum(len(REGISTRY.findall(path.read_bytes().decode("latin-1"))) for path in files)


@pytest.mark.parametrize("home", [PRIMARY, SECONDARY])
def test_a_registry_call_in_disguise(
    home: str,
    primary_facade: Facade,
    secondary_facade: Facade,
    mlflow_primary: MlflowServer,
    mlflow_secondary: MlflowServer,
    tmp_path: Path,
) -> None:
    """Encoded letters, the UI's prefix and a DELETE with its body are registry calls like any other."""
    facades = {PRIMARY: primary_facade.start(), SECONDARY: secondary_facade.start()}
    tokens = {name: facade.token for name, facade in facades.items()}
    other = SECONDARY if home == PRIMARY else PRIMARY
    with Dualtrack(tmp_path, primary_facade.url, secondary_facade.url, tokens=tokens, registry=home) as proxy:
        name = f"disguised-{home}"
        made = ask(proxy.url, "POST", "/ajax-api/2.0/mlflow/registered-models/create", {"name": name})
        tag = {"name": name, "key": "k", "value": "v"}
        tagged = ask(proxy.url, "POST", "/api/2.0/mlflow/registered%2Dmodels/set-tag", tag)
        got = ask(proxy.url, "GET", f"/ajax-api/2.0/mlflow/registered-models/get?name={name}")
        body = {"name": name, "key": "k"}
        untagged = ask(proxy.url, "DELETE", f"{API}/registered-models/delete-tag", body)
        after = ask(proxy.url, "GET", f"{API}/registered-models/get?name={name}")

    for answer in (made, tagged, got, untagged, after):
        assert (answer.status, answer.went) == (200, "registry"), answer.body
    assert got.document["registered_model"]["tags"] == [{"key": "k", "value": "v"}]
    assert "tags" not in after.document["registered_model"]
    assert registry_calls(facades[other]) == []
