-- Streaks are judged by instants, not by dates alone: last_completed_at is the newest completion, streak_since the first
-- of the streak, streak_day_since the one that added the streak's newest day. They are null before the first completion.
ALTER TABLE users ADD COLUMN last_completed_at BIGINT;
ALTER TABLE users ADD COLUMN streak_since BIGINT;
ALTER TABLE users ADD COLUMN streak_day_since BIGINT;
-- completed_in: the student's time zone at the completion, null where it was not recorded. daily_since: when the exercise
-- became the one of daily_date.
ALTER TABLE user_exercises ADD COLUMN completed_in TEXT;
ALTER TABLE user_exercises ADD COLUMN daily_since BIGINT;
-- Both may be absent, and follow from the topics and the difficulty then. learning_objectives is a JSON array of texts.
ALTER TABLE exercises ADD COLUMN learning_objectives TEXT NOT NULL DEFAULT '[]';
ALTER TABLE exercises ADD COLUMN estimated_time_minutes INTEGER;

UPDATE users SET
    last_completed_at = (SELECT max(completed_at) FROM user_exercises WHERE user_id = users.id),
    streak_since = (SELECT min(completed_at) FROM user_exercises
        WHERE user_id = users.id AND completed_on > date(last_exercise_date, '-' || current_streak || ' days')),
    streak_day_since = (SELECT min(completed_at) FROM user_exercises
        WHERE user_id = users.id AND completed_on = last_exercise_date)
WHERE last_exercise_date IS NOT NULL;
