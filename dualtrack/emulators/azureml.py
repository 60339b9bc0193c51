"""Azure ML as an MLflow client sees it: one workspace path, flat experiment names, its own error bodies.

Decides which paths exist (all others: 404 with an empty body), which calls are refused, and how errors look (facts/
backends A6). What MLflow has and the service has not is a list of gaps, and what it refuses a list of checks: both are
short unless asked for, so that a workspace can also stand for one that caught up. `azureml_workspace` puts a whole one
together. Ids and stored data are the real server's. Not imitated: that version 1.0 of the API says no in lower case.
"""

from collections.abc import Callable
from typing import TypeAlias

from dualtrack.emulators.azureml_errors import Objection, refused, refused_lower
from dualtrack.emulators.azureml_gaps import LOGGED_MODELS, Gap
from dualtrack.emulators.azureml_limits import Quota
from dualtrack.emulators.azureml_names import strict
from dualtrack.emulators.azureml_scope import DEFAULT_SCOPE, Scope
from dualtrack.emulators.tracking import Call, Reply

__all__ = ["DEFAULT_SCOPE", "AzureML", "Check", "is_of_logged_models"]

Check: TypeAlias = Callable[[Call], Objection | None]

VERSIONS = ("/mlflow/v2.0", "/mlflow/v1.0")
HISTORY = "/history/v1.0"
OF_HISTORY = "history:"  # which no path begins with that a client sends


class AzureML:
    """The address, the refusals and the error bodies of one workspace.

    `names` judges names of experiments, `checks` further calls; `has_history`: paths of run history lead to
    `history:/…`, which a middleware answers.
    """

    def __init__(
        self,
        scope: str | Scope = DEFAULT_SCOPE,
        *,
        has_logged_models: bool = True,
        has_limits: bool = False,
        has_history: bool = False,
        gaps: tuple[Gap, ...] = (),
        names: Check = strict,
        checks: tuple[Check, ...] = (),
    ) -> None:
        self._scope = scope if isinstance(scope, Scope) else Scope(scope)
        self._has_history = has_history
        self._gaps = gaps if has_logged_models else (*gaps, LOGGED_MODELS)
        self._checks: tuple[Check, ...] = (*checks, names, *((Quota().objection,) if has_limits else ()))

    def locate(self, path: str) -> str | None:
        """Drop the prefix and the workspace; run history has one of its own."""
        for version in VERSIONS:
            if (rest := self._scope.below(version, path)) is not None:
                return rest
        rest = self._scope.below(HISTORY, path) if self._has_history else None
        return None if rest is None else OF_HISTORY + rest

    def unknown(self) -> Reply:
        return Reply(status=404)

    def unauthorized(self) -> Reply:
        """Answer in the gateway's lower-case shape, which has no `error_code`."""
        return refused_lower(401, "Bearer token not provided.", {"code": "AuthorizationError"})

    def answer(self, call: Call) -> Reply | None:
        for gap in self._gaps:
            if gap.covers(call.path):
                return Reply(status=gap.status)
        for check in self._checks:
            if objection := check(call):
                return objection.to_reply()
        return None

    def error(self, status: int, code: str, message: str) -> Reply:
        return refused(status, code, message)


def is_of_logged_models(path: str) -> bool:
    """Whether a path is one that a workspace without logged models does not have (facts/backends, Azure ML item 9)."""
    return LOGGED_MODELS.covers(path)
