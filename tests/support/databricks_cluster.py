"""Nodes of a Databricks cluster as far as an init script sees them: variables, a volume, a local disk, Spark's file.

Every node has an address of its own on the loopback network. The scripts, the wheel and the proxy are the real ones.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from dualtrack.demo.servers import answers, free_port
from tests.support.packages import ROOT
from tests.support.proxy import HASTE, until

SHIPPED = ROOT / "deploy" / "databricks"
DRIVER_IP, WORKER_IP = "127.0.0.2", "127.0.0.3"
TOKEN = "the-cluster's-token"


@dataclass(kw_only=True)
class Cluster:
    """One cluster. `backends` stand in the configuration instead of the shipped ones; the rest of it is as shipped."""

    root: Path
    wheel: Path | None
    dependencies: Path
    backends: Mapping[str, Any]
    extra: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    admin_port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        self.volume.mkdir(parents=True)
        for name in ("dualtrack-init.sh", "dualtrack-supervise.sh"):
            shutil.copy(SHIPPED / name, self.volume)
        if self.wheel is not None:
            shutil.copy(self.wheel, self.volume)
        document = yaml.safe_load((SHIPPED / "dualtrack.yaml").read_text()) | HASTE
        names = list(self.backends)
        document |= {"primary": names[0], "registry": names[0], "backends": dict(self.backends)}
        (self.volume / "dualtrack.yaml").write_text(yaml.safe_dump(document))

    @property
    def volume(self) -> Path:
        return self.root / "volume"

    @property
    def disk(self) -> Path:
        """What the script keeps on the driver's local disk."""
        return self.root / "driver" / "dualtrack"

    @property
    def uri(self) -> str:
        return f"http://{DRIVER_IP}:{self.port}"

    @property
    def admin_url(self) -> str:
        return f"http://127.0.0.1:{self.admin_port}"

    def environment(self, node: str) -> dict[str, str]:
        """What a process of a node is given: Databricks' variables and spark_env_vars."""
        return {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(self.dependencies),
            "DB_IS_DRIVER": "TRUE" if node == "driver" else "FALSE",
            "DB_DRIVER_IP": DRIVER_IP,
            "DB_CONTAINER_IP": DRIVER_IP if node == "driver" else WORKER_IP,
            "DB_CLUSTER_ID": "0101-000000-abcdefgh",
            "MLFLOW_TRACKING_TOKEN": TOKEN,
            "DUALTRACK_SOURCE": str(self.volume),
            "DUALTRACK_DIR": str(self.root / node / "dualtrack"),
            "DUALTRACK_SPARK_ENV": str(self.spark_env(node)),
            "DUALTRACK_PYTHON": sys.executable,
            "DUALTRACK_PORT": str(self.port),
            "DUALTRACK_ADMIN_PORT": str(self.admin_port),
            **self.extra,
        }

    def spark_env(self, node: str) -> Path:
        return self.root / node / "spark-env.sh"

    def install_as(self, other: "Cluster") -> None:
        """Begin where a driver is that has installed the same wheel: an environment takes a while to make."""
        self.disk.mkdir(parents=True)
        (self.disk / "venv").symlink_to(other.disk / "venv")
        shutil.copy(other.disk / "installed", self.disk)

    def start(self, node: str, **extra: str) -> subprocess.CompletedProcess[str]:
        """Run the init script as a node does when it starts. Its streams are pipes: what holds them open hangs here."""
        self.spark_env(node).parent.mkdir(parents=True, exist_ok=True)
        return subprocess.run(
            ["bash", self.volume / "dualtrack-init.sh"],
            env=self.environment(node) | extra,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=280,
            check=False,
        )

    def spark_variables(self, node: str) -> dict[str, str]:
        """What Spark's own file sets for the processes of a node."""
        place = self.spark_env(node)
        line = f". {place}; env -0" if place.exists() else "env -0"
        command = ["bash", "-c", line]
        done = subprocess.run(command, env=self.environment(node), capture_output=True, text=True, check=True)
        pairs = (entry.partition("=") for entry in done.stdout.split("\0") if entry)
        return {name: value for name, _, value in pairs}

    def run_python(self, node: str, text: str, *arguments: str) -> str:
        """Run a program as a Spark process of a node would; give the last line that it prints."""
        done = subprocess.run(
            [sys.executable, "-c", text, *arguments],
            env=self.spark_variables(node),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip().splitlines()[-1]

    # --- what runs on the driver --------------------------------------------------------------------------------

    def pid(self, name: str) -> int:
        """`supervisor` or `serve`; 0 if it does not run, or has not written its number yet."""
        place = self.disk / f"{name}.pid"
        number = int(place.read_text() or 0) if place.exists() else 0
        return number if number and _is_running(number) else 0

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to one that runs. To the number 0 it would go to all that run with the tests."""
        pid = self.pid(name)
        assert pid, f"{name} does not run:\n{self.log()}"
        os.kill(pid, number)

    def is_ready(self) -> bool:
        return answers(f"{self.admin_url}/readyz")

    def drain(self) -> None:
        program = self.disk / "venv" / "bin" / "dualtrack"
        command = [str(program), "drain", "--admin-url", self.admin_url, "--timeout", "60s"]
        subprocess.run(command, env=self.environment("driver"), check=True, timeout=90)

    def terminate(self) -> None:
        """Ask the supervisor to end, as the end of a cluster may."""
        self.signal("supervisor", signal.SIGTERM)

    def wait_for_end(self, timeout: float = 180) -> None:
        until("the end of the supervisor", lambda: not self.pid("supervisor"), timeout)

    def close(self) -> None:
        """Leave nothing running."""
        for name in ("supervisor", "serve"):
            if number := self.pid(name):
                os.kill(number, signal.SIGKILL)

    def log(self) -> str:
        place = self.disk / "serve.log"
        return place.read_text() if place.exists() else ""


def _is_running(pid: int) -> bool:
    """Whether a process is there and is no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return re.sub(r".*\)", "", state).split()[0] != "Z"
