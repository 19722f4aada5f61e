DROP INDEX session_tokens_session;
CREATE INDEX session_tokens_session ON session_tokens (session_id);
ALTER TABLE session_tokens DROP COLUMN generation;
ALTER TABLE sessions DROP COLUMN generation_used_at;
ALTER TABLE sessions DROP COLUMN used_generation;
