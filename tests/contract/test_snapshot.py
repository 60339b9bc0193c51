"""A run, a model or an experiment of a backend of each kind, read into one form: what holds the same is equal.

Behind each stands the emulated workspace over a real MLflow server, as in `test_kinds.py`.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeAlias

import orjson
import pytest
from aiohttp import ClientSession

from dualtrack.core.artifact import Listed
from dualtrack.core.drift import compare
from dualtrack.core.exchange import JSON, Document
from dualtrack.core.ids import BackendId, ClientId, EntityKind, Ref, Twin
from dualtrack.core.views import FileView, Point, RunView, Series
from dualtrack.demo.servers import MlflowServer
from dualtrack.ports import Fetched
from dualtrack.reconcile.reader import Reader
from dualtrack.reconcile.snapshot import MapNames, Snapshots
from dualtrack.translate.repair import plan
from tests.support.kinds import KINDS, Kind, backend_of
from tests.support.sqlite_shelf import SqliteShelf

HISTORY = "mlflow.log-model.history"


@dataclass(kw_only=True)
class Map:
    """`Names` from a table."""

    backend: str = "one"
    is_primary: bool = False
    ids: dict[str, str]
    others: frozenset[str] = frozenset()
    stand_ins: frozenset[str] = frozenset()

    async def client_id(self, kind: EntityKind, backend_id: str) -> str:  # noqa: ARG002 - of the Protocol
        return self.ids.get(backend_id, backend_id)

    async def is_anothers(self, ref: Ref, root: str) -> bool:  # noqa: ARG002 - of the Protocol
        return root.rpartition("/")[2] in self.others

    async def is_stand_in(self, model_id: str) -> bool:
        return model_id in self.stand_ins


Opener: TypeAlias = Callable[[str], Awaitable[Kind]]


@pytest.fixture
async def opened(mlflow_primary: MlflowServer) -> AsyncIterator[Opener]:
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(ClientSession())
        yield lambda name: stack.enter_async_context(backend_of(name, mlflow_primary, session))


@pytest.fixture(params=KINDS)
async def kind(request: pytest.FixtureRequest, opened: Opener) -> Kind:
    return await opened(request.param)


def twin(kind: EntityKind, backend_id: str, client_id: str = "", root: str = "") -> Twin:
    ref = Ref(kind, ClientId(client_id or backend_id))
    return Twin(ref=ref, backend="one", backend_id=BackendId(backend_id), root=root)


def snapshots(kind: Kind, page: int = 500, **names: Any) -> Snapshots:
    return Snapshots(Reader(kind.backend, "elsewhere", page), kind.files, Map(**{"ids": {}, **names}))


VALUES: list[JSON] = [0.5, "NaN", "Infinity", "-Infinity", 1e-9]
POINTS: list[Document] = [
    {"key": "loss", "value": value, "timestamp": 1000 + step, "step": step} for step, value in enumerate(VALUES)
]
DATASET: Document = {
    "tags": [{"key": "mlflow.data.context", "value": "training"}],
    "dataset": {"name": "cancer", "digest": "d1", "source_type": "code", "source": "{}"},
}
MLMODEL = """artifact_path: model
flavors: {{}}
model_uuid: 5f1c
run_id: {run_id}
utc_time_created: '2026-11-21'
"""


async def logged(kind: Kind, folder: Path) -> tuple[str, str]:
    """A run with something of everything; its id and its experiment's."""
    parent, experiment_id = await kind.run()
    made = await kind.told(
        "runs/create", experiment_id=experiment_id, start_time=1000, run_name="fox", user_id="ann", tags=[]
    )
    run_id = str(made["run"]["info"]["run_id"])
    params = [{"key": "depth", "value": "3"}]
    entry = {"run_id": run_id, "artifact_path": "model", "flavors": {}, "utc_time_created": "2026-11-21"}
    tags = [{"key": "mlflow.parentRunId", "value": parent}, {"key": HISTORY, "value": orjson.dumps([entry]).decode()}]
    await kind.told("runs/log-batch", run_id=run_id, metrics=POINTS, params=params, tags=tags)
    await kind.told("runs/log-inputs", run_id=run_id, datasets=[DATASET])
    root = made["run"]["info"]["artifact_uri"]
    for path, content in (("a.txt", "abc"), ("d/e/b.txt", "b"), ("model/MLmodel", MLMODEL.format(run_id=run_id))):
        (folder / "file").write_text(content)
        await kind.files.put(root, path, str(folder / "file"))
    await kind.told("runs/update", run_id=run_id, status="FINISHED", end_time=9000)
    return run_id, experiment_id


