"""Every Prometheus collector, on one object with a registry of its own, so that two apps can live in one process.

Labels are only `backend`, `operation`, `outcome` and `kind`: bounded, never a run id. `kind` is the name of one of a
few causes (of a loss, of a registry refusal).

What may be counted stands at 0 from the start (`at_zero`), as far as its labels are known then: a rate does not see the
first of what appears. A gauge that nothing is known for yet (is a backend up?) is absent until something is.
"""

from collections.abc import Iterable
from itertools import product

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import generate_latest

_FAST = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_SLOW = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


class Metrics:
    """All collectors. Names are a contract (design 2.5)."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self.registry = registry
        ProcessCollector(namespace="dualtrack", registry=registry)  # start time, memory, CPU, open files

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"dualtrack_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"dualtrack_{name}", text, labels, registry=registry)

        def seconds(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"dualtrack_{name}_seconds", text, labels, registry=registry, buckets=buckets)

        self.requests = counter("requests_total", "Client requests answered.", "operation", "outcome")
        self.request_duration = seconds("request_duration", "Request in to answer out.", _SLOW, "outcome")
        self.upstream_duration = seconds("upstream_duration", "Waiting for a backend.", _SLOW, "backend")
        self.upstream_calls = counter(
            "upstream_calls_total", "Calls to a backend, by class of status, or `unanswered`.", "backend", "outcome"
        )
        self.overhead = seconds("overhead", "Time in the proxy, not in the primary.", _FAST, "outcome")
        self.unknown_routes = counter("unknown_route_total", "Requests for paths that no MLflow route has.")

        self.journal_entries = gauge("journal_entries", "Writes not yet delivered.", "backend")
        self.journal_bytes = gauge("journal_bytes", "Bytes that the journal uses.")
        self.journal_capacity = gauge("journal_capacity_bytes", "Bytes that the journal may use.")
        self.journal_commit = seconds("journal_commit", "One synced group commit.", _FAST)
        self.journal_open = gauge("journal_open_entries", "Writes whose outcome at the primary is not known.")
        self.journal_quarantined = gauge("journal_quarantined_records", "Damaged records set aside.")

        self.lag = gauge("lag_seconds", "Age of the oldest undelivered write.", "backend")
        self.delivered = counter("delivered_total", "Writes delivered.", "backend")
        self.delivery_calls = counter(
            "delivery_calls_total", "Calls made to deliver.", "backend", "operation", "outcome"
        )
        self.retried = counter("retried_total", "Attempts that will be repeated.", "backend", "kind")
        self.parked = counter("parked_total", "Writes parked.", "backend", "operation")
        self.parked_entries = gauge("parked_entries", "Parked writes that wait for a person.", "backend")
        self.coalesced = counter("coalesced_writes_total", "Writes that shared a batch with others.", "backend")
        self.losses = counter("lossy_total", "What a backend could not be given, by reason.", "backend", "kind")
        self.dedupe_hits = counter("create_dedupe_hits_total", "Creates found by their mark.", "backend", "kind")
        self.adoptions = counter("adoptions_total", "Entities brought over whole.", "backend", "kind")
        self.breaker_state = gauge("breaker_state", "0 closed, 1 half-open, 2 open.", "backend")
        self.backend_up = gauge("backend_up", "1 when the last call to it was answered.", "backend")
        self.signed_in = gauge("signed_in", "1 when it took our last signature, 0 when not.", "backend")
        self.throttled = counter("throttled_total", "429 answers.", "backend")
        self.registry_refused = counter("registry_refused_total", "Registry calls refused by the proxy.", "kind")
        self.artifact_bytes = counter("artifact_bytes_total", "Bytes of files that a backend was given.", "backend")
        self.verified = counter("verify_runs_total", "Runs compared with their mirror.", "backend", "outcome")
        self.drift = counter("drift_total", "Differences found that nothing explains.", "backend", "kind")
        self.drifting = gauge("drifting_entities", "Entities that drifted when last compared.", "backend", "kind")
        self.repairs = counter("repairs_total", "Writes queued to repair a mirror.", "backend", "operation")
        self.uncopied = counter(
            "uploads_without_copy_total", "Files that the spool did not take; they are fetched from the primary."
        )
        self.spool_bytes = gauge("spool_bytes", "Bytes of files that wait for the secondaries.")
        self.spool_capacity = gauge("spool_capacity_bytes", "Bytes of files that may wait.")
        self.build = gauge("build_info", "1, with the version as a label.", "kind")

    @staticmethod
    def at_zero(counter: Counter | Gauge, *labels: Iterable[str]) -> None:
        """Begin to count every combination of these label values."""
        for values in product(*labels):
            counter.labels(*values)

    def exposition(self) -> bytes:
        return generate_latest(self.registry)
