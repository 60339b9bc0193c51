"""An Azure ML workspace's own APIs, which answer beside MLflow's on the backend's host: run history and artifacts.

They are not documented as stable (facts A3, A5). Everything else of the workspace, its scope and its host, is read off
the backend's address; nothing is ever asked of another host.
"""

import re
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Final
from urllib.parse import quote, urlsplit

import orjson

from dualtrack.backends.answers import Answers, whole
from dualtrack.backends.http import HttpBackend, parse_retry_after
from dualtrack.backends.refusals import error_of
from dualtrack.core.exchange import Answer, Document
from dualtrack.errors import RejectedError

PORTS: Final = {"http": 80, "https": 443}
SCOPE: Final = re.compile(
    r"/subscriptions/[^/]+/resourceGroups/[^/]+/providers/Microsoft\.MachineLearningServices/workspaces/[^/]+",
    re.IGNORECASE,
)
RUN_ID: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,255}")
_PAGE_BYTES_MAX: Final = 64 * 1024 * 1024
_HINTS: Final[dict[int, str]] = {
    HTTPStatus.FORBIDDEN: 'has the identity the role "AzureML Data Scientist" in the workspace?',
    HTTPStatus.NOT_FOUND: "look at the run",
}


class WorkspaceApi:
    """Calls of one workspace; documents in, documents out."""

    def __init__(self, backend: HttpBackend) -> None:
        self._backend = backend
        own = urlsplit(backend.base_url)
        found = SCOPE.search(own.path)
        self.scope = found[0] if found else ""
        self.scheme = own.scheme
        self.host = (own.hostname, own.port or PORTS.get(own.scheme))
        self.answers = Answers(backend.name, hints=_HINTS, has_plain_404=True)

    def run(self, kind: str, experiment: str, run_id: str, rest: str = "") -> str:
        """The target of a run in the history API; `kind` is `experiments` for a name or an id, or `experimentids`."""
        return f"/history/v1.0{self.scope}/{kind}/{quote(experiment, safe='')}/runs/{quote(run_id, safe='')}{rest}"

    def artifact(self, run_id: str, verb: str, path: str) -> str:
        place = f"artifacts/ExperimentRun/dcid.{quote(run_id, safe='')}/{verb}?path={quote(path, safe='')}"
        return f"/artifact/v2.0{self.scope}/{place}"

    async def ask(
        self,
        operation: str,
        method: str,
        target: str,
        body: Document | None = None,
        *,
        accepts_refusal: bool = False,
    ) -> Document | None:
        """Call; None for a 404, and for any final no if that is accepted. Raises `BackendError`."""
        content = orjson.dumps(body) if body is not None else b""
        headers = _headers("application/json", content) if content else {}
        sent = (lambda: _once(content)) if content else None
        async with self._backend.transfer(method, target, headers, sent, from_root=True) as reply:
            if 200 <= reply.status < 300:
                return await self.answers.document(reply, operation)
            refusal = await self.answers.refusal(reply, operation)
        is_final = isinstance(refusal, RejectedError)
        if is_final and (accepts_refusal or reply.status == HTTPStatus.NOT_FOUND):
            return None
        raise refusal

    async def tell(self, method: str, target: str, body: Document, content_type: str) -> Answer:
        """Make a call whose outcome somebody else judges. Raises what reaching the workspace raises."""
        content = orjson.dumps(body)
        headers = _headers(content_type, content)
        async with self._backend.transfer(method, target, headers, lambda: _once(content), from_root=True) as reply:
            answered = await whole(reply, _PAGE_BYTES_MAX)
        code, message = error_of(answered) if reply.status >= 300 else ("", "")
        retry_after = parse_retry_after(reply.header("Retry-After"))
        return Answer(status=reply.status, body=answered, error_code=code, message=message, retry_after=retry_after)


def _headers(content_type: str, content: bytes) -> dict[str, str]:
    return {"Content-Type": content_type, "Content-Length": str(len(content))}


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content