async def seen(kind: Kind, run_id: str, experiment_id: str, **options: Any) -> RunView:
    """The run by the names that all of them have here."""
    run: Any = await kind.reader.get(EntityKind.RUN, run_id)
    tags = {tag["key"]: tag["value"] for tag in run["run"]["data"]["tags"]}
    ids = {run_id: "r1", experiment_id: "7", tags["mlflow.parentRunId"]: "r0"}
    view = await snapshots(kind, ids=ids, page=options.pop("page", 500)).run(
        twin(EntityKind.RUN, run_id, "r1"), **options
    )
    assert view is not None
    return view


# --- runs -------------------------------------------------------------------------------------------------------


async def test_a_run_is_read_whole(kind: Kind, tmp_path: Path) -> None:
    """Everything that it has is in the view, in the client's ids."""
    view = await seen(kind, *await logged(kind, tmp_path), points_of=["loss"])

    assert (view.experiment_id, view.name, view.status) == ("7", "fox", "FINISHED")
    assert (view.start_time, view.end_time, view.lifecycle_stage) == (1000, 9000, "active")
    assert view.params == {"depth": "3"}
    assert view.tags["mlflow.parentRunId"] == "r0"
    assert orjson.loads(view.tags[HISTORY])[0]["run_id"] == "r1"
    largest = 1.7976931348623157e308
    assert view.metrics["loss"].points == {
        Point(0, 1000, 0.5): 1,
        Point(1, 1001, None): 1,
        Point(2, 1002, largest): 1,
        Point(3, 1003, -largest): 1,
        Point(4, 1004, 1e-9): 1,
    }
    ((dataset, count),) = view.inputs.items()
    assert (dataset.name, dataset.tags, count) == ("cancer", (("mlflow.data.context", "training"),), 1)
    assert view.files is not None
    assert view.files.keys() == {"a.txt", "d/e/b.txt", "model/MLmodel"}
    assert view.files["model/MLmodel"].names == {"artifact_path": "model", "model_uuid": "5f1c", "run_id": "r1"}
    assert view.models == (None if kind.name == "azureml" else frozenset())


async def test_two_backends_that_hold_the_same_are_equal(kind: Kind, opened: Opener, tmp_path: Path) -> None:
    """The main one: the same writes to a plain server and to any kind of backend leave no drift."""
    plain = await opened("mlflow")
    here = await seen(plain, *await logged(plain, tmp_path), reads_content=True)
    there = await seen(kind, *await logged(kind, tmp_path), reads_content=True)
    found = compare(here, there)

    assert not [each for each in found if each.is_drift]
    assert plan(here, there, found).exchanges == ()


async def test_what_one_lacks_is_found(kind: Kind, opened: Opener, tmp_path: Path) -> None:
    """A point, a param and a file that are not there."""
    plain = await opened("mlflow")
    written = await logged(plain, tmp_path)
    there = await seen(kind, *await logged(kind, tmp_path))
    extra = {"key": "loss", "value": 7.0, "timestamp": 1, "step": 9}
    await plain.told("runs/log-batch", run_id=written[0], metrics=[extra], params=[{"key": "p", "value": "1"}])
    run: Any = await plain.reader.get(EntityKind.RUN, written[0])
    await plain.files.put(run["run"]["info"]["artifact_uri"], "new", str(tmp_path / "file"))
    found = [each for each in compare(await seen(plain, *written), there) if each.is_drift]

    assert [(each.kind, each.item) for each in found] == [("param", "p"), ("metric", "loss"), ("file", "new")]


async def test_a_history_is_the_same_in_pages_of_any_size(kind: Kind, tmp_path: Path) -> None:
    """No more than a page is held, and pages do not show."""
    written = await logged(kind, tmp_path)
    paged, whole = await seen(kind, *written, page=2, files=False), await seen(kind, *written)

    assert paged.metrics == whole.metrics
    assert paged.metrics["loss"].count == len(POINTS)
    assert paged.metrics["loss"].points is None
    assert paged.files is None


async def test_content_is_hashed_where_it_is_asked_for(kind: Kind, tmp_path: Path) -> None:
    """What the journal knows is taken at its word; the rest is read."""
    written = await logged(kind, tmp_path)
    listed = await seen(kind, *written)
    read = await seen(kind, *written, hashes={"a.txt": "known"}, reads_content=True)

    assert listed.files is not None
    assert listed.files["a.txt"].sha256 is None
    assert read.files is not None
    assert read.files["a.txt"].sha256 == "known"
    assert read.files["d/e/b.txt"] == FileView(size=1, sha256=sha256(b"b").hexdigest())


