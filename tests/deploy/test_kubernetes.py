"""`deploy/kubernetes`: rendered by kubectl, held against the API's schemas, and kept to what a pod of ours promises."""

import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from dualtrack import __version__
from tests.support.binaries import kubectl
from tests.support.pods import (
    OPERATOR,
    PROMISES,
    VERSIONS,
    Document,
    Pod,
    check_pod_monitor,
    check_schema,
    check_service_monitor,
    of_kind,
    parse,
)

KUBERNETES = Path(__file__).parents[2] / "deploy" / "kubernetes"
OVERLAYS = ("central", "monitoring", "sidecar")


def build(folder: Path) -> list[Document]:
    done = subprocess.run([kubectl(), "kustomize", folder], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, ""), f"{folder}: {done.stderr}"  # no deprecation either
    return parse(done.stdout)


@cache
def overlay(name: str) -> list[Document]:
    return build(KUBERNETES / "overlays" / name)


def one(documents: list[Document], kind: str, name: str = "dualtrack") -> Document:
    (found,) = [each for each in of_kind(documents, kind) if each["metadata"]["name"] == name]
    return found


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", OVERLAYS)
def test_what_is_rendered_fits_the_schemas(name: str, version: str) -> None:
    for document in overlay(name):
        check_schema(document, version)


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: str(promise.__name__))
@pytest.mark.parametrize("name", OVERLAYS)
def test_a_pod_keeps_its_promises(name: str, promise: Callable[[Pod], None]) -> None:
    promise(Pod.find(overlay(name)))


def test_a_base_lacks_its_configuration_alone() -> None:
    """It is no overlay; what it renders is what overlays build on."""
    kinds = {each["kind"] for each in build(KUBERNETES / "base")}

    assert {each["kind"] for each in overlay("central")} - kinds == {"ConfigMap"}


def test_a_changed_configuration_restarts_the_pod(tmp_path: Path) -> None:
    """The ConfigMap's name carries a hash of its content."""
    names = [_config_name(tmp_path / "one", ""), _config_name(tmp_path / "two", "registry_wait: 10s\n")]

    assert names[0] != names[1]


def _config_name(folder: Path, more: str) -> str:
    folder.mkdir()
    given = KUBERNETES / "overlays" / "central"
    (folder / "dualtrack.yaml").write_text((given / "dualtrack.yaml").read_text() + more)
    document = yaml.safe_load((given / "kustomization.yaml").read_text()) | {"resources": []}
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(document))
    (found,) = of_kind(build(folder), "ConfigMap")
    return str(found["metadata"]["name"])


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_image_is_of_this_version(name: str) -> None:
    assert Pod.find(overlay(name)).container["image"] == f"registry.example.com/dualtrack:{__version__}"


def test_the_training_finds_the_sidecar_and_is_left_as_it_is() -> None:
    spec = Pod.find(overlay("sidecar")).spec
    (given,) = parse((KUBERNETES / "overlays" / "sidecar" / "job.yaml").read_text())
    (training,) = spec["containers"]

    assert [training] == given["spec"]["template"]["spec"]["containers"]
    assert {"name": "MLFLOW_TRACKING_URI", "value": "http://127.0.0.1:5000"} in training["env"]


def test_a_job_without_the_label_gets_no_sidecar(tmp_path: Path) -> None:
    job = yaml.safe_load((KUBERNETES / "overlays" / "sidecar" / "job.yaml").read_text())
    del job["metadata"]["labels"]
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    component = Path("../" * len(tmp_path.resolve().parts[1:])) / (KUBERNETES / "components" / "sidecar").relative_to(
        "/"
    )
    document: dict[str, Any] = {"resources": ["job.yaml"], "components": [str(component)]}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(document))

    assert build(tmp_path) == [job]


def test_workload_identity_is_asked_for_on_the_pod_and_the_account(tmp_path: Path) -> None:
    up = Path("../" * len(tmp_path.resolve().parts[1:]))
    folders = {
        "resources": [str(up / (KUBERNETES / "overlays" / "central").relative_to("/"))],
        "components": [str(up / (KUBERNETES / "components" / "azure-workload-identity").relative_to("/"))],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(folders))
    documents = build(tmp_path)

    pod = Pod.find(documents)
    account = one(documents, "ServiceAccount")
    assert pod.labels["azure.workload.identity/use"] == "true"
    assert "azure.workload.identity/client-id" in account["metadata"]["annotations"]
    assert pod.spec["serviceAccountName"] == account["metadata"]["name"]
    for document in documents:
        check_schema(document, VERSIONS[-1])


def test_the_network_policy_lets_in_clients_and_lets_out_https() -> None:
    spec = one(overlay("central"), "NetworkPolicy")["spec"]

    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert [each["port"] for rule in spec["ingress"] for each in rule["ports"]] == ["mlflow"]
    assert {each["port"] for rule in spec["egress"] for each in rule["ports"]} == {53, 443}


def test_the_monitors_find_what_serves_metrics() -> None:
    documents = overlay("monitoring")

    check_service_monitor(one(documents, "ServiceMonitor"), one(documents, "Service"))
    check_pod_monitor(one(documents, "PodMonitor", "dualtrack-sidecars"), Pod.find(overlay("sidecar")))
    assert {each["kind"] for each in documents if each["apiVersion"] == OPERATOR} == {"ServiceMonitor", "PodMonitor"}


def test_metrics_may_be_read_from_the_monitoring_namespace() -> None:
    (rule,) = one(overlay("monitoring"), "NetworkPolicy", "dualtrack-metrics")["spec"]["ingress"]

    assert rule["ports"] == [{"port": "admin"}]
    assert Pod.find(overlay("monitoring")).port("admin") == 5001


def test_a_node_can_be_drained() -> None:
    assert one(overlay("central"), "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
