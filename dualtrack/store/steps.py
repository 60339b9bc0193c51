"""What the writing thread does inside a transaction, and how rows become values.

Statements of a fixed shape are in `queries.sql`; here are those whose shape is the number of rows: one statement for a
whole group, because each gives the interpreter lock away and has to win it back.
"""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from typing import TypeVar

from dualtrack.core.ids import BackendId, ClientId, EntityKind, Ref, Twin
from dualtrack.core.loss import LossKind
from dualtrack.ports import ArtifactNote, Loss, RecordedLoss, Settlement
from dualtrack.store.record import seal
from dualtrack.store.writer import Row

T = TypeVar("T")

_DETAIL = 500  # characters of a loss's detail
_KEEP_OLDEST = (
    "ON CONFLICT (backend, key) DO UPDATE SET oldest_at = excluded.oldest_at WHERE excluded.oldest_at < oldest_at"
)
_CHUNK = 500  # rows per statement: SQLite allows 32,766 variables, at most five of ours a row


def _queries() -> dict[str, str]:
    text = resources.files("dualtrack.store").joinpath("queries.sql").read_text()
    named = (part.partition("\n") for part in text.split("-- name: ")[1:])
    return {name.strip(): statement.strip() for name, _, statement in named}


SQL = _queries()


def _chunks(rows: Sequence[T]) -> Iterable[Sequence[T]]:
    for start in range(0, len(rows), _CHUNK):
        yield rows[start : start + _CHUNK]


def marks(values: Sequence[object]) -> str:
    return ",".join("?" * len(values))


def insert_open(connection: sqlite3.Connection, rows: list[Row]) -> None:
    for part in _chunks(rows):
        values = ",".join(["(?,?,?)"] * len(part))
        statement = f"INSERT INTO entries (id, at, record) VALUES {values}"  # noqa: S608 - placeholders only
        connection.execute(statement, [value for row in part for value in row])


def insert_spooled(connection: sqlite3.Connection, rows: list[Row]) -> None:
    """Open entries that need a file; apart from the others, which are many and need no fourth column."""
    for part in _chunks(rows):
        values = ",".join(["(?,?,?,?)"] * len(part))
        statement = f"INSERT INTO entries (id, at, record, spool) VALUES {values}"  # noqa: S608 - placeholders only
        connection.execute(statement, [value for row in part for value in row])


def settle_rows(connection: sqlite3.Connection, rows: list[Row]) -> None:
    for part in _chunks(rows):
        statement = f"UPDATE entries SET pending = ? WHERE id IN ({marks(part)})"  # noqa: S608 - placeholders only
        connection.execute(statement, [len(part[0][4]), *(row[0] for row in part)])
    deliveries = [
        (backend, key, seq, entry_id, at) for entry_id, key, seq, at, backends, _ in rows for backend in backends
    ]
    for part in _chunks(deliveries):
        values = ",".join(["(?,?,?,?,?)"] * len(part))
        statement = f"INSERT INTO deliveries (backend, key, seq, entry_id, settled_at) VALUES {values}"  # noqa: S608
        connection.execute(statement, [value for row in part for value in row])
    # the oldest last: a write in doubt is older than what was settled behind its place
    by_age = sorted(rows, key=lambda row: (row[3], row[2]), reverse=True)
    lanes = {(backend, row[1]): (row[5], row[3]) for row in by_age for backend in row[4]}
    for keys in _chunks(list(lanes)):
        values = ",".join(["(?,?,?,?)"] * len(keys))
        statement = f"INSERT INTO lanes (backend, key, next_at, oldest_at) VALUES {values} {_KEEP_OLDEST}"  # noqa: S608
        connection.execute(statement, [value for name in keys for value in (*name, *lanes[name])])


def settled_before(
    connection: sqlite3.Connection, backend: str, key: str, seq: int, places: Mapping[int, float], now: float
) -> float:
    """Answer when what is queued anew at `seq` counts as settled: no later than anything behind it in its lane."""
    behind = connection.execute(SQL["settled_behind"], (backend, key, seq)).fetchone() or ()
    since: float = min((now, *behind, *(at for place, at in places.items() if place > seq)))
    return since


def settle_whole(connection: sqlite3.Connection, settlement: Settlement, row: Row) -> None:
    """Settle one entry with all that its answer says, besides its `row` for `settle_rows`."""
    if settlement.exchange is not None:
        connection.execute(SQL["settle_record"], (seal(settlement.exchange), settlement.entry_id))
    if settlement.artifact is not None:
        connection.execute(SQL["settle_spool"], (settlement.artifact.spool or None, settlement.entry_id))
        _note_artifact(connection, settlement.key, settlement.artifact)
    save_twins(connection, settlement.twins)
    settle_rows(connection, [row])


