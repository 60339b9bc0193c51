"""What the verifier finds, as the documents that the admin listener sends; one backend after the other."""

from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol

from dualtrack.core.difference import Difference
from dualtrack.reconcile.verifier import Checked, Mended, Scope, Verifier


class Asked(Protocol):
    """What to look at (`admin.verify.Selected`)."""

    @property
    def ids(self) -> tuple[str, ...]: ...
    @property
    def experiments(self) -> tuple[str, ...]: ...
    @property
    def since(self) -> float | None: ...
    @property
    def backend(self) -> str | None: ...
    @property
    def dry_run(self) -> bool: ...
    @property
    def content(self) -> bool: ...


class Verifications:
    """`targets` are the secondaries."""

    def __init__(self, verifier: Verifier, targets: Sequence[str]) -> None:
        self._verifier = verifier
        self.targets = tuple(targets)

    async def verify(self, asked: Asked) -> AsyncIterator[dict[str, Any]]:
        for backend in self._backends(asked):
            async for checked in self._verifier.checks(_scope(asked), backend):
                yield told(checked)

    async def reconcile(self, asked: Asked) -> AsyncIterator[dict[str, Any]]:
        for backend in self._backends(asked):
            async for mended in self._verifier.mends(_scope(asked), backend, dry_run=asked.dry_run):
                yield told(mended.checked) | _repair(mended)

    def _backends(self, asked: Asked) -> Sequence[str]:
        return (asked.backend,) if asked.backend is not None else self.targets


def _scope(asked: Asked) -> Scope:
    return Scope(ids=asked.ids, experiments=asked.experiments, since=asked.since, content=asked.content)


def told(checked: Checked) -> dict[str, Any]:
    """One entity as a document."""
    return {
        "kind": checked.ref.kind,
        "id": checked.ref.client_id,
        "name": checked.name,
        "backend": checked.backend,
        "there": checked.there,
        "state": checked.state,
        "differences": [_difference(each) for each in checked.differences],
    }


def _difference(each: Difference) -> dict[str, Any]:
    return {
        "kind": each.kind,
        "item": each.item,
        "here": each.here,
        "there": each.there,
        "explanation": each.explanation,
        "detail": each.detail,
    }


def _repair(mended: Mended) -> dict[str, Any]:
    return {
        "writes": list(mended.operations),
        "brings": [ref.key for ref in mended.adopted],
        "unrepaired": [_difference(each.difference) | {"choice": each.choice} for each in mended.unrepaired],
    }
