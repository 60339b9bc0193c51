"""What a backend's refusal says, whatever shape it has; and the same in MLflow's shape, for clients. Pure.

MLflow, Databricks      {"error_code": …, "message": …}
Azure ML, MLflow v2.0   {"Error": {"Code": …, "Message": …}, "error_code": …}      no message at the top (facts A6)
Azure ML, its gateway   {"error": {"code": …, "message": …}}                       lower case, no error_code
FastAPI's part          {"detail": …}
a proxy in between      a web page, plain text, or nothing at all
"""

import re
from typing import cast

import orjson

from dualtrack.core.exchange import Document

_WORDS = 1000  # of a message; more helps nobody
_PLAIN = 200  # bytes of a body that is no JSON

# MLflow's codes that clients know by name, by status (mlflow 3.17.2, protos/databricks_pb2 and exceptions.py)
_CODES = {
    400: "INVALID_PARAMETER_VALUE",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "ENDPOINT_NOT_FOUND",
    409: "RESOURCE_CONFLICT",
    429: "REQUEST_LIMIT_EXCEEDED",
    501: "NOT_IMPLEMENTED",
    503: "TEMPORARILY_UNAVAILABLE",
}
# Databricks has refused tokens that ended with 403 and 400 as well: "Invalid access token", "Token is expiring within
# 30 seconds. (token expired)", an ExpiredJwtException (issues databricks-vscode#583, databrickslabs/splunk-integration
# #55; Azure/MachineLearningNotebooks#840, where it is a web page). Only a message that begins so counts: others quote
# what the client sent.
_MAYBE_TOKEN = frozenset({400, 403})
_BAD_TOKEN = re.compile(r"Invalid access token|Token is expir|(?:io\.jsonwebtoken\.)?ExpiredJwt", re.IGNORECASE)
_BAD_TOKEN_PAGE = re.compile(rb"<title>\s*Error 403 Invalid access token", re.IGNORECASE)
# an empty body says as much as its status does (Azure ML: facts A6)
_EMPTY = {
    403: "refuses it without a word, as Azure ML does for traces",
    404: "does not have this endpoint",
}


def error_of(body: bytes) -> tuple[str, str]:
    """Read code and message out of an error body, bounded; empty where it has none."""
    try:
        document = orjson.loads(body)
    except ValueError:  # UnicodeDecodeError is one
        return "", body[:_PLAIN].decode(errors="replace").strip() if body[:1] != b"<" else ""
    if not isinstance(document, dict):
        return "", ""
    inner = document.get("Error") or document.get("error") or {}
    nested = cast("Document", inner) if isinstance(inner, dict) else {}
    code = document.get("error_code") or nested.get("code") or nested.get("Code") or ""
    message = document.get("message") or nested.get("message") or nested.get("Message") or document.get("detail") or ""
    return str(code), str(message)[:_WORDS]


def is_about_token(status: int, body: bytes) -> bool:
    """Say whether a refusal means that the token is not good, or not any more, whatever its status says.

    A new token mends it, as it does a 401; it says nothing about what was asked for.
    """
    if status not in _MAYBE_TOKEN:
        return status == 401
    if body.lstrip()[:1] == b"<":
        return _BAD_TOKEN_PAGE.search(body) is not None
    return _BAD_TOKEN.match(error_of(body)[1]) is not None


def may_be_about_token(status: int) -> bool:
    """Say whether the body of an answer has to be read to know that."""
    return status in _MAYBE_TOKEN


def as_mlflow(backend: str, status: int, body: bytes) -> bytes | None:
    """Say a refusal in MLflow's shape; None for one that is in it already, or that is none.

    The code is MLflow's own: what the service calls it goes into the message, with the operation that its support asks
    for.
    """
    if status < 400 or _is_mlflow(body):
        return None
    code, message = error_of(body)
    document = _object(body)
    known = document.get("error_code")
    message = message or f"{backend} {_EMPTY.get(status) or 'says no more'} (HTTP {status})"
    if code and code != known:
        message = f"{code}: {message}"
    if operation := _operation(document):
        message = f"{message} (operation {operation})"
    error_code = known if isinstance(known, str) and known else _code(status)
    return orjson.dumps({"error_code": error_code, "message": message})


def _code(status: int) -> str:
    return _CODES.get(status) or ("INTERNAL_ERROR" if status >= 500 else "BAD_REQUEST")


def _is_mlflow(body: bytes) -> bool:
    document = _object(body)
    return all(isinstance(document.get(name), str) for name in ("error_code", "message"))


def _object(body: bytes) -> Document:
    try:
        document = orjson.loads(body)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _operation(document: Document) -> str:
    """The id by which Azure ML's support finds a request again."""
    correlation = document.get("Correlation") or document.get("correlation")
    operation = correlation.get("operation") if isinstance(correlation, dict) else None
    return operation if isinstance(operation, str) else ""
