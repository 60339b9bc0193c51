"""What each side holds of a run or a model, read by a client that is pointed straight at its server.

Also servers that serve no files themselves, whose clients write to the disk.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from dualtrack.demo.compare import MODEL_MARK
from dualtrack.demo.servers import QUIET, Process, answers, clean_environment, free_port
from tests.support.clients import run_script
from tests.support.proxy import PRIMARY, SECONDARY
from tests.support.servers import call
from tests.support.sides import assert_equal, mirror_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """The files of one owner: their hashes by path, and the text of each MLmodel."""

    root: str
    files: dict[str, str]
    texts: dict[str, str]

    @property
    def without_models(self) -> dict[str, str]:
        """All but MLmodel, in which each side names its own ids."""
        return {path: digest for path, digest in self.files.items() if path not in self.texts}


def files_of(url: str, owner: str, folder: Path) -> Held:
    """Read every file of a run, or of a logged model by its id (`m-…`)."""
    return Held(**run_script("read_files", url, folder, owner))


def on_both(primary: str, secondary: str, owner: str, folder: Path) -> tuple[Held, Held]:
    """Read the files of what the primary calls `owner`, and those of its mirror."""
    return files_of(primary, owner, folder), files_of(secondary, twin_of(secondary, owner), folder)


def twin_of(secondary: str, owner: str) -> str:
    """What the secondary calls a run or a logged model of the primary."""
    if not owner.startswith("m-"):
        return str(mirror_of(secondary, owner)["info"]["run_id"])
    experiments = call(secondary, "experiments/search", {"max_results": 500, "view_type": "ALL"})["experiments"]
    wanted = {
        "experiment_ids": [item["experiment_id"] for item in experiments],
        "filter": f"tags.`{MODEL_MARK}` = '{owner}'",
        "max_results": 10,
    }
    found = call(secondary, "logged-models/search", wanted).get("models", [])
    assert len(found) == 1, f"{len(found)} mirrors of {owner}"
    return str(found[0]["info"]["model_id"])


def assert_same_model(ours: Held, theirs: Held, ids: dict[str, str]) -> None:
    """Both have the same files, and each MLmodel names its own side's ids; `ids` are the mirror's by the primary's."""
    assert theirs.without_models == ours.without_models
    assert theirs.texts.keys() == ours.texts.keys() != set()
    for path, text in ours.texts.items():
        assert all(each in text for each in ids), f"{path} on the primary is not as the client wrote it:\n{text}"
    for path, text in theirs.texts.items():
        assert not [each for each in ids if each in text], f"{path} names ids of the primary {ids}:\n{text}"
        assert all(each in text for each in ids.values()), f"{path} lacks ids of its own {ids}:\n{text}"
        place = str(yaml.safe_load(text).get("artifact_path", ""))
        assert "/" not in place or place.rstrip("/") == theirs.root.rstrip("/"), f"{path} is at {place}"


def check_predictions(done: dict[str, Any]) -> None:
    """Every address of a model that `log_models` loaded through the proxy gave what the original predicts."""
    assert done["version"] == "1"
    assert len(done["predictions"]) == (5 if done["model_id"] else 4)
    assert set(map(tuple, done["predictions"].values())) == {tuple(done["expected"])}, done
    assert len(set(done["expected"])) == 2, "a model that tells things apart"
    assert done["prompts"] == (["Say {{word}}"] * 2 if done["model_id"] else [])


def check_models(
    primary: str, secondary: str, done: dict[str, Any], registered: tuple[str, str], folder: Path, python: Path
) -> None:
    """What `log_models` made stands on both servers and can be used from each alone.

    `registered` is the name of the model and the side that has the registry.
    """
    owners = [done["run_id"], *([done["model_id"]] if done["model_id"] else [])]
    ids = {owner: twin_of(secondary, owner) for owner in owners}
    assert_equal(primary, secondary, done["experiment_id"], runs=1)
    # before it is loaded: a client that loads a version from a local disk leaves `registered_model_meta` beside it
    ours, theirs = on_both(primary, secondary, owners[-1], folder)
    name, home = registered
    for side, url, mine in ((PRIMARY, primary, list(ids)), (SECONDARY, secondary, list(ids.values()))):
        uris = [f"runs:/{mine[0]}/model", *(f"models:/{each}" for each in mine[1:])]
        uris += [f"models:/{name}/1", f"models:/{name}@champion"] if side == home else []
        loaded = run_script("load_model", url, folder, *uris, python=python)
        assert loaded["predictions"] == dict.fromkeys(uris, done["expected"]), side
    assert_same_model(ours, theirs, ids)


class LocalServer:
    """A real server that serves no artifacts: its clients write to a folder of this machine, `files`."""

    def __init__(self, root: Path) -> None:
        self.files = root / "files"
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        root.mkdir(parents=True)
        argv = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
        argv += ["--backend-store-uri", f"sqlite:///{root.resolve() / 'mlflow.db'}"]
        argv += ["--no-serve-artifacts", "--default-artifact-root", str(self.files.resolve())]
        self._process = Process(argv, log_path=root / "server.log", env=clean_environment(**QUIET))

    def wait_ready(self) -> Self:
        self._process.wait_ready(lambda: answers(f"{self.url}/health"), timeout=120)
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.stop()
