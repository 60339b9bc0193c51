"""The last task of a job: wait until everything that was logged is on every backend.

The journal is on the disk of the job's cluster and goes with it. Give the job this file as a Python task on the same
cluster, after all others, to be run whether they succeeded or not. Its one argument is how long it may wait, `10m`.
"""

import os
import subprocess
import sys
from pathlib import Path

DIRECTORY = Path(os.environ.get("DUALTRACK_DIR", "/local_disk0/dualtrack"))
ADMIN_PORT = os.environ.get("DUALTRACK_ADMIN_PORT", "5001")


def main(timeout: str = "10m") -> int:
    """Give the exit code of `dualtrack drain`; 0 where the init script put no dualtrack."""
    program = DIRECTORY / "venv" / "bin" / "dualtrack"
    if not program.exists():
        print(f"there is no {program}: this cluster runs without dualtrack")
        return 0
    command = [str(program), "drain", "--admin-url", f"http://127.0.0.1:{ADMIN_PORT}", "--timeout", timeout]
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    code = main(*sys.argv[1:])
    if code:  # a task that ends by sys.exit(0) is a failed one on some runtimes
        sys.exit(code)
