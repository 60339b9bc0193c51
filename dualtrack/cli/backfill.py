"""`dualtrack backfill`: bring over what no proxy ever saw.

Without a running proxy it opens the journal itself and delivers what it queues. A running proxy has the journal to
itself: then the proxy is asked to do it, and this command shows how far it is.
"""

import asyncio
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from dualtrack.cli.client import AdminClient
from dualtrack.cli.exits import Exit, UnreachableProxyError, finish
from dualtrack.cli.options import config_option, duration, example, json_option, moment
from dualtrack.cli.output import clean, say, say_json, say_table
from dualtrack.errors import BackendError, JournalError, RejectedError, StoreLockedError

if TYPE_CHECKING:
    from dualtrack.app import App
    from dualtrack.config import Config
    from dualtrack.lifespan import Loops
    from dualtrack.reconcile.backfill import Backfill, Selection

_COLUMNS: Final = ("from", "to", "experiments", "runs", "there already", "found again", "brought", "stuck", "failed")
_SETTLED: Final = ("there", "marked", "brought", "stuck", "failed")
_SHOWN_SECONDS: Final = 0.25
_EXITS: Final = {
    RejectedError: Exit.USAGE,  # an unknown experiment, a filter that the primary does not understand
    BackendError: Exit.UNREACHABLE,
    JournalError: Exit.LEFT_OVER,
}


@click.command(
    epilog=example(
        "dualtrack backfill                                   # everything that a secondary lacks",
        "dualtrack backfill --experiment churn --since 30d",
        "dualtrack backfill --filter \"metrics.auc > 0.9 and params.stage = 'final'\"",
        "dualtrack backfill --from azureml --to databricks    # any two backends of the configuration",
    )
)
@click.option("--experiment", "experiments", metavar="NAME|ID", multiple=True, help="Only this one; repeatable.")
@click.option("--since", metavar="WHEN", callback=moment, help="Only runs that began since: 7d, 2026-05-01T12:00Z.")
@click.option(
    "--filter", "wanted", metavar="TEXT", default="", help="Only runs that MLflow's search language lets pass."
)
@click.option("--from", "source", metavar="NAME", help="The backend to read.  [default: the primary]")
@click.option("--to", "target", metavar="NAME", help="The backend to bring to.  [default: every secondary]")
@click.option(
    "--patience", callback=duration, default="5m", show_default=True, help="End when a backend is down for this long."
)
@config_option
@json_option
def backfill(
    config_path: Path | None,
    experiments: tuple[str, ...],
    since: float | None,
    wanted: str,
    source: str | None,
    target: str | None,
    patience: float,
    as_json: bool,
) -> None:
    """Bring experiments and runs, models and files included, to a secondary that lacks them.

    Can be stopped at any time and called again: it goes on where it was, and makes nothing twice. Exits 1 when
    something is left over or parked, 3 when a backend could not be reached.
    """
    from dualtrack import logs  # noqa: PLC0415 - `--help` needs none of this
    from dualtrack.cli.settings import between, connect, load_config  # noqa: PLC0415
    from dualtrack.reconcile.backfill import Selection  # noqa: PLC0415

    configured = load_config(config_path)
    config, targets = between(configured, source, target)
    logs.configure(config.log.format, "error" if config.log.level == "error" else "warning")
    selection = Selection(experiments=experiments, wanted=wanted, since=since)
    try:
        outcomes = asyncio.run(bring(config, targets, selection, patience))
    except StoreLockedError as error:
        if config is not configured:
            raise  # a journal of its own, which no proxy has: another backfill is at it
        click.echo(f"dualtrack: {clean(str(error).partition('. ')[0])}: asking that one", err=True)
        outcomes = ask(connect(config_path, None), targets, selection, patience)
    except (BackendError, JournalError) as error:
        click.echo(f"dualtrack: {clean(str(error))}", err=True)
        finish(next(code for kind, code in _EXITS.items() if isinstance(error, kind)))
        return
    _tell(outcomes, as_json=as_json)
    finish(Exit.FINE if all(each["complete"] for each in outcomes) else Exit.LEFT_OVER)


def ask(proxy: AdminClient, targets: Sequence[str], selection: "Selection", patience: float) -> list[dict[str, Any]]:
    """Let a running proxy bring over to each target in turn, and answer what became of it."""
    wanted = {"experiments": list(selection.experiments), "filter": selection.wanted, "since": selection.since}
    wanted |= {"patience": patience, "counts": sys.stderr.isatty()}
    return [_follow(proxy, proxy.start_backfill({"to": target, **wanted})) for target in targets]


