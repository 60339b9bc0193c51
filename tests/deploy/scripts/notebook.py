"""A notebook of a Synapse session: it logs for longer than its first token lives, and so does a worker of Spark.

    notebook.py CONFIG FOLDER HOW      HOW: "forgets" ends without a word, "stops" calls stop()

Prints one JSON document: what a test has to know to look from outside.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dualtrack_session
import mlflow
from notebookutils import mssparkutils  # the tests' stand-in

WORKER = """
import sys, mlflow
with mlflow.start_run(run_id=sys.argv[1]):
    mlflow.log_param("where", "executor")
"""


def main(config: str, folder: str, how: str) -> None:
    spark = SimpleNamespace(sparkContext=SimpleNamespace(environment={}))
    given: dict[str, Any] = {"tokens": {"azureml": "AzureManagement"}, "folder": folder, "host": "127.0.0.4"}
    given["refresh_seconds"] = 0.5
    secret = {"DUALTRACK_CLIENT_SECRET": "of-the-vault"}
    session = dualtrack_session.start(config, spark=spark, secret_variables=secret, **given)
    is_same = dualtrack_session.start(config, spark=spark, secret_variables=secret, **given) is session
    mlflow.set_experiment("synapse")
    with mlflow.start_run() as run:
        mlflow.log_param("depth", 3)
        current = mssparkutils.credentials.handed[-1]
        steps = log_until(current["ends_at"] + 1)
        killed = kill(session)
        mlflow.log_param("after", "a kill")
    kept = {name: value for name, value in os.environ.items() if name not in dualtrack_session.NAMES}
    worker = kept | spark.sparkContext.environment
    subprocess.run([sys.executable, "-c", WORKER, run.info.run_id], env=worker, check=True, stdout=subprocess.DEVNULL)
    told = {
        "run_id": run.info.run_id,
        "steps": steps,
        "tokens": len(mssparkutils.credentials.handed),
        "is_same": is_same,
        "pid_before": killed,
        "pid": session.child.pid,
        "sid": os.getsid(session.child.pid),
        "stdin": str(Path(f"/proc/{session.child.pid}/fd/0").readlink()),
        "mode": oct(Path(folder, "azureml.token").stat().st_mode & 0o777),
        "uri": session.uri,
    }
    told["commands"] = [
        session.run(*words.split()) for words in ("check --online", "parked retry --all", "reconcile --dry-run")
    ]
    if how == "stops":
        told["drained"] = session.stop()
        told["uri_after"] = os.environ.get("MLFLOW_TRACKING_URI")
        told["again"] = session.stop()
    print("\n" + json.dumps(told))


def kill(session: dualtrack_session.Session) -> int:
    """End the proxy as a full memory would, and wait until there is another one; give the number of the old one."""
    child = session.child
    child.kill()
    while session.child is child:
        time.sleep(0.05)
    session.wait_ready(60)
    return child.pid


def log_until(end: float) -> int:
    """Log a metric point after the other; each call has to succeed."""
    step = 0
    while time.time() < end:
        mlflow.log_metric("loss", 1 / (step + 1), step=step)
        step += 1
    return step


if __name__ == "__main__":
    main(*sys.argv[1:])
