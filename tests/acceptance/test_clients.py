"""Whatever the unmodified client logs once stands on both real servers, every field and every history of it."""

from contextlib import ExitStack
from pathlib import Path

import pytest

from dualtrack.demo.servers import MlflowServer
from tests.support.clients import Script, run_script
from tests.support.proxy import Dualtrack
from tests.support.sides import assert_equal, compare, mirror_of, models

pytestmark = pytest.mark.acceptance

PROCESSES, RUNS_EACH = 4, 3


def test_everything_of_the_fluent_api(
    proxy: Dualtrack, mlflow_primary: MlflowServer, mlflow_secondary: MlflowServer, tmp_path: Path
) -> None:
    """Odd values, names in any script, renames, deletes and restores arrive as they are."""
    done = run_script("fluent", proxy.url, tmp_path, "größe & fluent/все")

    proxy.drain()
    found = assert_equal(mlflow_primary.url, mlflow_secondary.url, done["experiment_id"], runs=7)
    assert found.secondary_experiment_id != found.primary_experiment_id, "each side has its own ids"
    assert {run.primary_id for run in found.runs} == set(done["runs"])
    assert next(run for run in found.runs if run.name == "values").points > 30


def test_the_plain_client(
    proxy: Dualtrack, mlflow_primary: MlflowServer, mlflow_secondary: MlflowServer, tmp_path: Path
) -> None:
    """Full batches keep every point, and logged models go over as records, with their metrics and links."""
    done = run_script("client", proxy.url, tmp_path, "plain client")

    proxy.drain()
    found = assert_equal(mlflow_primary.url, mlflow_secondary.url, done["experiment_id"], runs=3)
    by_id = {run.primary_id: run for run in found.runs}
    assert by_id[done["runs"][0]].points == 1001
    assert {model_id for model_id, _ in models(mlflow_primary.url, done["experiment_id"])} == set(done["models"])


def test_autologging_with_models(
    proxy: Dualtrack, mlflow_primary: MlflowServer, mlflow_secondary: MlflowServer, tmp_path: Path
) -> None:
    """Autologged params, metrics with their models, datasets, child runs; the model loads through the proxy."""
    done = run_script("autolog", proxy.url, tmp_path, "autologging")

    proxy.drain()
    assert_equal(mlflow_primary.url, mlflow_secondary.url, done["experiment_id"], runs=4)
    assert done["model"] == "LogisticRegression"
    assert len(dict(models(mlflow_primary.url, done["experiment_id"]))) >= 2


def test_runs_three_deep(
    proxy: Dualtrack, mlflow_primary: MlflowServer, mlflow_secondary: MlflowServer, tmp_path: Path
) -> None:
    """Each child names its parent by that side's id."""
    done = run_script("nested", proxy.url, tmp_path, "nested")

    proxy.drain()
    found = assert_equal(mlflow_primary.url, mlflow_secondary.url, done["experiment_id"], runs=7)
    assert all(run.tags > 0 for run in found.runs)


def test_asynchronous_logging(
    proxy: Dualtrack, mlflow_primary: MlflowServer, mlflow_secondary: MlflowServer, tmp_path: Path
) -> None:
    """A pool of ten threads that sends out of order leaves the same on both sides."""
    done = run_script("asynchronous", proxy.url, tmp_path, "async")

    proxy.drain()
    found = assert_equal(mlflow_primary.url, mlflow_secondary.url, done["experiment_id"], runs=2)
    assert [run.points for run in found.runs] == [300, 300]


def test_many_processes_at_once(
    proxy: Dualtrack, mlflow_primary: MlflowServer, mlflow_secondary: MlflowServer, tmp_path: Path
) -> None:
    """Several processes with several threads each race for one experiment, and nothing gets mixed up."""
    with ExitStack() as stack:
        scripts = [
            stack.enter_context(Script("crowd", proxy.url, tmp_path / str(number), "crowd", str(number)))
            for number in range(PROCESSES)
        ]
        done = [script.finish() for script in scripts]

    proxy.drain()
    assert len({each["experiment_id"] for each in done}) == 1
    experiment_id = done[0]["experiment_id"]
    found = assert_equal(mlflow_primary.url, mlflow_secondary.url, experiment_id, runs=PROCESSES * RUNS_EACH)
    assert {run.points for run in found.runs} == {30}


def test_the_default_experiment(
    proxy: Dualtrack, mlflow_primary: MlflowServer, mlflow_secondary: MlflowServer, tmp_path: Path
) -> None:
    """A script that names no experiment logs to the primary's experiment 0, which has its mirror."""
    done = run_script("default", proxy.url, tmp_path)

    proxy.drain()
    assert done["experiment_id"] == "0"
    found = compare(mlflow_primary.url, mlflow_secondary.url, "0")
    # other tests use the default experiment too, and not all of them mirror it to the same place
    (run,) = [run for run in found.runs if run.primary_id == done["run_id"]]
    assert run.differences == ()


def test_a_run_from_before_the_proxy_is_continued(
    proxy: Dualtrack, mlflow_primary: MlflowServer, mlflow_secondary: MlflowServer, tmp_path: Path
) -> None:
    """What the primary held before is brought over whole, and what comes after follows it."""
    before = run_script("earlier", mlflow_primary.url, tmp_path, "from before")

    run_script("resume", proxy.url, tmp_path, before["run_id"])

    proxy.drain()
    found = assert_equal_but_for(before["parent"], mlflow_primary, mlflow_secondary, before["experiment_id"])
    assert found[before["run_id"]] == 40


def test_a_child_of_a_run_from_before_the_proxy(
    proxy: Dualtrack, mlflow_primary: MlflowServer, mlflow_secondary: MlflowServer, tmp_path: Path
) -> None:
    """The parent is brought over with its child, which names it by its id there."""
    before = run_script("earlier", mlflow_primary.url, tmp_path, "parents from before")

    run_script("nested", proxy.url, tmp_path, "parents from before", before["parent"])

    proxy.drain()
    assert_equal_but_for(before["run_id"], mlflow_primary, mlflow_secondary, before["experiment_id"])
    parent = mirror_of(mlflow_secondary.url, before["parent"])
    assert parent["info"]["run_name"] == "parent from before"


def test_a_run_is_continued_by_another_process(
    proxy: Dualtrack, mlflow_primary: MlflowServer, mlflow_secondary: MlflowServer, tmp_path: Path
) -> None:
    """`start_run(run_id=…)` through the proxy reopens the mirror too, and closes it again."""
    before = run_script("earlier", proxy.url, tmp_path, "continued")

    run_script("resume", proxy.url, tmp_path, before["run_id"])

    proxy.drain()
    found = assert_equal(mlflow_primary.url, mlflow_secondary.url, before["experiment_id"], runs=3)
    assert {run.primary_id: run.points for run in found.runs}[before["run_id"]] == 40


def assert_equal_but_for(
    unseen: str, primary: MlflowServer, secondary: MlflowServer, experiment_id: str
) -> dict[str, int]:
    """No difference but one: a run that no proxy ever saw is not there. Gives the points of each run."""
    found = compare(primary.url, secondary.url, experiment_id)
    differing = {run.primary_id: run.differences for run in found.runs if not run.is_equal}
    assert not found.differences, str(found)
    assert [item.kind for item in differing.pop(unseen)] == ["run"], str(found)
    assert not differing, str(found)
    return {run.primary_id: run.points for run in found.runs}
