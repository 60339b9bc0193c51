"""Short ways to say what a client wrote, for tests of the journal: its bodies are opaque, its ids are made up."""

from dualtrack.core.exchange import Exchange
from dualtrack.core.ids import BackendId, ClientId, EntityKind, Ref, Twin

RUNS = "/api/2.0/mlflow/runs"


def run(client_id: str) -> Ref:
    return Ref(EntityKind.RUN, ClientId(client_id))


def experiment(client_id: str) -> Ref:
    return Ref(EntityKind.EXPERIMENT, ClientId(client_id))


def twin(ref: Ref, backend: str, backend_id: str, *, name: str = "", root: str = "") -> Twin:
    return Twin(ref=ref, backend=backend, backend_id=BackendId(backend_id), name=name, root=root)


def note(text: str) -> Exchange:
    """A write that is told from others by its text; the journal does not read bodies."""
    return Exchange(operation="logMetric", method="POST", path=f"{RUNS}/log-metric", body=text.encode())


def create(text: str, answer: str = "") -> Exchange:
    return Exchange(
        operation="createRun", method="POST", path=f"{RUNS}/create", body=text.encode(), answer=answer.encode()
    )
