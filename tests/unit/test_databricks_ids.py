"""Experiment ids of the emulated Databricks: long, both ways, wherever they lie."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualtrack.emulators.databricks_ids import long_ids, to_long, to_real
from dualtrack.emulators.tracking import Call, Reply


@given(st.integers(1, 10**15))
def test_an_id_survives_both_ways(number: int) -> None:
    assert to_real(to_long(str(number))) == str(number)
    assert len(to_long(str(number))) == 18


@pytest.mark.parametrize("foreign", ["", "1", "12345", "x", "-1", str(10**17)])
def test_a_foreign_id_is_nobody_s(foreign: str) -> None:
    assert to_real(foreign) == "-1"


async def test_calls_and_answers_are_turned() -> None:
    """In bodies, queries and lists; the default experiment, names and tags stay."""
    ours, seen = to_long("7"), list[Call]()

    async def send(call: Call) -> Reply:
        seen.append(call)
        tags: list[Any] = [{"key": "experiment_id_of_mine", "value": "7"}]
        return Reply(status=200, document={"runs": [{"info": {"experiment_id": "7", "name": "7"}, "tags": tags}]})

    document = {"experiment_ids": [ours, "0"], "name": "7", "inner": {"experiment_id": ours}}
    reply = await long_ids(Call(method="POST", path="/x", document=document, query={"experiment_id": ours}), send)

    assert seen[0].document == {"experiment_ids": ["7", "0"], "name": "7", "inner": {"experiment_id": "7"}}
    assert seen[0].query == {"experiment_id": "7"}
    info = reply.document["runs"][0]
    assert info["info"] == {"experiment_id": ours, "name": "7"}
    assert info["tags"] == [{"key": "experiment_id_of_mine", "value": "7"}]
