ALTER TABLE exercises DROP COLUMN estimated_time_minutes;
ALTER TABLE exercises DROP COLUMN learning_objectives;
ALTER TABLE user_exercises DROP COLUMN daily_since;
ALTER TABLE user_exercises DROP COLUMN completed_in;
ALTER TABLE users DROP COLUMN streak_day_since;
ALTER TABLE users DROP COLUMN streak_since;
ALTER TABLE users DROP COLUMN last_completed_at;
