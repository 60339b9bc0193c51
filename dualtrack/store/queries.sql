-- Every statement of the SQLite journal that has a fixed shape, by name.

-- name: insert_quarantine
INSERT INTO quarantine (backend, key, seq, record, why, at) VALUES (?, ?, ?, ?, ?, ?)

-- name: counter
SELECT max(coalesce((SELECT value FROM counters WHERE name = 'sequence'), 0), coalesce((SELECT max(id) FROM entries), 0))

-- name: set_counter
INSERT INTO counters (name, value) VALUES ('sequence', ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value

-- name: left_open
SELECT id, at FROM entries WHERE pending IS NULL ORDER BY id

-- name: open_from
SELECT min(id) FROM entries WHERE pending IS NULL

-- name: opened
SELECT record FROM entries WHERE id = ? AND pending IS NULL

-- name: settle_record
UPDATE entries SET record = ? WHERE id = ?

-- name: settle_spool
UPDATE entries SET spool = ? WHERE id = ?

-- name: upsert_artifact
INSERT INTO artifacts (key, path, size, sha256) VALUES (?, ?, ?, ?)
    ON CONFLICT (key, path) DO UPDATE SET size = excluded.size, sha256 = excluded.sha256

-- name: delete_artifact
-- the path and all below it: '0' is what follows '/'
DELETE FROM artifacts WHERE key = ?1 AND path >= ?2 AND path < ?2 || '0' AND (path = ?2 OR path > ?2 || '/')

-- name: delete_artifacts
DELETE FROM artifacts WHERE key = ?

-- name: artifacts
SELECT path, size, sha256 FROM artifacts WHERE key = ? ORDER BY path

-- name: spooled
SELECT spool FROM entries WHERE spool IS NOT NULL UNION SELECT spool FROM parked WHERE spool IS NOT NULL

-- name: is_spooled
SELECT 1 FROM entries WHERE spool = ?1 UNION ALL SELECT 1 FROM parked WHERE spool = ?1 LIMIT 1

-- name: due_lanes
SELECT key, attempts FROM lanes WHERE backend = ? AND held = 0 AND next_at <= ? ORDER BY next_at LIMIT ?

-- name: next_due
SELECT key, next_at FROM lanes WHERE backend = ? AND held = 0 ORDER BY next_at LIMIT ?

-- name: read_lane
SELECT d.seq, d.settled_at, d.attempted, e.at, e.spool, e.record
  FROM deliveries AS d LEFT JOIN entries AS e ON e.id = d.entry_id
 WHERE d.backend = ? AND d.key = ? AND d.seq < ? ORDER BY d.seq

-- name: is_pending
SELECT 1 FROM lanes WHERE backend = ? AND key = ?

-- name: has_dead_letters
SELECT 1 FROM parked WHERE backend = ? AND key = ? LIMIT 1

-- name: queued
SELECT key FROM lanes WHERE backend = ? LIMIT ?

-- name: has_older
-- a lane that is held, or waits for a held one, is for a person: nothing waits for it
WITH RECURSIVE stuck (key) AS (
    SELECT key FROM lanes WHERE backend = ?1 AND held = 1
     UNION SELECT l.key FROM stuck JOIN lanes AS l ON l.backend = ?1 AND l.waiting_for = stuck.key
)
SELECT 1 FROM lanes WHERE backend = ?1 AND key <> ?2 AND oldest_at < ?3 AND key GLOB ?4
   AND key NOT IN (SELECT key FROM stuck) LIMIT 1

-- name: waiting
-- NULL for a lane that is empty
WITH RECURSIVE ahead (key) AS (
    VALUES (?2)
     UNION SELECT l.waiting_for FROM ahead JOIN lanes AS l ON l.backend = ?1 AND l.key = ahead.key
            WHERE l.waiting_for IS NOT NULL
)
SELECT CASE WHEN EXISTS (SELECT 1 FROM lanes WHERE backend = ?1 AND key = ?2)
            THEN (SELECT max(held) FROM lanes WHERE backend = ?1 AND key IN (SELECT key FROM ahead)) END

-- name: mark_attempted
UPDATE deliveries SET attempted = 1 WHERE backend = ? AND key = ? AND seq = ?

-- name: head
SELECT settled_at FROM deliveries WHERE backend = ? AND key = ? ORDER BY seq LIMIT 1

-- name: settled_behind
SELECT settled_at FROM deliveries WHERE backend = ? AND key = ? AND seq > ? ORDER BY seq LIMIT 1

-- name: update_lane
UPDATE lanes SET next_at = ?, oldest_at = ?, attempts = ?, held = ?, waiting_for = ?, error = ?
 WHERE backend = ? AND key = ?

-- name: delete_lane
DELETE FROM lanes WHERE backend = ? AND key = ?

-- name: add_lane
INSERT INTO lanes (backend, key, next_at, oldest_at) VALUES (?, ?, ?, ?)
    ON CONFLICT (backend, key) DO UPDATE SET next_at = excluded.next_at, attempts = 0,
       oldest_at = min(oldest_at, excluded.oldest_at)

-- name: release_lane
UPDATE lanes SET held = 0, next_at = ?, attempts = 0, waiting_for = NULL WHERE backend = ? AND key = ?

-- name: wake_waiting
UPDATE lanes SET next_at = ?, waiting_for = NULL WHERE backend = ? AND waiting_for = ?

-- name: upsert_twin
INSERT INTO ids (kind, client_id, backend, backend_id, name, root) VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT (kind, client_id, backend) DO UPDATE SET backend_id = excluded.backend_id,
       name = CASE WHEN excluded.name = '' THEN name ELSE excluded.name END,
       root = CASE WHEN excluded.root = '' THEN root ELSE excluded.root END

-- name: upsert_root
-- an experiment that shares its location with a run or a model does not take their place
INSERT INTO roots (backend, root, kind, backend_id) VALUES (?, ?, ?, ?)
    ON CONFLICT (backend, root) DO UPDATE SET kind = excluded.kind, backend_id = excluded.backend_id
    WHERE roots.kind = 'experiment' OR excluded.kind <> 'experiment'

-- name: delete_twin
DELETE FROM ids WHERE kind = ?1 AND client_id = ?2 AND backend = ?3 AND (?4 IS NULL OR backend_id = ?4)

-- name: twin
SELECT backend_id, name, root FROM ids WHERE kind = ? AND client_id = ? AND backend = ?

-- name: client_id
SELECT client_id FROM ids WHERE backend_id = ? AND backend = ? AND kind = ?

-- name: named
SELECT client_id, backend_id, root FROM ids WHERE name = ? AND backend = ? AND kind = 'experiment' AND name <> ''

-- name: find_entities
SELECT kind, client_id FROM ids WHERE backend_id = ?1
 UNION SELECT kind, client_id FROM ids WHERE kind IN ('experiment', 'run', 'model') AND client_id = ?1

-- name: entity_twins
SELECT kind, client_id, backend, backend_id, name, root FROM ids WHERE kind = ? AND client_id = ? ORDER BY backend

-- name: export_ids
SELECT kind, client_id, backend, backend_id, name, root FROM ids WHERE (kind, client_id) > (?, ?)
 ORDER BY kind, client_id, backend LIMIT ?

-- name: insert_parked
INSERT INTO parked (backend, key, seq, record, operation, reason, cause, holds, at, spool)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: parked
SELECT id, backend, key, operation, reason, cause, at, holds, record FROM parked
 WHERE (?1 IS NULL OR id = ?1) AND (?3 IS NULL OR id < ?3) ORDER BY id DESC LIMIT ?2

-- name: parked_row
SELECT backend, key, seq, record, holds, operation, spool FROM parked WHERE id = ?

-- name: delete_parked
DELETE FROM parked WHERE id = ?

-- name: held_by
SELECT 1 FROM parked WHERE backend = ? AND key = ? AND holds = 1

-- name: add_loss
INSERT INTO losses (backend, key, kind, item, reason, detail, at) VALUES (?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (key, backend, kind, item, reason, detail) DO UPDATE SET times = times + 1, at = excluded.at

-- name: losses
SELECT id, backend, key, times, kind, item, reason, detail FROM losses
 WHERE (?1 IS NULL OR backend = ?1) AND id < ?2 ORDER BY id DESC LIMIT ?3

-- name: losses_of
SELECT id, backend, key, times, kind, item, reason, detail FROM losses
 WHERE key = ?4 AND (?1 IS NULL OR backend = ?1) AND id < ?2 ORDER BY id DESC LIMIT ?3

-- name: insert_entry
INSERT INTO entries (id, at, record, pending, spool) VALUES (?, ?, ?, ?, ?)

-- name: insert_delivery
INSERT INTO deliveries (backend, key, seq, entry_id, settled_at) VALUES (?, ?, ?, ?, ?)

-- name: lane_entries
SELECT seq, entry_id, settled_at, attempted FROM deliveries WHERE backend = ? AND key = ? AND seq <= ?

-- name: count_queued
SELECT backend, count(*) FROM deliveries GROUP BY backend

-- name: backlog
-- a lane that waits for a held one, whatever lies between, is as held as that
WITH RECURSIVE stuck (key) AS (
    SELECT key FROM lanes WHERE backend = ?1 AND held = 1
     UNION SELECT l.key FROM stuck JOIN lanes AS l ON l.backend = ?1 AND l.waiting_for = stuck.key
)
SELECT count(*), (SELECT count(*) FROM stuck), min(CASE WHEN key NOT IN (SELECT key FROM stuck) THEN oldest_at END)
  FROM lanes WHERE backend = ?1

-- name: last_error
SELECT error FROM lanes WHERE backend = ? AND error <> '' ORDER BY next_at DESC LIMIT 1

-- name: count_parked
SELECT count(*) FROM parked WHERE backend = ?

-- name: count_losses
SELECT coalesce(max(times), 0) FROM loss_counts WHERE backend = ?

-- name: count_quarantined
SELECT count(*) FROM quarantine

-- name: any_model
SELECT 1 FROM models LIMIT 1

-- name: add_model
INSERT INTO models (id, experiment_id, root, document) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING

-- name: model
SELECT id, experiment_id, root, document FROM models WHERE id = ? AND deleted = 0

-- name: models_of
SELECT id, experiment_id, root, document FROM models WHERE experiment_id = ? AND deleted = 0

-- name: change_model
UPDATE models SET document = ? WHERE id = ?

-- name: remove_model
UPDATE models SET deleted = 1, document = x'' WHERE id = ? AND deleted = 0

-- name: remove_model_points
DELETE FROM model_points WHERE model_id = ?

-- name: remove_model_links
DELETE FROM model_links WHERE model_id = ?

-- name: shelf_bytes
SELECT value FROM counters WHERE name = 'shelf'

-- name: model_points
SELECT point FROM model_points WHERE model_id = ?

-- name: add_model_point
INSERT INTO model_points (model_id, point) VALUES (?, ?) ON CONFLICT DO NOTHING

-- name: model_links
SELECT model_id, is_input, step FROM model_links WHERE run_id = ?

-- name: add_model_link
INSERT INTO model_links (run_id, model_id, is_input, step) VALUES (?, ?, ?, ?)
    ON CONFLICT (run_id, model_id, is_input) DO UPDATE SET step = excluded.step
