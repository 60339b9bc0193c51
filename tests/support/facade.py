"""An emulator in front of a real server: it asks for a token, keeps a log, and can be down while the server is up."""

import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson

from dualtrack.demo.servers import Emulator, free_port


class Facade:
    """A plain MLflow server behind a token. Stopped and started again, it keeps its port; its log starts anew."""

    def __init__(self, upstream: str, folder: Path, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.token = f"secret-of-{name}"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._upstream = upstream
        self._log_path = folder / f"{name}.log"
        self._emulator: Emulator | None = None

    @property
    def emulator(self) -> Emulator:
        assert self._emulator is not None, "not started"
        return self._emulator

    def start(self) -> Self:
        self._emulator = Emulator(
            "plain", upstream=self._upstream, token=self.token, log_path=self._log_path, port=self.port
        ).wait_ready()
        return self

    def stop(self) -> None:
        if self._emulator is not None:
            self._emulator.stop()

    def requests(self, since: int = 0, wait: float = 0) -> list[dict[str, Any]]:
        """What it has seen, the control routes apart; waits up to `wait` seconds for one beyond `since`."""
        seen: list[dict[str, Any]] = self._control(f"log?since={since}&wait={wait}")["requests"]
        return seen

    def wait_for(self, count: int, timeout: float = 60) -> int:
        """Wait until `count` requests have arrived in all; give the number of the last one seen."""
        last = 0
        while last < count:
            seen = self.requests(last, timeout)
            assert seen, f"request {count} did not arrive; {last} did"
            last = seen[-1]["number"]
        return last

    def duplicates(self) -> dict[str, Any]:
        return self._control("duplicates")

    def forget(self) -> None:
        """Empty the log."""
        self._control("log", method="DELETE")

    def _control(self, path: str, method: str = "GET") -> dict[str, Any]:
        request = urllib.request.Request(f"{self.url}/__emulator__/{path}", method=method)
        with urllib.request.urlopen(request, timeout=90) as answer:
            document: dict[str, Any] = orjson.loads(answer.read())
            return document

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
