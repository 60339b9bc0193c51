"""What delivery, settling, reading and files rely on, asked of a backend of each kind alike.

Behind each stands the emulated workspace, as strict as it is; a new kind is one more row in `tests/support/kinds.py`.
"""

import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson
import pytest
from aiohttp import ClientSession

from dualtrack.core.coalesce import Batch
from dualtrack.core.exchange import Call, Document
from dualtrack.core.ids import BackendId, ClientId, EntityKind, Ref, Twin
from dualtrack.core.verdict import lacks_route
from dualtrack.demo.servers import MlflowServer
from dualtrack.emulators.faults import Body, DropAfter, Refuse, Rule
from dualtrack.errors import UnreachableError
from dualtrack.translate.mlflow import batch_call, batch_document, experiment_by_name, marks
from dualtrack.translate.names import translate_name
from tests.support.kinds import KINDS, TOKEN, Kind, backend_of

MARKED = Ref(EntityKind.RUN, ClientId("of-the-primary"))


@pytest.fixture(params=KINDS)
async def kind(request: pytest.FixtureRequest, mlflow_primary: MlflowServer) -> AsyncIterator[Kind]:
    async with ClientSession() as session, backend_of(request.param, mlflow_primary, session) as made:
        yield made


# --- experiments ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("original", ["plain", "/Users/demo@example.com/a b", "größe ✓", "a/b/c", "x" * 300])
async def test_a_translated_name_is_taken_and_found_again(kind: Kind, original: str) -> None:
    """Whatever the experiment was called elsewhere; the folder that a workspace wants is there."""
    name = translate_name(f"{original}-{uuid4().hex[:8]}", kind.rule, "7")
    if kind.name == "databricks" and not name.startswith(("/Shared/", "/Users/demo@example.com/")):
        name = f"/Shared/{name.strip('/')}" if "/" not in name.strip("/") else "/Shared/" + name.rpartition("/")[2]
    before = await kind.backend.send(experiment_by_name(name))
    made = await kind.told("experiments/create", name=name)
    found = await kind.backend.send(experiment_by_name(name))
    again = await kind.post("experiments/create", name=name)

    assert (before.status, before.error_code) == (404, "RESOURCE_DOES_NOT_EXIST")
    assert orjson.loads(found.body)["experiment"]["experiment_id"] == made["experiment_id"]
    assert "ALREADY_EXISTS" in again.error_code


# --- runs -------------------------------------------------------------------------------------------------------


async def test_a_run_is_found_by_its_mark(kind: Kind) -> None:
    """Its id, its root; also when it is deleted, and never another one's."""
    ref = Ref(EntityKind.RUN, ClientId(uuid4().hex))
    run_id, experiment_id = await kind.run(tags=marks(ref, "elsewhere"))
    found = await kind.reader.find_mirror(ref, experiment_id)
    await kind.told("runs/delete", run_id=run_id)
    deleted = await kind.reader.find_mirror(ref, experiment_id)
    other = await kind.reader.find_mirror(MARKED, experiment_id)

    assert found is not None
    assert (found.backend_id, bool(found.root)) == (run_id, True)
    assert deleted == found
    assert other is None


async def test_what_is_not_there_is_told_from_trouble(kind: Kind) -> None:
    run_id, _ = await kind.run()
    missing = run_id[:-4] + ("0000" if not run_id.endswith("0000") else "1111")
    await kind.control.set_faults(Rule(path="runs/get", action=Refuse(status=404, body=Body.HTML)))
    trouble = kind.reader.get(EntityKind.RUN, run_id)

    with pytest.raises(UnreachableError):
        await trouble
    await kind.control.clear_faults()
    assert await kind.reader.get(EntityKind.RUN, missing) is None
    assert await kind.reader.get(EntityKind.RUN, run_id) is not None


