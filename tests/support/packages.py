"""What a user installs, made from this tree: a wheel, and what it depends on, for environments that tests make."""

import shutil
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = ("dualtrack", "pyproject.toml", "README.md")
_OURS = "dualtrack"


def copy_sources(folder: Path) -> Path:
    """Copy what a wheel is made of: a build leaves files beside its sources."""
    folder.mkdir(parents=True)
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    return folder


def build_wheel(folder: Path) -> Path:
    """Build the wheel below `folder`, as pip does it."""
    sources = copy_sources(folder / "sources")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(sources)]
    subprocess.run(command, check=True, timeout=280)
    return next(folder.glob(f"{_OURS}-*.whl"))


def link_dependencies(folder: Path) -> Path:
    """Link all that is installed here except dualtrack: for PYTHONPATH, so that nothing is downloaded again."""
    folder.mkdir(parents=True)
    installed = Path(str(distribution("aiohttp").locate_file("")))
    for entry in installed.iterdir():
        if entry.suffix != ".pth" and _OURS not in entry.name and entry.name != "__pycache__":
            (folder / entry.name).symlink_to(entry)
    return folder
