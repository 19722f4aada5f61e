-- What a repeated request is answered with.
ALTER TABLE submissions ADD COLUMN strengths TEXT;
ALTER TABLE submissions ADD COLUMN improvements TEXT;

-- Idempotency keys of submissions and of generated exercises.
CREATE TABLE exercise_requests (
    user_id BIGINT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    key TEXT NOT NULL,
    -- SHA-256 of what the request asked for.
    fingerprint BYTEA NOT NULL,
    exercise_id BIGINT NOT NULL REFERENCES exercises (id) ON DELETE CASCADE,
    submission_id BIGINT REFERENCES submissions (id) ON DELETE CASCADE,
    created_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (user_id, key)
);
CREATE INDEX exercise_requests_age ON exercise_requests (created_at);
CREATE INDEX exercise_requests_exercise ON exercise_requests (exercise_id);
CREATE INDEX exercise_requests_submission ON exercise_requests (submission_id) WHERE submission_id IS NOT NULL;
