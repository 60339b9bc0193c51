-- How many losses each backend has: the status is asked for every few seconds, and a long life has millions of them.

CREATE TABLE loss_counts (backend TEXT PRIMARY KEY, times INTEGER NOT NULL) WITHOUT ROWID;

INSERT INTO loss_counts (backend, times) SELECT backend, sum(times) FROM losses GROUP BY backend;

CREATE TRIGGER losses_counted AFTER INSERT ON losses BEGIN
    INSERT INTO loss_counts (backend, times) VALUES (new.backend, new.times)
        ON CONFLICT (backend) DO UPDATE SET times = times + excluded.times;
END;

CREATE TRIGGER losses_repeated AFTER UPDATE OF times ON losses BEGIN
    UPDATE loss_counts SET times = times + new.times - old.times WHERE backend = new.backend;
END;