async def test_a_batch_as_large_as_its_limits_is_taken(kind: Kind) -> None:
    """What `core.limits` says is what the service takes, and all of it reads back."""
    run_id, _ = await kind.run()
    ref = Ref(EntityKind.RUN, ClientId("r"))
    twins = {ref: Twin(ref=ref, backend="one", backend_id=BackendId(run_id))}
    metrics: tuple[Document, ...] = tuple(
        {"key": f"m{number // kind.limits.rows_per_metric}", "value": number / 7, "timestamp": number, "step": number}
        for number in range(kind.limits.metrics)
    )
    params: tuple[Document, ...] = tuple(
        {"key": f"p{number}", "value": "v" * 250} for number in range(kind.limits.params)
    )
    tags: tuple[Document, ...] = tuple(
        {"key": f"t{number}", "value": "v"} for number in range(min(kind.limits.tags, 40))
    )
    for batch in (
        Batch(metrics=metrics),
        Batch(params=params, tags=tags),
    ):
        answer = await kind.backend.send(batch_call(batch_document(batch, ref, twins)))
        assert answer.is_success, answer
    keys = sorted({str(metric["key"]) for metric in metrics})
    observed = await kind.reader.observe(EntityKind.RUN, run_id, keys)

    assert observed is not None
    history = [(point["step"], point["value"]) for key in keys for point in observed.histories[key]]
    assert sorted(history) == [(metric["step"], metric["value"]) for metric in metrics]
    data: Any = observed.entity["run"]
    assert {item["key"] for item in data["data"]["params"]} == {item["key"] for item in params}


async def test_a_long_history_comes_page_by_page(kind: Kind) -> None:
    run_id, _ = await kind.run()
    for start in range(0, 2100, 200):
        points = [
            {"key": "k", "value": 1.0, "timestamp": at, "step": at} for at in range(start, min(start + 200, 2100))
        ]
        await kind.told("runs/log-batch", run_id=run_id, metrics=points)
    pages = [len(page) async for page in kind.reader.history(run_id, "k")]

    assert sum(pages) == 2100
    assert len(pages) == math.ceil(2100 / kind.reader._page)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", 1e308, -0.5])
async def test_every_number_is_taken(kind: Kind, value: float | str) -> None:
    run_id, _ = await kind.run()
    point = {"key": "k", "value": value, "timestamp": 1, "step": 0}
    await kind.told("runs/log-batch", run_id=run_id, metrics=[point])
    observed = await kind.reader.observe(EntityKind.RUN, run_id, ["k"])

    assert observed is not None
    assert len(observed.histories["k"]) == 1


async def test_a_param_is_written_once_and_a_tag_as_often_as_one_likes(kind: Kind) -> None:
    """A refusal has a code and words, whatever shape the service gives it."""
    run_id, _ = await kind.run()
    for _ in range(2):
        await kind.told("runs/log-batch", run_id=run_id, params=[{"key": "p", "value": "1"}])
    other = await kind.post("runs/log-batch", run_id=run_id, params=[{"key": "p", "value": "2"}])
    for value in ("1", "2"):
        await kind.told("runs/set-tag", run_id=run_id, key="t", value=value)
    run: Any = await kind.reader.get(EntityKind.RUN, run_id)
    tags = {tag["key"]: tag["value"] for tag in run["run"]["data"]["tags"]}

    assert (other.status, other.error_code) == (400, "INVALID_PARAMETER_VALUE")
    assert other.message
    assert tags["t"] == "2"


async def test_a_status_and_a_life_change(kind: Kind) -> None:
    run_id, _ = await kind.run()
    await kind.told("runs/update", run_id=run_id, status="FAILED", end_time=9000)
    await kind.told("runs/delete", run_id=run_id)
    deleted: Any = await kind.reader.get(EntityKind.RUN, run_id)
    await kind.told("runs/restore", run_id=run_id)
    restored: Any = await kind.reader.get(EntityKind.RUN, run_id)

    assert [run["run"]["info"]["lifecycle_stage"] for run in (deleted, restored)] == ["deleted", "active"]
    assert (restored["run"]["info"]["status"], restored["run"]["info"]["end_time"]) == ("FAILED", 9000)


async def test_datasets_are_inputs(kind: Kind) -> None:
    run_id, _ = await kind.run()
    dataset = {"name": "d", "digest": "1", "source_type": "code", "source": "s"}
    for _ in range(2):
        await kind.told("runs/log-inputs", run_id=run_id, datasets=[{"dataset": dataset, "tags": []}])
    run: Any = await kind.reader.get(EntityKind.RUN, run_id)

    assert [item["dataset"]["name"] for item in run["run"]["inputs"]["dataset_inputs"]] == ["d"]


async def test_logged_models_are_there_or_said_not_to_be(kind: Kind) -> None:
    """One or the other, and found by the mark where they are."""
    run_id, experiment_id = await kind.run()
    ref = Ref(EntityKind.MODEL, ClientId(uuid4().hex))
    made = await kind.post(
        "logged-models", experiment_id=experiment_id, name="m", source_run_id=run_id, tags=marks(ref, "elsewhere")
    )
    found = await kind.reader.find_mirror(ref, experiment_id)

    assert await kind.reader.has_models() is (kind.name != "azureml")
    assert lacks_route(made) is (kind.name == "azureml")
    assert (found is not None) is made.is_success
    assert len(await kind.reader.models_of(run_id, experiment_id)) == (1 if made.is_success else 0)


