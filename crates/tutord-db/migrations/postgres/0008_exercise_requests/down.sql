DROP TABLE exercise_requests;
ALTER TABLE submissions DROP COLUMN improvements;
ALTER TABLE submissions DROP COLUMN strengths;
