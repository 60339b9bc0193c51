"""`dualtrack serve`: run the proxy."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import click

from dualtrack.cli.options import config_option, example

_PORT = click.IntRange(0, 65535)


@click.command(
    epilog=example(
        "dualtrack serve --config dualtrack.yaml",
        "dualtrack serve --primary http://mlflow-a:5000 --secondary http://mlflow-b:5000 --registry primary",
        "export MLFLOW_TRACKING_URI=http://127.0.0.1:5000",
    )
)
@config_option
@click.option("--primary", metavar="URL", help="The backend whose answers the clients get, instead of a file.")
@click.option("--secondary", metavar="URL", help="The backend that gets a copy, instead of a file.")
@click.option("--registry", metavar="NAME", help="Who has the model registry: primary or secondary.")
@click.option("--port", type=_PORT, help="Where MLflow clients connect.  [default: 5000]")
@click.option("--admin-port", type=_PORT, help="Where probes and this command connect.  [default: 5001]")
@click.option("--store", metavar="URL", help="The journal, for example sqlite:///var/lib/dualtrack/journal.db")
def serve(config_path: Path | None, **options: Any) -> None:
    """Run the proxy until it is told to stop (SIGTERM, Ctrl-C)."""
    from dualtrack.cli.settings import load_for_serving  # noqa: PLC0415 - `--help` needs none of this

    config = load_for_serving(config_path, **options)
    from dualtrack import app, logs  # noqa: PLC0415

    logs.configure(config.log.format, config.log.level)
    _run(app.run(config))


def _run(main: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(main)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415 - faster where there is one
    except ImportError:
        return None
    return uvloop.new_event_loop
