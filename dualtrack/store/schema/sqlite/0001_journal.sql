-- The journal: what was acknowledged and is not yet everywhere, and who is who.

CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;

-- One row per mirrored write. pending IS NULL: open. Otherwise the number of secondaries that still need it.
CREATE TABLE entries (
    id        INTEGER PRIMARY KEY,
    at        REAL NOT NULL,            -- unix seconds: opened
    record    BLOB NOT NULL,            -- sealed exchange (store/record.py)
    pending   INTEGER
);
CREATE INDEX entries_open ON entries (id) WHERE pending IS NULL;

-- One row per entry and secondary that still needs it, clustered in delivery order.
CREATE TABLE deliveries (
    backend    TEXT NOT NULL,
    key        TEXT NOT NULL,
    seq        INTEGER NOT NULL,
    entry_id   INTEGER NOT NULL,
    settled_at REAL NOT NULL,
    attempted  INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (backend, key, seq)
) WITHOUT ROWID;

-- One row per ordering key with something queued: when it is due, and why it waits.
CREATE TABLE lanes (
    backend     TEXT NOT NULL,
    key         TEXT NOT NULL,
    next_at     REAL NOT NULL,
    oldest_at   REAL NOT NULL,
    attempts    INTEGER NOT NULL DEFAULT 0,
    held        INTEGER NOT NULL DEFAULT 0,   -- 1: behind a parked create
    waiting_for TEXT,
    error       TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (backend, key)
) WITHOUT ROWID;
CREATE INDEX lanes_due ON lanes (backend, next_at) WHERE held = 0;
CREATE INDEX lanes_waiting ON lanes (backend, waiting_for) WHERE waiting_for IS NOT NULL;

CREATE TABLE parked (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    backend   TEXT NOT NULL,
    key       TEXT NOT NULL,
    seq       INTEGER NOT NULL,
    record    BLOB NOT NULL,
    operation TEXT NOT NULL,
    reason    TEXT NOT NULL,
    cause     TEXT NOT NULL,
    holds     INTEGER NOT NULL,
    at        REAL NOT NULL
);
CREATE INDEX parked_lane ON parked (backend, key);

CREATE TABLE ids (
    kind       TEXT NOT NULL,
    client_id  TEXT NOT NULL,
    backend    TEXT NOT NULL,
    backend_id TEXT NOT NULL,           -- '' : discarded by an operator
    name       TEXT NOT NULL DEFAULT '',
    root       TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (kind, client_id, backend)
) WITHOUT ROWID;
CREATE INDEX ids_backend ON ids (backend_id, backend, kind);
CREATE INDEX ids_root ON ids (root, backend) WHERE root <> '';
CREATE INDEX ids_name ON ids (name, backend, kind) WHERE kind = 'experiment' AND name <> '';

-- What a backend could not hold, per entity (P7).
CREATE TABLE losses (
    backend TEXT NOT NULL,
    key     TEXT NOT NULL,
    reason  TEXT NOT NULL,
    detail  TEXT NOT NULL,
    times   INTEGER NOT NULL DEFAULT 1,
    at      REAL NOT NULL,
    PRIMARY KEY (backend, key, reason, detail)
) WITHOUT ROWID;

-- Records whose checksum is wrong: set aside, never delivered, never in the way.
CREATE TABLE quarantine (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    backend TEXT NOT NULL,
    key     TEXT NOT NULL,
    seq     INTEGER NOT NULL,
    record  BLOB,
    why     TEXT NOT NULL,
    at      REAL NOT NULL
);
