"""`core.artifact`: the same name as MLflow's server gives, refused where it refuses."""

from urllib.parse import urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from mlflow.exceptions import MlflowException
from mlflow.utils.uri import validate_path_is_safe

from dualtrack.core.artifact import UnsafePathError, effective, folder_of

SAFE = {
    "": "",
    "a/b.txt": "a/b.txt",
    "a b": "a b",
    "a%20b": "a b",
    "%41": "A",
    "100%.txt": "100%.txt",
    "100%25.txt": "100%.txt",
    "a+b": "a+b",
    "größe/✓.csv": "größe/✓.csv",
    "a//b/": "a/b",
    "./a": "a",
    "..a/b..": "..a/b..",
    "a\\b": "a\\b",
    "step%1795.png": "step%1795.png",
    "a\x17b": "a%17b",
}
UNSAFE = (
    "..",
    "a/../b",
    "%2e%2e/a",
    "%252e%252e/a",
    "a/%25252e%25252e",
    "..%2fa",
    "..%252f..%252fa",
    "/etc/passwd",
    "%2fetc/passwd",
    "file:///etc/passwd",
    "C:/windows",
    "C:%5cwindows",
    "%5c%5cserver%5cshare",
    "a#b",
    "a%23b",
    "%" + "25" * 20 + "2e",
)


@pytest.mark.parametrize(("path", "name"), SAFE.items())
def test_names(path: str, name: str) -> None:
    assert effective(path) == name


@pytest.mark.parametrize("path", UNSAFE)
def test_traps(path: str) -> None:
    with pytest.raises(UnsafePathError):
        effective(path)


@given(st.text(alphabet="ab./%25ef#\\:Cc ?;é", max_size=30))
def test_a_name_is_its_own_name(path: str) -> None:
    """What comes out goes in again unchanged: every layer may ask."""
    try:
        name = effective(path)
    except UnsafePathError:
        return
    assert effective(name) == name


@given(st.text(alphabet="ab./%25efC:\\#", max_size=24))
@example("\\/2\\")
def test_nothing_passes_that_mlflow_refuses(path: str) -> None:
    try:
        validate_path_is_safe(path)  # type: ignore[no-untyped-call]
    except (MlflowException, ValueError):
        with pytest.raises(UnsafePathError):
            effective(path)


@given(st.text(alphabet=st.characters(exclude_characters="/:.%\"'", exclude_categories=["Cs"]), min_size=1))
@example("a?b")
@example("a#b")
@example("a\nb")
@example(" a;")
@example("\\a")
def test_a_model_s_folder_is_the_same_wherever_its_root_is_taken_apart(name: str) -> None:
    """For every name that MLflow takes."""
    folder = folder_of(name)

    assert effective(folder) == folder
    assert urlsplit(f"azureml://host/{folder}")[2:] == (f"/{folder}", "", "")
