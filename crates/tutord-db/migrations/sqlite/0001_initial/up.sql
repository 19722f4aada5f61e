-- Times are microseconds since 1970-01-01T00:00:00Z, days are YYYY-MM-DD. AUTOINCREMENT where an id that
-- was handed out must not return for another row.
CREATE TABLE users (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    email TEXT NOT NULL,
    email_folded TEXT NOT NULL UNIQUE,
    password_hash TEXT NOT NULL,
    name TEXT NOT NULL,
    avatar_url TEXT,
    bio TEXT,
    programming_language TEXT,
    skill_level TEXT,
    career_goals TEXT,
    learning_style TEXT,
    time_commitment TEXT,
    role TEXT NOT NULL DEFAULT 'student',
    is_active BOOLEAN NOT NULL DEFAULT TRUE,
    is_mentor BOOLEAN NOT NULL DEFAULT FALSE,
    email_verified BOOLEAN NOT NULL DEFAULT FALSE,
    onboarding_completed BOOLEAN NOT NULL DEFAULT FALSE,
    leaderboard_opt_out BOOLEAN NOT NULL DEFAULT FALSE,
    timezone TEXT NOT NULL DEFAULT 'UTC',
    current_streak INTEGER NOT NULL DEFAULT 0,
    longest_streak INTEGER NOT NULL DEFAULT 0,
    exercises_completed INTEGER NOT NULL DEFAULT 0,
    last_exercise_date TEXT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    last_login BIGINT
);

-- A session is one login; its tokens rotate. Only hashes of tokens are stored.
CREATE TABLE sessions (
    id INTEGER PRIMARY KEY,
    user_id BIGINT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    revoked_at BIGINT
);
CREATE INDEX sessions_user ON sessions (user_id);
CREATE INDEX sessions_expiry ON sessions (expires_at);

CREATE TABLE session_tokens (
    token_hash BLOB PRIMARY KEY,
    session_id BIGINT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    purpose TEXT NOT NULL,
    expires_at BIGINT NOT NULL,
    used_at BIGINT
);
CREATE INDEX session_tokens_session ON session_tokens (session_id);
CREATE INDEX session_tokens_expiry ON session_tokens (expires_at);

CREATE TABLE email_tokens (
    token_hash BLOB PRIMARY KEY,
    user_id BIGINT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    purpose TEXT NOT NULL,
    expires_at BIGINT NOT NULL,
    used_at BIGINT
);
CREATE INDEX email_tokens_user ON email_tokens (user_id, purpose);
CREATE INDEX email_tokens_expiry ON email_tokens (expires_at);

CREATE TABLE exercises (
    id INTEGER PRIMARY KEY,
    slug TEXT UNIQUE,
    title TEXT NOT NULL,
    description TEXT NOT NULL,
    instructions TEXT NOT NULL,
    starter_code TEXT,
    solution TEXT,
    hints TEXT NOT NULL DEFAULT '[]',
    exercise_type TEXT NOT NULL,
    difficulty TEXT NOT NULL,
    programming_language TEXT NOT NULL,
    topics TEXT NOT NULL DEFAULT '',
    test_cases TEXT,
    generated_by_ai BOOLEAN NOT NULL DEFAULT FALSE,
    generation_prompt TEXT,
    owner_id BIGINT REFERENCES users (id) ON DELETE CASCADE,
    created_at BIGINT NOT NULL
);
CREATE INDEX exercises_choice ON exercises (programming_language, difficulty, id) WHERE owner_id IS NULL;
CREATE INDEX exercises_owner ON exercises (owner_id) WHERE owner_id IS NOT NULL;

-- message_count, last_message_at and last_message_preview are written in the transaction that inserts
-- a message, so that a list of conversations never reads messages. last_message_at equals updated_at
-- while there is no message.
CREATE TABLE conversations (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id BIGINT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    title TEXT NOT NULL,
    context_type TEXT NOT NULL DEFAULT 'general',
    exercise_id BIGINT REFERENCES exercises (id) ON DELETE SET NULL,
    message_count BIGINT NOT NULL DEFAULT 0,
    last_message_at BIGINT NOT NULL,
    last_message_preview TEXT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    deleted_at BIGINT
);
CREATE INDEX conversations_activity ON conversations (user_id, last_message_at DESC, id DESC) WHERE deleted_at IS NULL;
CREATE INDEX conversations_user ON conversations (user_id);
CREATE INDEX conversations_exercise ON conversations (exercise_id) WHERE exercise_id IS NOT NULL;
CREATE INDEX conversations_deleted ON conversations (id) WHERE deleted_at IS NOT NULL;

