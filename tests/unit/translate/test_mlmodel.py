"""MLmodel files: other ids, the same bytes. The files are what the installed mlflow writes."""

import io
import json
from typing import Any

import numpy as np
import orjson
import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from mlflow.models import Model, infer_signature

from dualtrack.core.ids import ClientId, EntityKind, Ref
from dualtrack.translate.mlmodel import MAX_BYTES, history_entry, is_mlmodel, kind_named, parted, references, renamed

RUN_ID, MODEL_ID = "a" * 32, "m-0123456789abcdef0123456789abcdef"
ROOT, ROOT_THERE = f"mlflow-artifacts:/1/models/{MODEL_ID}/artifacts", "dbfs:/databricks/mlflow/9/m-there"
RUN, MODEL = Ref(EntityKind.RUN, ClientId(RUN_ID)), Ref(EntityKind.MODEL, ClientId(MODEL_ID))
IDS = {RUN: "b" * 32, MODEL: "m-there"}


def mlmodel(**fields: Any) -> Model:
    """A model as a flavor of mlflow describes it before it saves it."""
    model = Model(utc_time_created="2026-11-21 06:50:28.030632", model_uuid="0" * 32, **fields)
    env = {"conda": "conda.yaml", "virtualenv": "python_env.yaml"}
    model.add_flavor("python_function", loader_module="mlflow.sklearn", env=env, config={"x": 1}, code=None)
    return model.add_flavor("sklearn", pickled_model="model.pkl", sklearn_version="1.4.0", code=None)


def saved(model: Model) -> bytes:
    return str(model.to_yaml()).encode()


SIGNATURE = infer_signature(np.zeros((2, 2)), np.zeros(2))
METADATA = {"run_id": RUN_ID, "note": "run_id: x\nmodel_id: y\n\nartifact_path: mlflow-artifacts:/z\n"}
THREE = mlmodel(artifact_path=ROOT, run_id=RUN_ID, model_id=MODEL_ID, signature=SIGNATURE, metadata=METADATA)
TWO = mlmodel(artifact_path="model", run_id=RUN_ID)


def moved(uri: str) -> str:
    return uri.replace(ROOT, ROOT_THERE)


def kept(uri: str) -> str:
    return uri


@pytest.mark.parametrize(
    ("path", "answer"),
    [("MLmodel", True), ("model/MLmodel", True), ("MLmodel/x", False), ("model/MLmodel.bak", False), ("", False)],
)
def test_a_model_is_known_by_its_file_name(path: str, answer: bool) -> None:
    assert is_mlmodel(path) is answer


def test_a_model_of_mlflow_3_names_its_run_and_itself() -> None:
    assert references(saved(THREE)) == [MODEL, RUN]
    assert references(saved(TWO)) == [RUN]
    assert references(saved(mlmodel())) == []


def test_only_what_names_the_other_side_changes() -> None:
    """Metadata and signature keep every byte, even where they look like entries of the file."""
    before, after = saved(THREE).splitlines(), renamed(saved(THREE), IDS, moved).splitlines()

    changed = [(was, now) for was, now in zip(before, after, strict=True) if was != now]
    assert changed == [
        (f"artifact_path: {ROOT}".encode(), f"artifact_path: {ROOT_THERE}".encode()),
        (f"model_id: {MODEL_ID}".encode(), b"model_id: m-there"),
        (b"run_id: " + b"a" * 32, b"run_id: " + b"b" * 32),
    ]


def test_mlflow_reads_what_comes_out() -> None:
    model = Model.from_dict(yaml.safe_load(io.BytesIO(renamed(saved(THREE), IDS, moved))))

    assert (model.run_id, model.model_id, model.artifact_path) == ("b" * 32, "m-there", ROOT_THERE)
    assert (model.signature, model.metadata, model.flavors) == (SIGNATURE, METADATA, THREE.flavors)


def test_a_folder_of_the_run_is_no_root() -> None:
    """`artifact_path` of MLflow 2 is relative, and so the same on each side."""
    assert renamed(saved(TWO), {}, lambda _: "never") == saved(TWO)
    assert renamed(saved(TWO), IDS, lambda _: "never") == saved(TWO).replace(b"a" * 32, b"b" * 32)


def test_a_backend_without_logged_models_sees_none() -> None:
    after = renamed(saved(THREE), {}, kept, drops_model_id=True)

    assert after == saved(THREE).replace(f"model_id: {MODEL_ID}\n".encode(), b"")
    assert references(after) == [RUN]
    assert renamed(b"run_id: a\nmodel_id: m", {}, kept, drops_model_id=True) == b"run_id: a\n"
    assert b"model_id:" not in renamed(saved(TWO), {}, kept, drops_model_id=True)


def run_of(content: str, new: str) -> str:
    """The file after its run was renamed."""
    (named,) = references(content.encode())
    return renamed(content.encode(), {named: new}, kept).decode()


