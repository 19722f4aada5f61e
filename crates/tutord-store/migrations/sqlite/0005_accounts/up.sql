-- The refresh tokens of a session form generations: presenting a token of the newest generation begins the next one. Tokens
-- that a version before this one issued have none.
ALTER TABLE sessions ADD COLUMN used_generation BIGINT NOT NULL DEFAULT -1;
ALTER TABLE sessions ADD COLUMN generation_used_at BIGINT;
ALTER TABLE session_tokens ADD COLUMN generation BIGINT;
DROP INDEX session_tokens_session;
CREATE INDEX session_tokens_session ON session_tokens (session_id, generation);
