"""The tag that leads from a run to its page on another backend, as a write and as a call."""

from dualtrack.core.exchange import Call, Exchange
from dualtrack.core.links import SOURCE_URL
from dualtrack.translate.document import objects, parse, write
from dualtrack.translate.mlflow import API

_PATH = f"{API}/runs/set-tag"


def link_exchange(run_id: str, key: str, url: str) -> Exchange:
    """Tell it as a client would, in the client's ids."""
    return Exchange(operation="setTag", method="POST", path=_PATH, body=_body(run_id, key, url))


def link_call(run_id: str, key: str, url: str) -> Call:
    """Ask for it, in the backend's ids."""
    return Call(operation="setTag", method="POST", target=_PATH, body=_body(run_id, key, url))


def is_link(parked: Exchange) -> bool:
    """Say whether what a secondary refused, told as a batch, is nothing but our link."""
    if parked.operation != "logBatch":
        return False
    document = parse(parked.body)
    tags = [tag.get("key") for tag in objects(document.get("tags"))]
    return tags == [SOURCE_URL] and not document.keys() & {"metrics", "params"}


def _body(run_id: str, key: str, url: str) -> bytes:
    return write({"run_id": run_id, "key": key, "value": url})
