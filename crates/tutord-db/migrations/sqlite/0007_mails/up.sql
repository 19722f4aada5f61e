-- Mails that are to be sent, and those that could not be. No token is here: each attempt makes its own.
CREATE TABLE mails (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id BIGINT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    kind TEXT NOT NULL CHECK (kind IN ('verify_email', 'password_reset', 'address_taken')),
    -- The Message-ID of all attempts.
    message_id TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    -- Of the next attempt; while a process sends it, when another one may.
    due_at BIGINT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    -- The reply code of the last attempt that failed, or what happened instead.
    last_error TEXT,
    -- Since when it is not tried any more.
    failed_at BIGINT,
    -- A newer mail of a kind takes the place of one that waits.
    UNIQUE (user_id, kind)
);
CREATE INDEX mails_due ON mails (due_at) WHERE failed_at IS NULL;
CREATE INDEX mails_failed ON mails (failed_at) WHERE failed_at IS NOT NULL;
