"""Which paths belong to one Azure ML workspace: the prefix of an API, then the workspace's own path."""

import re

DEFAULT_SCOPE = (
    "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/dualtrack"
    "/providers/Microsoft.MachineLearningServices/workspaces/demo"
)
# whom tokens are for: the resource manager, for all APIs of a workspace (facts/backends A2)
AUDIENCE = "https://management.azure.com"
# segments that the service takes in any case, as far as is known (facts/backends, Azure ML item 1)
FOLDED = frozenset({"resourceGroups", "providers", "Microsoft.MachineLearningServices"})


class Scope:
    """One workspace's path. `folds_case`: the names of ARM in it are taken in any case."""

    def __init__(self, text: str = DEFAULT_SCOPE, *, folds_case: bool = True) -> None:
        self.text = text
        self.pattern = "/".join(
            f"(?i:{re.escape(part)})" if folds_case and part in FOLDED else re.escape(part) for part in text.split("/")
        )
        self._pattern = re.compile(self.pattern + r"(/.*)")

    def below(self, prefix: str, path: str) -> str | None:
        """Give what follows the prefix and this workspace, from its slash on; None for anything else."""
        rest = path.removeprefix(prefix)
        found = self._pattern.fullmatch(rest) if rest != path else None
        return found[1] if found else None
