"""Training scripts of users, in processes of their own: the unmodified client and one environment variable."""

import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson

from dualtrack.demo.servers import Process, clean_environment

SCRIPTS = Path(__file__).parents[1] / "acceptance" / "scripts"
# An outage that is not part of a test ends it soon.
IMPATIENT = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0"}
# All retries that the client ever makes, but the first waits are short.
PATIENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "10",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0.2",
}


class Script:
    """One script under way. `finish` gives what it printed as its last line, in JSON.

    `python` is the interpreter of another client (tests/support/environments.py); without it, the tests' own.
    """

    def __init__(
        self,
        name: str,
        uri: str,
        folder: Path,
        *arguments: str,
        env: dict[str, str] | None = None,
        python: Path | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        settings = {"MLFLOW_TRACKING_URI": uri, "MLFLOW_DISABLE_TELEMETRY": "true", **(env or IMPATIENT)}
        self._process = Process(
            [str(python or sys.executable), str(SCRIPTS / f"{name}.py"), *arguments],
            log_path=folder / f"{name}.log",
            env=clean_environment(DO_NOT_TRACK="true", PYTHONWARNINGS="ignore", **settings),
        )

    @property
    def is_running(self) -> bool:
        return self._process.returncode is None

    def finish(self, timeout: float = 120) -> dict[str, Any]:
        """Wait for the end; the script must have succeeded."""
        code = self._process.wait(timeout)
        assert code == 0, self._process.tail()
        document: dict[str, Any] = orjson.loads(self._process.log_path.read_text().splitlines()[-1])
        return document

    def tail(self) -> str:
        return self._process.tail()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()


def run_script(
    name: str,
    uri: str,
    folder: Path,
    *arguments: str,
    env: dict[str, str] | None = None,
    python: Path | None = None,
    timeout: float = 120,
) -> dict[str, Any]:
    """Run a script to its end and give what it printed last."""
    with Script(name, uri, folder, *arguments, env=env, python=python) as script:
        return script.finish(timeout)
