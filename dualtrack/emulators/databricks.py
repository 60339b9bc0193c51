"""Databricks as an MLflow client sees it: experiments live in the workspace tree, errors are `error_code` + `message`.

Decides which experiment names and folders exist (facts/backends B2; the folders that `mkdirs` made are kept in memory
and end with the process). Ids are the real server's, as they come; the default experiment passes as it is.
"""

from pathlib import PurePosixPath

from dualtrack.emulators.tracking import Call, Plain, Reply, named_experiment

HOME = PurePosixPath("/Users")
ROOT = PurePosixPath("/")


class Databricks(Plain):
    """The naming rules of one workspace."""

    def __init__(self, users: tuple[str, ...] = ("demo@example.com",)) -> None:
        self._folders = {ROOT, HOME, PurePosixPath("/Shared"), *(HOME / user for user in users)}

    def locate(self, path: str) -> str | None:
        """Have no discovery of OAuth: a current SDK asks for it without a token, often, and goes on without (B1)."""
        return None if path.startswith(("/.well-known/", "/oidc/")) else path

    def answer(self, call: Call) -> Reply | None:
        if call.method == "POST" and call.path == "/api/2.0/workspace/mkdirs":
            return self._make(str(call.document.get("path", "")))
        name = named_experiment(call)
        return None if name is None else self._check(name)

    def _check(self, name: str) -> Reply | None:
        if not name.startswith("/"):
            return self.error(
                400,
                "INVALID_PARAMETER_VALUE",
                f"Got an invalid experiment name '{name}'. An experiment name must be an absolute path within the "
                "workspace, such as '/Users/<some-username>/my-experiment'.",
            )
        parent = PurePosixPath(name).parent
        if parent not in self._folders:
            return self.error(404, "RESOURCE_DOES_NOT_EXIST", f"Parent directory {parent} does not exist.")
        return None

    def _make(self, path: str) -> Reply:
        """Make a folder and those above it; a second time changes nothing."""
        if not path.startswith("/"):
            return self.error(400, "INVALID_PARAMETER_VALUE", f"Path ({path}) doesn't start with '/'")
        folder = PurePosixPath(path)
        made = {folder, *folder.parents}
        if any(above.parent == HOME and above not in self._folders for above in made):
            return self.error(400, "DIRECTORY_PROTECTED", f"Folder {folder} is protected")
        self._folders |= made
        return Reply(status=200, document={})
