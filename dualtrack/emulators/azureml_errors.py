"""How an Azure ML workspace says no (facts/backends A6): one shape for MLflow's API, one for everything else.

Both carry correlation ids that no two answers share. An endpoint that the service does not have is a 404 with no body
at all; that one needs nothing from here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, TypeAlias
from uuid import uuid4

from dualtrack.emulators.tracking import Reply

JSON: TypeAlias = Any

INVALID = "INVALID_PARAMETER_VALUE"
MISSING = "RESOURCE_DOES_NOT_EXIST"


@dataclass(frozen=True, slots=True, kw_only=True)
class Objection:
    """Why a call is refused."""

    message: str
    code: str = INVALID
    status: int = 400
    headers: Mapping[str, str] = field(default_factory=dict)

    def to_reply(self) -> Reply:
        return replace(refused(self.status, self.code, self.message), headers=self.headers)


def refused(status: int, code: str, message: str) -> Reply:
    """Refuse in the shape of MLflow's API, version 2.0: an `error_code`, and no `message` at the top."""
    return Reply(
        status=status,
        document={
            "Error": {"Code": _azure_code(status, code), "Message": message, "Details": [], "InnerError": None},
            "Correlation": _correlation(),
            "Environment": "westeurope",
            "Location": "westeurope",
            "Time": datetime.now(UTC).isoformat(),
            "ComponentName": "mlflow",
            "statusCode": status,
            "error_code": code,
        },
    )


def refused_lower(status: int, message: str, inner: JSON = None) -> Reply:
    """Refuse in the lower-case shape of the gateway, of run history and of artifacts, which has no `error_code`."""
    return Reply(
        status=status,
        document={
            "error": {"code": "UserError", "message": message, "innerError": inner},
            "correlation": _correlation(),
            "statusCode": status,
        },
    )


def _azure_code(status: int, code: str) -> str:
    if status == 429:
        return "RequestThrottled"
    if status >= 500:
        return "ServiceError"
    return "ValidationError" if code == INVALID else "UserError"


def _correlation() -> dict[str, str]:
    return {"operation": uuid4().hex, "request": uuid4().hex[:16]}
