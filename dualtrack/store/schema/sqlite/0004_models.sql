-- Logged models of a primary that knows none (dualtrack/models): kept here whole, their files are below their runs.
CREATE TABLE models (
    id            TEXT PRIMARY KEY,
    experiment_id TEXT NOT NULL,
    root          TEXT NOT NULL UNIQUE,   -- a deleted model keeps it: its files are still there
    document      BLOB NOT NULL,          -- JSON, as MLflow answers it, without metrics
    deleted       INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX models_experiment ON models (experiment_id) WHERE deleted = 0;

CREATE TABLE model_points (
    model_id TEXT NOT NULL,
    point    BLOB NOT NULL,               -- JSON of one metric; the same one again is no second one
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
