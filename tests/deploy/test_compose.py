"""deploy/compose: by the compose specification's own schema, and by what its files say of one another."""

import os
import re
import shlex
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

from dualtrack.config import Config, parse
from dualtrack.config_model import Shutdown
from dualtrack.demo.servers import QUIET, Process, answers, clean_environment, free_port
from tests.support.dockerfile import stages, the, variables
from tests.support.packages import ROOT
from tests.support.proxy import until
from tests.support.tools import tool

SHIPPED = ROOT / "deploy" / "compose"
SERVICES: dict[str, Any] = yaml.safe_load((SHIPPED / "compose.yaml").read_text())["services"]
SERVERS = ("mlflow-a", "mlflow-b")
CHECK = Path(sys.executable).with_name("check-jsonschema")


def configuration() -> Config:
    """The configuration as the container loads it."""
    return parse((SHIPPED / "dualtrack.yaml").read_text(), example(), Path("/"))


def example() -> dict[str, str]:
    lines = (SHIPPED / "env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_it_is_a_compose_file(tmp_path: Path) -> None:
    """The schema knows it; and knows that a key of our own invention is none."""
    judge = [str(CHECK), "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*judge, str(SHIPPED / "compose.yaml")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout

    wrong = tmp_path / "compose.yaml"
    wrong.write_text((SHIPPED / "compose.yaml").read_text().replace("restart:", "restarts:"))
    assert subprocess.run([*judge, str(wrong)], capture_output=True, check=False).returncode == 1


def test_dualtrack_checks_its_configuration() -> None:
    command = [sys.executable, "-m", "dualtrack", "check", "--config", str(SHIPPED / "dualtrack.yaml")]
    done = subprocess.run(command, env={**os.environ, **example()}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_example_sets_what_compose_insists_on() -> None:
    """Both secrets come from .env, compose refuses to start without them, and the container gets no other."""
    asked = SERVICES["dualtrack"]["environment"]
    assert set(asked) == set(example())
    assert all(value.startswith(f"${{{name}:?") for name, value in asked.items())


def test_the_readme_writes_the_secrets_before_it_starts() -> None:
    page = (SHIPPED / "README.md").read_text()
    places = [page.index(text) for text in ("cp env.example .env", "Write two long", "docker compose up")]
    assert places == sorted(places)
    assert "--config deploy/" not in page, "the reader is in this folder"


def test_the_services_find_one_another() -> None:
    """The backends are services, on the ports on which they listen, and take the name by which they are called."""
    hosts = {(backend.url.split("//")[1]) for backend in configuration().backends.values()}
    assert hosts == {f"{name}:5000" for name in SERVERS}
    for name in SERVERS:
        words = shlex.split(SERVICES[name]["command"])
        assert words[words.index("--port") + 1] == "5000"
        assert f"{name}:5000" in words[words.index("--allowed-hosts") + 1].split(",")


def test_the_proxy_is_the_image_with_its_mounts() -> None:
    """What compose mounts is where the image looks and writes, and nothing is published beyond this machine."""
    service = SERVICES["dualtrack"]
    final = stages(SHIPPED / service["build"]["context"] / service["build"]["dockerfile"])[-1]
    mounts = dict(volume.split(":")[:2] for volume in service["volumes"])
    assert mounts == {"./dualtrack.yaml": variables(final)["DUALTRACK_CONFIG"], "state": the("VOLUME", final).text}
    config = configuration()
    assert str(config.store.path.parent) == the("VOLUME", final).text
    inside = {str(port) for port in (config.listen.port, config.admin.port)}
    assert {port.rpartition(":")[2] for port in service["ports"]} == inside == set(the("EXPOSE", final).words)
    published = [port for each in SERVICES.values() for port in each.get("ports", [])]
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_stopping_gets_the_time_that_the_proxy_takes() -> None:
    takes = Shutdown()
    given = int(SERVICES["dualtrack"]["stop_grace_period"].removesuffix("s"))
    assert given > (takes.grace + takes.deliveries).total_seconds() + 10


def test_prometheus_takes_its_configuration_and_is_let_in() -> None:
    """The real tool reads it; its target is the admin listener, by a name that dualtrack takes."""
    place = SHIPPED / "prometheus.yml"
    [target] = yaml.safe_load(place.read_text())["scrape_configs"][0]["static_configs"][0]["targets"]
    config = configuration()
    assert target == f"dualtrack:{config.admin.port}"
    assert "dualtrack" in config.allowed_hosts
    assert f"./{place.name}:/etc/prometheus/prometheus.yml:ro" in SERVICES["prometheus"]["volumes"]
    command = [str(tool("promtool", "prometheus")), "check", "config", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.acceptance
def test_the_servers_start_as_they_are_told(tmp_path: Path) -> None:
    """The command of mlflow-a, in a folder: healthy by its own check, and open to its name in the project."""
    port = free_port()
    text = SERVICES["mlflow-a"]["command"].replace("0.0.0.0", "127.0.0.1").replace("--port 5000", f"--port {port}")
    words = shlex.split(re.sub(r"/data\b", str(tmp_path), text).replace(":5000", f":{port}"))
    program, *arguments = words
    assert program == "mlflow"
    command = [sys.executable, "-m", "mlflow", *arguments, "--workers", "1"]
    process = Process(command, log_path=tmp_path / "server.log", env=clean_environment(**QUIET))
    try:
        process.wait_ready(lambda: answers(f"http://127.0.0.1:{port}/health"), timeout=120)
        check = [word.replace("5000", str(port)) for word in SERVICES["mlflow-a"]["healthcheck"]["test"]]
        assert check[:2] == ["CMD", "python"]
        through = {**clean_environment(), "http_proxy": "http://127.0.0.1:1", "HTTP_PROXY": "http://127.0.0.1:1"}
        command = [sys.executable, *check[2:]]  # the engine repeats it, too: it is given 4 s
        until("health", lambda: subprocess.run(command, env=through, capture_output=True, check=False).returncode == 0)
        asked = urllib.request.Request(f"http://127.0.0.1:{port}/version", headers={"Host": f"mlflow-a:{port}"})
        with urllib.request.urlopen(asked, timeout=30) as answer:
            assert answer.status == 200
    finally:
        process.stop()
