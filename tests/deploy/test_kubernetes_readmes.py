"""What the READMEs of `deploy/kubernetes` and of the chart tell people to type."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from dualtrack.cli import main
from tests.deploy.test_helm import CHART, RULES, one, template
from tests.deploy.test_kubernetes import KUBERNETES
from tests.support.binaries import helm, kubectl
from tests.support.pods import VERSIONS, Pod, check_schema, parse

READMES = (KUBERNETES / "README.md", CHART / "README.md")
BLOCK = re.compile(r"^```(bash|yaml)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(readme: Path, language: str) -> list[str]:
    return [text for found, text in BLOCK.findall(readme.read_text()) if found == language]


def lines(program: str) -> list[str]:
    """Every command line of a program, in blocks, continued lines joined."""
    text = "\n".join(block for readme in READMES for block in blocks(readme, "bash"))
    return [line for line in text.replace("\\\n", " ").splitlines() if line.startswith(program)]


def test_our_commands_are_commands() -> None:
    inside = [line.partition(" -- dualtrack ")[2] for line in lines("kubectl") if " -- dualtrack " in line]

    assert inside
    for line in inside:
        name, *rest = shlex.split(line)
        main.commands[name].make_context(name, rest)


@pytest.mark.parametrize("line", [line for line in lines("kubectl") if "--kustomize" in line])
def test_folders_that_are_applied_are_there(line: str) -> None:
    folder = shlex.split(line.partition("--kustomize")[2])[0]

    assert (
        subprocess.run([kubectl(), "kustomize", KUBERNETES / folder], capture_output=True, check=False).returncode == 0
    )


@pytest.mark.parametrize("line", lines("helm install") + lines("helm upgrade"))
def test_the_charts_own_lines_render(line: str, tmp_path: Path) -> None:
    """`helm template` with the very arguments, and the values and rules that the README shows."""
    (mine,) = [block for block in blocks(CHART / "README.md", "yaml") if block.startswith("# values-mine.yaml")]
    (tmp_path / "values-mine.yaml").write_text(
        mine.replace("…", "s/resourceGroups/g/providers/Microsoft.MachineLearningServices")
    )
    (tmp_path / "rules.yaml").write_text(RULES)
    (tmp_path / "deploy").symlink_to(CHART.parents[1])
    words = shlex.split(line)[2:]

    done = subprocess.run(
        [helm("4"), "template", *words], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )

    assert done.returncode == 0, done.stderr
    pod = Pod.find(parse(done.stdout))
    assert pod.container["image"].startswith("registry.example.com/dualtrack:")
    assert pod.config.secondaries


def test_the_values_for_workload_identity_are_values(tmp_path: Path) -> None:
    (given,) = [block for block in blocks(CHART / "README.md", "yaml") if block.startswith("serviceAccount:")]
    (tmp_path / "values.yaml").write_text(given)
    central = CHART / "ci" / "central-values.yaml"

    account = one(template("4", "--values", central, "--values", tmp_path / "values.yaml"), "ServiceAccount")
    assert account["metadata"]["annotations"] == yaml.safe_load(given)["serviceAccount"]["annotations"]


def test_a_file_of_rules_becomes_a_resource(tmp_path: Path) -> None:
    """The shell lines of the README, up to the pipe into kubectl."""
    (block,) = [block for block in blocks(KUBERNETES / "README.md", "bash") if "PrometheusRule" in block]
    (tmp_path / "rules.yaml").write_text(RULES)
    script = block.rpartition("| kubectl apply")[0]

    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=30, check=True)
    (rule,) = parse(done.stdout)
    check_schema(rule, VERSIONS[-1])
    assert rule["spec"] == yaml.safe_load(RULES)
