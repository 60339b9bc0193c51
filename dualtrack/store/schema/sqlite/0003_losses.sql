-- Losses say what is lost, for programs (core/loss.py), and are read page by page: the newest kind of loss first.

ALTER TABLE losses RENAME TO losses_before;

CREATE TABLE losses (
    id      INTEGER PRIMARY KEY,
    backend TEXT NOT NULL,
    key     TEXT NOT NULL,
    kind    TEXT NOT NULL,
    item    TEXT NOT NULL,
    reason  TEXT NOT NULL,
    detail  TEXT NOT NULL,
    times   INTEGER NOT NULL DEFAULT 1,
    at      REAL NOT NULL,
    UNIQUE (key, backend, kind, item, reason, detail)
);

INSERT INTO losses (backend, key, kind, item, reason, detail, times, at)
    SELECT backend, key, 'unknown', '', reason, detail, times, at FROM losses_before ORDER BY at;

DROP TABLE losses_before;
