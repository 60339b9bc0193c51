"""`deploy/helm/dualtrack`: rendered by the real helm, 3 and 4, and kept to what a pod of ours promises."""

import shutil
import subprocess
import tarfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import orjson
import pytest
import yaml

from dualtrack import __version__
from dualtrack.config import Config
from tests.support.binaries import PACKAGES, helm
from tests.support.pods import (
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

CHART = Path(__file__).parents[2] / "deploy" / "helm" / "dualtrack"
CASES = ("central", "sidecar")
RULES = """\
# comments are kept out of nothing
groups:
  - name: dualtrack
    rules:
      - alert: DualtrackLag
        expr: dualtrack_lag_seconds > 900
        annotations: {summary: "{{ $labels.backend }} is {{ $value | humanizeDuration }} behind"}
"""
# The chart writes these itself, from other values or from none.
WRITTEN_BY_THE_CHART = {"listen", "admin", "allowed_hosts", "shutdown"}


def values(case: str) -> Path:
    return CHART / "ci" / f"{case}-values.yaml"


def run(major: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([helm(major), *arguments], capture_output=True, text=True, timeout=60, check=False)


def template(major: str, *arguments: str | Path, chart: Path = CHART) -> list[Document]:
    done = run(major, "template", "mirror", chart, "--namespace", "ml", *arguments)
    assert done.returncode == 0, done.stderr
    return parse(done.stdout)


@cache
def rendered(major: str, case: str) -> list[Document]:
    return template(major, "--values", values(case))


def one(documents: list[Document], kind: str) -> Document:
    (found,) = of_kind(documents, kind)
    return found


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("major", PACKAGES)
def test_helm_finds_nothing_to_say(major: str, case: str) -> None:
    done = run(major, "lint", "--strict", CHART, "--values", values(case))

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("case", CASES)
def test_both_helms_render_the_same(case: str) -> None:
    documents = [sorted(rendered(major, case), key=lambda each: str(each["kind"])) for major in PACKAGES]

    assert documents[0] == documents[1]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("case", CASES)
def test_what_is_rendered_fits_the_schemas(case: str, version: str) -> None:
    for document in rendered("4", case):
        check_schema(document, version)


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: str(promise.__name__))
@pytest.mark.parametrize("case", CASES)
def test_a_pod_keeps_its_promises(case: str, promise: Callable[[Pod], None]) -> None:
    promise(Pod.find(rendered("4", case)))


def test_default_values_lack_the_backends_and_the_image_alone() -> None:
    done = run("4", "template", "mirror", CHART)

    assert done.returncode != 0
    for key in ("primary", "registry", "backends"):
        assert f"'{key}'" in done.stderr
    backends = ("--set", "config.primary=a,config.registry=a,config.backends.a.url=https://a.example")
    done = run("4", "template", "mirror", CHART, *backends)
    assert done.returncode != 0
    assert "image.repository has to name the registry" in done.stderr
    # and with those, the defaults are room and time enough
    pod = Pod.find(template("4", *backends, "--set", "image.repository=registry.example.com/dualtrack"))
    assert pod.config.store.max_size == Config.model_fields["store"].default.max_size


def test_what_is_rendered_central_and_beside_a_training() -> None:
    assert {each["kind"] for each in rendered("4", "central")} == {
        *("Deployment", "Service", "ServiceAccount", "ConfigMap", "PersistentVolumeClaim"),
        *("PodDisruptionBudget", "NetworkPolicy", "ServiceMonitor"),
    }
    assert {each["kind"] for each in rendered("4", "sidecar")} == {"ConfigMap", "Job", "PodMonitor"}


@pytest.mark.parametrize(
    ("switch", "kind"),
    [
        ("podDisruptionBudget.enabled=false", "PodDisruptionBudget"),
        ("networkPolicy.enabled=false", "NetworkPolicy"),
        ("serviceMonitor.enabled=false", "ServiceMonitor"),
        ("persistence.existingClaim=mine", "PersistentVolumeClaim"),
        ("central.enabled=false", "Deployment"),
    ],
)
def test_a_part_can_be_left_out(switch: str, kind: str) -> None:
    assert of_kind(rendered("4", "central"), kind)
    assert not of_kind(template("4", "--values", values("central"), "--set", switch), kind)


def test_a_claim_of_ones_own_is_mounted() -> None:
    pod = Pod.find(template("4", "--values", values("central"), "--set", "persistence.existingClaim=mine"))

    assert pod.volume("journal")["persistentVolumeClaim"]["claimName"] == "mine"


def test_the_volume_outlives_the_release() -> None:
    claim = one(rendered("4", "central"), "PersistentVolumeClaim")

    assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


def test_a_longer_drain_lengthens_the_grace_period() -> None:
    pod = Pod.find(template("4", "--values", values("central"), "--set", "shutdown.drainSeconds=600"))

    assert pod.commands["preStop"] == ["drain", "--timeout", "600s"]
    assert pod.spec["terminationGracePeriodSeconds"] >= 600 + 20 + 5


def test_a_changed_configuration_restarts_the_pod() -> None:
    changed = template("4", "--values", values("central"), "--set", "config.registry_wait=10s")
    sums = [Pod.find(each).template["metadata"]["annotations"] for each in (rendered("4", "central"), changed)]

    assert sums[0]["checksum/config"] != sums[1]["checksum/config"]


def test_clients_may_be_asked_for_another_proof(tmp_path: Path) -> None:
    auth = {"type": "basic", "username": "team", "password": "${DUALTRACK_TOKEN}"}
    (tmp_path / "values.yaml").write_text(yaml.safe_dump({"config": {"auth": auth}}))
    asked = Pod.find(template("4", "--values", values("central"), "--values", tmp_path / "values.yaml")).config.auth
    nobody = Pod.find(template("4", "--values", values("central"), "--set", "config.insecure=true")).config

    assert asked is not None
    assert asked.type == "basic"
    assert (nobody.auth, nobody.insecure) == (None, True)


@pytest.mark.parametrize("case", CASES)
def test_files_of_ones_own_are_mounted(case: str, tmp_path: Path) -> None:
    mount = {"name": "ca", "mountPath": "/etc/ca", "readOnly": True}
    volume = {"name": "ca", "configMap": {"name": "private-ca"}}
    given = {"extraVolumes": [volume], "extraVolumeMounts": [mount]}
    (tmp_path / "values.yaml").write_text(yaml.safe_dump(given))
    documents = template("4", "--values", values(case), "--values", tmp_path / "values.yaml")

    pod = Pod.find(documents)
    assert mount in pod.container["volumeMounts"]
    assert pod.volume("ca") == volume
    check_schema(pod.workload, VERSIONS[0])


def test_the_names_of_the_service_are_allowed_hosts() -> None:
    documents = rendered("4", "central")
    name, pod = one(documents, "Service")["metadata"]["name"], Pod.find(documents)
    namespace = pod.environment["POD_NAMESPACE"]

    expected = {name, f"{name}.{namespace}", f"{name}.{namespace}.svc", "mlflow.example.com"}
    assert expected <= set(pod.config.allowed_hosts)


def test_workload_identity_is_asked_for_on_the_pod_and_the_account() -> None:
    documents = rendered("4", "central")
    pod, account = Pod.find(documents), one(documents, "ServiceAccount")

    assert pod.labels["azure.workload.identity/use"] == "true"
    assert "azure.workload.identity/client-id" in account["metadata"]["annotations"]
    assert pod.spec["serviceAccountName"] == account["metadata"]["name"]


def test_the_monitors_find_what_serves_metrics() -> None:
    central, beside = rendered("4", "central"), rendered("4", "sidecar")

    check_service_monitor(one(central, "ServiceMonitor"), one(central, "Service"))
    check_pod_monitor(one(beside, "PodMonitor"), Pod.find(beside))


@pytest.mark.parametrize("major", PACKAGES)
def test_a_file_of_rules_becomes_a_resource(major: str, tmp_path: Path) -> None:
    """Its own braces are Prometheus', not helm's. Ours are tried, and one with a comment and braces."""
    (tmp_path / "some.rules.yml").write_text(RULES)
    for rules in (tmp_path / "some.rules.yml", *(CHART.parents[1] / "prometheus").glob("*.rules.yml")):
        switches = ("--set", "prometheusRule.enabled=true", "--set-file", f"prometheusRule.rules={rules}")
        rule = one(template(major, "--values", values("central"), *switches), "PrometheusRule")

        check_schema(rule, VERSIONS[-1])
        assert rule["spec"] == yaml.safe_load(rules.read_text())


def test_the_training_finds_the_sidecar() -> None:
    (training,) = Pod.find(rendered("4", "sidecar")).spec["containers"]

    assert training["image"] == "registry.example.com/training:1.0"
    assert {"name": "MLFLOW_TRACKING_URI", "value": "http://127.0.0.1:5000"} in training["env"]


@pytest.mark.parametrize("major", PACKAGES)
def test_pods_of_other_charts_take_the_sidecar(major: str, tmp_path: Path) -> None:
    """A chart that depends on this one includes its templates, as the README shows."""
    parent = tmp_path / "training"
    shutil.copytree(CHART, parent / "charts" / "dualtrack")
    (parent / "templates").mkdir()
    (parent / "Chart.yaml").write_text("apiVersion: v2\nname: training\nversion: 1.0.0\n")
    (parent / "templates" / "job.yaml").write_text(_readme_job())
    own = yaml.safe_load(values("sidecar").read_text())
    own["sidecar"].pop("job")
    (parent / "values.yaml").write_text(yaml.safe_dump({"dualtrack": own}))

    documents = template(major, chart=parent)
    pod = Pod.find(documents)
    assert pod.is_sidecar
    for promise in PROMISES:
        promise(pod)
    for document in documents:
        check_schema(document, VERSIONS[0])


def _readme_job() -> str:
    """The template that the README shows."""
    text = (CHART / "README.md").read_text()
    return text.partition("```yaml\n# templates/job.yaml\n")[2].partition("```")[0]


# --- values ---------------------------------------------------------------------------------------------------------


def schema() -> dict[str, Any]:
    document: dict[str, Any] = orjson.loads((CHART / "values.schema.json").read_bytes())
    return document


def valid() -> dict[str, Any]:
    """The defaults with what has to be given."""
    document: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
    document["image"]["repository"] = "registry.example.com/dualtrack"
    return document | {"config": {"primary": "a", "registry": "a", "backends": {"a": {"url": "https://a.example"}}}}


def refusals(document: dict[str, Any]) -> list[str]:
    validator = jsonschema.Draft7Validator(schema())
    return [each.message for each in validator.iter_errors(document)]


def test_the_schema_takes_the_defaults() -> None:
    jsonschema.Draft7Validator.check_schema(schema())

    assert refusals(valid()) == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("replicas", 2),
        ("replicas", 0),
        ("persistence.accessMode", "ReadWriteMany"),
        ("persistence.size", "many"),
        ("podDisruptionBudget.maxUnavailable", 2),
        ("listenHost", "mlflow.example.com"),
        ("image.pullPolicy", "Sometimes"),
        ("sidecar.drainSeconds", "5m"),
        ("sidecar.job.name", "Not_A_Name"),
        ("config.backends", {}),
        ("config.backends", {"a": {}}),
        ("config.listen", {"port": 80}),
        ("config.store", {"url": "sqlite:///elsewhere.db"}),
        ("networkPolicy.egressPorts", [0]),
        ("prometheusRule.enabled", True),
        ("no_such_value", 1),
        ("central.replicas", 1),
    ],
)
def test_the_schema_refuses(key: str, value: object, tmp_path: Path) -> None:
    given: dict[str, Any] = {}
    document, place = valid(), given
    target = document
    *above, last = key.split(".")
    for name in above:
        target, place = target[name], place.setdefault(name, {})
    target[last] = place[last] = value
    (tmp_path / "values.yaml").write_text(yaml.safe_dump(given))
    base = tmp_path / "base.yaml"
    kept = {"image"} if key == "config.backends" else {"image", "config"}
    base.write_text(yaml.safe_dump({name: each for name, each in valid().items() if name in kept}))
    render = ("template", "x", CHART, "--values", base)

    assert refusals(document)
    assert (run("3", *render).returncode == 0) is (key != "config.backends"), "it is refused for something else"
    assert run("3", *render, "--values", tmp_path / "values.yaml").returncode != 0