def _follow(proxy: AdminClient, asked: dict[str, Any]) -> dict[str, Any]:
    title = f"{asked['source']} → {asked['target']}"
    with _bar(title) if sys.stderr.isatty() else nullcontext() as bar:
        while asked["state"] == "running":
            if bar is not None:
                settled = sum(asked["tally"][name] for name in _SETTLED)
                bar.update(bar.task_ids[0], completed=settled, total=asked["total"])
            _pause()
            asked = proxy.backfill()
    if asked["state"] != "done":
        raise UnreachableProxyError(f"the proxy's backfill ended early: {asked['error']}")
    (backend,) = (each for each in proxy.status()["backends"] if each["name"] == asked["target"])
    return outcome(asked["source"], asked["target"], asked["tally"], backend["parked"], backend["losses"])


def _pause() -> None:
    time.sleep(_SHOWN_SECONDS)  # pragma: no cover - tests do not sleep


async def bring(
    config: "Config", targets: Sequence[str], selection: "Selection", patience: float
) -> list[dict[str, Any]]:
    """Bring over to each target in turn, in this process, and answer what became of it.

    Raise what `Backfill.run` raises, and `StartError` when the journal cannot be opened.
    """
    from dualtrack.app import App  # noqa: PLC0415 - the whole application
    from dualtrack.clock import SystemClock  # noqa: PLC0415
    from dualtrack.metrics import Metrics  # noqa: PLC0415

    app = App(config, Metrics(), SystemClock())
    async with app.delivering() as loops:
        await _reach(app, [config.primary, *targets])
        return [await _bring(app, loops, config.primary, name, selection, patience) for name in targets]


async def _reach(app: "App", names: Sequence[str]) -> None:
    """Raise at once for a backend that does not answer: whoever mistyped an address need not wait."""
    from dualtrack.translate.mlflow import PROBE  # noqa: PLC0415

    await asyncio.gather(*(app.readers[name].ask(PROBE) for name in names))


async def _bring(
    app: "App", loops: "Loops", source: str, target: str, selection: "Selection", patience: float
) -> dict[str, Any]:
    assert app.journal is not None
    engine = app.make_backfill(target)
    running = engine.run(selection, patience, is_alone=True, counts=sys.stderr.isatty())
    work = asyncio.get_running_loop().create_task(running)
    watch = asyncio.get_running_loop().create_task(_show(engine, f"{source} → {target}"))
    try:
        either: set[asyncio.Future[Any]] = {work, loops.failed}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if loops.failed.done():
            loops.failed.result()
        tally = work.result()
    finally:
        for task in (work, watch):
            task.cancel()
        await asyncio.gather(work, watch, return_exceptions=True)
    backlog = next(each for each in await app.journal.backlogs() if each.backend == target)
    return outcome(source, target, asdict(tally), backlog.parked, backlog.losses)


def outcome(source: str, target: str, tally: dict[str, Any], parked: int, losses: int) -> dict[str, Any]:
    """Write how a backfill ended, for programs."""
    is_complete = not (tally["stuck"] or tally["failed"] or tally["problems"] or parked)
    return {"from": source, "to": target, "complete": is_complete, **tally, "parked": parked, "losses": losses}


def _tell(outcomes: Sequence[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        say_json({"complete": all(each["complete"] for each in outcomes), "backfills": outcomes})
        return
    names = ("from", "to", "experiments", "found", "there", "marked", "brought", "stuck", "failed")
    say_table(_COLUMNS, [[str(each[name]) for name in names] for each in outcomes])
    for each in outcomes:
        if each["models"]:
            say(f"{each['to']}: {each['models']} logged models brought over")
        for problem in each["problems"]:
            say(f"{each['to']}: {problem}")
        if each["parked"]:
            say(f"{each['to']}: {each['parked']} writes are parked: `dualtrack parked list`")
        if each["losses"]:
            say(f"{each['to']}: {each['losses']} things it could not hold: `dualtrack status --losses`")
        if each["marked"]:
            say(f"{each['to']}: mirrors found again by their marks may lack what was in a lost journal")


# --- the progress bar -------------------------------------------------------------------------------------------------


async def _show(engine: "Backfill", title: str) -> None:
    """Show how far it is until cancelled: on a terminal only, where the runs are counted ahead for the ETA."""
    if not sys.stderr.isatty():
        return
    with _bar(title) as bar:
        while True:
            bar.update(bar.task_ids[0], completed=engine.tally.settled, total=engine.total)
            await asyncio.sleep(_SHOWN_SECONDS)


def _bar(title: str) -> Any:
    from rich.console import Console  # noqa: PLC0415 - rich takes longer to import than the rest of a command
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("runs"))
    bar = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True)
    bar.add_task(title, total=None)
    return bar
