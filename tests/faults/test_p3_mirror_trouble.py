"""P3: a secondary that is slow, refusing, black-holed or gone changes nothing that the client sees.

Not by a stopwatch: every call of the client completes while the secondary has not given a single answer, so none of
them can have waited for one. Status and metrics say how it is; once the secondary is back, everything arrives.
"""

import pytest
from aiohttp import ClientSession

from dualtrack.demo.servers import MlflowServer, free_port
from dualtrack.emulators.faults import Action, BlackHole, Delay, DropBefore, Refuse, Rule
from tests.support.flow import SECRETS, Json, Launcher, Running, Workspace, workspace

RUNS = 5


async def log_much(proxy: Running) -> str:
    experiment = await proxy.create_experiment()
    for _ in range(RUNS):
        await proxy.log_run(experiment)
    return experiment


@pytest.mark.parametrize("action", [BlackHole(), Delay(seconds=30)], ids=lambda action: type(action).__name__)
async def test_a_silent_secondary_is_not_waited_for(proxy: Running, b: Workspace, action: Action) -> None:
    await b.control.set_faults(Rule(action=action))
    experiment = await log_much(proxy)
    await b.control.arrived("")
    answered = await b.answered()
    status = await proxy.backend()
    await b.control.clear_faults()

    assert answered == 0
    assert (status["backlog"] > RUNS, status["lag_seconds"] >= 0) == (True, True)
    assert await proxy.differences(experiment, b) == []


@pytest.mark.parametrize(
    "action",
    [Refuse(status=503), Refuse(status=429), Refuse(status=401), DropBefore()],
    ids=["503", "429", "401", "dropped"],
)
async def test_a_refusing_secondary_is_not_noticed(proxy: Running, b: Workspace, action: Action) -> None:
    """Every call is answered 200 (or the helper fails), and nothing has arrived."""
    await b.control.set_faults(Rule(action=action))
    experiment = await log_much(proxy)
    await proxy.failing()
    assert (await proxy.backend())["backlog"] > RUNS
    assert not await b.writes(accepted=True)
    await b.control.clear_faults()
    assert await proxy.differences(experiment, b) == []
    assert not (await proxy.admin.call("GET", "/api/v1/parked")).json["parked"]


async def test_a_secondary_that_is_gone_from_the_start_is_not_noticed(
    launch: Launcher, a: Workspace, mlflow_secondary: MlflowServer, session: ClientSession
) -> None:
    """Nobody listens at its port; when somebody does, everything arrives, without any command."""
    port = free_port()
    gone = {"url": f"http://127.0.0.1:{port}", "auth": {"type": "token", "token": "${TOKEN_B}"}}
    proxy = await launch(a, backends={"b": gone})
    experiment = await log_much(proxy)

    async def is_open() -> bool:
        return bool((await proxy.backend())["breaker"] == "open")

    async def is_measured_open() -> bool:  # now and then it is half-open, for a probe
        return await proxy.metric("breaker_state", backend="b") == 2

    await proxy.until(is_open)
    status = await proxy.backend()
    ready = await proxy.admin.call("GET", "/readyz")
    assert (ready.status, status["up"], status["backlog"] > RUNS) == (200, False, True)
    assert await proxy.metric("backend_up", backend="b") == 0
    await proxy.until(is_measured_open)
    assert await proxy.metric("journal_entries", backend="b") == status["backlog"]
    assert await proxy.metric("lag_seconds", backend="b") > 0
    assert await proxy.metric("retried_total", backend="b", kind="backend") > 0
    async with workspace("b", mlflow_secondary, session, port) as b:
        assert await proxy.differences(experiment, b) == []
    assert await proxy.metric("breaker_state", backend="b") == 0


async def test_a_wrong_token_costs_the_client_nothing(launch: Launcher, a: Workspace, b: Workspace) -> None:
    """A token in a file is read again on a 401, so mending it is enough."""
    token = launch.folder / "token"
    token.write_text("wrong")
    auth = {"type": "token", "token_file": str(token)}
    proxy = await launch(a, backends={"b": {"url": b.url, "auth": auth}})
    experiment = await log_much(proxy)
    await proxy.failing("401")
    token.write_text(SECRETS["TOKEN_B"])
    assert await proxy.differences(experiment, b) == []
    assert not (await proxy.admin.call("GET", "/api/v1/parked")).json["parked"]


async def test_the_breaker_lets_one_probe_through_and_closes_by_itself(
    launch: Launcher, a: Workspace, b: Workspace
) -> None:
    proxy = await launch(a, b, breaker={"failures": 2, "pause_min": "50ms", "pause_max": "50ms"})
    experiments = [await proxy.create_experiment() for _ in range(4)]
    await proxy.drained()
    await b.control.set_faults(Rule(action=Refuse(status=503)))
    for experiment in experiments:
        await proxy.log_run(experiment)

    async def is_open() -> bool:
        """And those attempts are over that began before it opened."""
        return (await proxy.backend())["breaker"] == "open" and not proxy.app.dispatchers["b"]._busy

    async def probes() -> list[Json]:
        return [entry for entry in await b.control.log() if entry["fault"] == "black_hole"]

    async def is_probing() -> bool:
        return bool(await probes())

    await proxy.until(is_open)
    await b.control.set_faults(Rule(action=BlackHole()))
    await proxy.until(is_probing)
    assert (await proxy.backend())["breaker"] == "half-open"
    assert len(await probes()) == 1  # all lanes are due, and one is let through
    await b.control.clear_faults()
    for experiment in experiments:
        assert await proxy.differences(experiment, b) == []
    assert (await proxy.backend())["breaker"] == "closed"