def test_the_schema_knows_every_key_of_the_configuration() -> None:
    known = set(schema()["properties"]["config"]["properties"])

    assert known == set(Config.model_fields) - WRITTEN_BY_THE_CHART


def test_every_value_is_in_the_schema_and_has_a_default() -> None:
    assert set(schema()["properties"]) - {"global"} == set(valid())


def test_the_chart_is_of_this_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())

    assert (chart["version"], chart["appVersion"]) == (__version__, __version__)


def test_a_package_is_without_what_tests_need(tmp_path: Path) -> None:
    done = run("4", "package", CHART, "--destination", tmp_path)

    assert done.returncode == 0, done.stderr
    with tarfile.open(tmp_path / f"dualtrack-{__version__}.tgz") as package:
        names = {name.split("/")[1] for name in package.getnames()}
    assert names == {"Chart.yaml", "values.yaml", "values.schema.json", "README.md", "templates", ".helmignore"}


@pytest.mark.parametrize("major", PACKAGES)
def test_notes_tell_what_to_do_next(major: str, tmp_path: Path) -> None:
    """Only an installation shows them, which needs a cluster: here a template of a copy does."""
    chart = tmp_path / "dualtrack"
    shutil.copytree(CHART, chart)
    (chart / "templates" / "notes.yaml").write_text(
        'kind: Notes\ntext: {{ include "dualtrack/templates/NOTES.txt" . | toJson }}\n'
    )
    central = one(template(major, "--values", values("central"), chart=chart), "Notes")["text"]
    sidecar = one(template(major, "--values", values("sidecar"), chart=chart), "Notes")["text"]

    assert "export MLFLOW_TRACKING_URI=http://mirror.ml.svc:5000" in central
    assert "exec deploy/mirror -- dualtrack drain --timeout 10m" in central
    assert "http://127.0.0.1:5000" in sidecar