def _note_artifact(connection: sqlite3.Connection, key: str, note: ArtifactNote) -> None:
    if note.sha256:
        connection.execute(SQL["upsert_artifact"], (key, note.path, note.size, note.sha256))
    elif note.path:
        connection.execute(SQL["delete_artifact"], (key, note.path))
    else:
        connection.execute(SQL["delete_artifacts"], (key,))


def delete_open(connection: sqlite3.Connection, rows: list[Row]) -> None:
    """Forget open entries; one that was queued after all stays."""
    for part in _chunks(rows):
        these = marks(part)
        statement = f"DELETE FROM entries WHERE id IN ({these}) AND pending IS NULL"  # noqa: S608 - placeholders only
        connection.execute(statement, [row[0] for row in part])


def reserve(connection: sqlite3.Connection, rows: list[Row]) -> None:
    connection.execute(SQL["set_counter"], (max(row[0] for row in rows),))


def finish(connection: sqlite3.Connection, backend: str, key: str, seqs: Sequence[int]) -> int:
    """Take deliveries out of a lane; entries that no other secondary needs go with them."""
    finished = 0
    for part in _chunks(seqs):
        where = f"FROM deliveries WHERE backend = ? AND key = ? AND seq IN ({marks(part)})"
        rows = connection.execute(f"SELECT entry_id {where}", (backend, key, *part)).fetchall()
        ids = [row[0] for row in rows]
        connection.execute(f"DELETE {where}", (backend, key, *part))
        these = marks(ids)
        connection.execute(f"UPDATE entries SET pending = pending - 1 WHERE id IN ({these})", ids)  # noqa: S608
        connection.execute(f"DELETE FROM entries WHERE id IN ({these}) AND pending <= 0", ids)  # noqa: S608
        finished += len(ids)
    return finished


def save_twins(connection: sqlite3.Connection, twins: Iterable[Twin]) -> None:
    for twin in twins:
        row = (twin.ref.kind, twin.ref.client_id, twin.backend, twin.backend_id, twin.name, twin.root)
        connection.execute(SQL["upsert_twin"], row)


def find_rooted(connection: sqlite3.Connection, backend: str, uris: Sequence[str]) -> Twin | None:
    """Answer the twin with the longest root among `uris`; what was only read of goes after what is mirrored."""
    found: list[Row] = []
    for part in _chunks(uris):
        # `root <> ''` is what the partial index asks for; of those that share a root, an experiment is the last choice
        statement = (
            "SELECT * FROM (SELECT kind, client_id, backend, backend_id, name, root, 0 AS learned FROM ids"  # noqa: S608
            f" WHERE root IN ({marks(part)}) AND backend = ? AND root <> ''"
            " UNION ALL SELECT kind, backend_id, backend, backend_id, '', root, 1 FROM roots"
            f" WHERE root IN ({marks(part)}) AND backend = ?)"
            " ORDER BY length(root) DESC, kind = 'experiment', learned, client_id LIMIT 1"
        )
        found += connection.execute(statement, (*part, backend, *part, backend)).fetchall()
    return twin_of(max(found, key=lambda row: len(row[-2]))[:-1]) if found else None


def find_waiting(connection: sqlite3.Connection, backend: str, keys: Sequence[str]) -> dict[str, bool]:
    """Answer which lanes hold anything, and of each whether it is held, or waits in the end for one that is."""
    found = {key: connection.execute(SQL["waiting"], (backend, key)).fetchone()[0] for key in keys}
    return {key: bool(is_stuck) for key, is_stuck in found.items() if is_stuck is not None}


def save_roots(connection: sqlite3.Connection, backend: str, stated: Iterable[tuple[EntityKind, str, str]]) -> None:
    rows = [(backend, root, kind, backend_id) for kind, backend_id, root in stated]
    connection.executemany(SQL["upsert_root"], rows)


def save_losses(connection: sqlite3.Connection, backend: str, key: str, losses: Iterable[Loss], now: float) -> None:
    """Record losses; one that is on record already is counted. Details are bounded; items stay whole."""
    for loss in losses:
        row = (backend, key, loss.kind, loss.item, loss.reason, loss.detail[:_DETAIL], now)
        connection.execute(SQL["add_loss"], row)


def loss_of(row: Row) -> RecordedLoss:
    loss_id, backend, key, times, kind, item, reason, detail = row
    loss = Loss(kind=LossKind(kind), item=item, reason=reason, detail=detail)
    return RecordedLoss(loss_id=loss_id, backend=backend, key=key, loss=loss, times=times)


def twin_of(row: Row) -> Twin:
    kind, client_id, backend, backend_id, name, root = row
    ref = Ref(EntityKind(kind), ClientId(client_id))
    return Twin(ref=ref, backend=backend, backend_id=BackendId(backend_id), name=name, root=root)
