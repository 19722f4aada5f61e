-- The refresh tokens of a session form generations: presenting a token of the newest generation begins the next one. Tokens
-- that a version before this one issued have none.
ALTER TABLE sessions ADD COLUMN used_generation BIGINT NOT NULL DEFAULT -1;
ALTER TABLE sessions ADD COLUMN generation_used_at BIGINT;
ALTER TABLE session_tokens ADD COLUMN generation BIGINT;
DROP INDEX session_tokens_session;
CREATE INDEX session_tokens_session ON session_tokens (session_id, generation);

-- Browsers in which an account has logged in: their failed log-ins count apart from those of strangers.
CREATE TABLE trusted_devices (
    user_id BIGINT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    token_hash BLOB NOT NULL,
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (user_id, token_hash)
);
CREATE INDEX trusted_devices_expiry ON trusted_devices (expires_at);

-- Rows that tutord itself brings to a new form after a migration, as SQL can't: how far each such work has come. No row, no
-- work.
CREATE TABLE backfills (
    name TEXT PRIMARY KEY,
    after_id BIGINT NOT NULL DEFAULT 0
);
INSERT INTO backfills (name) VALUES ('addresses');

-- Accounts whose address is the same as an earlier account's in the new form: they keep the old form.
CREATE TABLE address_collisions (
    user_id BIGINT PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE
);
