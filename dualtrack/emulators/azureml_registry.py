"""What the model registry of an Azure ML workspace refuses (facts/backends A8, checklist item 16).

Models are created, read and searched by name, and versions come from artifacts of this workspace: a run's, or a local
folder's that was uploaded as one. (choice) A rename and the delete of a model are refusals that have a reason, or 404
as for an endpoint that is not there; a source may be `runs:/…`; nothing is known of aliases, which pass.
"""

import re
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from dualtrack.emulators.azureml_errors import Objection
from dualtrack.emulators.azureml_scope import Scope
from dualtrack.emulators.tracking import Call, Reply, Send

JSON: TypeAlias = Any

MODELS, VERSIONS = "registered-models/", "model-versions/"
ABSENT: Final = {
    ("POST", MODELS + "rename"): "Renaming a registered model is not supported.",
    ("DELETE", MODELS + "delete"): "Deleting a registered model is not supported.",
}
UPLOADED: Final = re.compile(r"azureml://artifacts/LocalUpload/[^/]+/.+")  # what the vendor's plugin sends for a folder
BY_NAME: Final = re.compile(r"azureml://experiments/[^/]+/runs/([^/]+)/artifacts(?:/.*)?")
BY_RUN: Final = re.compile(r"runs:/([^/]+)/.+")


class Registry:
    """The rules of one workspace's registry. `says_why`: renames and deletes are a 400, else an empty 404."""

    def __init__(self, scope: Scope, *, says_why: bool = True) -> None:
        self._says_why = says_why
        place = rf"azureml://[^/]+/mlflow/v[12]\.0{scope.pattern}/experiments/[^/]+/runs/([^/]+)/artifacts(?:/.*)?"
        self._of_run = re.compile(place)

    async def __call__(self, call: Call, send: Send) -> Reply:
        """Refuse, or let pass: a middleware."""
        what = call.path.rpartition("/mlflow/")[2]
        if not what.startswith((MODELS, VERSIONS)):
            return await send(call)
        if not self._says_why and (call.method, what) in ABSENT:
            return Reply(status=404)
        if found := _objection(call, what):
            return found.to_reply()
        if what == VERSIONS + "create" and (found := await self._of_source(str(call.document.get("source", "")), send)):
            return found.to_reply()
        return await send(call)

    async def _of_source(self, source: str, send: Send) -> Objection | None:
        if UPLOADED.fullmatch(source):
            return None
        if not (found := self._of_run.fullmatch(source) or BY_NAME.fullmatch(source) or BY_RUN.fullmatch(source)):
            return Objection(message=f"The source of a version must be an artifact of this workspace, not '{source}'.")
        asked = Call(method="GET", path="/api/2.0/mlflow/runs/get", query={"run_id": found[1]})
        return None if (await send(asked)).status == 200 else Objection(message=f"No run {found[1]} in this workspace.")


def _objection(call: Call, what: str) -> Objection | None:
    if message := ABSENT.get((call.method, what)):
        return Objection(message=message, code="BAD_REQUEST")
    if what.endswith("/search") and re.search(r"\bI?LIKE\b|\btags?\.", call.asked("filter"), re.IGNORECASE):
        return Objection(message="Models are searched by name, with =, and neither by LIKE nor by tags.")
    if any(":" in key for key in _tag_keys(call.document, what)):
        return Objection(message="The key of a tag cannot contain ':'.")
    return None


def _tag_keys(document: Mapping[str, JSON], what: str) -> list[str]:
    if what.endswith("/set-tag"):
        return [str(document.get("key", ""))]
    tags = document.get("tags") if what.endswith("/create") else ()
    return [str(tag.get("key", "")) for tag in tags or () if isinstance(tag, dict)]
