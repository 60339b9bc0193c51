"""Azure ML as an MLflow client sees it: one workspace path, flat experiment names, its own error bodies.

Decides which paths exist (all others: 404 with an empty body), which experiment names are taken (the pattern of
facts/backends A4) and how errors look (A6). Logged models and the rest pass through for now, ids are the real server's.
"""

import re
from datetime import UTC, datetime
from uuid import uuid4

from dualtrack.emulators.tracking import Call, Reply, named_experiment

DEFAULT_SCOPE = (
    "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/dualtrack"
    "/providers/Microsoft.MachineLearningServices/workspaces/demo"
)
# azureml-core's pattern, with \w as the service means it: ASCII.
EXPERIMENT_NAME = re.compile(r"[a-zA-Z0-9][\w\-]{0,254}", re.ASCII)


class AzureML:
    """The address, the naming rule and the error bodies of one workspace."""

    def __init__(self, scope: str = DEFAULT_SCOPE) -> None:
        self._prefix = "/mlflow/v2.0" + scope

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


def _azure_code(status: int) -> str:
    if status == 429:
        return "RequestThrottled"
    if status >= 500:
        return "ServiceError"
    return "ValidationError" if status == 400 else "UserError"


def _correlation() -> dict[str, str]:
    return {"operation": uuid4().hex, "request": uuid4().hex[:16]}
