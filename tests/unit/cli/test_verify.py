"""`dualtrack verify` and `reconcile`: what they ask the proxy for, and how they exit."""

from collections.abc import Iterator
from typing import Any

import pytest

from dualtrack.cli.client import AdminClient
from tests.unit.cli.conftest import Shell

SUM: dict[str, Any] = {"summary": {"equal": 1}, "error": ""}
ENTITY: dict[str, Any] = {"kind": "run", "id": "r1", "name": "fox", "backend": "b", "there": "x", "differences": []}


class Said:
    """Stands in for a proxy; keeps what it was asked for."""

    def __init__(self, *documents: dict[str, Any]) -> None:
        self._documents = documents
        self.asked: dict[str, Any] = {}

    def __call__(self, asked: dict[str, Any]) -> Iterator[dict[str, Any]]:
        self.asked = asked
        return iter(self._documents)


@pytest.mark.parametrize(
    ("arguments", "content"), [((), None), (("--content", "--to", "b"), "true"), (("--run", "r1"), None)]
)
def test_files_are_read_only_when_asked(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], content: str | None
) -> None:
    said = Said(SUM)
    monkeypatch.setattr(AdminClient, "verify", said)

    result = shell("verify", *arguments, "--admin-url", "http://127.0.0.1:9")

    assert (result.exit_code, said.asked.get("content")) == (0, content)


@pytest.mark.parametrize(("arguments", "content"), [((), None), (("--content", "--dry-run"), True)])
def test_a_repair_reads_files_only_when_asked(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], content: bool | None
) -> None:
    said = Said(SUM)
    monkeypatch.setattr(AdminClient, "reconcile", said)

    result = shell("reconcile", *arguments, "--admin-url", "http://127.0.0.1:9")

    assert (result.exit_code, said.asked.get("content")) == (0, content)


@pytest.mark.parametrize(
    ("state", "last", "code"),
    [
        ("equal", SUM, 0),
        ("explained", SUM, 0),
        ("discarded", SUM, 0),
        ("drift", SUM, 1),
        ("pending", SUM, 1),
        ("equal", SUM | {"error": "b: nobody there"}, 3),
    ],
)
def test_how_it_exits(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, state: str, last: dict[str, Any], code: int
) -> None:
    """Of each state that an entity may have; a backend that could not be read is another matter."""
    monkeypatch.setattr(AdminClient, "verify", Said(ENTITY | {"state": state}, last))

    assert shell("verify", "--admin-url", "http://127.0.0.1:9").exit_code == code
