"""The emulated workspace in front of mlflow's own Databricks client: what that trips over, the emulator does wrong."""

import asyncio
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from dualtrack.demo.servers import MlflowServer
from dualtrack.emulators.databricks_files import Choices
from dualtrack.emulators.storage import Kind
from tests.support.clients import IMPATIENT, run_script
from tests.support.workspace import TOKEN, workspace

pytestmark = pytest.mark.acceptance

MIB = 1024 * 1024
# parts of the least size that S3 takes, and files that need three of them
SIZE = 12 * MIB
SIZES = {
    "MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE": str(5 * MIB),
    "MLFLOW_MULTIPART_UPLOAD_CHUNK_SIZE": str(5 * MIB),
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


@pytest.mark.parametrize("choices", [Choices(), *(Choices(refuses=403, kind=kind) for kind in Kind)], ids=str)
async def test_its_files_go_both_ways(mlflow_primary: MlflowServer, tmp_path: Path, choices: Choices) -> None:
    """What the client wrote, our adapter reads; and each protocol is the one that the client takes."""
    async with workspace(mlflow_primary, replace(choices, rewrites=True)) as place:
        env = {**IMPATIENT, **SIZES, "DATABRICKS_HOST": place.url, "DATABRICKS_TOKEN": TOKEN}
        name = uuid4().hex
        done = await asyncio.to_thread(run_script, "databricks_files", "databricks", tmp_path, name, str(SIZE), env=env)
        run, model = done["roots"]
        ours = [file.path for file in await place.files.list(run, "d")]
        seen = [seen for seen in await place.control.log() if seen["path"].startswith("/__storage__/")]

    assert "/logged_models/" in model
    assert done["listed"] == [["d", True, None], ["empty", False, 0], ["d/a b+ü.txt", False, SIZE]]
    assert done["read"] == [SIZE, 0]
    assert done["of_model"] == ["a b+ü.txt", "empty"]
    assert ours == ["d/a b+ü.txt"]
    assert bool(seen) == bool(choices.refuses)
