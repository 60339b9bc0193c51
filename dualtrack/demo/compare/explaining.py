"""What the proxy's records of losses explain of how a mirror differs, and what has to be true of each. Pure.

A loss explains a difference of its own run, kind and item, and nothing else:

| reason           | the secondary has                                            | its overflow file has |
|------------------|--------------------------------------------------------------|-----------------------|
| over_limit       | nothing                                                      | the whole value       |
| shortened        | the beginning and a hash, of a name, a value or both         | the whole value       |
| skipped          | whatever it had before                                       | the whole value       |
| no_logged_models | the model's files in a folder of its run, which names it in  |                       |
|                  | its history; points and outputs that do not name the model   |                       |
| any other        | anything                                                     |                       |

`comparing` asks before it compares (`expected`, `restored`, `stand_ins`), and again about what is left (`unexplained`).
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import orjson

from dualtrack.demo.compare.result import FILE, Difference
from dualtrack.demo.compare.snapshot import OVERFLOW, File, Loss, Model, Point, Run

MODEL_HISTORY = "mlflow.log-model.history"
NO_MODELS, OVER_LIMIT, SHORTENED, SKIPPED = "no_logged_models", "over_limit", "shortened", "skipped"
KEPT = frozenset({OVER_LIMIT, SHORTENED, SKIPPED})  # reasons whose values stand whole in the overflow
# by the kind of a difference, the kind of the loss that may explain it
KINDS = {"param": "param", "tag": "tag", "experiment tag": "tag", "metric point": "metric", FILE: "file", "run": "run"}
_HASH = 8
_ABSENT = frozenset({"absent", "0 times"})


@dataclass(frozen=True, slots=True)
class Losses:
    """All that is on record, by the key of the run, model or experiment."""

    by_key: Mapping[str, tuple[Loss, ...]]

    def of(self, kind: str, name: str) -> tuple[Loss, ...]:
        return self.by_key.get(f"{kind}:{name}", ())


def grouped(losses: Iterable[Loss]) -> Losses:
    by_key: dict[str, list[Loss]] = defaultdict(list)
    for loss in losses:
        by_key[loss.key].append(loss)
    return Losses({key: tuple(found) for key, found in by_key.items()})


# ---- what is left ------------------------------------------------------------------------------------------------


def unexplained(differences: Iterable[Difference], losses: tuple[Loss, ...]) -> Iterator[Difference]:
    for difference in differences:
        if not any(_explains(loss, difference) for loss in losses):
            yield difference


def _explains(loss: Loss, difference: Difference) -> bool:
    if difference.kind == FILE and difference.name == OVERFLOW and difference.primary in _ABSENT:
        return loss.reason in KEPT
    if KINDS.get(difference.kind) != loss.kind or loss.item not in {"", difference.name}:
        return False
    match loss.reason:
        case "over_limit":
            return difference.secondary in _ABSENT
        case "shortened":
            return is_short(difference.secondary, difference.primary)
        case _:
            return True


def is_short(written: str, whole: str) -> bool:
    """Say whether `written` is the beginning of `whole` and a hash of all of it."""
    digest = hashlib.sha256(whole.encode(errors="surrogatepass")).hexdigest()[:_HASH]
    kept = len(written) - _HASH - 1
    return 0 < kept < len(whole) and written == f"{whole[:kept]}-{digest}"


def lacking(run: Run, mirror: Run, tags: Mapping[str, str], losses: tuple[Loss, ...]) -> Iterator[Difference]:
    """Name what neither the mirror nor its overflow file has whole; `tags` are the overflow's, in the primary's ids."""
    sides = {
        "param": (run.params, mirror.params, mirror.overflow.get("params", {})),
        "tag": (run.tags, mirror.tags, tags),
    }
    for kind, item in sorted({(loss.kind, loss.item) for loss in losses if loss.reason in KEPT and loss.kind in sides}):
        ours, theirs, kept = (side.get(item) for side in sides[kind])
        if ours not in {None, theirs, kept}:
            yield Difference(kind=f"overflow {kind}", key=item, primary=str(ours), secondary=kept or "absent")


# ---- names that were shortened -----------------------------------------------------------------------------------


def restored(mirror: Run, losses: tuple[Loss, ...]) -> Run:
    """Say the mirror with the whole names of what stands there under shortened ones."""
    names = {kind: [loss.item for loss in losses if (loss.kind, loss.reason) == (kind, SHORTENED)] for kind in _NAMED}
    return replace(
        mirror,
        params={_whole(key, names["param"]): value for key, value in mirror.params.items()},
        tags={_whole(key, names["tag"]): value for key, value in mirror.tags.items()},
        points=tuple(replace(point, key=_whole(point.key, names["metric"])) for point in mirror.points),
    )


_NAMED = ("param", "tag", "metric")


def _whole(key: str, names: list[str]) -> str:
    return next((name for name in names if is_short(key, name)), key)


# ---- models where there are none ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StandIn:
    """A model that is files of a run over there; without a run it has none."""

    model: Model
    run: Run | None
    folder: str

    @property
    def place(self) -> str:
        return f"{self.run.run_id}/{self.folder}" if self.run is not None else ""

    @property
    def seen(self) -> Model:
        """The folder as a model: its files by their paths in it, its root."""
        start, run = f"{self.folder}/", self.run
        if run is None:
            return Model(model_id="", experiment_id="")
        files = (replace(file, path=file.path[len(start) :]) for file in run.files if file.path.startswith(start))
        root = f"{run.root.rstrip('/')}/{self.folder}"
        return Model(model_id="", experiment_id=run.experiment_id, root=root, files=tuple(files))

    @property
    def meant(self) -> Model:
        """The primary's model as it can be there: its `MLmodel` names no logged model."""
        return replace(self.model, files=tuple(_nameless(file) for file in self.model.files))


