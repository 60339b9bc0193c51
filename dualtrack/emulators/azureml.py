"""Azure ML as an MLflow client sees it: one workspace path, flat experiment names, its own error bodies.

Decides which paths exist (all others: 404 with an empty body), which experiment names are taken (the pattern of
facts/backends A4) and how errors look (A6). The service knows no logged models; that is a switch, off by default, so
that a workspace can also stand for one that holds them, and so are its limits (`azureml_limits`). The rest passes
through, ids are the real server's.
"""

import re
from datetime import UTC, datetime
from uuid import uuid4

from dualtrack.emulators.azureml_limits import Quota
from dualtrack.emulators.tracking import Call, Reply, named_experiment

DEFAULT_SCOPE = (
    "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/dualtrack"
    "/providers/Microsoft.MachineLearningServices/workspaces/demo"
)
# azureml-core's pattern, with \w as the service means it: ASCII.
# all that came with MLflow 3's models: `logged-models/…` and the links from runs to them
OF_LOGGED_MODELS = re.compile(r"/mlflow/(?:logged-models|runs/outputs(?:/|$))")
EXPERIMENT_NAME = re.compile(r"[a-zA-Z0-9][\w\-]{0,254}", re.ASCII)


class AzureML:
    """The address, the naming rule and the error bodies of one workspace."""

    def __init__(self, scope: str = DEFAULT_SCOPE, *, has_logged_models: bool = True, has_limits: bool = False) -> None:
        self._prefix = "/mlflow/v2.0" + scope
        self._has_logged_models = has_logged_models
        self._quota = Quota() if has_limits else None

    def locate(self, path: str) -> str | None:
        rest = path.removeprefix(self._prefix)
        return rest if rest != path and rest.startswith("/") else None

    def unknown(self) -> Reply:
        return Reply(status=404)

    def unauthorized(self) -> Reply:
        """Answer in the gateway's lower-case shape, which has no `error_code`."""
        return Reply(
            status=401,
            document={
                "error": {
                    "code": "UserError",
                    "message": "Bearer token not provided.",
                    "innerError": {"code": "AuthorizationError"},
                },
                "correlation": _correlation(),
                "statusCode": 401,
            },
        )

    def answer(self, call: Call) -> Reply | None:
        if not self._has_logged_models and is_of_logged_models(call.path):
            return self.unknown()
        refusal = self._quota.refusal(call.path, call.document) if self._quota is not None else None
        if refusal is not None:
            return self.error(400, "INVALID_PARAMETER_VALUE", refusal)
        name = named_experiment(call)
        if name is None or EXPERIMENT_NAME.fullmatch(name):
            return None
        return self.error(
            400,
            "INVALID_PARAMETER_VALUE",
            f"Experiment name '{name}' is not valid: 1 to 255 characters, first a letter or a digit, then letters, "
            "digits, underscores and dashes.",
        )

    def error(self, status: int, code: str, message: str) -> Reply:
        return Reply(
            status=status,
            document={
                "Error": {
                    "Code": _azure_code(status),
                    "Message": message,
                    "Details": [],
                    "InnerError": None,
                },
                "Correlation": _correlation(),
                "Environment": "westeurope",
                "Location": "westeurope",
                "Time": datetime.now(UTC).isoformat(),
                "ComponentName": "mlflow",
                "statusCode": status,
                "error_code": code,
            },
        )


def is_of_logged_models(path: str) -> bool:
    """Whether a path is one that a workspace without logged models does not have (facts/backends, Azure ML item 9)."""
    return OF_LOGGED_MODELS.search(path) is not None


def _azure_code(status: int) -> str:
    if status == 429:
        return "RequestThrottled"
    if status >= 500:
        return "ServiceError"
    return "ValidationError" if status == 400 else "UserError"


def _correlation() -> dict[str, str]:
    return {"operation": uuid4().hex, "request": uuid4().hex[:16]}
