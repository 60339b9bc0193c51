"""What the emulated Azure ML refuses in a search, by the table of the facts (A8)."""

import pytest

from dualtrack.emulators.azureml_search import as_mlflow, of_search
from dualtrack.emulators.tracking import Call, Reply

SEARCH = "/api/2.0/mlflow/runs/search"

REFUSED = (
    "tags.a != 'b'",
    "tag.a != 'b'",
    "tags.`a b` != 'b'",
    "params.a = '1' and tags.a != 'b'",
    "params.a = '1' or params.a = '2'",
    "tags.a = 'x' OR tags.a = 'y'",
    'metrics."a b" > 1',
    "metric.`a` > 1",
    "params.a ILIKE 'b%'",
    "parameters.a IN ('1')",
    "params.a > '1'",
    "attributes.start_time > 5",
    "start_time > 5",
    "attribute.status = FINISHED",
)
TAKEN = (
    "",
    "tags.a = 'b != c or d'",
    "tags.\"dualtrack.source_run_id\" = 'x'",
    "tags.order = 'or'",
    "metrics.a > 1 and metrics.b/c <= 1e-3",
    "params.a = '1' AND params.b != '2' and params.c like 'd%'",
    "attributes.run_id IN ('a','b')",
    "status = 'Finished'",
    "attributes.start_time >= '5'",
    "what is no filter at all",
)


def asked(text: str) -> Call:
    return Call(method="POST", path=SEARCH, document={"filter": text})


@pytest.mark.parametrize("text", REFUSED)
def test_a_filter_is_refused(text: str) -> None:
    """With what is wrong in it."""
    found = of_search(asked(text))

    assert found is not None
    assert (found.status, found.code) == (400, "INVALID_PARAMETER_VALUE")


@pytest.mark.parametrize("text", TAKEN)
def test_a_filter_is_taken(text: str) -> None:
    """What only looks like something that is refused passes."""
    assert of_search(asked(text)) is None


@pytest.mark.parametrize(
    ("order", "is_refused"),
    [
        ("metrics.a DESC", True),
        ("params.`a`", True),
        ("tags.a ASC", True),
        ("attributes.start_time DESC", False),
        ("start_time", False),
    ],
)
def test_runs_are_ordered_by_attributes_alone(order: str, is_refused: bool) -> None:
    """Not by what they logged."""
    call = Call(method="POST", path=SEARCH, document={"order_by": ["start_time", order]})

    assert (of_search(call) is not None) == is_refused


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("attributes.start_time > '5' and end_time < '7'", "attributes.start_time > 5 and end_time < 7"),
        ("attributes.status = 'Failed'", "attributes.status = 'FAILED'"),
        ("status IN ('Finished', 'KILLED')", "status IN ('FINISHED', 'KILLED')"),
        ("tags.status = 'Failed'", "tags.status = 'Failed'"),
        ("params.start_time = '5'", "params.start_time = '5'"),
    ],
)
async def test_the_services_words_become_mlflows(text: str, said: str) -> None:
    """Numbers without quotes and states in capitals; of attributes alone."""
    heard: list[Call] = []

    async def send(call: Call) -> Reply:
        heard.append(call)
        return Reply(status=200, document={})

    await as_mlflow(asked(text), send)

    assert heard[0].document["filter"] == said
