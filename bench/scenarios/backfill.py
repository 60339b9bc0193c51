"""Copying old runs between two real servers: `dualtrack backfill`, and mlflow-export-import doing the same.

The primary is filled once; each copy goes to a server of its own that is empty. mlflow-export-import writes files and
reads them again, in an environment of its own; its times are of both commands. Both tools are told to copy one
experiment, so that neither looks at anything else. Afterwards the copy is counted. The second pass of dualtrack is
measured as well: it reads, and writes nothing.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from bench import targets
from bench.measure import interleave
from bench.processes import SUBJECT_CORE
from bench.report import Report, at_most
from bench.settings import Settings
from bench.tracking import count_points, create_runs, experiments, log_batch
from tests.support.environments import client_python

PARAMS, KEYS, STEPS = 20, 10, 20
MEMORY_MIB = 200.0

OURS, THEIRS, THREADED = "dualtrack backfill", "mlflow-export-import", "mlflow-export-import, --use-threads"


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    """One copy: how long it took, the most memory of a process, and of dualtrack how long the second pass took."""

    seconds: float
    peak_mib: float
    again_seconds: float | None = None


def run(settings: Settings) -> Report:
    tool = client_python("export-import")
    with targets.mlflow_server(settings) as primary:
        for run_id in create_runs(primary, settings.backfill_runs):
            log_batch(primary, run_id, params=PARAMS, keys=KEYS, steps=STEPS)
        (experiment,) = experiments(primary)

        def step(name: str) -> Copied:
            with targets.mlflow_server(settings) as mirror, tempfile.TemporaryDirectory(dir=settings.folder) as folder:
                where = Path(folder)
                if name == OURS:
                    copied = _ours(settings, primary, mirror, experiment, where)
                else:
                    copied = _theirs(tool, primary, mirror, experiment, where, has_threads=name == THREADED)
                if (found := count_points(mirror, KEYS)) != (settings.backfill_runs, KEYS * STEPS):
                    raise RuntimeError(f"{name} made {found[0]} runs with {found[1]} points each")
                print(f"    {copied.seconds:.0f} s, at most {copied.peak_mib:.0f} MiB", file=sys.stderr)
                return copied

        copies = interleave((OURS, THEIRS, THREADED), settings.rounds, step)
    return _report(settings, copies)


def _ours(settings: Settings, primary: str, mirror: str, experiment: str, folder: Path) -> Copied:
    config = folder / "dualtrack.yaml"
    tree = {
        "primary": "a",
        "registry": "a",
        "backends": {"a": {"url": primary, "kind": "mlflow"}, "b": {"url": mirror, "kind": "mlflow"}},
        "store": {"url": f"sqlite:///{folder.resolve() / 'journal.db'}"},
    }
    config.write_text(yaml.safe_dump(tree))
    command = [*settings.serve, "backfill", "--config", str(config), "--experiment", experiment]
    first, again = _timed(command, folder), _timed(command, folder)
    return Copied(seconds=first.seconds, peak_mib=first.peak_mib, again_seconds=again.seconds)


def _theirs(python: Path, primary: str, mirror: str, experiment: str, folder: Path, *, has_threads: bool) -> Copied:
    files, threads = str(folder / "files"), ["--use-threads", str(has_threads)]
    out = ["--experiments", experiment, "--output-dir", files]
    exported = _timed([*_script(python, "export_experiments"), *out, *threads], folder, MLFLOW_TRACKING_URI=primary)
    into = ["--input-dir", files]
    imported = _timed([*_script(python, "import_experiments"), *into, *threads], folder, MLFLOW_TRACKING_URI=mirror)
    return Copied(seconds=exported.seconds + imported.seconds, peak_mib=max(exported.peak_mib, imported.peak_mib))


def _script(python: Path, name: str) -> list[str]:
    return [str(python), "-m", f"mlflow_export_import.bulk.{name}"]


def _timed(command: Sequence[str], folder: Path, **env: str) -> Copied:
    """Run a command on the core under test; answer how long it took and the most memory that it had."""
    environment: Mapping[str, str] = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", **env}
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {SUBJECT_CORE})  # the child inherits it
    started_at = time.perf_counter()
    try:
        with (folder / "command.log").open("wb") as log:
            process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    finally:
        os.sched_setaffinity(0, before)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        said = (folder / "command.log").read_text(errors="replace")[-2000:]
        raise RuntimeError(f"{command[:4]} ended with {process.returncode}:\n{said}")
    return Copied(seconds=time.perf_counter() - started_at, peak_mib=usage.ru_maxrss / 1024)


def _report(settings: Settings, copies: Mapping[str, Sequence[Copied]]) -> Report:
    seconds = {name: statistics.median(each.seconds for each in found) for name, found in copies.items()}
    peaks = {name: max(each.peak_mib for each in found) for name, found in copies.items()}
    again = statistics.median(each.again_seconds or 0.0 for each in copies[OURS])
    count = settings.backfill_runs
    rows = [(name, seconds[name], count / seconds[name], seconds[name] / seconds[OURS], peaks[name]) for name in copies]
    return Report(
        scenario=f"backfill: {count:,} runs x {PARAMS} params x {KEYS * STEPS} points between two real servers",
        columns=("", "seconds", "runs/s", "x dualtrack", "peak MiB"),
        rows=(*rows, (f"{OURS}, second pass", again, count / again, again / seconds[OURS], None)),
        checks=(at_most("peak memory of dualtrack", peaks[OURS], MEMORY_MIB, "MiB"),),
        notes=("mlflow-export-import: export and import together; its copy goes through files.",),
    )
