"""What the writing thread does inside a transaction, and how rows become values.

Statements of a fixed shape are in `queries.sql`; here are those whose shape is the number of rows: one statement for a
whole group, because each gives the interpreter lock away and has to win it back.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from importlib import resources
from typing import TypeVar

from dualtrack.core.exchange import Exchange
from dualtrack.core.ids import BackendId, ClientId, EntityKind, Ref, Twin
from dualtrack.ports import Parked, Parking
from dualtrack.store.record import DamagedRecordError, seal, unseal
from dualtrack.store.writer import Row

T = TypeVar("T")

_CHUNK = 500  # rows per statement: SQLite allows 32,766 variables, at most five of ours a row


def _queries() -> dict[str, str]:
    text = resources.files("dualtrack.store").joinpath("queries.sql").read_text()
    named = (part.partition("\n") for part in text.split("-- name: ")[1:])
    return {name.strip(): statement.strip() for name, _, statement in named}


SQL = _queries()


def _chunks(rows: Sequence[T]) -> Iterable[Sequence[T]]:
    for start in range(0, len(rows), _CHUNK):
        yield rows[start : start + _CHUNK]


def insert_open(connection: sqlite3.Connection, rows: list[Row]) -> None:
    for part in _chunks(rows):
        values = ",".join(["(?,?,?)"] * len(part))
        statement = f"INSERT INTO entries (id, at, record) VALUES {values}"  # noqa: S608 - placeholders only
        connection.execute(statement, [value for row in part for value in row])


def settle_rows(connection: sqlite3.Connection, rows: list[Row]) -> None:
    for part in _chunks(rows):
        marks = ",".join("?" * len(part))
        statement = f"UPDATE entries SET pending = ? WHERE id IN ({marks})"  # noqa: S608 - placeholders only
        connection.execute(statement, [len(part[0][4]), *(row[0] for row in part)])
    deliveries = [
        (backend, key, seq, entry_id, at) for entry_id, key, seq, at, backends, _ in rows for backend in backends
    ]
    for part in _chunks(deliveries):
        values = ",".join(["(?,?,?,?,?)"] * len(part))
        statement = f"INSERT INTO deliveries (backend, key, seq, entry_id, settled_at) VALUES {values}"  # noqa: S608
        connection.execute(statement, [value for row in part for value in row])
    lanes = {(backend, row[1]): (row[5], row[3]) for row in reversed(rows) for backend in row[4]}
    for keys in _chunks(list(lanes)):
        values = ",".join(["(?,?,?,?)"] * len(keys))
        statement = f"INSERT INTO lanes (backend, key, next_at, oldest_at) VALUES {values} ON CONFLICT DO NOTHING"  # noqa: S608
        connection.execute(statement, [value for name in keys for value in (*name, *lanes[name])])


def delete_entries(connection: sqlite3.Connection, rows: list[Row]) -> None:
    for part in _chunks(rows):
        marks = ",".join("?" * len(part))
        connection.execute(f"DELETE FROM entries WHERE id IN ({marks})", [row[0] for row in part])  # noqa: S608


def reserve(connection: sqlite3.Connection, rows: list[Row]) -> None:
    connection.execute(SQL["set_counter"], (max(row[0] for row in rows),))


def finish(connection: sqlite3.Connection, backend: str, key: str, seqs: Sequence[int]) -> int:
    """Take deliveries out of a lane; entries that no other secondary needs go with them."""
    finished = 0
    for part in _chunks(seqs):
        marks = ",".join("?" * len(part))
        where = f"FROM deliveries WHERE backend = ? AND key = ? AND seq IN ({marks})"
        rows = connection.execute(f"SELECT entry_id {where}", (backend, key, *part)).fetchall()
        ids = [row[0] for row in rows]
        connection.execute(f"DELETE {where}", (backend, key, *part))
        these = ",".join("?" * len(ids))
        connection.execute(f"UPDATE entries SET pending = pending - 1 WHERE id IN ({these})", ids)  # noqa: S608
        connection.execute(f"DELETE FROM entries WHERE id IN ({these}) AND pending <= 0", ids)  # noqa: S608
        finished += len(ids)
    return finished


def save_twins(connection: sqlite3.Connection, twins: Iterable[Twin]) -> None:
    for twin in twins:
        row = (twin.ref.kind, twin.ref.client_id, twin.backend, twin.backend_id, twin.name, twin.root)
        connection.execute(SQL["upsert_twin"], row)


def parked_row(backend: str, key: str, parking: Parking, now: float) -> Row:
    record, operation = seal(parking.exchange), parking.exchange.operation
    return (
        backend,
        key,
        parking.seq,
        record,
        operation,
        parking.reason,
        parking.cause,
        int(parking.holds),
        now,
    )


def twin_of(row: Row) -> Twin:
    kind, client_id, backend, backend_id, name, root = row
    ref = Ref(EntityKind(kind), ClientId(client_id))
    return Twin(ref=ref, backend=backend, backend_id=BackendId(backend_id), name=name, root=root)


def parked_of(row: Row) -> Parked:
    parked_id, backend, key, operation, reason, cause, at, holds, record = row
    step = f"mend the cause on {backend}, then `dualtrack parked retry {parked_id}`"
    if holds:
        step += f"; everything of {key} waits for it"
    try:
        exchange: Exchange | None = unseal(record)
    except DamagedRecordError:
        exchange = None
    return Parked(
        parked_id=parked_id,
        backend=backend,
        key=key,
        operation=operation,
        reason=reason,
        cause=cause,
        parked_at=at,
        holds=bool(holds),
        next_step=step,
        exchange=exchange,
    )
