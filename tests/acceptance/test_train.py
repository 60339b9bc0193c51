"""The demo's training script is an ordinary one: it works against an MLflow server with no dualtrack in sight."""

import ast
import asyncio
import sys
from pathlib import Path

import pytest

from dualtrack.demo import servers
from dualtrack.demo.compare import Side, compare_experiment, find_experiment, read_registry
from dualtrack.demo.demo import EXPERIMENT
from dualtrack.demo.servers import MlflowServer, Process, clean_environment

SCRIPT = Path(servers.__file__).with_name("train.py")


def test_the_script_imports_nothing_of_ours() -> None:
    tree = ast.parse(SCRIPT.read_text())
    imported = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}

    assert not [name for name in imported if name.startswith("dualtrack")]


@pytest.mark.acceptance
async def test_the_script_trains_against_a_plain_server(
    mlflow_primary: MlflowServer, mlflow_secondary: MlflowServer, tmp_path: Path
) -> None:
    env = clean_environment(MLFLOW_TRACKING_URI=mlflow_primary.url, DO_NOT_TRACK="true")
    process = Process([sys.executable, str(SCRIPT)], log_path=tmp_path / "log", env=env)
    try:
        code = await asyncio.to_thread(process.wait, 120)
    finally:
        process.kill()

    assert code == 0, process.tail()
    primary = Side(name="primary", url=mlflow_primary.url)
    experiment_id = find_experiment(primary, EXPERIMENT)
    assert experiment_id is not None
    secondary = Side(name="secondary", url=mlflow_secondary.url)
    found = await asyncio.to_thread(compare_experiment, primary, secondary, experiment_id)
    assert {run.name for run in found.runs} >= {"search", "descent", "autologged", "alpha=0.01"}
    (wide,) = (run for run in found.runs if run.name == "descent")
    assert (wide.params, wide.tags >= 60, wide.points) == (300, True, 10_000)
    assert all(run.points for run in found.runs)
    assert all(run.files for run in found.runs), [(run.name, run.files) for run in found.runs]
    (model,) = found.models
    assert (model.name, model.files > 3) == ("classifier", True)
    assert "predictions equal True" in process.log_path.read_text()
    assert not found.is_equal  # nobody mirrored anything
    assert "dualtrack-demo-classifier" in read_registry(primary).models
