"""What is Databricks' own in an experiment's name."""

import orjson
import pytest

from dualtrack.core.exchange import Answer
from dualtrack.translate.databricks import lacks_parent, make_parent, workspace_path

MISSING = "Parent directory /Users/ann/x does not exist."


def test_the_second_name_of_the_root_is_left_out() -> None:
    assert workspace_path("/Workspace/Shared/x") == "/Shared/x"
    assert workspace_path("/Workspace") == "/Workspace"


@pytest.mark.parametrize(
    ("status", "message", "lacks"),
    [(404, MISSING, True), (404, "No experiment of that id", False), (400, MISSING, False), (200, "", False)],
)
def test_a_missing_folder_is_told_from_a_missing_experiment(status: int, message: str, lacks: bool) -> None:
    assert lacks_parent(Answer(status=status, error_code="RESOURCE_DOES_NOT_EXIST", message=message)) is lacks


@pytest.mark.parametrize(("name", "parent"), [("/Shared/a/b", "/Shared/a"), ("/b", "/")])
def test_the_folder_of_an_experiment_is_made(name: str, parent: str) -> None:
    call = make_parent(name)

    assert (call.method, call.target) == ("POST", "/api/2.0/workspace/mkdirs")
    assert orjson.loads(call.body) == {"path": parent}