async def test_the_folder_of_another_entity_is_left_out(kind: Kind, tmp_path: Path) -> None:
    """What stands in for a logged model is compared as that; its entry in the history too."""
    run_id, _ = await logged(kind, tmp_path)
    await kind.told("runs/set-tag", run_id=run_id, key=HISTORY, value='[{"model_uuid": "m1"}]')
    read = snapshots(kind, others=frozenset({"model"}), stand_ins=frozenset({"m1"}))
    view = await read.run(twin(EntityKind.RUN, run_id))

    assert view is not None
    assert view.files is not None
    assert "model/MLmodel" not in view.files
    assert HISTORY not in view.tags


async def test_a_history_that_is_none_is_read_as_it_is(kind: Kind) -> None:
    """Whatever somebody wrote into the tag."""
    run_id, _ = await kind.run()
    await kind.told("runs/set-tag", run_id=run_id, key=HISTORY, value="no JSON")
    view = await snapshots(kind).run(twin(EntityKind.RUN, run_id), files=False)

    assert view is not None
    assert view.tags[HISTORY] == "no JSON"


async def test_a_deleted_run_is_read_as_deleted(kind: Kind, tmp_path: Path) -> None:
    written = await logged(kind, tmp_path)
    await kind.told("runs/delete", run_id=written[0])

    assert (await seen(kind, *written, files=False)).lifecycle_stage == "deleted"


async def test_a_run_under_the_clients_own_id_was_upserted(kind: Kind) -> None:
    """No other way gives a secondary's run the primary's id."""
    run_id, _ = await kind.run()
    here = await snapshots(kind, is_primary=True).run(twin(EntityKind.RUN, run_id), files=False)
    there = await snapshots(kind).run(twin(EntityKind.RUN, run_id), files=False)

    assert here is not None
    assert there is not None
    assert (here.is_upserted, there.is_upserted) == (False, True)


async def test_what_is_not_there_is_none(kind: Kind) -> None:
    read = snapshots(kind)

    assert await read.run(twin(EntityKind.RUN, "0" * 32)) is None
    assert await read.experiment(twin(EntityKind.EXPERIMENT, "123456789")) is None
    if kind.name != "azureml":
        assert await read.model(twin(EntityKind.MODEL, f"m-{'0' * 32}")) is None


# --- experiments and models -------------------------------------------------------------------------------------


async def test_an_experiment_is_read_whole(kind: Kind) -> None:
    experiment_id = await kind.experiment()
    await kind.told("experiments/set-experiment-tag", experiment_id=experiment_id, key="team", value="a")
    view = await snapshots(kind).experiment(twin(EntityKind.EXPERIMENT, experiment_id), expected_names=("x",))

    assert view is not None
    assert view.tags["team"] == "a"
    assert (view.lifecycle_stage, view.expected_names) == ("active", ("x",))
    assert view.name


@pytest.mark.parametrize("name", [each for each in KINDS if each != "azureml"])
async def test_a_logged_model_is_read_whole(name: str, opened: Opener, tmp_path: Path) -> None:
    """Its points say which run and dataset they are of, in the client's ids; its root is said as its own."""
    kind = await opened(name)
    run_id, experiment_id = await kind.run()
    made = await kind.told(
        "logged-models",
        experiment_id=experiment_id,
        name="m",
        source_run_id=run_id,
        params=[{"key": "a", "value": "1"}],
        tags=[{"key": "t", "value": "1"}],
    )
    model_id, root = made["model"]["info"]["model_id"], made["model"]["info"]["artifact_uri"]
    metric = {**POINTS[0], "model_id": model_id, "run_id": run_id, "dataset_name": "u", "dataset_digest": "d"}
    await kind.told("runs/log-batch", run_id=run_id, metrics=[metric])
    (tmp_path / "file").write_text(f"artifact_path: {root}/x\nmodel_id: {model_id}\nrun_id: {run_id}\n")
    await kind.files.put(root, "MLmodel", str(tmp_path / "file"))
    view = await snapshots(kind, ids={run_id: "r1", model_id: "m1", experiment_id: "7"}).model(
        twin(EntityKind.MODEL, model_id, "m1")
    )
    run = await snapshots(kind, ids={model_id: "m1"}).run(twin(EntityKind.RUN, run_id), files=False)

    assert view is not None
    assert (view.name, view.run_id, view.experiment_id) == ("m", "r1", "7")
    assert (view.params, view.tags) == ({"a": "1"}, {"t": "1"})
    series = Series(key="loss", run_id="r1", dataset_name="u", dataset_digest="d")
    assert view.metrics[series].points == {Point(0, 1000, 0.5): 1}
    assert view.files is not None
    assert view.files["MLmodel"].names == {"artifact_path": "(its root)/x", "model_id": "m1", "run_id": "r1"}
    assert run is not None
    assert run.models == frozenset({"m1"})
    assert run.metrics["loss"].count == 1


