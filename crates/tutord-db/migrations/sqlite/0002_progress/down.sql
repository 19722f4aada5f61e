DROP TABLE leaderboard_changes;
DROP TABLE leaderboard_counts;
DROP TABLE leaderboard_entries;
DROP TABLE leaderboards;
DROP TABLE activity;
CREATE TABLE daily_activity (
    user_id BIGINT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    day TEXT NOT NULL,
    exercises_completed INTEGER NOT NULL DEFAULT 0,
    grade_sum BIGINT NOT NULL DEFAULT 0,
    graded_count INTEGER NOT NULL DEFAULT 0,
    time_spent_seconds BIGINT NOT NULL DEFAULT 0,
    points INTEGER NOT NULL DEFAULT 0,
    streak INTEGER NOT NULL DEFAULT 0,
    achievements_unlocked INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (user_id, day)
);
DROP INDEX user_achievements_cause;
ALTER TABLE user_achievements DROP COLUMN user_exercise_id;
ALTER TABLE achievements DROP COLUMN requirement;
DROP INDEX user_exercises_completed;
DROP INDEX user_exercises_ended;
DROP INDEX user_exercises_due;
ALTER TABLE user_exercises DROP COLUMN ended_at;
ALTER TABLE user_exercises DROP COLUMN due_on;
ALTER TABLE user_exercises DROP COLUMN skip_count;
ALTER TABLE user_exercises DROP COLUMN completed_on;
ALTER TABLE users DROP COLUMN exercise_difficulty;