def _nameless(file: File) -> File:
    return replace(file, names={key: value for key, value in file.names.items() if key != "model_id"})


def stand_ins(
    models: Iterable[Model], runs: Mapping[str, Run], mirrors: Mapping[str, list[Run]], losses: Losses
) -> dict[str, StandIn]:
    """Find the folder of each model that is on record as none over there; by the id of the model."""
    found = {}
    for model in models:
        if any(loss.reason == NO_MODELS and not loss.item for loss in losses.of("model", model.model_id)):
            mirror = next(iter(mirrors.get(model.run_id, ())), None)
            found[model.model_id] = StandIn(model, mirror, _folder(model, runs.get(model.run_id), mirror))
    return found


def _folder(model: Model, run: Run | None, mirror: Run | None) -> str:
    """Its name, or its name and id if the run has files of its own there, or another model."""
    own = {file.path.partition("/")[0] for file in run.files} if run is not None else set()
    there = {file.path.partition("/")[0] for file in mirror.files} if mirror is not None else set()
    plain = model.name or "model"
    whole = f"{plain}-{model.model_id}"
    # of a model without files nothing is there: what stands below its name is another's
    return plain if model.files and plain in there - own and whole not in there else whole


def without(mirror: Run, standing: Iterable[StandIn]) -> tuple[Run, tuple[Difference, ...]]:
    """Say a mirror without what stands in for models: their files, and their entries in its history of models."""
    mine = [each for each in standing if each.run is not None and each.run.run_id == mirror.run_id]
    if not mine:
        return mirror, ()
    folders = tuple(f"{each.folder}/" for each in mine)
    files = tuple(file for file in mirror.files if not file.path.startswith(folders))
    entries = _history(mirror.tags.get(MODEL_HISTORY, "[]"))
    wanted = {each.model.model_id: each.folder for each in mine if "MLmodel" in {file.path for file in each.seen.files}}
    named = {str(entry.get("model_uuid")): entry for entry in entries if entry.get("model_uuid") in wanted}
    untold = tuple(
        Difference(kind="model history", key=model_id, primary=folder, secondary=str(named.get(model_id, "absent")))
        for model_id, folder in wanted.items()
        if (entry := named.get(model_id, {})).get("artifact_path") != folder or entry.get("run_id") != mirror.run_id
    )
    tags = {key: value for key, value in mirror.tags.items() if key != MODEL_HISTORY}
    if rest := [entry for entry in entries if entry not in named.values()]:
        tags[MODEL_HISTORY] = orjson.dumps(rest).decode()
    return replace(mirror, files=files, tags=tags), untold


def _history(written: str) -> list[dict[str, object]]:
    try:
        entries = orjson.loads(written)
    except orjson.JSONDecodeError:
        return []
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def expected(run: Run, losses: tuple[Loss, ...]) -> Run:
    """Say a run as it can be where some models are none: nothing names those; a point logged for both is there once."""
    lost = {loss.item for loss in losses if (loss.kind, loss.reason) == ("model", NO_MODELS)}
    plain = [point for point in run.points if point.model_id not in lost]
    bare = dict.fromkeys(replace(point, model_id="") for point in run.points if point.model_id in lost)
    points: tuple[Point, ...] = (*plain, *(point for point in bare if point not in set(plain)))
    return replace(run, points=points, outputs=tuple(item for item in run.outputs if item[0] not in lost))