-- position counts 1, 2, 3, … without gaps within a conversation (messages leave only with their
-- conversation), so that any page, by offset or by cursor, is one range of the unique index.
CREATE TABLE messages (
    id INTEGER PRIMARY KEY,
    conversation_id BIGINT NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
    position BIGINT NOT NULL,
    role TEXT NOT NULL,
    content TEXT NOT NULL,
    tokens_used INTEGER,
    model_used TEXT,
    provider TEXT,
    finish_reason TEXT,
    cached BOOLEAN NOT NULL DEFAULT FALSE,
    response_time_ms INTEGER,
    reply_to BIGINT,
    created_at BIGINT NOT NULL,
    UNIQUE (conversation_id, position)
);
-- A student's message is answered once, whoever asks again.
CREATE UNIQUE INDEX messages_reply_to ON messages (reply_to) WHERE reply_to IS NOT NULL;

CREATE TABLE idempotency_keys (
    user_id BIGINT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    key TEXT NOT NULL,
    conversation_id BIGINT NOT NULL,
    message_id BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (user_id, key)
);
CREATE INDEX idempotency_keys_age ON idempotency_keys (created_at);

CREATE TABLE user_exercises (
    id INTEGER PRIMARY KEY,
    user_id BIGINT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    exercise_id BIGINT NOT NULL REFERENCES exercises (id) ON DELETE CASCADE,
    daily_date TEXT,
    status TEXT NOT NULL DEFAULT 'pending',
    grade INTEGER,
    feedback TEXT,
    hints_used INTEGER NOT NULL DEFAULT 0,
    submission_count INTEGER NOT NULL DEFAULT 0,
    time_spent_seconds INTEGER NOT NULL DEFAULT 0,
    points_earned INTEGER NOT NULL DEFAULT 0,
    started_at BIGINT,
    completed_at BIGINT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    UNIQUE (user_id, exercise_id),
    UNIQUE (user_id, daily_date)
);
CREATE INDEX user_exercises_history ON user_exercises (user_id, created_at DESC, id DESC);
CREATE INDEX user_exercises_status ON user_exercises (user_id, status, created_at DESC, id DESC);
CREATE INDEX user_exercises_exercise ON user_exercises (exercise_id);

CREATE TABLE submissions (
    id INTEGER PRIMARY KEY,
    user_exercise_id BIGINT NOT NULL REFERENCES user_exercises (id) ON DELETE CASCADE,
    solution TEXT NOT NULL,
    grade INTEGER,
    feedback TEXT,
    created_at BIGINT NOT NULL
);
CREATE INDEX submissions_user_exercise ON submissions (user_exercise_id, id DESC);

CREATE TABLE achievements (
    id INTEGER PRIMARY KEY,
    slug TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    title TEXT NOT NULL,
    description TEXT NOT NULL,
    category TEXT NOT NULL,
    rarity TEXT NOT NULL,
    requirement_value INTEGER NOT NULL,
    requirement_description TEXT NOT NULL,
    icon_url TEXT,
    icon TEXT,
    badge_color TEXT,
    points INTEGER NOT NULL DEFAULT 0,
    hidden BOOLEAN NOT NULL DEFAULT FALSE
);

CREATE TABLE user_achievements (
    user_id BIGINT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    achievement_id BIGINT NOT NULL REFERENCES achievements (id) ON DELETE CASCADE,
    unlocked_at BIGINT NOT NULL,
    PRIMARY KEY (user_id, achievement_id)
);
CREATE INDEX user_achievements_achievement ON user_achievements (achievement_id);

-- Summary rows, written with the completion they count: one a student and topic, one a student and local day.
CREATE TABLE skill_levels (
    user_id BIGINT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    topic TEXT NOT NULL,
    level TEXT NOT NULL,
    previous_level TEXT,
    exercises_completed INTEGER NOT NULL DEFAULT 0,
    grade_sum BIGINT NOT NULL DEFAULT 0,
    graded_count INTEGER NOT NULL DEFAULT 0,
    time_spent_seconds BIGINT NOT NULL DEFAULT 0,
    level_updated_at BIGINT NOT NULL,
    PRIMARY KEY (user_id, topic)
);

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
