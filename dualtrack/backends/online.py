"""Who dualtrack is on a backend, and whether it is let in: what `check --online` asks, one way for each kind.

    databricks  its own user API: the user's or the service principal's name
    azureml     the claims of the token, read and not verified: there is no such API, and the service verifies them
    mlflow      its version; there is nobody to be

Then one read of the tracking API, which is what has to work. What stands in the way is raised with the next step.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import orjson

from dualtrack.backends.http import HttpBackend
from dualtrack.core.exchange import Answer, Call, Document
from dualtrack.errors import BackendError, RejectedError

_ME = "/api/2.0/preview/scim/v2/Me"
_SEARCH = "/api/2.0/mlflow/experiments/search?max_results=1"
_DATABRICKS, _AZUREML = "databricks", "azureml"

_STEPS = {
    (_DATABRICKS, 401): "check the backend's `auth`: this workspace does not take its token",
    (_DATABRICKS, 403): (
        "add this principal to the workspace, with the entitlement for workspace access, or name the workspace as"
        " `workspace_resource_id` if it has a role on it in Azure"
    ),
    (_DATABRICKS, 404): "check the url: that of the workspace itself, without a path",
    (_AZUREML, 401): "check the backend's `auth`, and `scope` and `authority` if the workspace is in another cloud",
    (_AZUREML, 403): "give this principal the role AzureML Data Scientist, or Contributor, on the workspace",
    (_AZUREML, 404): "check the url: copy what `az ml workspace show --query mlflow_tracking_uri` prints",
    ("mlflow", 401): "check the backend's `auth`: the server does not take these credentials",
    ("mlflow", 403): "give this user the right to read experiments",
    ("mlflow", 404): "is the url that of an MLflow server, with its path if it has one?",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Who we are there, and what else it said."""

    who: str
    detail: str


async def look(backend: HttpBackend, kind: str, *, signs_in: bool = True) -> Seen:
    """Sign in and ask. Raise `BackendError` with what to mend. Without a sign-in of our own, a 401 is an answer too."""
    headers = await backend.sign_in.headers()
    answer = await backend.send(Call(operation="searchExperiments", method="GET", target=_SEARCH))
    if not signs_in and answer.status in {401, 403}:
        return Seen(who="each client by itself", detail="answers, and asks who they are")
    if not answer.is_success:
        raise _refused(backend.name, kind, answer)
    experiments = _document(answer.body).get("experiments")
    seen = f"answers; {'some' if experiments else 'no'} experiments to be seen"
    if not signs_in:
        return Seen(who="each client by itself", detail=seen)
    if kind == _DATABRICKS:
        return Seen(who=await _databricks_user(backend) or "signed in; the workspace does not say as whom", detail=seen)
    if kind == _AZUREML:
        return Seen(who=_bearer_of(headers) or "signed in; the token does not say as whom", detail=seen)
    return Seen(who=_user_of(headers), detail=", ".join(filter(None, (await _version(backend), seen))))


def _refused(name: str, kind: str, answer: Answer) -> RejectedError:
    said = answer.message or answer.error_code or "no reason given"
    step = _STEPS.get((kind, answer.status), "is the url that of an MLflow API?")
    return RejectedError(name, "check", f"HTTP {answer.status}: {said}", step)


async def _aside(backend: HttpBackend, operation: str, target: str) -> bytes:
    """Ask for what is good to know. Answer the body; nothing where it is not there for us, which is no failure."""
    try:
        answer = await backend.send(Call(operation=operation, method="GET", target=target))
    except BackendError:
        return b""
    return answer.body if answer.is_success else b""


async def _databricks_user(backend: HttpBackend) -> str:
    me = _document(await _aside(backend, "whoAmI", _ME))
    return next(iter(_texts(me, "userName", "displayName")), "")


async def _version(backend: HttpBackend) -> str:
    words = (await _aside(backend, "getVersion", "/version")).decode(errors="replace").strip()
    return f"MLflow {words}" if words[:1].isdigit() and len(words) < 40 else ""


def _user_of(headers: Mapping[str, str]) -> str:
    scheme, _, rest = headers.get("Authorization", "").partition(" ")
    if scheme == "Basic":
        return base64.b64decode(rest).decode(errors="replace").partition(":")[0]
    return "whoever the token is for" if scheme else "nobody: no sign-in is configured"


def _bearer_of(headers: Mapping[str, str]) -> str:
    """Answer who an Entra token is for: a person's name, else an application, else an object; and its tenant."""
    claims = claims_of(headers.get("Authorization", "").removeprefix("Bearer "))
    person = _texts(claims, "upn", "unique_name", "preferred_username")
    application = [f"application {each}" for each in _texts(claims, "appid", "azp")]
    thing = [f"object {each}" for each in _texts(claims, "oid")]
    tenant = [f"in tenant {each}" for each in _texts(claims, "tid")]
    who = [*person, *application, *thing][:1]
    return " ".join([*who, *tenant]) if who else ""


def claims_of(token: str) -> Document:
    """Read a JWT's claims without verifying them; empty for what is none."""
    parts = token.split(".")
    try:
        return _document(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))) if len(parts) == 3 else {}
    except ValueError:
        return {}


def _document(body: bytes) -> Document:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return cast("Document", document) if isinstance(document, dict) else {}


def _texts(document: Document, *keys: str) -> list[str]:
    return [value for key in keys if isinstance(value := document.get(key), str) and value]
