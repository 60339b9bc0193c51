"""Answers of the proxy's own: JSON with an `error_code` that MLflow clients know.

Never `RESOURCE_DOES_NOT_EXIST`: clients take that for "create it" (facts section 11).
"""

import orjson
from aiohttp import web
from multidict import CIMultiDict


class Refusal(Exception):  # noqa: N818 - not an error of ours: an answer that ends the request
    """End the request with this answer."""

    def __init__(
        self,
        status: int,
        error_code: str,
        message: str,
        *,
        retry_after: float | None = None,
        label: str = "primary-only",
    ) -> None:
        super().__init__(message)
        self.status = status
        self.error_code = error_code
        self.message = message
        self.retry_after = retry_after
        self.label = label

    def response(self) -> web.Response:
        headers = CIMultiDict({"Content-Type": "application/json", "X-Dualtrack": self.label})
        if self.retry_after is not None:
            headers["Retry-After"] = str(max(1, round(self.retry_after)))
        if self.status == 401:
            headers["WWW-Authenticate"] = 'Basic realm="dualtrack"'
        body = orjson.dumps({"error_code": self.error_code, "message": self.message})
        return web.Response(status=self.status, body=body, headers=headers)


def unavailable(message: str, retry_after: float, label: str = "primary-only") -> Refusal:
    return Refusal(503, "TEMPORARILY_UNAVAILABLE", message, retry_after=retry_after, label=label)
