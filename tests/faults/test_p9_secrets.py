"""P9: no credential in the journal, the logs, the metrics or the pages, nor in any answer, whoever asks and how.

A real `serve` with every kind of secret that it may hold, at log level debug, through traffic, refusals and outages;
then every byte that it wrote or said is searched for each of them.
"""

import asyncio
import base64
import sys
from pathlib import Path

from aiohttp import ClientSession

from dualtrack.demo.servers import clean_environment
from dualtrack.emulators.faults import BlackHole, Body, DropBefore, Refuse, Rule
from tests.support.flow import SECRETS, Client, Workspace, config_text
from tests.support.served import ROOT, Served, serving

WRONG = "a-wrong-guess-that-is-somebodys-password"
COOKIE = "a-session-that-is-nobodys-business"
AUTH = {"type": "basic", "username": "ann", "password": "${TOKEN_C}"}


def basic(password: str) -> str:
    return base64.b64encode(f"ann:{password}".encode()).decode()


NEEDLES = [*SECRETS.values(), WRONG, COOKIE, basic(SECRETS["TOKEN_C"]), basic(WRONG)]


def found_in(text: bytes) -> list[str]:
    return [needle for needle in NEEDLES if needle.encode() in text]


async def collect(served: Served, a: Workspace, b: Workspace) -> list[bytes]:
    """Make traffic and trouble of every kind; give all answers, heads included."""
    said: list[bytes] = []

    async def ask(client: Client, method: str, path: str, body: object = None, **headers: str) -> None:
        reply = await client.call(method, path, body, Cookie=f"s={COOKIE}", **headers)
        said.append(repr((reply.status, dict(reply.headers), reply.body)).encode())

    experiment = await served.create_experiment()
    run_id = await served.log_run(experiment)
    await ask(served, "GET", f"runs/get?run_id={run_id}")
    for given in ("", f"Basic {basic(WRONG)}", f"Bearer {WRONG}", WRONG):
        await ask(served, "POST", "runs/create", {"experiment_id": experiment}, Authorization=given)
    await ask(served, "POST", "runs/set-tag", b"[", X_Token=WRONG)
    await ask(served, "POST", "runs/set-tag", {}, Host="evil.example", Origin=f"http://ann:{WRONG}@evil.example")
    for action in (Refuse(status=401), Refuse(status=401, body=Body.HTML), Refuse(status=500), DropBefore()):
        await a.control.set_faults(Rule(action=action))
        await ask(served, "POST", "runs/set-tag", {"run_id": run_id, "key": "k", "value": "v"})
        await ask(served, "GET", f"runs/get?run_id={run_id}")
        await ask(served, "GET", "registered-models/search")
    await a.control.clear_faults()
    for action in (Refuse(status=401), Refuse(status=403), DropBefore(), Refuse(status=503)):
        await b.control.set_faults(Rule(first=5, action=action))
        await served.log_run(experiment)
        await served.drained()
    await b.control.set_faults(Rule(action=BlackHole()))
    await served.log_run(experiment)  # left in the journal
    for path in ("/", "/livez", "/readyz", "/metrics", "/api/v1/status", "/api/v1/parked", "/api/v1/losses"):
        await ask(served.admin, "GET", path)
    for path in ("/api/v1/ids", f"/api/v1/ids/{run_id}", "/api/v1/parked/1", f"/api/v1/ids/{WRONG[:6]}"):
        await ask(served.admin, "GET", path)
    await ask(served.admin, "POST", "/api/v1/parked/1/retry", {}, Authorization=f"Bearer {WRONG}")
    await ask(served.admin, "POST", "/api/v1/parked/9/discard", {"note": "x"})
    return said


def journal_files(folder: Path) -> tuple[dict[str, bytes], set[int]]:
    """Read the journal with all that lies beside it, and the rights of these files."""
    paths = list(folder.glob("journal.db*"))
    return {path.name: path.read_bytes() for path in paths}, {path.stat().st_mode & 0o777 for path in paths}


async def command(served: Served, *arguments: str) -> bytes:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "dualtrack", *arguments, "--config", str(served.config)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=ROOT,
        env=clean_environment(**SECRETS),
    )
    output, _ = await process.communicate()
    return output


async def test_no_secret_is_anywhere(tmp_path: Path, session: ClientSession, a: Workspace, b: Workspace) -> None:
    text = config_text(tmp_path, a, b, auth=AUTH, log={"level": "debug", "format": "json"})
    async with serving(tmp_path, text, session) as served:
        served.authorize(f"Basic {basic(SECRETS['TOKEN_C'])}")
        said = await collect(served, a, b)
        for arguments in (("status",), ("status", "--json"), ("parked", "list"), ("ids", "export"), ("check",)):
            said.append(await command(served, *arguments))
        files, modes = journal_files(tmp_path)
        log = served.log_path.read_bytes()

    assert [needles for answer in said if (needles := found_in(answer))] == []
    assert {name: found_in(content) for name, content in files.items() if found_in(content)} == {}
    assert modes == {0o600}
    assert found_in(log) == []
    assert len(files["journal.db"]) + len(files["journal.db-wal"]) > 0
    assert b"app.ready" in log
    assert b"delivery.retry" in log


async def test_a_wrong_token_of_a_backend_is_named_and_not_shown(
    tmp_path: Path, session: ClientSession, a: Workspace, b: Workspace
) -> None:
    """Where something is wrong with a secret, its place is said, never its text."""
    text = config_text(tmp_path, a, b, backends={"b": {"auth": {"token": "${TOKEN_A}"}}})
    async with serving(tmp_path, text, session) as served:
        await served.log_run(await served.create_experiment())
        await b.control.arrived("get-by-name")
        said = await command(served, "check", "--online")
        status = await command(served, "status")
        log = served.log_path.read_bytes()

    assert b"b" in said
    assert b"401" in said
    assert found_in(said + status + log) == []


async def test_a_secret_in_the_file_is_refused_without_showing_it(tmp_path: Path, a: Workspace, b: Workspace) -> None:
    text = config_text(tmp_path, a, b, backends={"b": {"auth": {"token": WRONG}}})
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "dualtrack", "serve", "--config", str(path)),
        stderr=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env=clean_environment(**SECRETS),
    )
    _, said = await process.communicate()

    assert process.returncode == 2
    assert b"backends.b.auth.token" in said
    assert found_in(said) == []
