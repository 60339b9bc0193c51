"""Opening the journal's file: one process at a time, the newest schema, errors that say what to do."""

import contextlib
import fcntl
import os
import sqlite3
from importlib import resources
from pathlib import Path

from dualtrack.errors import StartError, StoreLockedError


def connect(path: Path, *, readonly: bool = False) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=256)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA busy_timeout=5000")
    connection.execute("PRAGMA wal_autocheckpoint=4000")
    connection.execute("PRAGMA cache_size=-4096")
    if readonly:
        connection.execute("PRAGMA query_only=ON")
    return connection


def acquire(path: Path) -> int:
    lock_path = path.with_name(path.name + ".lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(lock_path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StartError(
            f"store.url: cannot write in {path.parent}: {error.strerror}. Make the folder writable for this user,"
            " or point store.url somewhere else"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.read(lock, 32).decode(errors="replace").strip()
        os.close(lock)
        raise StoreLockedError(
            f"store.url: the journal {path} is in use by process {holder or 'unknown'}. Stop that dualtrack, or"
            " give this one a store.url of its own"
        ) from error
    os.ftruncate(lock, 0)
    with contextlib.suppress(OSError):  # a courtesy to whoever comes second; a full disk is met where it matters
        os.pwrite(lock, str(os.getpid()).encode(), 0)
    return lock


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Bring the schema to the newest version, one numbered file after the other, each in its own transaction."""
    folder = resources.files("dualtrack.store").joinpath("schema", "sqlite")
    scripts = sorted((item for item in folder.iterdir() if item.name.endswith(".sql")), key=lambda item: item.name)
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > len(scripts):
        raise StartError(
            f"store.url: the journal {path} has schema {version}, newer than this dualtrack knows ({len(scripts)})."
            " Upgrade dualtrack, or use another store.url"
        )
    for number, script in enumerate(scripts[version:], start=version + 1):
        connection.executescript(f"BEGIN IMMEDIATE;\n{script.read_text()}\nPRAGMA user_version={number};\nCOMMIT;")
