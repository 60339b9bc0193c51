"""The folders of a Databricks workspace, in which experiments have their names (facts/backends B2, row by row).

Decides which names an experiment may have and which folders may be made; experiments themselves are the real server's.
Folders are kept in memory and end with the process. `/Workspace/…` is another spelling of `/…`: folders are found by
both, an experiment is stored without it, so that by that spelling it is not found and cannot be made again.
"""

from dataclasses import dataclass, field
from pathlib import PurePosixPath

HOME = PurePosixPath("/Users")
ROOT = PurePosixPath("/")
QUIRK = "/Workspace"
FIRST_OBJECT_ID = 3_000_000_000_000_000  # of folders; about as long as the service's


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A no, in the workspace's words."""

    status: int
    code: str
    message: str


@dataclass
class Tree:
    """The folders of one workspace, each with its object id."""

    users: tuple[str, ...] = ("demo@example.com",)
    folders: dict[PurePosixPath, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for folder in (ROOT, HOME, PurePosixPath("/Shared"), *(HOME / user for user in self.users)):
            self._add(folder)

    def _add(self, folder: PurePosixPath) -> None:
        self.folders.setdefault(folder, FIRST_OBJECT_ID + len(self.folders))

    def check(self, name: str) -> Refusal | None:
        """Judge the name of an experiment that is made or renamed; that it is taken, the real server knows."""
        if not name.startswith("/"):
            return Refusal(
                status=400,
                code="INVALID_PARAMETER_VALUE",
                message=f"Got an invalid experiment name '{name}'. An experiment name must be an absolute path within "
                "the workspace, such as '/Users/<some-username>/my-experiment'.",
            )
        place = PurePosixPath(plain(name))
        if place in self.folders:  # status and text are not known
            message = f"Node named '{name}' already exists and is a folder"
            return Refusal(status=400, code="RESOURCE_ALREADY_EXISTS", message=message)
        if place.parent not in self.folders:
            message = f"Parent directory {place.parent} does not exist."
            return Refusal(status=404, code="RESOURCE_DOES_NOT_EXIST", message=message)
        return None

    def make(self, path: str) -> Refusal | None:
        """Make a folder and those above it; a second time changes nothing."""
        if not path.startswith("/"):
            message = f"Path ({path}) doesn't start with '/'"
            return Refusal(status=400, code="INVALID_PARAMETER_VALUE", message=message)
        folder = PurePosixPath(plain(path))
        made = [folder, *folder.parents]
        if any(above.parent == HOME and above not in self.folders for above in made):
            return Refusal(status=400, code="DIRECTORY_PROTECTED", message=f"Folder {folder} is protected")
        for each in reversed(made):
            self._add(each)
        return None

    def object_id(self, path: str) -> int | None:
        """Answer a folder's id; None for what is no folder."""
        return self.folders.get(PurePosixPath(plain(path))) if path.startswith("/") else None

    def has_id(self, object_id: str) -> bool:
        return object_id.isdecimal() and int(object_id) in self.folders.values()


def plain(path: str) -> str:
    """A path without the prefix that is no part of it."""
    return path.removeprefix(QUIRK) if path.startswith(QUIRK + "/") else path
