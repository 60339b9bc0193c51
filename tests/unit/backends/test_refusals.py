"""Refusals of every shape that is known (facts A6, B6) are read, and said again in MLflow's."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualtrack.backends.refusals import as_mlflow, error_of, is_about_token, may_be_about_token

AZURE = {
    "Error": {"Code": "ValidationError", "Message": "Too many params.", "Details": [], "InnerError": None},
    "Correlation": {"operation": "0af7651916cd43dd8448eb211c80319c", "request": "b7ad6b7169203331"},
    "statusCode": 400,
    "error_code": "INVALID_PARAMETER_VALUE",
}
GATEWAY = {
    "error": {"code": "UserError", "message": "Bearer token not provided.", "innerError": {"code": "Authorization"}},
    "correlation": {"operation": "abc", "request": "def"},
    "statusCode": 401,
}
THROTTLED = {"error": {"code": "RequestThrottled", "message": "Slow down."}}
MLFLOW = {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "Run with id=x not found", "details": []}


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (orjson.dumps(MLFLOW), ("RESOURCE_DOES_NOT_EXIST", "Run with id=x not found")),
        (orjson.dumps(AZURE), ("INVALID_PARAMETER_VALUE", "Too many params.")),
        (orjson.dumps(GATEWAY), ("UserError", "Bearer token not provided.")),
        (orjson.dumps({"detail": "Not Found"}), ("", "Not Found")),
        (b"", ("", "")),
        (b"<html><body>404</body></html>", ("", "")),
        (b"INVALID: no such thing", ("", "INVALID: no such thing")),
        (b"[1]", ("", "")),
        (b"\xff\xfe", ("", "��")),
    ],
)
def test_code_and_message_are_found_in_every_shape(body: bytes, found: tuple[str, str]) -> None:
    assert error_of(body) == found


@pytest.mark.parametrize(
    ("status", "body", "code", "message"),
    [
        (
            400,
            AZURE,
            "INVALID_PARAMETER_VALUE",
            "Too many params. (operation 0af7651916cd43dd8448eb211c80319c)",
        ),
        (401, GATEWAY, "UNAUTHENTICATED", "UserError: Bearer token not provided. (operation abc)"),
        (429, THROTTLED, "REQUEST_LIMIT_EXCEEDED", "RequestThrottled: Slow down."),
        (404, b"", "ENDPOINT_NOT_FOUND", "ws does not have this endpoint (HTTP 404)"),
        (403, b"", "PERMISSION_DENIED", "ws refuses it without a word, as Azure ML does for traces (HTTP 403)"),
        (502, b"<html>Bad Gateway</html>", "INTERNAL_ERROR", "ws says no more (HTTP 502)"),
        (418, b"short and stout", "BAD_REQUEST", "short and stout"),
        (500, {"error_code": "INTERNAL_ERROR"}, "INTERNAL_ERROR", "ws says no more (HTTP 500)"),
    ],
)
def test_a_refusal_is_said_in_mlflow_s_shape(status: int, body: object, code: str, message: str) -> None:
    """Clients print `error_code: message`, and decide by the code."""
    given_body = body if isinstance(body, bytes) else orjson.dumps(body)
    said = as_mlflow("ws", status, given_body)

    assert said is not None
    assert orjson.loads(said) == {"error_code": code, "message": message}
    assert as_mlflow("ws", status, said) is None


@pytest.mark.parametrize(("status", "body"), [(404, MLFLOW), (200, {}), (200, AZURE), (302, {})])
def test_what_is_none_or_in_shape_passes_as_it_is(status: int, body: object) -> None:
    assert as_mlflow("ws", status, orjson.dumps(body)) is None


@given(st.integers(min_value=400, max_value=599), st.binary(max_size=200))
def test_whatever_comes_clients_get_a_code_and_a_message(status: int, body: bytes) -> None:
    said = orjson.loads(as_mlflow("ws", status, body) or body)

    assert said["error_code"]
    assert said["message"]


@pytest.mark.parametrize(
    ("status", "body", "is_so"),
    [
        (401, b"", True),
        (401, b"<html>", True),
        (403, b'{"error_code": 403, "message": "Invalid access token. [ReqId: 1]"}', True),
        (403, b'{"error_code": "403", "message": "Token is expiring within 30 seconds. (token expired)"}', True),
        (403, b"\n<html><head><title>Error 403 Invalid access token.</title>", True),
        (400, b'{"error_code": "X", "message": "io.jsonwebtoken.ExpiredJwtException: JWT expired at"}', True),
        (403, b'{"error_code": "PERMISSION_DENIED", "message": "ann has no right to edit it"}', False),
        (403, b"", False),
        (403, b"<html><title>Forbidden</title>", False),
        (400, b'{"error_code": "X", "message": "the value \'Token is expired\' is too long"}', False),
        (500, b'{"message": "Invalid access token"}', False),
        (404, b'{"message": "Invalid access token"}', False),
    ],
)
def test_a_token_that_is_not_good_is_known_by_more_than_its_status(status: int, body: bytes, is_so: bool) -> None:
    """And what only quotes such words is none."""
    assert is_about_token(status, body) is is_so
    assert may_be_about_token(status) is (status in {400, 403})
