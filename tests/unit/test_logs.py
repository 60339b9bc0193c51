"""Logging: one shape for every event, and no secret in any of them (P9)."""

import logging
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
import structlog
from pydantic import BaseModel, SecretBytes, SecretStr

from dualtrack.logs import REDACTED, Format, configure

SECRET = "hunter2"


class Section(BaseModel):
    token: SecretStr = SecretStr(SECRET)


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    """Leave the process's logging as it was."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    structlog.reset_defaults()
    logging.captureWarnings(False)
    root.handlers[:], root.level = handlers, level


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    captured = capsys.readouterr()
    assert captured.out == ""
    return [orjson.loads(line) for line in captured.err.splitlines()]


def test_an_event_is_one_json_line_with_a_utc_instant(capsys: pytest.CaptureFixture[str]) -> None:
    configure("json", "info")

    structlog.get_logger().info("delivered", backend="b", entry=7)

    (event,) = lines(capsys)
    assert (event["event"], event["backend"], event["entry"], event["level"]) == ("delivered", "b", 7, "info")
    assert event["timestamp"].endswith("Z")


def test_what_is_below_the_level_is_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    configure("json", "warning")

    structlog.get_logger().info("quiet")
    structlog.get_logger().warning("loud")

    assert [event["event"] for event in lines(capsys)] == ["loud"]


@pytest.mark.parametrize("format_", ["json", "console"])
@pytest.mark.parametrize(
    "value",
    [
        SecretStr(SECRET),
        SecretBytes(SECRET.encode()),
        {"deep": [{"deeper": (SecretStr(SECRET),)}]},
        {SecretStr(SECRET)},
        Section(),
    ],
)
def test_a_secret_is_redacted_wherever_it_lies(
    format_: Format, value: object, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(format_, "info")

    structlog.get_logger().info("configured", auth=value)
    logging.getLogger("aiohttp.server").warning("configured %s", value)

    written = capsys.readouterr().err
    assert written.count(REDACTED) == 2
    assert SECRET not in written


@pytest.mark.parametrize("format_", ["json", "console"])
def test_a_traceback_shows_no_local_variables(format_: Format, capsys: pytest.CaptureFixture[str]) -> None:
    configure(format_, "info")

    def fail() -> None:
        token = "".join(reversed("2retnuh"))
        raise ValueError(f"{len(token)} characters are too few")

    try:
        fail()
    except ValueError:
        structlog.get_logger().exception("failed")
        logging.getLogger("aiohttp.server").exception("failed")

    written = capsys.readouterr().err
    assert written.count("7 characters are too few") == 2
    assert SECRET not in written


def test_other_libraries_log_the_same_way_from_warnings_up(capsys: pytest.CaptureFixture[str]) -> None:
    configure("json", "debug")

    logging.getLogger("aiohttp.access").info("GET /")
    logging.getLogger("aiohttp.server").warning("bad %s", "request")

    (event,) = lines(capsys)
    assert (event["event"], event["level"], event["logger"]) == ("bad request", "warning", "aiohttp.server")


def test_warnings_of_python_are_events(capsys: pytest.CaptureFixture[str]) -> None:
    configure("json", "info")

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old", DeprecationWarning, stacklevel=1)

    (event,) = lines(capsys)
    assert "DeprecationWarning: old" in event["event"]


@pytest.mark.parametrize("value", ["\udcff", 1 << 80, float("nan"), b"\xff", object()])
def test_no_value_stops_an_event(value: object, capsys: pytest.CaptureFixture[str]) -> None:
    configure("json", "info")

    structlog.get_logger().info("odd", value=value)

    assert '"odd"' in capsys.readouterr().err


@pytest.mark.parametrize(("is_terminal", "is_json"), [(True, False), (False, True)])
def test_auto_is_for_people_on_a_terminal(
    is_terminal: bool, is_json: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal)
    configure("auto", "info")

    structlog.get_logger().info("started")

    assert capsys.readouterr().err.startswith("{") is is_json
