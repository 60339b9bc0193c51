"""The pods' own commands, as processes, with the configuration, environment, probes, hook and signal of a cluster.

Taken from what kustomize and helm render. Only what a cluster would decide is mapped: mounts to a folder, ports to free
ones, every address to a loopback one that is not 127.0.0.1 (so that it counts as reachable by others), and the
backends to two MLflow servers. The kubelet is played by requests with its Host header, the pod's address.
"""

import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson
import pytest
import yaml

from dualtrack.demo.servers import MlflowServer, Process, clean_environment, free_port
from tests.deploy.test_helm import rendered
from tests.deploy.test_kubernetes import overlay
from tests.support.pods import POD_IP, SECRETS, Pod
from tests.support.proxy import until

EVERYWHERE = "127.0.0.2"
RENDERINGS: dict[str, Callable[[], Pod]] = {
    "kustomize-central": lambda: Pod.find(overlay("central")),
    "kustomize-sidecar": lambda: Pod.find(overlay("sidecar")),
    "helm-central": lambda: Pod.find(rendered("4", "central")),
    "helm-sidecar": lambda: Pod.find(rendered("4", "sidecar")),
}


class RunningPod:
    """Our container of a pod, without the container."""

    def __init__(self, pod: Pod, folder: Path, urls: dict[str, str]) -> None:
        self.pod = pod
        self._mounts = {each["mountPath"]: folder / each["mountPath"].strip("/") for each in self._volumes()}
        for mount in self._mounts.values():
            mount.mkdir(parents=True)
        self.ports = {5000: free_port(), 5001: free_port()}
        self.environment = {name: self._here(value) for name, value in pod.environment.items()}
        self._write(urls)
        self._log = folder / "serve.log"
        self.process = Process(self.argv(*pod.commands["serve"]), log_path=self._log, env=self._given())

    def _volumes(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.pod.container["volumeMounts"]
        return found

    def _here(self, text: str) -> str:
        """Map every mounted path in a text, once."""
        paths = "|".join(map(re.escape, self._mounts))
        return re.sub(rf"({paths})\b", lambda found: str(self._mounts[found[1]]), text)

    def _write(self, urls: dict[str, str]) -> None:
        document = yaml.safe_load(self._here(self.pod.config_text))
        names = [document["primary"], *(name for name in document["backends"] if name != document["primary"])]
        document["backends"] = {
            name: {"url": url, "kind": "mlflow"} for name, url in zip(names, urls.values(), strict=True)
        }
        for section in ("listen", "admin"):
            document[section]["port"] = self.ports[document[section]["port"]]
            document[section]["host"] = document[section]["host"].replace("0.0.0.0", EVERYWHERE)
        Path(self.environment["DUALTRACK_CONFIG"]).write_text(yaml.safe_dump(document))

    def _given(self) -> dict[str, str]:
        return clean_environment() | self.environment

    def argv(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "dualtrack", *arguments]

    def exec(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the pod, as the kubelet runs a hook."""
        return subprocess.run(
            self.argv(*arguments), env=self._given(), capture_output=True, text=True, timeout=120, check=False
        )

    def probe(self, probe: dict[str, Any], host: str = f"{POD_IP}:5001") -> int:
        port = self.ports[self.pod.port(probe["httpGet"]["port"])]
        return self.ask(f"http://{EVERYWHERE}:{port}{probe['httpGet']['path']}", {"Host": host})[0]

    def admin(self, path: str, token: str = "") -> tuple[int, bytes]:
        headers = {"Host": f"{POD_IP}:5001"} | ({"Authorization": f"Bearer {token}"} if token else {})
        return self.ask(f"http://{EVERYWHERE}:{self.ports[5001]}{path}", headers)

    def mlflow(self, path: str, body: dict[str, Any], headers: dict[str, str]) -> tuple[int, bytes]:
        host = "127.0.0.1" if self.pod.is_sidecar else EVERYWHERE
        url = f"http://{host}:{self.ports[5000]}/api/2.0/mlflow/{path}"
        return self.ask(url, {"Content-Type": "application/json"} | headers, orjson.dumps(body))

    def ask(self, url: str, headers: dict[str, str], body: bytes | None = None) -> tuple[int, bytes]:
        request = urllib.request.Request(url, data=body, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()
        except OSError:
            return 0, b""


@pytest.fixture(params=RENDERINGS)
def running(
    request: pytest.FixtureRequest, tmp_path: Path, mlflow_primary: MlflowServer, mlflow_secondary: MlflowServer
) -> Iterator[RunningPod]:
    urls = {"primary": mlflow_primary.url, "secondary": mlflow_secondary.url}
    pod = RunningPod(RENDERINGS[request.param](), tmp_path, urls)
    yield pod
    pod.process.kill()


def test_it_lives_as_in_a_cluster(running: RunningPod, mlflow_secondary: MlflowServer) -> None:
    """Started, probed, scraped, written to, drained by the hook, ended by the signal."""
    _is_probed(running)
    _is_guarded(running)
    name = f"pod-{uuid4().hex[:8]}"
    status, answer = running.mlflow("experiments/create", {"name": name}, _client(running.pod))
    assert status == 200, answer

    hook = running.exec(*running.pod.commands["preStop"])

    assert (hook.returncode, hook.stdout) == (0, "drained: nothing is left\n"), hook.stderr
    url = f"{mlflow_secondary.url}/api/2.0/mlflow/experiments/get-by-name?experiment_name={name}"
    assert running.ask(url, {})[0] == 200, "not on the secondary"
    os.kill(running.process.pid, signal.SIGTERM)
    assert running.process.wait(60) == 0, running.process.tail()


def _is_probed(running: RunningPod) -> None:
    probes = running.pod.probes
    until("the startup probe", lambda: running.probe(probes["startupProbe"]) == 200, timeout=60)
    for name, probe in probes.items():
        assert running.probe(probe) == 200, name
        assert running.probe(probe, host="10.9.9.9:5001") == 403, "whoever calls it by another address is let in"


def _is_guarded(running: RunningPod) -> None:
    status, text = running.admin("/metrics")
    assert (status, b"dualtrack_build_info" in text) == (200, True)
    assert running.admin("/api/v1/status")[0] == 401
    assert running.admin("/api/v1/status", SECRETS["DUALTRACK_ADMIN_TOKEN"])[0] == 200
    if not running.pod.is_sidecar:
        headers = _client(running.pod) | {"Authorization": "Bearer wrong"}
        assert running.mlflow("experiments/create", {"name": "refused"}, headers)[0] == 401


def _client(pod: Pod) -> dict[str, str]:
    """The headers of a training's client: by the Service's name and with a token, or by loopback."""
    if pod.is_sidecar:
        return {"Host": "127.0.0.1:5000"}
    (service,) = [each["metadata"]["name"] for each in pod.documents if each["kind"] == "Service"]
    host = f"{service}.{pod.environment['POD_NAMESPACE']}.svc:5000"
    return {"Host": host, "Authorization": f"Bearer {SECRETS['DUALTRACK_TOKEN']}"}
