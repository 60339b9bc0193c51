"""dualtrack_session.py in a real Python process: a stand-in hands out tokens, the emulated workspace ends them."""

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import version
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import dualtrack_session
import orjson
import pytest
import yaml
from packaging.requirements import Requirement

from dualtrack.config import parse
from dualtrack.demo.servers import Emulator, MlflowServer, clean_environment
from dualtrack.emulators.azureml_scope import DEFAULT_SCOPE
from tests.support.mirrors import history, mirrors, values
from tests.support.packages import ROOT
from tests.support.proxy import HASTE

pytestmark = pytest.mark.acceptance

SHIPPED = ROOT / "deploy" / "synapse"
SCRIPTS = Path(__file__).parent / "scripts"
STANDING = "a-token-of-the-tests"
LIFETIME = "20"  # a token is renewed every second or two: room for a machine that has no time for it


@pytest.fixture
def workspace(mlflow_primary: MlflowServer, tmp_path: Path) -> Iterator[Emulator]:
    """An Azure ML workspace as strict as the service; what it issues lives for seconds."""
    emulator = Emulator(
        *("azureml", "--strict", "--lifetime", LIFETIME),
        upstream=mlflow_primary.url,
        token=STANDING,
        log_path=tmp_path / "emulator.log",
    ).wait_ready()
    yield emulator
    emulator.stop()


@pytest.fixture
def config(workspace: Emulator, mlflow_secondary: MlflowServer, tmp_path: Path) -> Path:
    """The shipped configuration before the emulated workspace and a plain server."""
    document = yaml.safe_load((SHIPPED / "dualtrack.yaml").read_text()) | HASTE
    azureml = document["backends"]["azureml"] | {
        "url": f"{workspace.url}/mlflow/v2.0{DEFAULT_SCOPE}",
        "kind": "azureml",
    }
    document["backends"] = {"azureml": azureml, "mirror": {"url": mlflow_secondary.url}}
    place = tmp_path / "dualtrack.yaml"
    place.write_text(yaml.safe_dump(document))
    return place


def run_notebook(workspace: Emulator, config: Path, folder: Path, how: str) -> dict[str, Any]:
    """Run the notebook with an input that it must not give to anybody; give what it tells."""
    paths = os.pathsep.join(map(str, (ROOT, SHIPPED, SCRIPTS)))
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / "notebook.py"), str(config), str(folder), how],
        env=clean_environment(PYTHONPATH=paths, TEST_EMULATOR=workspace.url, MLFLOW_HTTP_REQUEST_MAX_RETRIES="1"),
        input="",
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = orjson.loads(done.stdout.splitlines()[-1])
    assert told["tokens"] > 2
    assert told["steps"] > 2
    return told


@pytest.mark.parametrize("how", ["stops", "forgets"])
def test_a_session_outlives_its_tokens_and_delivers_at_its_end(
    workspace: Emulator, config: Path, mlflow_secondary: MlflowServer, tmp_path: Path, how: str
) -> None:
    """Every call succeeds while tokens end and after the proxy was killed; all is delivered before Python ends."""
    folder = tmp_path / "session"

    told = run_notebook(workspace, config, folder, how)

    [mirror] = mirrors(mlflow_secondary.url, told["run_id"])
    params, metrics = values(mirror)
    assert params == {"depth": "3", "after": "a kill", "where": "executor"}
    assert metrics == {"loss": pytest.approx(1 / told["steps"])}
    assert len(history(mlflow_secondary.url, mirror["info"]["run_id"], "loss")) == told["steps"]
    assert not Path(f"/proc/{told['pid']}").exists()
    assert (told["sid"], told["stdin"], told["mode"]) == (told["pid"], "/dev/null", "0o600")
    assert "of-the-vault" not in (folder / "serve.log").read_text()
    assert told["is_same"]
    assert max(told["commands"]) < 2  # 1: something is still on its way; 2: refused
    assert told["uri"].startswith("http://127.0.0.4:")
    assert told["pid_before"] != told["pid"]
    if how == "stops":
        assert (told["drained"], told["uri_after"], told["again"]) == (True, None, True)


