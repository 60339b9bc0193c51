"""What is lost when a write that was parked is given up: which params, tags, metrics or files it told of. Pure.

A record of the whole operation would explain every later difference of those kinds (`core/explaining.py`), so it is
left for writes that have no items, and for what cannot be read.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from dualtrack.core.exchange import Document, Exchange
from dualtrack.core.loss import LossKind
from dualtrack.translate.document import MalformedError, objects, parse, text

# by operation: where its items lie, "" for the document itself; the field that names one; and its kind
_ITEMS: Final[Mapping[str, tuple[tuple[str, str, LossKind], ...]]] = {
    "logMetric": (("", "key", LossKind.METRIC),),
    "logParam": (("", "key", LossKind.PARAM),),
    "setTag": (("", "key", LossKind.TAG),),
    "deleteTag": (("", "key", LossKind.TAG),),
    "logBatch": (("metrics", "key", LossKind.METRIC), ("params", "key", LossKind.PARAM), ("tags", "key", LossKind.TAG)),
    "setExperimentTag": (("", "key", LossKind.TAG),),
    "deleteExperimentTag": (("", "key", LossKind.TAG),),
    "logLoggedModelParams": (("params", "key", LossKind.PARAM),),
    "setLoggedModelTags": (("tags", "key", LossKind.TAG),),
    "uploadArtifact": (("", "path", LossKind.FILE),),
}


def lost_items(exchange: Exchange) -> tuple[tuple[LossKind, str], ...]:
    """Name each item of a write once; nothing where it has none, or any of them has no name."""
    try:
        items = tuple(dict.fromkeys(_items(exchange.operation, parse(exchange.body))))
    except MalformedError:
        return ()
    return items if all(name for _, name in items) else ()


def _items(operation: str, document: Document) -> Iterator[tuple[LossKind, str]]:
    for place, name, kind in _ITEMS.get(operation, ()):
        for item in objects(document.get(place)) if place else [document]:
            yield kind, text(item.get(name))
