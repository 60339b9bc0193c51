"""`dualtrack demo`: everything once, on this machine, without any cloud account."""

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import click

from dualtrack.cli.options import config_option, example, json_option
from dualtrack.errors import StartError

_NEEDED = ("mlflow", "scikit-learn")


@click.command(epilog=example("dualtrack demo", "dualtrack demo --keep"))
@click.option("--keep", is_flag=True, help="Leave everything up and print the addresses; Ctrl-C ends it.")
@click.option("--directory", type=click.Path(path_type=Path, file_okay=False), help="Where the files go.")
@config_option
@json_option
def demo(keep: bool, directory: Path | None, config_path: object, as_json: bool) -> None:  # noqa: ARG001 - see below
    """Train once, compare twice: two emulated workspaces, the proxy, a real training run, the comparison.

    Exits 0 only if both workspaces hold the same. It writes its own configuration; --config is ignored.
    """
    _require(_NEEDED)
    from dualtrack.demo.demo import run_demo  # noqa: PLC0415 - only once it is known to be installed

    click.get_current_context().exit(run_demo(keep, as_json, directory))


def _require(names: tuple[str, ...]) -> None:
    for name in names:
        try:
            distribution(name)
        except PackageNotFoundError as error:
            raise StartError(
                f"the demo needs {name}, which is not installed. Run: pip install 'dualtrack[demo]'"
            ) from error