@pytest.mark.parametrize(
    ("before", "new", "after"),
    [
        ("run_id: abc\n", "def", "run_id: def\n"),
        ("run_id: 'abc'\r\nx: 1\r\n", "def", "run_id: 'def'\r\nx: 1\r\n"),
        ('run_id: "abc"   # of the run', "def", 'run_id: "def"   # of the run'),
        ("run_id:   abc # of the run\n", "def", "run_id:   def # of the run\n"),
        ("run_id:\n  abc\n\nx: 1\n", "def", "run_id:\n  def\n\nx: 1\n"),
        ("run_id: '123'\n", "456", "run_id: '456'\n"),
        ("run_id: 123\n", "456", "run_id: '456'\n"),
        ("run_id: abc\n", "12345", "run_id: '12345'\n"),
        ("run_id: abc\n", "null", "run_id: 'null'\n"),
        ("run_id: abc\n", "it's # so", "run_id: 'it''s # so'\n"),
        ("run_id: abc\n", "a\nb", 'run_id: "a\\U0000000Ab"\n'),
        ('run_id: "abc"\n', 'a"\\b', 'run_id: "a\\"\\\\b"\n'),
    ],
)
def test_a_value_keeps_its_quotes(before: str, new: str, after: str) -> None:
    """Unless the new one would mean something else in them."""
    assert run_of(before, new) == after
    assert yaml.safe_load(after)["run_id"] == new


@given(st.text(st.characters(exclude_categories=["Cs"])), st.sampled_from(["abc", "'abc'", '"abc"']))
@example("\x00\x85\u2028\ufeff\ufffe", "abc")
@example("- a", "abc")
@example("a: b", "abc")
@example("*a", "abc")
@example("", "abc")
def test_any_id_is_read_back(new: str, quoted: str) -> None:
    after = run_of(f"flavors: {{}}\nrun_id: {quoted}\nx: 1\n", new)

    assert yaml.safe_load(after) == {"flavors": {}, "run_id": new, "x": 1}


@pytest.mark.parametrize(
    "root", ["mlflow-artifacts:/Users/a b/\u00e9/" + "long " * 30 + "#x", "/mlruns/1/models/m/artifacts"]
)
def test_a_root_may_be_long_or_local(root: str) -> None:
    """It folds and escapes what is long or not ASCII."""
    content = saved(mlmodel(artifact_path=root, run_id=RUN_ID))
    after = renamed(content, {}, lambda uri: ROOT_THERE if uri == root else "never")

    assert yaml.safe_load(after) == {**yaml.safe_load(content), "artifact_path": ROOT_THERE}
    assert after.partition(b"flavors:")[2] == content.partition(b"flavors:")[2]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xferun_id: abc\n",
        b"not an MLmodel",
        b"{run_id: abc}",
        b" run_id: abc\n",
        b"my_run_id: abc\n",
        b"run_id: |\n  abc\n",
        b"run_id: &x abc\n",
        b"run_id: !!str abc\n",
        b"run_id: *x\n",
        b"run_id: [abc\n",
        b"run_id: [abc]\n",
        b"run_id:\n- abc\n",
        b'run_id: "\\UFFFFFFFF"\n',
        b"run_id: ~\nmodel_id:\n",
        b"run_id: ''\n",
        b"run_id: abc\n  model_id: m\n",
        b"run_id: " + b"[" * 1000 + b"\n",
        b"run_id: " + b"a" * 20_000 + b"\n",
        b"run_id: abc\n" + b"#" * 16 * 1024 * 1024,
    ],
)
def test_what_mlflow_would_not_write_stays(content: bytes) -> None:
    everything = {Ref(kind, ClientId(value)): "never" for kind in EntityKind for value in ("abc", "m", "", "x")}

    assert references(content) == []
    assert renamed(content, everything, lambda _: "never") is content


@given(st.binary() | st.text().map(lambda text: b"run_id: " + text.encode(errors="replace")))
def test_any_content_is_taken(content: bytes) -> None:
    assert renamed(content, {}, kept) == content
    assert isinstance(references(content), list)
    assert history_entry(content, "r", "model") is None


# --- the history of a run ---------------------------------------------------------------------------------------


def test_a_history_entry_is_what_a_client_sends() -> None:
    """`RestStore.record_logged_model` sends `json.dumps(model.get_tags_dict())`."""
    sent = orjson.loads(json.dumps(TWO.get_tags_dict()))

    assert history_entry(saved(TWO), RUN_ID, "model") == sent
    assert history_entry(saved(THREE), RUN_ID, "model") == sent
    assert "config" not in sent["flavors"]["python_function"]


FLAVORS = "utc_time_created: 't'\nflavors: "


@pytest.mark.parametrize(
    ("content", "flavors"),
    [
        ("{a: {config: 1, b: 2}, c: text}", {"a": {"b": 2}, "c": "text"}),
        ("{1: {2026-01-01: 2026-01-02}}", {"1": {"2026-01-01": "2026-01-02"}}),
        ("{a: {b: *x}}\nmetadata: &x [1]\n", None),
        ("\n  a:\n    b: &x\n    - text\n\n    c: *x\n", {"a": {"b": ["text"], "c": ["text"]}}),
    ],
)
def test_flavors_become_json(content: str, flavors: object) -> None:
    entry = history_entry((FLAVORS + content).encode(), "r", "model")

    assert (entry["flavors"] if entry else None) == flavors


