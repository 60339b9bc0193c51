"""P1 and P5: a write whose answer was lost is found out about, and mirrored once if it took effect.

Here the finding out itself is made hard: the primary is late, or silent, or has much that looks alike.
"""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from dualtrack.emulators.faults import BlackHole, Delay, DropAfter, Refuse, Rule, Spoil, Spoilt
from tests.support.flow import Launcher, Running, Workspace, config_text, differences
from tests.support.served import serving
from tests.support.servers import call


async def test_a_create_in_doubt_is_not_taken_for_one_that_is_under_way(
    proxy: Running, a: Workspace, b: Workspace
) -> None:
    """What others make just alike is listed before its answer has come: each of them is mirrored, once."""
    experiment = await proxy.create_experiment()
    slow = Rule(method="POST", path="runs/create$", first=5, action=Spoil(body=Spoilt.SLOW, seconds=3.0))
    await a.control.set_faults(slow, Rule(method="POST", path="runs/create$", nth=6, action=DropAfter()))
    body = {"experiment_id": experiment, "start_time": 5, "run_name": "alike"}
    loop = asyncio.get_running_loop()
    slowly = [loop.create_task(proxy.call("POST", "runs/create", body)) for _ in range(5)]

    async def are_made() -> bool:
        found = await asyncio.to_thread(call, a.side.url, "runs/search", {"experiment_ids": [experiment]})
        return len(found.get("runs", [])) == 5

    await proxy.until(are_made)
    lost = await proxy.call("POST", "runs/create", body)
    answers = await asyncio.gather(*slowly)
    await proxy.drained()

    assert (lost.status, [answer.status for answer in answers]) == (503, [200] * 5)
    assert await proxy.differences(experiment, b) == []
    assert len(await b.writes("runs/create", accepted=True)) == 6


async def test_a_create_in_doubt_waits_for_other_creates_alone(
    tmp_path: Path, session: ClientSession, a: Workspace, b: Workspace
) -> None:
    """While the primary is silent about one create, another one's run may be its own; a silent tag is no such thing."""
    async with serving(tmp_path, config_text(tmp_path, a, b), session) as served:
        experiment = await served.create_experiment()
        run_id = await served.create_run(experiment)
        await a.control.set_faults(
            Rule(method="POST", path="runs/(set-tag|log-batch)", action=BlackHole()),
            Rule(method="POST", path="runs/create", nth=1, action=DropAfter()),
            Rule(method="POST", path="runs/create", nth=2, action=BlackHole()),
            Rule(method="POST", path="runs/create", nth=3, action=DropAfter()),
        )
        ask = asyncio.get_running_loop().create_task
        body = {"experiment_id": experiment, "start_time": 5}
        tag = ask(served.call("POST", "runs/set-tag", {"run_id": run_id, "key": "k", "value": "v"}))
        await a.control.arrived("runs/set-tag")
        lost = [await served.call("POST", "runs/create", body)]
        await served.drained()
        is_silent = not tag.done()
        before = (await a.control.log())[-1]["number"]
        batch = ask(served.call("POST", "runs/log-batch", {"run_id": run_id}))
        silent = ask(served.call("POST", "runs/create", body))
        await a.control.arrived("runs/create", since=before)
        lost.append(await served.call("POST", "runs/create", body))
        waiting = (await served.status())["open_entries"]
        await a.control.clear_faults()  # the primary breaks its silence by hanging up
        unanswered = await asyncio.gather(tag, batch, silent)
        await served.drained()

    assert ([each.status for each in lost], is_silent, waiting) == ([503, 503], True, 1)
    assert [each.status for each in unanswered] == [503] * 3
    assert await differences(a, b, experiment) == []


async def test_a_primary_that_answers_too_late_is_waited_for(launch: Launcher, a: Workspace, b: Workspace) -> None:
    """It was still at work when it was asked: what the create made is found later, and holds back nothing meanwhile."""
    proxy = await launch(a, b, backends={"a": {"read_timeout": "6s"}})
    experiment = await proxy.create_experiment()
    await a.control.set_faults(Rule(method="POST", path="runs/create$", nth=1, action=Delay(seconds=7)))
    lost = await proxy.call("POST", "runs/create", {"experiment_id": experiment, "start_time": 5})
    await proxy.drained()

    async def is_mirrored() -> bool:
        return bool(await b.writes("runs/create", accepted=True))

    await proxy.until(is_mirrored)
    assert lost.status == 503
    assert await proxy.differences(experiment, b) == []


