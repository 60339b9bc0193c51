"""What every pod that runs dualtrack has to keep, whichever tool rendered it.

`Pod` finds our container in a list of rendered documents, native sidecar or not, with its configuration. `PROMISES` are
checks of one such pod; kustomize's overlays and the chart are both held to all of them. Schemas are those that
`kubernetes-validate` carries, made from Kubernetes' own OpenAPI; those of the Prometheus Operator are models generated
from its CRDs (`operator_models`).
"""

import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Final, Self

import kubernetes_validate
import orjson
import yaml

from dualtrack import config
from dualtrack.cli import main
from dualtrack.config import Config
from tests.support import environments
from tests.support.environments import client_python

Document = dict[str, Any]

VERSIONS: Final = ("1.29", "1.37")  # the first with native sidecars switched on, and the newest there is a schema of
OPERATOR: Final = "monitoring.coreos.com/v1"
JOB: Final = "dualtrack"  # in alerts and dashboards
POD_IP: Final = "10.1.2.3"
# What the Secret `dualtrack` holds, as the READMEs make it.
SECRETS: Final = {"DUALTRACK_ADMIN_TOKEN": "admin-secret", "DUALTRACK_TOKEN": "client-secret"}
_MODELS: Final = Path(__file__).with_name("operator_models.py")
_WORKLOADS: Final = {"Deployment", "Job"}
_WORDS: Final = {
    "restartPolicy": {"Always", "Never", "OnFailure"},
    "imagePullPolicy": {"Always", "IfNotPresent", "Never"},
    "accessModes": {"ReadWriteOnce", "ReadWriteOncePod"},
    "policyTypes": {"Ingress", "Egress"},
    "protocol": {"TCP", "UDP"},
    "fsGroupChangePolicy": {"OnRootMismatch"},
    "unhealthyPodEvictionPolicy": {"AlwaysAllow"},
    "type": {"Recreate", "RuntimeDefault"},
    "fieldPath": {"status.podIP", "metadata.namespace"},
}
_QUANTITY: Final = {"Mi": 1024**2, "Gi": 1024**3}


def parse(text: str) -> list[Document]:
    return [document for document in yaml.safe_load_all(text) if document]


def of_kind(documents: list[Document], kind: str) -> list[Document]:
    return [document for document in documents if document["kind"] == kind]


@dataclass(frozen=True)
class Pod:
    """The pod of one workload that runs dualtrack, and all that was rendered with it."""

    documents: list[Document]
    workload: Document

    @classmethod
    def find(cls, documents: list[Document]) -> Self:
        """Take the one workload that has our container."""
        found = [cls(documents, each) for each in documents if each["kind"] in _WORKLOADS]
        (pod,) = [each for each in found if each.containers]
        return pod

    @property
    def template(self) -> Document:
        found: Document = self.workload["spec"]["template"]
        return found

    @property
    def spec(self) -> Document:
        found: Document = self.template["spec"]
        return found

    @property
    def labels(self) -> Mapping[str, str]:
        found: Mapping[str, str] = self.template["metadata"]["labels"]
        return found

    @property
    def is_sidecar(self) -> bool:
        return self.container not in self.spec["containers"]

    @property
    def containers(self) -> list[Document]:
        every = [*self.spec.get("initContainers", []), *self.spec["containers"]]
        return [each for each in every if each["name"] == "dualtrack"]

    @property
    def container(self) -> Document:
        (found,) = self.containers
        return found

    @property
    def namespace(self) -> str:
        return str(self.workload["metadata"].get("namespace", "default"))

    @cached_property
    def config_text(self) -> str:
        (mount,) = [each for each in self.container["volumeMounts"] if each["mountPath"] == "/etc/dualtrack"]
        name = self.volume(mount["name"])["configMap"]["name"]
        (found,) = [each for each in of_kind(self.documents, "ConfigMap") if each["metadata"]["name"] == name]
        return str(found["data"][Path(self.environment["DUALTRACK_CONFIG"]).name])

    @cached_property
    def environment(self) -> dict[str, str]:
        """What the process is given, with stand-ins for what a cluster knows."""
        fields = {"status.podIP": POD_IP, "metadata.namespace": self.namespace}
        own = {
            each["name"]: each["value"] if "value" in each else fields[each["valueFrom"]["fieldRef"]["fieldPath"]]
            for each in self.container["env"]
        }
        return SECRETS | own

    @property
    def config(self) -> Config:
        return config.parse(self.config_text, self.environment, Path("/"))

    @property
    def commands(self) -> dict[str, list[str]]:
        """Our command lines in this pod; the image's entry point is `dualtrack`."""
        hook = self.container["lifecycle"]["preStop"]["exec"]["command"]
        assert hook[0] == "dualtrack"
        return {"serve": self.container["args"], "preStop": hook[1:]}

    @property
    def probes(self) -> dict[str, Document]:
        return {name: probe for name, probe in self.container.items() if name.endswith("Probe")}

    def volume(self, name: str) -> Document:
        (found,) = [each for each in self.spec["volumes"] if each["name"] == name]
        return found  # type: ignore[no-any-return]

    def port(self, name: str) -> int:
        (found,) = [each["containerPort"] for each in self.container["ports"] if each["name"] == name]
        return int(found)


