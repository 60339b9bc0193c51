"""`python -m bench [NAME …]`: run the scenarios, print Markdown (or JSON), exit 1 when a target is missed."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import orjson

from bench.machine import Machine, describe
from bench.report import Report, render
from bench.scenarios import SCENARIOS
from bench.settings import Settings

MIB = 1024**2
HOME = Path(__file__).parent.parent / ".bench"


def main() -> int:
    args = _parse()
    args.dir.mkdir(parents=True, exist_ok=True)
    machine = describe(args.dir)
    print(machine, file=sys.stderr)
    reports = []
    with TemporaryDirectory(dir=args.dir) as folder:
        settings = Settings(
            rounds=args.rounds,
            seconds=args.seconds,
            warmup=args.warmup,
            runs=args.runs,
            backlog_bytes=args.backlog_mib * MIB,
            backfill_runs=args.backfill_runs,
            serve=tuple(shlex.split(args.serve)) if args.serve else (sys.executable, "-m", "dualtrack"),
            folder=Path(folder),
        )
        for name in args.names or SCENARIOS:
            print(f"{name}:", file=sys.stderr)
            reports.append(SCENARIOS[name](settings))
            if not args.json:
                print(render(reports[-1]), end="\n\n", flush=True)
    _conclude(machine, reports, as_json=args.json)
    return 0 if all(check.met for report in reports for check in report.checks) else 1


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(SCENARIOS)}; default: all")
    parser.add_argument("--rounds", type=int, default=5, help="how often each variant is measured (5)")
    parser.add_argument("--seconds", type=float, default=5.0, help="the length of one measurement (5)")
    parser.add_argument("--warmup", type=float, default=1.0, help="seconds of load before each (1)")
    parser.add_argument("--runs", type=int, default=64, help="runs that `throughput` writes to in turn (64)")
    parser.add_argument("--backlog-mib", type=int, default=1024, help="the backlog of `memory` (1024)")
    parser.add_argument("--backfill-runs", type=int, default=200, help="runs that `backfill` copies (200)")
    parser.add_argument("--serve", help="the command to measure, before `serve --config FILE`")
    parser.add_argument("--dir", type=Path, default=HOME, help="where journals go: a real disk (.bench)")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of Markdown")
    args = parser.parse_args()
    if unknown := set(args.names) - set(SCENARIOS):
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}; there are {', '.join(SCENARIOS)}")
    return args


def _conclude(machine: Machine, reports: Sequence[Report], *, as_json: bool) -> None:
    command = shlex.join(["python", "-m", "bench", *sys.argv[1:]])
    if as_json:
        found = {"machine": machine, "command": command, "reports": reports}
        print(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())
    else:
        print(f"Machine: {machine}. Command: `{command}`.")


if __name__ == "__main__":
    sys.exit(main())