async def test_files_that_stand_in_for_a_model_are_read_as_one(opened: Opener, tmp_path: Path) -> None:
    """Where there are no logged models, the folder of its run is all that there is of it."""
    kind = await opened("azureml")
    run_id, _ = await logged(kind, tmp_path)
    run: Any = await kind.reader.get(EntityKind.RUN, run_id)
    root = f"{run['run']['info']['artifact_uri'].rstrip('/')}/model"
    stand_in = twin(EntityKind.MODEL, f"{run_id}/model", "m1", root)
    view = await snapshots(kind, ids={run_id: "r1"}).model(stand_in)

    assert view is not None
    assert view.stands_in
    assert view.files is not None
    assert view.files.keys() == {"MLmodel"}
    assert await snapshots(kind).model(replace(stand_in, root="")) is None


class Shapeless:
    """Files of which a store says no size, and those that it lists are not always there."""

    def __init__(self, **content: bytes) -> None:
        self._content = content

    async def list(self, root: str, path: str) -> list[Listed]:  # noqa: ARG002 - of the Protocol
        return [Listed(path=name, is_dir=False) for name in (*self._content, "gone")]

    @asynccontextmanager
    async def fetch(self, root: str, path: str) -> AsyncIterator[Fetched | None]:  # noqa: ARG002 - of the Protocol
        content = self._content.get(path)

        async def chunks() -> AsyncIterator[bytes]:
            for start in range(0, len(content or b""), 1000):
                yield (content or b"")[start : start + 1000]

        yield Fetched(size=None, chunks=chunks()) if content is not None else None

    async def put(self, root: str, path: str, source: str) -> None:
        raise NotImplementedError

    async def delete(self, root: str, path: str) -> None:
        raise NotImplementedError


async def test_what_is_too_large_for_an_mlmodel_is_a_file_like_any_other(opened: Opener) -> None:
    """Whatever its name; and a file that is listed and not there is empty."""
    kind = await opened("mlflow")
    store = Shapeless(MLmodel=b"run_id: r1\n" * 100_000)
    run_id, _ = await kind.run()
    view = await Snapshots(kind.reader, store, Map(ids={})).run(twin(EntityKind.RUN, run_id), reads_content=True)

    assert view is not None
    assert view.files == {"MLmodel": FileView(), "gone": FileView(size=0, sha256=sha256().hexdigest())}


# --- names from the id map --------------------------------------------------------------------------------------

RUN, MODEL = Ref(EntityKind.RUN, ClientId("r1")), Ref(EntityKind.MODEL, ClientId("m1"))


@pytest.fixture
async def names(tmp_path: Path) -> AsyncIterator[MapNames]:
    shelf = SqliteShelf(tmp_path / "journal.db")
    journal = await shelf.open()
    await journal.start()
    twins = (
        Twin(ref=RUN, backend="b", backend_id=BackendId("r1-there"), root="s3://b/r1"),
        Twin(ref=MODEL, backend="b", backend_id=BackendId("r1-there/model"), root="s3://b/r1/model"),
        Twin(ref=Ref(EntityKind.RUN, ClientId("r2")), backend="b", backend_id=BackendId("")),
    )
    await journal.learn(twins)
    yield MapNames(journal, "b", is_primary=False)
    await shelf.close()


@pytest.mark.parametrize(
    ("kind", "there", "here"),
    [
        (EntityKind.RUN, "r1-there", "r1"),
        (EntityKind.RUN, "stranger", "stranger"),
        (EntityKind.RUN, "", ""),
        (EntityKind.RUN, "r2", "r2"),  # discarded: it has no other
        (EntityKind.MODEL, "m1", "m1"),  # it is only files there, and keeps its name
        (EntityKind.RUN, "r1", "r1, untranslated"),  # it was copied, not mirrored
    ],
)
async def test_an_id_of_a_secondary_is_said_as_the_clients(
    names: MapNames, kind: EntityKind, there: str, here: str
) -> None:
    assert await names.client_id(kind, there) == here


async def test_the_primarys_ids_are_the_clients(names: MapNames) -> None:
    primary = MapNames(names._journal, "b", is_primary=True)

    assert await primary.client_id(EntityKind.RUN, "r1-there") == "r1-there"
    assert not await primary.is_stand_in("m1")


async def test_a_folder_belongs_to_the_model_that_it_stands_in_for(names: MapNames) -> None:
    assert await names.is_anothers(RUN, "s3://b/r1/model")
    assert not await names.is_anothers(RUN, "s3://b/r1/data")
    assert not await names.is_anothers(MODEL, "s3://b/r1/model")
    assert await names.is_stand_in("m1")
    assert not await names.is_stand_in("m2")
    assert not await names.is_stand_in("")