async def test_two_creates_in_doubt_get_each_its_own(proxy: Running, a: Workspace, b: Workspace) -> None:
    """All of them are alike in what the first one sent."""
    experiment = await proxy.create_experiment()
    await a.control.set_faults(
        Rule(method="POST", path="runs/search$", first=2, action=Refuse(status=503)),
        Rule(method="POST", path="runs/create$", action=DropAfter()),
    )
    body = {"experiment_id": experiment, "start_time": 5}
    sent = [body, *({**body, "run_name": name} for name in "bcdef")]
    lost = [(await proxy.call("POST", "runs/create", each)).status for each in sent]
    await proxy.drained()

    assert lost == [503] * len(sent)
    assert await proxy.differences(experiment, b) == []
    assert len(await b.writes("runs/create", accepted=True)) == len(sent)


async def test_a_create_and_its_repeat_are_both_in_doubt(proxy: Running, a: Workspace, b: Workspace) -> None:
    """The first was looked for while the second was under way, and the second is settled before it, with its run."""
    experiment = await proxy.create_experiment()
    await a.control.set_faults(
        Rule(method="POST", path="runs/search$", nth=1, action=Refuse(status=503)),
        Rule(method="POST", path="runs/create$", nth=2, action=Delay(seconds=3.0)),
        Rule(method="POST", path="runs/create$", first=2, action=DropAfter()),
    )
    body = {"experiment_id": experiment, "start_time": 5}
    lost = [(await proxy.call("POST", "runs/create", body)).status for _ in range(2)]
    await proxy.drained()

    assert lost == [503, 503]
    assert await proxy.differences(experiment, b) == []
    assert len(await b.writes("runs/create", accepted=True)) == 2


async def test_a_create_in_doubt_is_found_on_any_page(proxy: Running, a: Workspace, b: Workspace) -> None:
    """Clients that say no start are alike by hundreds."""
    experiment = await proxy.create_experiment()
    for _ in range(31):
        await asyncio.gather(*(proxy.post("runs/create", experiment_id=experiment) for _ in range(4)))
    await a.control.set_faults(Rule(method="POST", path="runs/create$", action=DropAfter()))
    lost = [(await proxy.call("POST", "runs/create", {"experiment_id": experiment})).status for _ in range(5)]
    await proxy.drained()

    assert lost == [503] * 5
    assert len(await b.writes("runs/create", accepted=True)) == 4 * 31 + 5


async def test_a_write_that_cannot_be_made_sense_of_ends_nothing(
    proxy: Running, a: Workspace, b: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is set aside in the end, what is behind it goes on, and others do not wait for it."""
    experiment = await proxy.create_experiment()
    run_id, other = await proxy.create_run(experiment), await proxy.create_run(experiment)
    await proxy.drained()

    def unforeseen(*_: Any) -> bool:
        raise TypeError("unhashable type: 'list'")

    monkeypatch.setattr("dualtrack.reconcile.settler.shows", unforeseen)
    await a.control.set_faults(Rule(method="POST", path="runs/(delete-tag|set-tag)$", first=2, action=DropAfter()))
    lost = [await proxy.call("POST", "runs/set-tag", {"run_id": run_id, "key": "k", "value": "v"})]
    lost.append(await proxy.call("POST", "runs/delete-tag", {"run_id": run_id, "key": "k"}))
    await proxy.post("runs/set-tag", run_id=run_id, key="behind", value="v")
    await proxy.post("runs/set-tag", run_id=other, key="beside", value="v")
    await proxy.drained()
    status = await proxy.status()
    arrived = {tag["key"] for batch in await b.writes("runs/log-batch", accepted=True) for tag in batch["tags"]}

    assert [each.status for each in lost] == [503, 503]
    assert (status["open_entries"], status["journal"]["quarantined"]) == (0, 1)
    assert arrived >= {"behind", "beside"}


async def test_what_a_server_takes_for_a_name_can_be_in_doubt(proxy: Running, a: Workspace) -> None:
    """MLflow takes a list for the name of a dataset."""
    run_id = await proxy.create_run(await proxy.create_experiment())
    await a.control.set_faults(Rule(method="POST", path="runs/log-inputs$", nth=1, action=DropAfter()))
    dataset = {"name": ["x"], "digest": "d", "source_type": "s", "source": "s"}
    lost = await proxy.call("POST", "runs/log-inputs", {"run_id": run_id, "datasets": [{"dataset": dataset}]})
    await proxy.drained()
    status = await proxy.status()

    assert (lost.status, status["open_entries"], status["journal"]["quarantined"]) == (503, 0, 0)
