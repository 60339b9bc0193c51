"""Dead letters on SQLite: set aside with their cause, brought back to their place, or given up with a note.

Everything here runs inside a transaction of the writing thread, or reads; `sqlite` calls it. A letter takes the name of
its spooled file along both ways, so that the file is referred to wherever its write is.
"""

import itertools
import sqlite3
from collections.abc import Mapping, Sequence

from dualtrack.core.ids import BackendId, Twin, parse_key
from dualtrack.core.loss import LossKind
from dualtrack.ports import Loss, Parked, Parking
from dualtrack.store.record import DamagedRecordError, seal, unseal
from dualtrack.store.steps import SQL, finish, marks, save_losses, save_twins, settled_before
from dualtrack.store.writer import Row


def park(connection: sqlite3.Connection, backend: str, key: str, parking: Parking, now: float) -> None:
    row = (
        backend,
        key,
        parking.seq,
        seal(parking.exchange),
        parking.exchange.operation,
        parking.reason,
        parking.cause,
        int(parking.holds),
        now,
        parking.spool or None,
    )
    connection.execute(SQL["insert_parked"], row)


def retry(
    connection: sqlite3.Connection,
    parked_id: int,
    number: int,
    places: Mapping[str, Mapping[int, float]],
    now: float,
) -> str | None:
    """Queue a letter again as entry `number`, at its place or just before; answer its backend, None if it is gone.

    `places` are those kept for writes in doubt, by lane.
    """
    row = connection.execute(SQL["parked_row"], (parked_id,)).fetchone()
    if row is None:
        return None
    backend, key, seq, record, _, _, spool = row
    connection.execute(SQL["insert_entry"], (number, now, record, 1, spool))
    kept = places.get(key, {})
    taken = {found[0] for found in connection.execute(SQL["lane_entries"], (backend, key, seq))} | kept.keys()
    taken |= {found[0] for found in connection.execute(SQL["left_open"])}  # after a restart these are places, too
    place = next(place for place in itertools.count(seq, -1) if place not in taken)
    since = settled_before(connection, backend, key, place, kept, now)
    connection.execute(SQL["insert_delivery"], (backend, key, place, number, since))
    # it was tried before: a create is looked for before it is sent again
    connection.execute(SQL["mark_attempted"], (backend, key, place))
    connection.execute(SQL["delete_parked"], (parked_id,))
    connection.execute(SQL["add_lane"], (backend, key, now, since))
    if not connection.execute(SQL["held_by"], (backend, key)).fetchone():
        connection.execute(SQL["release_lane"], (now, backend, key))
    return str(backend)


def discard(
    connection: sqlite3.Connection, parked_id: int, note: str, items: Sequence[tuple[LossKind, str]], now: float
) -> tuple[str, int] | None:
    """Give a letter up; answer its backend and how many entries of its lane went with it, None if it is gone."""
    row = connection.execute(SQL["parked_row"], (parked_id,)).fetchone()
    if row is None:
        return None
    backend, key, _, _, holds, operation, _ = row
    connection.execute(SQL["delete_parked"], (parked_id,))
    # a create takes all of its entity along
    lost = ((LossKind(parse_key(key).kind), ""),) if holds else items or ((LossKind.WRITE, operation),)
    detail = f"{operation}: {note}"
    losses = (Loss(kind=kind, item=item, reason="discarded", detail=detail) for kind, item in lost)
    save_losses(connection, backend, key, losses, now)
    dropped = 0
    if holds and not connection.execute(SQL["held_by"], (backend, key)).fetchone():
        ref = parse_key(key)
        nobody = Twin(ref=ref, backend=backend, backend_id=BackendId(""))
        save_twins(connection, (nobody,))
        queued = connection.execute(SQL["lane_entries"], (backend, key, 1 << 62)).fetchall()
        dropped = finish(connection, backend, key, tuple(row[0] for row in queued))
        connection.execute(SQL["delete_lane"], (backend, key))
        connection.execute(SQL["wake_waiting"], (now, backend, key))
    return backend, dropped


def last_cause(connection: sqlite3.Connection, backend: str, key: str, operations: Sequence[str]) -> str | None:
    """Answer why the newest letter of a lane with one of `operations` was parked."""
    statement = (
        f"SELECT cause FROM parked WHERE backend = ? AND key = ? AND operation IN ({marks(operations)})"  # noqa: S608 - placeholders only
        " ORDER BY id DESC LIMIT 1"
    )
    row = connection.execute(statement, (backend, key, *operations)).fetchone()
    return str(row[0]) if row is not None else None


def parked_of(row: Row) -> Parked:
    parked_id, backend, key, operation, reason, cause, at, holds, record = row
    step = f"mend the cause on {backend}, then `dualtrack parked retry {parked_id}`"
    if holds:
        step += f"; everything of {key} waits for it"
    try:
        exchange = unseal(record)
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
