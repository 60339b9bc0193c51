"""No metric point is sent twice, whatever becomes of the answers to what was sent before (P2)."""

import pytest

from dualtrack.emulators.faults import DropAfter, Refuse, Rule
from dualtrack.errors import JournalError
from dualtrack.ports import Progress
from tests.support.flow import Json, Launcher, Running, Workspace

BATCH = r"/runs/log-batch$"


def points(first: int, count: int, size: int = 0) -> list[Json]:
    return [
        {"key": "k" + "x" * size, "value": at / 4, "timestamp": at, "step": at} for at in range(first, first + count)
    ]


async def run_of(proxy: Running) -> str:
    run_id = await proxy.create_run(await proxy.create_experiment())
    await proxy.drained()
    return run_id


async def checked(proxy: Running, b: Workspace) -> None:
    """Everything arrived, and nothing of it twice."""
    await proxy.drained()
    assert (await b.control.duplicates())["metric_points"] == 0
    assert (await proxy.backend())["parked"] == 0


@pytest.mark.parametrize("status", [429, 401])
async def test_an_answer_that_says_nothing_was_done_does_not_undo_an_earlier_doubt(
    proxy: Running, b: Workspace, status: int
) -> None:
    """The first answer is lost; the look finds the points, what is left is refused, and is sent again alone."""
    run_id = await run_of(proxy)
    await b.control.set_faults(
        Rule(path=BATCH, nth=1, action=DropAfter()), Rule(path=BATCH, nth=2, action=Refuse(status=status))
    )
    tags = [{"key": "t", "value": "v"}]
    await proxy.post("runs/log-batch", run_id=run_id, metrics=points(0, 3), tags=tags)
    await checked(proxy, b)


async def test_a_half_that_was_stored_stays_in_doubt_while_the_other_is_refused(proxy: Running, b: Workspace) -> None:
    run_id = await run_of(proxy)
    await b.control.set_faults(
        Rule(path=BATCH, nth=1, action=Refuse(status=400, code="INVALID_PARAMETER_VALUE")),
        Rule(path=BATCH, nth=3, action=Refuse(status=429)),
    )
    await proxy.post("runs/log-batch", run_id=run_id, metrics=points(0, 4))
    await checked(proxy, b)


async def test_a_batch_that_could_not_be_recorded_is_not_sent_again(
    proxy: Running, b: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = await run_of(proxy)
    journal = proxy.app.journal
    assert journal is not None
    record, failures = journal.record, iter([JournalError("no luck")])

    async def failing(progress: Progress) -> None:
        for failure in failures if progress.done else ():
            raise failure
        await record(progress)

    monkeypatch.setattr(journal, "record", failing)
    await proxy.post("runs/log-batch", run_id=run_id, metrics=points(0, 3))
    await checked(proxy, b)


async def test_a_doubt_outlives_a_smaller_batch_than_the_one_that_was_sent(proxy: Running, b: Workspace) -> None:
    """A first read is small: it holds one of the three that went in one call, whose answer was lost."""
    run_id = await run_of(proxy)
    await b.control.set_faults(
        Rule(path=BATCH, nth=1, action=Refuse(status=503)), Rule(path=BATCH, nth=3, action=DropAfter())
    )
    for number in range(3):
        await proxy.post("runs/log-batch", run_id=run_id, metrics=points(number * 900, 900, 200))
    await checked(proxy, b)


async def test_a_client_s_repeat_of_what_was_settled_is_not_sent_again(
    proxy: Running, a: Workspace, b: Workspace
) -> None:
    """The primary took it, the client heard nothing, and sends it once more when it is delivered already."""
    run_id = await run_of(proxy)
    await a.control.set_faults(Rule(path=r"runs/log-metric$", first=1, action=DropAfter()))
    point: Json = {"run_id": run_id, "key": "k", "value": 1.5, "timestamp": 7, "step": 1}
    lost = await proxy.call("POST", "runs/log-metric", point)

    async def is_delivered() -> bool:
        return any(body.get("metrics") for body in await b.writes("runs/log-batch"))

    await proxy.until(is_delivered)
    await proxy.drained()
    await proxy.post("runs/log-metric", **point)
    await checked(proxy, b)

    assert lost.status == 503


async def test_what_was_given_up_in_doubt_is_looked_for_when_it_is_retried(
    launch: Launcher, a: Workspace, b: Workspace
) -> None:
    """It was stored, the answer was lost, and nothing could be read until it was parked."""
    proxy = await launch(a, b, delivery={"give_up": "1s"})
    run_id = await run_of(proxy)
    await b.control.set_faults(
        Rule(path=BATCH, nth=1, action=DropAfter()),
        Rule(method="GET", path=r"runs/get$", action=Refuse(status=503)),
    )
    await proxy.log_metric(run_id)

    async def is_parked() -> bool:
        return bool((await proxy.backend())["parked"])

    await proxy.until(is_parked)
    await b.control.clear_faults()
    (letter,) = (await proxy.admin.call("GET", "/api/v1/parked")).json["parked"]
    assert (await proxy.admin.call("POST", f"/api/v1/parked/{letter['id']}/retry")).status == 200
    await checked(proxy, b)
