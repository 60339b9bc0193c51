"""Plain HTTP requests of a test, path and body as given: what no client library tidies up on the way."""

import http.client
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import orjson


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = orjson.loads(self.body or b"{}")
        return document

    @property
    def went(self) -> str:
        """Where the proxy says that the call went."""
        return self.headers.get("x-dualtrack", "")


def ask(
    url: str,
    method: str,
    target: str,
    body: bytes | Iterable[bytes] | dict[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    timeout: float = 60,
) -> Answer:
    """Send one request; a mapping goes as JSON, an iterable in chunks."""
    sent = {**(headers or {})}
    if isinstance(body, dict):
        body = orjson.dumps(body)
        sent = {"Content-Type": "application/json", **sent}
    place = urlsplit(url)
    connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=timeout)
    try:
        connection.request(method, target, body=body, headers=sent)
        reply = connection.getresponse()
        return Answer(
            status=reply.status,
            headers={name.lower(): value for name, value in reply.getheaders()},
            body=reply.read(),
        )
    finally:
        connection.close()
