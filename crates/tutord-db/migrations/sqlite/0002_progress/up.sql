ALTER TABLE users ADD COLUMN exercise_difficulty TEXT;

-- completed_on: the student's local day of the completion. due_on: the local day from which a skipped
-- exercise is offered again. ended_at: when it was completed or skipped, null while it is open.
ALTER TABLE user_exercises ADD COLUMN completed_on TEXT;
ALTER TABLE user_exercises ADD COLUMN skip_count INTEGER NOT NULL DEFAULT 0;
ALTER TABLE user_exercises ADD COLUMN due_on TEXT;
ALTER TABLE user_exercises ADD COLUMN ended_at BIGINT;
CREATE INDEX user_exercises_due ON user_exercises (user_id, due_on, id) WHERE due_on IS NOT NULL;
CREATE INDEX user_exercises_ended ON user_exercises (user_id, ended_at DESC, id DESC) WHERE ended_at IS NOT NULL;
CREATE INDEX user_exercises_completed ON user_exercises (user_id, completed_at, id) WHERE completed_at IS NOT NULL;

ALTER TABLE achievements ADD COLUMN requirement TEXT NOT NULL DEFAULT 'exercises';
-- The completion that unlocked it.
ALTER TABLE user_achievements ADD COLUMN user_exercise_id BIGINT REFERENCES user_exercises (id) ON DELETE SET NULL;
CREATE INDEX user_achievements_cause ON user_achievements (user_exercise_id) WHERE user_exercise_id IS NOT NULL;

-- Summary rows, written with the completion that they count: one a student and local day (period daily), and one
-- of all time (period all, starts_on 1970-01-01). On a day, streak and no_hint_run are the runs as the day ended;
-- of all time, they are the longest.
DROP TABLE daily_activity;
CREATE TABLE activity (
    user_id BIGINT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    period TEXT NOT NULL,
    starts_on TEXT NOT NULL,
    exercises_completed INTEGER NOT NULL,
    grade_sum BIGINT NOT NULL,
    graded_count INTEGER NOT NULL,
    perfect_grades INTEGER NOT NULL,
    time_spent_seconds BIGINT NOT NULL,
    hints_used INTEGER NOT NULL,
    points BIGINT NOT NULL,
    achievements_unlocked INTEGER NOT NULL,
    streak INTEGER NOT NULL,
    no_hint_run INTEGER NOT NULL,
    easy INTEGER NOT NULL,
    medium INTEGER NOT NULL,
    hard INTEGER NOT NULL,
    algorithm INTEGER NOT NULL,
    data_structure INTEGER NOT NULL,
    debugging INTEGER NOT NULL,
    practical INTEGER NOT NULL,
    PRIMARY KEY (user_id, period, starts_on)
);

-- A leaderboard of one metric, period and language ('' for all languages together).
CREATE TABLE leaderboards (
    id INTEGER PRIMARY KEY,
    metric TEXT NOT NULL,
    period TEXT NOT NULL,
    starts_on TEXT NOT NULL,
    language TEXT NOT NULL,
    UNIQUE (period, starts_on, language, metric)
);

-- One row a student and leaderboard, written with each completion. Hidden ones belong to students who opted out.
CREATE TABLE leaderboard_entries (
    leaderboard_id BIGINT NOT NULL REFERENCES leaderboards (id) ON DELETE CASCADE,
    user_id BIGINT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    value BIGINT NOT NULL,
    hidden BOOLEAN NOT NULL DEFAULT FALSE,
    PRIMARY KEY (leaderboard_id, user_id)
);
CREATE INDEX leaderboard_entries_order ON leaderboard_entries (leaderboard_id, value DESC, user_id) WHERE NOT hidden;
CREATE INDEX leaderboard_entries_user ON leaderboard_entries (user_id);

-- How many students have which value: a tree with 256 children a node. A bucket of level n counts the values v with
-- v / 256^n = bucket, so that a rank is the sum of a few hundred rows however many students there are.
CREATE TABLE leaderboard_counts (
    leaderboard_id BIGINT NOT NULL REFERENCES leaderboards (id) ON DELETE CASCADE,
    level INTEGER NOT NULL,
    bucket BIGINT NOT NULL,
    students BIGINT NOT NULL,
    PRIMARY KEY (leaderboard_id, level, bucket)
);
-- What entries have changed since the tree was last brought up to date: completions only append here, so that they
-- never wait for each other at the root of the tree. A rank adds what is still here.
CREATE TABLE leaderboard_changes (
    id INTEGER PRIMARY KEY,
    leaderboard_id BIGINT NOT NULL REFERENCES leaderboards (id) ON DELETE CASCADE,
    value BIGINT NOT NULL,
    delta BIGINT NOT NULL
);
CREATE INDEX leaderboard_changes_value ON leaderboard_changes (leaderboard_id, value);
