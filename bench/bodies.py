"""Request bytes for the load generator: what the Python client sends, each with a new step and value."""

from collections.abc import Iterator
from itertools import count
from urllib.parse import urlsplit

METRIC = b'{"run_uuid": "%b", "run_id": "%b", "key": "loss", "value": %.6f, "timestamp": %d, "step": %d}'
POINT = b'{"key": "metric_%04d", "value": 0.%06d, "timestamp": %d, "step": %%d}'
START_MS = 1_760_000_000_000


def requests(url: str, run_ids: list[str], batch_bytes: int) -> Iterator[bytes]:
    """Yield whole requests without end, the runs in turn: log-metric, or log-batch of about `batch_bytes`."""
    host = urlsplit(url).netloc.encode()
    operation = b"log-batch" if batch_bytes else b"log-metric"
    head = (
        b"POST /api/2.0/mlflow/runs/%b HTTP/1.1\r\nHost: %b\r\nUser-Agent: mlflow-python-client/bench\r\n"
        b"Accept: */*\r\nContent-Type: application/json\r\nContent-Length: %%d\r\n\r\n" % (operation, host)
    )
    for body in _batches(run_ids, batch_bytes) if batch_bytes else _metrics(run_ids):
        yield head % len(body) + body


def _metrics(run_ids: list[str]) -> Iterator[bytes]:
    runs = [run_id.encode() for run_id in run_ids]
    for step in count():
        run = runs[step % len(runs)]
        yield METRIC % (run, run, 1.0 / (1 + step), START_MS + step, step)


def _batches(run_ids: list[str], size: int) -> Iterator[bytes]:
    points = max(1, size // (len(POINT % (0, 0, START_MS)) + 4))
    metrics = b", ".join(POINT % (number, number * 7919 % 1_000_000, START_MS) for number in range(points))
    body = b'{"run_id": "%%b", "metrics": [%b], "params": [], "tags": []}' % metrics
    for step in count():
        yield body % (run_ids[step % len(run_ids)].encode(), *([step] * points))