def test_what_flavors_refer_to_is_read_too() -> None:
    """An object that stands twice in a model is written only once."""
    shared = ["a", "b"]
    model = mlmodel(artifact_path="model", run_id=RUN_ID, metadata={"x": shared}, auth_policy={"y": shared})
    model.add_flavor("aaa", z=shared)
    content = saved(model)
    entry = history_entry(content, RUN_ID, "model")

    assert b"*id001" in content
    assert entry == orjson.loads(json.dumps(model.get_tags_dict()))


def test_a_time_without_quotes_is_text() -> None:
    entry = history_entry(b"utc_time_created: 2026-11-21 06:50:28.030632\nflavors: {}\n", "r", "model")

    assert entry is not None
    assert entry["utc_time_created"] == "2026-11-21 06:50:28.030632"


BOMB = "{a: &a [x,x,x,x,x,x,x,x,x], " + ", ".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]" for old, new in zip("abcdefghi", "bcdefghij", strict=True)
)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"text",
        b"- flavors",
        b"flavors: {}\n",
        b"utc_time_created: 't'\n",
        (FLAVORS + "[a]").encode(),
        (FLAVORS + "{a: [").encode(),
        (FLAVORS + "{a: !!binary YQ==}").encode(),
        (FLAVORS + "{a: !!timestamp x}").encode(),
        (FLAVORS + "{a: !!bool x}").encode(),
        (FLAVORS + "{a: !!int ''}").encode(),
        (FLAVORS + "{a: 2026-13-45}").encode(),
        (FLAVORS + "{a: !!python/object:os.system x}").encode(),
        (FLAVORS + "{a: " + "1:" * 5000 + "1.5}").encode(),
        (FLAVORS + "{a: " + "9" * 30 + "}").encode(),
        (FLAVORS + "&x {a: *x}").encode(),
        (FLAVORS + BOMB + "}").encode(),
        (FLAVORS + "{a: " + "[" * 60 + "]" * 60 + "}").encode(),
        (FLAVORS + "{a: " + "[" * 1000 + "]" * 1000 + "}").encode(),
        (FLAVORS + "{a: " + "x" * 1024 * 1024 + "}").encode(),
        (FLAVORS + "{}\n").encode() + b"#" * 16 * 1024 * 1024,
    ],
)
def test_what_cannot_be_read_has_no_history(content: bytes) -> None:
    assert history_entry(content, "r", "model") is None


def test_the_uuid_of_mlflow_3_is_the_model() -> None:
    """And of MLflow 2 a value that names nothing, and stays."""
    before = f"model_id: {MODEL_ID}\nmodel_uuid: {MODEL_ID}\n".encode()

    assert renamed(before, IDS, kept) == b"model_id: m-there\nmodel_uuid: m-there\n"
    assert renamed(b"model_uuid: 0123\n", IDS, kept) == b"model_uuid: 0123\n"


@pytest.mark.parametrize("entry", [b"run_id: a\n", b"model_id: m-%d\n", b"artifact_path: mlflow-artifacts:/%d\n"])
def test_a_file_with_more_names_than_a_model_has_is_left_as_it_is(entry: bytes) -> None:
    """Reading each of a million would stop everything else; no MLflow writes two."""
    content = b"".join(entry % number if b"%" in entry else entry for number in range(30))

    assert references(content) == []
    assert renamed(content, IDS, lambda _: ROOT_THERE) == content
    assert references(content * 2_000) == []


def test_a_file_that_is_too_large_for_one_is_left_as_it_is() -> None:
    content = saved(THREE) + b"#" * MAX_BYTES

    assert references(content) == []
    assert renamed(content, IDS, lambda _: ROOT_THERE) == content


# --- what it names, and the rest --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "names", "rest"),
    [
        (b"a: 1\nrun_id: r1\nz: 2\n", {"run_id": "r1"}, b"a: 1\nz: 2\n"),
        (b"artifact_path: s3://b/m\nmodel_id: '12'\n", {"artifact_path": "s3://b/m", "model_id": "12"}, b""),
        (b"run_id: null\na: 1\n", {}, b"run_id: null\na: 1\n"),
        (b"\xff", {}, b"\xff"),
    ],
)
def test_a_file_is_parted_into_what_it_names_and_the_rest(written: bytes, names: dict[str, str], rest: bytes) -> None:
    """Two sides say the same when they name the same, and the rest is equal to the byte."""
    assert parted(written) == (names, rest)


def test_no_translation_touches_the_rest() -> None:
    """Whatever the ids become, quotes included."""
    before = b"a: 1\nmodel_uuid: m1\nrun_id: r1\nz: 2\n"
    after = renamed(before, {Ref(EntityKind.RUN, ClientId("r1")): "12e5"}, lambda uri: uri)

    assert (parted(after)[0], parted(after)[1]) == ({"model_uuid": "m1", "run_id": "12e5"}, parted(before)[1])
    assert [kind_named(each) for each in ("run_id", "model_uuid", "artifact_path")] == ["run", "model", None]
