-- Logged models of a primary that knows none (dualtrack/models): kept here whole, their files are below their runs.
CREATE TABLE models (
    id            TEXT PRIMARY KEY,
    experiment_id TEXT NOT NULL,
    root          TEXT NOT NULL UNIQUE,   -- a deleted model keeps it: its files are still there
    document      BLOB NOT NULL,          -- JSON, as MLflow answers it, without metrics; empty once deleted
    deleted       INTEGER NOT NULL DEFAULT 0
);  -- with row ids: in an index's page a document over 1,000 bytes would take a page of its own
CREATE INDEX models_experiment ON models (experiment_id) WHERE deleted = 0;

CREATE TABLE model_points (
    model_id TEXT NOT NULL,
    point    BLOB NOT NULL,               -- JSON of one metric, spelled one way: the same one again is no second one
    PRIMARY KEY (model_id, point)
) WITHOUT ROWID;

-- Which models went into a run and came out of it.
CREATE TABLE model_links (
    run_id   TEXT NOT NULL,
    model_id TEXT NOT NULL,
    is_input INTEGER NOT NULL,
    step     INTEGER NOT NULL,
    PRIMARY KEY (run_id, model_id, is_input)
) WITHOUT ROWID;
CREATE INDEX model_links_model ON model_links (model_id);

-- About how many bytes of the database all this is. It stays for as long as its models do, so the journal's bound, which
-- is for what goes again, leaves it out. A row costs some bytes more than what is in it, and a page is not always full.
INSERT INTO counters (name, value) VALUES ('shelf', 0);
CREATE TRIGGER model_added AFTER INSERT ON models BEGIN
    UPDATE counters SET value = value + length(new.document) + 2 * length(new.root) + 128 WHERE name = 'shelf';
END;
CREATE TRIGGER model_changed AFTER UPDATE OF document ON models BEGIN
    UPDATE counters SET value = value + length(new.document) - length(old.document) WHERE name = 'shelf';
END;
CREATE TRIGGER model_point_added AFTER INSERT ON model_points BEGIN
    UPDATE counters SET value = value + length(new.point) + length(new.model_id) + 32 WHERE name = 'shelf';
END;
CREATE TRIGGER model_point_removed AFTER DELETE ON model_points BEGIN
    UPDATE counters SET value = value - length(old.point) - length(old.model_id) - 32 WHERE name = 'shelf';
END;
CREATE TRIGGER model_link_added AFTER INSERT ON model_links BEGIN
    UPDATE counters SET value = value + length(new.run_id) + 2 * length(new.model_id) + 64 WHERE name = 'shelf';
END;
CREATE TRIGGER model_link_removed AFTER DELETE ON model_links BEGIN
    UPDATE counters SET value = value - length(old.run_id) - 2 * length(old.model_id) - 64 WHERE name = 'shelf';
END;