# --- schemas --------------------------------------------------------------------------------------------------------


def check_schema(document: Document, version: str) -> None:
    """Hold a document against its schema, in which unknown keys are errors."""
    if document["apiVersion"] == OPERATOR:
        kept = _as_the_operator_reads(document["kind"], orjson.dumps(document))
        assert kept == document, "a key that the operator does not know"
    else:
        kubernetes_validate.validate(document, version, strict=True)
        _check_words(document)


def _check_words(value: object) -> None:
    """Where the API takes one of a few words, its schema says `string`: those that we use are in `_WORDS`."""
    match value:
        case dict():
            for key, item in value.items():
                for word in item if isinstance(item, list) else [item]:
                    assert not isinstance(word, str) or word in _WORDS.get(key, {word}), f"{key}: {word}"
                _check_words(item)
        case list():
            for item in value:
                _check_words(item)


@cache
def _as_the_operator_reads(kind: str, text: bytes) -> Document:
    """Answer what its models keep of a document; they refuse wrong values, and leave out unknown keys."""
    done = subprocess.run(
        [client_python(environments.OPERATOR), "-I", _MODELS, kind],
        input=text,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    kept: Document = orjson.loads(done.stdout)
    return kept


# --- monitoring -----------------------------------------------------------------------------------------------------


def check_service_monitor(monitor: Document, service: Document) -> None:
    """It finds the Service and a port of it, and its targets are of the job that the alerts ask for."""
    labels, spec = service["metadata"]["labels"], monitor["spec"]
    assert spec["selector"]["matchLabels"].items() <= labels.items()
    assert {each["port"] for each in spec["endpoints"]} <= {each["name"] for each in service["spec"]["ports"]}
    assert labels[spec["jobLabel"]] == JOB


def check_pod_monitor(monitor: Document, sidecar: Pod) -> None:
    """The same of the pods with a sidecar."""
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= sidecar.labels.items()
    assert sidecar.port(endpoint["port"]) == sidecar.config.admin.port
    assert endpoint["relabelings"] == [{"targetLabel": "job", "replacement": JOB}]


# --- promises -------------------------------------------------------------------------------------------------------


def is_locked_down(pod: Pod) -> None:
    security = pod.spec.get("securityContext", {}) | pod.container["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] > 0
    assert security["readOnlyRootFilesystem"] is True
    assert security["allowPrivilegeEscalation"] is False
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    if not pod.is_sidecar:  # what a training needs of the API is its own affair
        assert pod.spec["automountServiceAccountToken"] is False


def can_write_where_it_does(pod: Pod) -> None:
    """With a read-only root, every path that is written to is on a volume."""
    mounts = [each["mountPath"] for each in pod.container["volumeMounts"] if not each.get("readOnly")]
    loaded = pod.config
    for path in (loaded.store.path, loaded.spool_dir, Path("/tmp"), Path(pod.environment["HOME"])):
        assert any(path.is_relative_to(mount) for mount in mounts), path


def configures_well(pod: Pod) -> None:
    loaded = pod.config
    assert loaded.secondaries
    assert (loaded.listen.port, loaded.admin.port) == (5000, pod.port(_admin(pod)))
    assert POD_IP in loaded.allowed_hosts, "the kubelet's probes would be refused"
    if pod.is_sidecar:
        assert loaded.listen.host == "127.0.0.1"
    else:
        assert loaded.listen.port == pod.port("mlflow")
        assert loaded.auth is not None


def _admin(pod: Pod) -> str:
    return "dualtrack-admin" if pod.is_sidecar else "admin"


def probes_ask_what_is_served(pod: Pod) -> None:
    asked = {name: (probe["httpGet"]["path"], probe["httpGet"]["port"]) for name, probe in pod.probes.items()}
    admin = _admin(pod)
    if pod.is_sidecar:
        assert asked == {"startupProbe": ("/readyz", admin), "livenessProbe": ("/livez", admin)}
    else:
        assert asked == {
            "startupProbe": ("/livez", admin),
            "livenessProbe": ("/livez", admin),
            "readinessProbe": ("/readyz", admin),
        }


def runs_commands_that_there_are(pod: Pod) -> None:
    for name, line in pod.commands.items():
        command = main.commands[line[0]]
        command.make_context(f"dualtrack {line[0]}", line[1:])
        assert command.name == {"serve": "serve", "preStop": "drain"}[name]


def has_time_to_stop(pod: Pod) -> None:
    """The preStop hook and both deadlines of the process fit into the grace period, and a signal's way."""
    (drain,) = re.findall(r"--timeout (\d+)s", " ".join(pod.commands["preStop"]))
    shutdown = pod.config.shutdown
    needed = int(drain) + shutdown.grace.total_seconds() + shutdown.deliveries.total_seconds()
    assert pod.spec["terminationGracePeriodSeconds"] >= needed + 10


def has_room(pod: Pod) -> None:
    """The volume holds the journal and the spool at their bounds, and a quarter more for what is on its way."""
    loaded = pod.config
    assert _room(pod) >= 1.25 * (loaded.store.max_size + loaded.spool.max_size)


def _room(pod: Pod) -> int:
    (mount,) = [each["name"] for each in pod.container["volumeMounts"] if each["mountPath"] == "/var/lib/dualtrack"]
    volume = pod.volume(mount)
    if "emptyDir" in volume:
        return quantity(pod.container["resources"]["requests"]["ephemeral-storage"])
    claim = volume["persistentVolumeClaim"]["claimName"]
    (found,) = [each for each in of_kind(pod.documents, "PersistentVolumeClaim") if each["metadata"]["name"] == claim]
    return quantity(found["spec"]["resources"]["requests"]["storage"])


def is_not_evicted_for_a_file(pod: Pod) -> None:
    """Files on their way have no bound, and the kubelet evicts a pod that is over a limit, the training with it."""
    volumes = [pod.volume(each["name"]) for each in pod.container["volumeMounts"]]
    limited = [each["name"] for each in volumes if "sizeLimit" in (each.get("emptyDir") or {})]
    assert not limited
    assert "ephemeral-storage" not in pod.container["resources"].get("limits", {})


def quantity(text: str) -> int:
    return int(text[:-2]) * _QUANTITY[text[-2:]]


def is_alone(pod: Pod) -> None:
    """One process per journal, also while it is replaced."""
    if pod.workload["kind"] == "Deployment":
        assert pod.workload["spec"]["replicas"] == 1
        assert pod.workload["spec"]["strategy"] == {"type": "Recreate"}
    else:
        assert pod.spec["restartPolicy"] == "Never"  # of the training; a Job takes no other but OnFailure
    if pod.is_sidecar:
        assert pod.container["restartPolicy"] == "Always"


def is_selected(pod: Pod) -> None:
    """Whoever selects pods by label names all of this one's kind, and ports by the names that it has."""
    ports = {each["name"] for each in pod.container["ports"]}
    for document, selector, named in _selectors(pod.documents):
        where = f"{document['kind']} {document['metadata']['name']}"
        assert selector, f"{where} selects everything"
        assert selector.items() <= pod.labels.items(), where
        assert named <= ports, where


def _selectors(documents: list[Document]) -> Iterator[tuple[Document, dict[str, str], set[Any]]]:
    for document in documents:
        spec = document.get("spec", {})
        match document["kind"]:
            case "Service":
                yield document, spec["selector"], {each["targetPort"] for each in spec["ports"]}
            case "Deployment" | "PodDisruptionBudget":
                yield document, spec["selector"]["matchLabels"], set()
            case "NetworkPolicy":
                named = {each["port"] for rule in spec["ingress"] for each in rule["ports"]}
                yield document, spec["podSelector"]["matchLabels"], named


PROMISES: Final[tuple[Callable[[Pod], None], ...]] = (
    is_locked_down,
    can_write_where_it_does,
    configures_well,
    probes_ask_what_is_served,
    runs_commands_that_there_are,
    has_time_to_stop,
    has_room,
    is_not_evicted_for_a_file,
    is_alone,
    is_selected,
)