def test_a_proxy_that_does_not_start_says_why(workspace: Emulator, config: Path, tmp_path: Path) -> None:
    """The cell fails with the proxy's own words, and leaves nothing behind."""
    config.write_text(config.read_text().replace("primary: azureml", "primary: nobody"))
    paths = os.pathsep.join(map(str, (ROOT, SHIPPED, SCRIPTS)))
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / "notebook.py"), str(config), str(tmp_path / "session"), "stops"],
        env=clean_environment(PYTHONPATH=paths, TEST_EMULATOR=workspace.url),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert "dualtrack did not become ready" in done.stderr
    assert "nobody" in done.stderr


def test_the_driver_has_an_address() -> None:
    """What executors are told is an address, whatever the machine is called."""
    assert ip_address(dualtrack_session.driver_address()).version == 4


def spark_conf() -> dict[str, str]:
    conf: dict[str, str] = orjson.loads((SHIPPED / "spark-conf.json").read_text())["conf"]
    return conf


def test_spark_gives_the_driver_what_the_configuration_asks_for(tmp_path: Path) -> None:
    """With the variables of spark-conf.json and those of `start` the shipped configuration is right."""
    prefix = "spark.yarn.appMasterEnv."
    given = {key.removeprefix(prefix): value for key, value in spark_conf().items() if key.startswith(prefix)}
    started = {"DUALTRACK_DIR": str(tmp_path), "DUALTRACK_HOST": "10.0.0.4", "DUALTRACK_TOKEN": "t"}
    started |= {"DUALTRACK_PORT": "40000", "DUALTRACK_ADMIN_PORT": "40001", "DUALTRACK_CLIENT_SECRET": "s"}
    (tmp_path / "azureml.token").write_text("t")

    config = parse((SHIPPED / "dualtrack.yaml").read_text(), given | started, Path("/"))

    assert [backend.kind for backend in config.backends.values()] == ["azureml", "databricks"]
    assert config.backends["azureml"].auth.token_file == tmp_path / "azureml.token"  # type: ignore[union-attr]


@pytest.mark.parametrize("shows", [ROOT / "README.md", SHIPPED / "README.md", SHIPPED / "dualtrack_session.py"])
def test_every_example_of_start_gives_the_rest(shows: Path, tmp_path: Path) -> None:
    """What the configuration needs and neither spark-conf.json nor the session sets is among `secret_variables`."""
    asked = set(re.findall(r"\$\{(\w+)\}", (SHIPPED / "dualtrack.yaml").read_text()))
    place = dualtrack_session.Place.choose(Path("dualtrack.yaml"), tmp_path, "127.0.0.1", {})
    rest = asked - {key.rpartition(".")[2] for key in spark_conf()} - set(place.environment())
    calls = re.findall(r"session = start\(.*?spark=spark", shows.read_text(), re.DOTALL)

    assert rest
    assert calls
    assert all(f'"{name}"' in call for name in rest for call in calls)


def test_spark_is_told_no_secret_and_no_address() -> None:
    """What is in a Spark configuration is shown in Spark's pages; and nobody knows the driver's address before."""
    names = [re.sub(r"spark\.(yarn\.appMasterEnv|executorEnv)\.", "", key) for key in spark_conf()]
    assert not [name for name in names if "." in name], "only variables of driver and executors"
    assert not [name for name in names if re.search("SECRET|TOKEN|PASSWORD|TRACKING_URI", name)]


def test_the_pool_gets_what_the_wheel_needs() -> None:
    """requirements.txt is the wheel's own list, and what is installed here, where all tests pass, fulfils it."""
    lines = (SHIPPED / "requirements.txt").read_text().splitlines()
    listed = [line for line in lines if line and not line.startswith("#")]
    assert listed == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    for requirement in map(Requirement, listed):
        assert requirement.specifier.contains(version(requirement.name), prereleases=True), requirement
