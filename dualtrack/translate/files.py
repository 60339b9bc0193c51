"""Writes about files, as the journal tells them: which entity's file, and what to do with it. Pure.

    uploadArtifact   the file `path` has new content: from the spool, or, when no copy was kept, from the primary;
                     `in_doubt`: as the primary has it now
    deleteArtifact   the file or folder `path` is gone; `in_doubt`: if the primary really has it no more
    copyArtifacts    everything below `path`, as the primary has it: what was never seen on its way

Only the first two are requests of clients; the third is told by adoption and by runs whose clients write to the
primary's storage themselves. The bytes never lie in the journal.
"""

from dataclasses import dataclass

from dualtrack.core.exchange import Document, Exchange
from dualtrack.core.ids import EntityKind, Ref
from dualtrack.translate.document import text, write
from dualtrack.translate.operations import Reading

UPLOAD, DELETE, COPY = "uploadArtifact", "deleteArtifact", "copyArtifacts"
_METHODS = {UPLOAD: "PUT", DELETE: "DELETE", COPY: "PUT"}
_PATH = "/api/2.0/mlflow-artifacts/artifacts"
_IDS = {EntityKind.RUN: "run_id", EntityKind.MODEL: "model_id"}


@dataclass(frozen=True, slots=True, kw_only=True)
class FileWrite:
    """A write about the files of `ref`; `path` is relative to its root, as `core.artifact.effective` answers it."""

    operation: str
    ref: Ref
    path: str
    in_doubt: bool = False


def tell(operation: str, ref: Ref, path: str, *, in_doubt: bool = False) -> Exchange:
    """Answer the exchange that the journal keeps. Runs and models have files of their own, experiments have not."""
    document: Document = {_IDS[ref.kind]: ref.client_id, "path": path}
    if in_doubt:
        document["in_doubt"] = True
    return Exchange(operation=operation, method=_METHODS[operation], path=_PATH, body=write(document))


def file_write(reading: Reading) -> FileWrite | None:
    """Read such an exchange; None for every other."""
    if not reading.operation.files or reading.subject is None:
        return None
    return FileWrite(
        operation=reading.exchange.operation,
        ref=reading.subject,
        path=text(reading.document.get("path")),
        in_doubt=reading.document.get("in_doubt") is True,
    )
