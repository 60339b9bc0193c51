"""Programs of the system that a test drives: there, or a reason to skip, or (in CI) a failure.

`make tools` installs them all. With `DUALTRACK_REQUIRE_TOOLS` set, as `.ci/run` sets it, a missing one fails its tests:
what is shipped is never left unproven because a machine lacked something.
"""

import os
import shutil
from pathlib import Path

import pytest


def tool(name: str, package: str) -> Path:
    """Find a program, or skip the test (fail it, where tools are required), naming Debian's package that has it."""
    found = shutil.which(name)
    if found is not None:
        return Path(found)
    reason = f"{name} is not installed: `make tools` does it (Debian's package {package})"
    if os.environ.get("DUALTRACK_REQUIRE_TOOLS"):
        pytest.fail(reason)
    pytest.skip(reason)
