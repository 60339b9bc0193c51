"""Both backends read without the proxy: what an experiment and its mirror must agree on, logged models included."""

from collections.abc import Iterator
from typing import Any

from dualtrack.demo.compare import MODEL_MARK, Comparison, Side, compare_experiment
from tests.support.servers import call

MODEL_FIELDS = ("name", "model_type", "status")
# The mirror's mark; and what the server that has the registry sets on its own model (facts section 12).
NOT_COMPARED = ("dualtrack.", "mlflow.modelVersions")


def assert_equal(primary: str, secondary: str, experiment_id: str, *, runs: int | None = None) -> Comparison:
    """Fail with every difference; `runs` is how many the experiment must have."""
    found = compare(primary, secondary, experiment_id)
    assert found.is_equal, str(found)
    if runs is not None:
        assert len(found.runs) == runs, [run.name for run in found.runs]
    mirror_id = found.secondary_experiment_id
    assert mirror_id is not None
    ours, theirs = dict(models(primary, experiment_id)), dict(models(secondary, mirror_id, is_mirror=True))
    assert ours == theirs, f"logged models differ:\n{ours}\n{theirs}"
    return found


def compare(primary: str, secondary: str, experiment_id: str) -> Comparison:
    return compare_experiment(Side(name="primary", url=primary), Side(name="secondary", url=secondary), experiment_id)


def models(url: str, experiment_id: str, *, is_mirror: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
    """The logged models of an experiment by the id that the client sees, with all that clients can set."""
    token: str = ""
    while True:
        page = {"page_token": token} if token else {}
        answer = call(url, "logged-models/search", {"experiment_ids": [experiment_id], "max_results": 50, **page})
        for model in answer.get("models", ()):
            info, stored = model["info"], model.get("data", {})
            tags = {tag["key"]: tag["value"] for tag in info.get("tags", ())}
            client_id = tags[MODEL_MARK] if is_mirror else info["model_id"]
            told = {name: info.get(name) for name in MODEL_FIELDS}
            told["tags"] = {key: value for key, value in tags.items() if not key.startswith(NOT_COMPARED)}
            told["params"] = {item["key"]: item["value"] for item in stored.get("params", ())}
            yield client_id, told
        token = answer.get("next_page_token", "")
        if not token:
            return


def mirror_of(secondary: str, run_id: str) -> dict[str, Any]:
    """The one run of the secondary that carries the mark of this run."""
    experiments = call(secondary, "experiments/search", {"max_results": 500, "view_type": "ALL"})["experiments"]
    ids = [item["experiment_id"] for item in experiments]
    wanted = f"tags.`dualtrack.source_run_id` = '{run_id}'"
    found: list[dict[str, Any]] = call(
        secondary, "runs/search", {"experiment_ids": ids, "filter": wanted, "run_view_type": "ALL", "max_results": 10}
    ).get("runs", [])
    assert len(found) == 1, f"{len(found)} mirrors of {run_id}"
    return found[0]
