"""What is Databricks' own in an experiment's name: a path in the workspace tree (facts/backends B2). Pure.

The tree's root has a second name, `/Workspace`, that experiments are not found by: a create takes it, get-by-name then
misses, and a second create finds the name taken. So it is left out.
"""

import re

from dualtrack.core.exchange import Answer, Call
from dualtrack.translate.document import write

_ROOT = "/Workspace"
_PARENT = re.compile(r"Parent directory .* does not exist", re.DOTALL)


def workspace_path(name: str) -> str:
    """Answer the name by which a workspace knows an experiment."""
    return name.removeprefix(_ROOT) if name.startswith(f"{_ROOT}/") else name


def lacks_parent(answer: Answer) -> bool:
    """Say whether an experiment was refused because its folder is not there."""
    return answer.status == 404 and _PARENT.search(answer.message) is not None


def make_parent(name: str) -> Call:
    """Make the folder of an experiment, and those above it; what is there stays."""
    body = write({"path": name.rpartition("/")[0] or "/"})
    return Call(operation="makeFolder", method="POST", target="/api/2.0/workspace/mkdirs", body=body)
