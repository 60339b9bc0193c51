"""`dualtrack serve` in a process of its own: to be killed, stopped and measured, on a configuration file."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
from aiohttp import ClientConnectionError, ClientSession

from dualtrack.cli.drain import remains
from dualtrack.demo.servers import Process, answers, clean_environment
from tests.support.flow import LONG, SECRETS, Client, Json, Reply

ROOT = Path(__file__).parents[2]
_ASKED_AGAIN = frozenset({408, 429, 500, 502, 503, 504})  # mlflow 3.17.2, `request_utils`
ARGV = (sys.executable, "-m", "dualtrack", "serve", "--config")


def launch_serve(config: Path, *, log_path: Path) -> Process:
    """Start it and return at once."""
    environment = clean_environment(**SECRETS, PYTHONPATH=str(ROOT))
    return Process([*ARGV, str(config)], log_path=log_path, env=environment)


class Served(Client):
    """A `serve` that can be killed and started again on the same configuration; a client of it, too."""

    def __init__(self, folder: Path, text: str, session: ClientSession) -> None:
        tree = orjson.loads(text)
        super().__init__(f"http://127.0.0.1:{tree['listen']['port']}", session)
        token = f"Bearer {SECRETS['TOKEN_ADMIN']}"
        self.admin = Client(f"http://127.0.0.1:{tree['admin']['port']}", session, Authorization=token)
        self.config = folder / "dualtrack.yaml"
        self.config.write_text(text)
        self.log_path = folder / "serve.log"
        self.process: Process

    async def start(self) -> None:
        self.process = launch_serve(self.config, log_path=self.log_path)
        is_ready = f"{self.admin.url}/readyz"
        await asyncio.to_thread(self.process.wait_ready, lambda: answers(is_ready))

    async def kill(self) -> None:
        """SIGKILL."""
        await asyncio.to_thread(self.process.kill)

    async def restart(self) -> None:
        await self.kill()
        await self.start()

    async def status(self) -> Json:
        document: Json = (await self.admin.call("GET", "/api/v1/status")).json
        return document

    async def drained(self, seconds: float = LONG) -> None:
        """Wait until nothing is left, or all that is left waits for a parked entry."""
        async with asyncio.timeout(seconds):
            while not _is_over(await self.status()):  # noqa: ASYNC110 - another process's state: there is no event
                await asyncio.sleep(0.02)

    def rss_mib(self) -> float:
        """Resident memory now."""
        return self._memory_mib("VmRSS")

    def peak_mib(self) -> float:
        """The most resident memory that it ever had."""
        return self._memory_mib("VmHWM")

    def _memory_mib(self, figure: str) -> float:
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(figure)) / 1024

    async def until_down(self, backend: str) -> None:
        """Wait until the last that was heard of a backend is that it did not answer."""
        while (await self._backend(backend))["up"] is not False:  # noqa: ASYNC110 - another process's state
            await asyncio.sleep(0.02)

    async def _backend(self, name: str) -> Json:
        return next(each for each in (await self.status())["backends"] if each["name"] == name)

    async def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Another `dualtrack` command with the same configuration, to its end."""
        argv = [sys.executable, "-m", "dualtrack", *arguments, "--config", str(self.config)]
        env = clean_environment(**SECRETS, PYTHONPATH=str(ROOT))
        return await asyncio.to_thread(
            lambda: subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
        )

    async def repeated(self, ask: Callable[[], Awaitable[Reply]]) -> Reply:
        """Ask as MLflow's client does: again and again, until there is an answer that it takes as one."""
        while True:
            try:
                reply = await ask()
            except (ClientConnectionError, OSError):
                await asyncio.sleep(0.01)  # nobody listens: it is being started again
                continue
            if reply.status not in _ASKED_AGAIN:
                return reply

    async def repeat(self, path: str, **body: object) -> Json:
        """POST in that way; the answer in the end has to be 200."""
        reply = await self.repeated(lambda: self.call("POST", path, body))
        assert reply.status == 200, (path, reply.status, reply.body)
        document: Json = reply.json if reply.body else {}
        return document


def _is_over(status: Json) -> bool:
    left = remains(status)
    return left.is_drained or left.is_stuck


@asynccontextmanager
async def serving(folder: Path, text: str, session: ClientSession) -> AsyncIterator[Served]:
    """Run `serve` for a test; what is left of it ends with the test."""
    served = Served(folder, text, session)
    await served.start()
    try:
        yield served
    finally:
        await served.kill()