# --- trouble ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", list(Body))
async def test_a_throttled_call_says_when_to_come_again(kind: Kind, body: Body) -> None:
    run_id, _ = await kind.run()
    action = Refuse(status=429, body=body, retry_after="7")
    await kind.control.set_faults(Rule(path="runs/set-tag", action=action))
    answer = await kind.post("runs/set-tag", run_id=run_id, key="t", value="v")

    assert (answer.status, answer.retry_after) == (429, 7.0)


async def test_a_lost_answer_is_known_to_have_been_sent(kind: Kind) -> None:
    run_id, _ = await kind.run()
    await kind.control.set_faults(Rule(path="runs/set-tag", action=DropAfter()))
    with pytest.raises(UnreachableError) as caught:
        await kind.post("runs/set-tag", run_id=run_id, key="t", value="v")
    run: Any = await kind.reader.get(EntityKind.RUN, run_id)

    assert caught.value.sent
    assert {"key": "t", "value": "v"} in run["run"]["data"]["tags"]


async def test_no_token_is_told_apart(kind: Kind) -> None:
    """With the status by which a token is renewed, and not as something that is not there."""
    await kind.control.set_faults(Rule(path="runs/get", action=Refuse(status=401)))
    answer = await kind.backend.send(Call(operation="getRun", method="GET", target="/api/2.0/mlflow/runs/get?run_id=x"))

    assert answer.status == 401
    assert TOKEN not in repr(answer)


# --- files ------------------------------------------------------------------------------------------------------


async def root_of(kind: Kind) -> str:
    run: Any = await kind.reader.get(EntityKind.RUN, (await kind.run())[0])
    return str(run["run"]["info"]["artifact_uri"])


async def test_a_file_goes_there_and_back_and_can_be_replaced(kind: Kind, tmp_path: Path) -> None:
    root, source = await root_of(kind), tmp_path / "file"
    for content in (b"first", b"", b"x" * 300_000):
        source.write_bytes(content)
        await kind.files.put(root, "a b/größe+1.bin", str(source))
        async with kind.files.fetch(root, "a b/größe+1.bin") as fetched:
            assert fetched is not None
            assert b"".join([chunk async for chunk in fetched.chunks]) == content


async def test_a_folder_lists_what_is_in_it(kind: Kind, tmp_path: Path) -> None:
    root, source = await root_of(kind), tmp_path / "file"
    source.write_bytes(b"x")
    for path in ("a.txt", "d/b.txt", "d/e/c.txt"):
        await kind.files.put(root, path, str(source))

    assert [(item.path, item.is_dir) for item in await kind.files.list(root, "")] == [("a.txt", False), ("d", True)]
    assert [(item.path, item.is_dir) for item in await kind.files.list(root, "d")] == [
        ("d/b.txt", False),
        ("d/e", True),
    ]
    assert await kind.files.list(root, "a.txt") == []
    assert await kind.files.list(root, "nothing") == []


async def test_a_file_or_a_folder_is_deleted_as_often_as_one_likes(kind: Kind, tmp_path: Path) -> None:
    root, source = await root_of(kind), tmp_path / "file"
    source.write_bytes(b"x")
    for path in ("a.txt", "d/b.txt", "d/e/c.txt"):
        await kind.files.put(root, path, str(source))
    for path in ("a.txt", "d", "d", "nothing"):
        await kind.files.delete(root, path)
    async with kind.files.fetch(root, "a.txt") as fetched:
        assert fetched is None

    assert await kind.files.list(root, "") == []


async def test_no_token_goes_to_storage(kind: Kind, tmp_path: Path) -> None:
    """The emulated storage refuses a call that carries one; here is that it was asked at all, where there is one."""
    root, source = await root_of(kind), tmp_path / "file"
    source.write_bytes(b"x")
    await kind.files.put(root, "a.txt", str(source))
    signed = [seen for seen in await kind.control.log() if "__storage__" in seen["path"] or "sig=" in seen["query"]]

    assert bool(signed) is (kind.name == "azureml")
    assert not [seen for seen in signed if "Authorization" in seen["header_names"]]
