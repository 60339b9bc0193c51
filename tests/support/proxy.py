"""The real `dualtrack serve` in a process of its own, from a configuration file, as a user runs it."""

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import orjson
import yaml
from prometheus_client.parser import text_string_to_metric_families

from dualtrack.demo.servers import POLL_SECONDS, Process, answers, clean_environment, free_port

T = TypeVar("T")

PRIMARY, SECONDARY = "primary", "secondary"
# An outage in a test is short, so the proxy looks again soon.
HASTE: dict[str, Any] = {
    "delivery": {"retry_min": "200ms", "retry_max": "1s"},
    "breaker": {"pause_min": "200ms", "pause_max": "500ms"},
}


def until(what: str, look: Callable[[], T | None], timeout: float = 60) -> T:
    """Look until there is something, and give it; fail with `what` when it does not come."""
    deadline = time.monotonic() + timeout
    while not (found := look()):
        assert time.monotonic() < deadline, f"{what}: not within {timeout} s"
        time.sleep(POLL_SECONDS)
    return found


class Dualtrack:
    """`python -m dualtrack serve --config`, with its journal in `config_dir`.

    `extra` are top-level keys of the YAML; a mapping is merged into what is there. Without a secondary there is one
    backend alone. Keys of `tokens` are backends; their bearer tokens reach the process by the environment.
    """

    def __init__(
        self,
        config_dir: Path,
        primary_url: str,
        secondary_url: str | None,
        *,
        registry: str = PRIMARY,
        tokens: Mapping[str, str] | None = None,
        **extra: Any,
    ) -> None:
        config_dir.mkdir(parents=True, exist_ok=True)
        self.config_dir = config_dir
        self.config = config_dir / "dualtrack.yaml"
        self.journal = config_dir / "journal.db"
        self.log_path = config_dir / "serve.log"
        listen, admin = free_port(), free_port()
        self.url = f"http://127.0.0.1:{listen}"
        self.admin_url = f"http://127.0.0.1:{admin}"
        self._tokens = {f"TEST_{name.upper()}_TOKEN": token for name, token in (tokens or {}).items()}
        urls = {PRIMARY: primary_url} | ({SECONDARY: secondary_url} if secondary_url is not None else {})
        document: dict[str, Any] = {
            "listen": {"port": listen},
            "admin": {"port": admin},
            "primary": PRIMARY,
            "registry": registry,
            "backends": {name: self._backend(name, url) for name, url in urls.items()},
            "store": {"url": f"sqlite:///{self.journal.resolve()}"},
            "log": {"format": "json"},
            "verify": {"sweep": "never"},  # these servers hold what hundreds of tests left there
            **HASTE,
        }
        self.config.write_text(yaml.safe_dump(_merged(document, extra), sort_keys=False))
        self._process: Process | None = None

    def _backend(self, name: str, url: str) -> dict[str, Any]:
        secret = f"TEST_{name.upper()}_TOKEN"
        auth = {"type": "token", "token": f"${{{secret}}}"} if secret in self._tokens else {"type": "none"}
        return {"url": url, "kind": "mlflow", "auth": auth}

    @property
    def process(self) -> Process:
        assert self._process is not None, "not started"
        return self._process

    def launch(self) -> Self:
        self._process = Process(self._argv("serve"), log_path=self.log_path, env=self._environment())
        return self

    def start(self) -> Self:
        self.launch().process.wait_ready(lambda: answers(f"{self.admin_url}/readyz"))
        return self

    def kill(self) -> None:
        """End it as a power cut does."""
        self.process.kill()

    def restart(self) -> Self:
        """Start it again on the same journal and the same ports; end it first if it still runs."""
        if self.process.returncode is None:
            self.terminate()
        return self.start()

    def terminate(self, timeout: float = 60) -> int:
        """Ask it to end in order, and give its exit code."""
        os.kill(self.process.pid, signal.SIGTERM)
        return self.process.wait(timeout)

    def run(self, *arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run another `dualtrack` command with the same configuration."""
        return subprocess.run(
            self._argv(*arguments),
            env=self._environment(),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def drain(self, timeout: float = 120) -> None:
        """`dualtrack drain`: everything acknowledged is on the secondary, and nothing is parked."""
        done = self.run("drain", "--timeout", f"{timeout:g}s", timeout=timeout + 30)
        assert done.returncode == 0, f"{done.stdout}{done.stderr}\n{self.run('parked', 'list').stdout}\n{self.tail()}"

    def status(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.admin_url}/api/v1/status", timeout=30) as answer:
            document: dict[str, Any] = orjson.loads(answer.read())
            return document

    def backend(self, name: str = SECONDARY) -> dict[str, Any]:
        """What the status says of one backend."""
        found: dict[str, Any] = next(item for item in self.status()["backends"] if item["name"] == name)
        return found

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric over all samples that carry these labels."""
        with urllib.request.urlopen(f"{self.admin_url}/metrics", timeout=30) as answer:
            families = list(text_string_to_metric_families(answer.read().decode()))
        samples = [sample for family in families for sample in family.samples if sample.name == name]
        return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())

    def tail(self) -> str:
        return self.process.tail()

    def _argv(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "dualtrack", *arguments, "--config", str(self.config)]

    def _environment(self) -> dict[str, str]:
        return clean_environment(**self._tokens)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.stop()


def _merged(document: dict[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(document)
    for key, value in extra.items():
        before = merged.get(key)
        is_both = isinstance(before, dict) and isinstance(value, dict)
        merged[key] = _merged(before, value) if is_both else value  # type: ignore[arg-type]  # both are mappings
    return merged
