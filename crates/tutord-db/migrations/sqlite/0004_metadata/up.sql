-- What the schema says of itself, a row for each fact:
--   oldest_version  the oldest tutord that may use this schema. A migration that an older one can't live with raises it.
--   catalogue       the version of the built-in catalogue that was loaded last
--   probe           written to see whether the database takes writes
CREATE TABLE metadata (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
);
INSERT INTO metadata (key, value) VALUES ('oldest_version', '0.1.0');
