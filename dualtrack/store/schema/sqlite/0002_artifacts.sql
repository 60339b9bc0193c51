-- Files: which entries need one that waits in the spool, and what the primary acknowledged of each.

ALTER TABLE entries ADD COLUMN spool TEXT;    -- name in the spool (store/spool.py), NULL for all but uploads
CREATE INDEX entries_spool ON entries (spool) WHERE spool IS NOT NULL;

ALTER TABLE parked ADD COLUMN spool TEXT;
CREATE INDEX parked_spool ON parked (spool) WHERE spool IS NOT NULL;

-- What the primary acknowledged last, per ordering key and path. No row: nothing, or nobody here knows what.
CREATE TABLE artifacts (
    key    TEXT NOT NULL,
    path   TEXT NOT NULL,
    size   INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    PRIMARY KEY (key, path)
) WITHOUT ROWID;

-- Artifact roots that a backend stated in an answer, of entities that nobody may have mirrored. Ids are its own.
CREATE TABLE roots (
   backend    TEXT NOT NULL,
   root       TEXT NOT NULL,
   kind       TEXT NOT NULL,
   backend_id TEXT NOT NULL,
   PRIMARY KEY (backend, root)
) WITHOUT ROWID;
