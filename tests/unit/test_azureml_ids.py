"""Both ways between an Azure ML workspace's ids and the real server's."""

from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualtrack.emulators.azureml_ids import Ids, UnknownIdError
from dualtrack.emulators.tracking import Call, Reply

ids = Ids("/a/workspace", dashed=True)


@given(st.uuids(version=4), st.integers(min_value=0, max_value=2**62 - 1))
def test_dashed_ids_come_back(run: UUID, experiment: int) -> None:
    """No table is needed, so they outlive the process."""
    again = Ids("/a/workspace", dashed=True)

    assert again.real_run(ids.run(run.hex)) == run.hex
    assert again.real_experiment(ids.experiment(str(experiment))) == str(experiment)
    assert UUID(ids.experiment(str(experiment))).version == 4


@pytest.mark.parametrize("foreign", ["0", "17", "x", uuid4().hex, str(uuid4()), "0" * 36])
def test_a_foreign_experiment_is_unknown(foreign: str) -> None:
    """A number, another shape, and a UUID that names no experiment of this workspace."""
    with pytest.raises(UnknownIdError):
        ids.real_experiment(foreign)
    with pytest.raises(UnknownIdError):
        ids.real_experiment(Ids("/another", dashed=True).experiment("17"))


@pytest.mark.parametrize("foreign", ["x", uuid4().hex, str(uuid4()).upper()])
def test_a_run_has_dashes(foreign: str) -> None:
    """The real server's own id is not the workspace's."""
    with pytest.raises(UnknownIdError):
        ids.real_run(foreign)


def test_a_chosen_id_replaces_the_first() -> None:
    """A run is called one way only."""
    mine = Ids("/a/workspace", dashed=True)
    real = uuid4()
    mine.choose("job-1", str(real))

    assert (mine.run(real.hex), mine.real_run("job-1")) == ("job-1", real.hex)
    with pytest.raises(UnknownIdError):
        mine.real_run(str(real))


async def test_ids_turn_at_their_keys_alone() -> None:
    """Deep in bodies, in lists and queries; never in what a client wrote."""
    plain = Ids("/a/workspace")
    plain.choose("job-1", "real-1")
    heard: list[Call] = []

    async def send(call: Call) -> Reply:
        heard.append(call)
        return Reply(status=200, document={"runs": [{"info": {"run_id": "real-1"}, "tags": [{"value": "real-1"}]}]})

    call = Call(
        method="POST",
        path="/x",
        document={
            "run_ids": ["job-1", "job-2"],
            "tags": [{"key": "run", "value": "job-1"}],
            "n": [1, {"run_id": "job-1"}],
        },
        query={"run_id": "job-1", "filter": "run_id != 'job-1' and tags.run_id = 'job-1'"},
    )
    reply = await plain(call, send)

    assert heard[0].document == {
        "run_ids": ["real-1", "job-2"],
        "tags": [{"key": "run", "value": "job-1"}],
        "n": [1, {"run_id": "real-1"}],
    }
    assert heard[0].query == {"run_id": ["real-1"], "filter": ["run_id != 'real-1' and tags.run_id = 'job-1'"]}
    assert reply.document == {"runs": [{"info": {"run_id": "job-1"}, "tags": [{"value": "real-1"}]}]}
