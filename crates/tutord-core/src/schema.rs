//! The tables of the typed queries, as created by the migrations of both databases.
#![expect(missing_docs, reason = "the migrations describe the columns")]

use diesel::{allow_tables_to_appear_in_same_query, joinable, table};

table! {
    users (id) {
        id -> BigInt,
        email -> Text,
        email_folded -> Text,
        password_hash -> Text,
        name -> Text,
        avatar_url -> Nullable<Text>,
        bio -> Nullable<Text>,
        programming_language -> Nullable<Text>,
        skill_level -> Nullable<Text>,
        career_goals -> Nullable<Text>,
        learning_style -> Nullable<Text>,
        time_commitment -> Nullable<Text>,
        role -> Text,
        is_active -> Bool,
        is_mentor -> Bool,
        email_verified -> Bool,
        onboarding_completed -> Bool,
        leaderboard_opt_out -> Bool,
        exercise_difficulty -> Nullable<Text>,
        timezone -> Text,
        current_streak -> Integer,
        longest_streak -> Integer,
        exercises_completed -> Integer,
        last_exercise_date -> Nullable<crate::sql_types::Day>,
        last_completed_at -> Nullable<crate::sql_types::Instant>,
        streak_since -> Nullable<crate::sql_types::Instant>,
        streak_day_since -> Nullable<crate::sql_types::Instant>,
        created_at -> crate::sql_types::Instant,
        updated_at -> crate::sql_types::Instant,
        last_login -> Nullable<crate::sql_types::Instant>,
    }
}

table! {
    sessions (id) {
        id -> BigInt,
        user_id -> BigInt,
        created_at -> crate::sql_types::Instant,
        expires_at -> crate::sql_types::Instant,
        revoked_at -> Nullable<crate::sql_types::Instant>,
        used_generation -> BigInt,
        generation_used_at -> Nullable<crate::sql_types::Instant>,
    }
}

table! {
    session_tokens (token_hash) {
        token_hash -> Binary,
        session_id -> BigInt,
        purpose -> Text,
        expires_at -> crate::sql_types::Instant,
        used_at -> Nullable<crate::sql_types::Instant>,
        generation -> Nullable<BigInt>,
    }
}

table! {
    trusted_devices (user_id, token_hash) {
        user_id -> BigInt,
        token_hash -> Binary,
        expires_at -> crate::sql_types::Instant,
    }
}

table! {
    backfills (name) {
        name -> Text,
        after_id -> BigInt,
    }
}

table! {
    address_collisions (user_id) {
        user_id -> BigInt,
    }
}

table! {
    email_tokens (token_hash) {
        token_hash -> Binary,
        user_id -> BigInt,
        purpose -> Text,
        expires_at -> crate::sql_types::Instant,
        used_at -> Nullable<crate::sql_types::Instant>,
    }
}

table! {
    mails (id) {
        id -> BigInt,
        user_id -> BigInt,
        kind -> Text,
        message_id -> Text,
        created_at -> crate::sql_types::Instant,
        due_at -> crate::sql_types::Instant,
        attempts -> Integer,
        last_error -> Nullable<Text>,
        failed_at -> Nullable<crate::sql_types::Instant>,
    }
}

table! {
    conversations (id) {
        id -> BigInt,
        user_id -> BigInt,
        title -> Text,
        context_type -> Text,
        exercise_id -> Nullable<BigInt>,
        message_count -> BigInt,
        last_message_at -> crate::sql_types::Instant,
        last_message_preview -> Nullable<Text>,
        created_at -> crate::sql_types::Instant,
        updated_at -> crate::sql_types::Instant,
        deleted_at -> Nullable<crate::sql_types::Instant>,
    }
}

table! {
    messages (id) {
        id -> BigInt,
        conversation_id -> BigInt,
        position -> BigInt,
        role -> Text,
        content -> Text,
        tokens_used -> Nullable<Integer>,
        model_used -> Nullable<Text>,
        provider -> Nullable<Text>,
        finish_reason -> Nullable<Text>,
        cached -> Bool,
        response_time_ms -> Nullable<Integer>,
        reply_to -> Nullable<BigInt>,
        created_at -> crate::sql_types::Instant,
    }
}

table! {
    idempotency_keys (user_id, key) {
        user_id -> BigInt,
        key -> Text,
        conversation_id -> BigInt,
        message_id -> BigInt,
        created_at -> crate::sql_types::Instant,
    }
}

table! {
    exercises (id) {
        id -> BigInt,
        slug -> Nullable<Text>,
        title -> Text,
        description -> Text,
        instructions -> Text,
        starter_code -> Nullable<Text>,
        solution -> Nullable<Text>,
        hints -> Text,
        exercise_type -> Text,
        difficulty -> Text,
        programming_language -> Text,
        topics -> Text,
        test_cases -> Nullable<Text>,
        learning_objectives -> Text,
        estimated_time_minutes -> Nullable<Integer>,
        generated_by_ai -> Bool,
        generation_prompt -> Nullable<Text>,
        owner_id -> Nullable<BigInt>,
        created_at -> crate::sql_types::Instant,
    }
}

table! {
    user_exercises (id) {
        id -> BigInt,
        user_id -> BigInt,
        exercise_id -> BigInt,
        daily_date -> Nullable<crate::sql_types::Day>,
        daily_since -> Nullable<crate::sql_types::Instant>,
        status -> Text,
        grade -> Nullable<Integer>,
        feedback -> Nullable<Text>,
        hints_used -> Integer,
        submission_count -> Integer,
        time_spent_seconds -> Integer,
        points_earned -> Integer,
        started_at -> Nullable<crate::sql_types::Instant>,
        completed_at -> Nullable<crate::sql_types::Instant>,
        completed_on -> Nullable<crate::sql_types::Day>,
        completed_in -> Nullable<Text>,
        skip_count -> Integer,
        due_on -> Nullable<crate::sql_types::Day>,
        ended_at -> Nullable<crate::sql_types::Instant>,
        created_at -> crate::sql_types::Instant,
        updated_at -> crate::sql_types::Instant,
    }
}

table! {
    submissions (id) {
        id -> BigInt,
        user_exercise_id -> BigInt,
        solution -> Text,
        grade -> Nullable<Integer>,
        feedback -> Nullable<Text>,
        created_at -> crate::sql_types::Instant,
        strengths -> Nullable<Text>,
        improvements -> Nullable<Text>,
    }
}

table! {
    exercise_requests (user_id, key) {
        user_id -> BigInt,
        key -> Text,
        fingerprint -> Binary,
        exercise_id -> BigInt,
        submission_id -> Nullable<BigInt>,
        created_at -> crate::sql_types::Instant,
    }
}

table! {
    achievements (id) {
        id -> BigInt,
        slug -> Text,
        name -> Text,
        title -> Text,
        description -> Text,
        category -> Text,
        rarity -> Text,
        requirement -> Text,
        requirement_value -> Integer,
        requirement_description -> Text,
        icon_url -> Nullable<Text>,
        icon -> Nullable<Text>,
        badge_color -> Nullable<Text>,
        points -> Integer,
        hidden -> Bool,
    }
}

table! {
    user_achievements (user_id, achievement_id) {
        user_id -> BigInt,
        achievement_id -> BigInt,
        unlocked_at -> crate::sql_types::Instant,
        user_exercise_id -> Nullable<BigInt>,
    }
}

table! {
    skill_levels (user_id, topic) {
        user_id -> BigInt,
        topic -> Text,
        level -> Text,
        previous_level -> Nullable<Text>,
        exercises_completed -> Integer,
        grade_sum -> BigInt,
        graded_count -> Integer,
        time_spent_seconds -> BigInt,
        level_updated_at -> crate::sql_types::Instant,
    }
}

table! {
    activity (user_id, period, starts_on) {
        user_id -> BigInt,
        period -> Text,
        starts_on -> crate::sql_types::Day,
        exercises_completed -> Integer,
        grade_sum -> BigInt,
        graded_count -> Integer,
        perfect_grades -> Integer,
        time_spent_seconds -> BigInt,
        hints_used -> Integer,
        points -> BigInt,
        achievements_unlocked -> Integer,
        streak -> Integer,
        no_hint_run -> Integer,
        easy -> Integer,
        medium -> Integer,
        hard -> Integer,
        algorithm -> Integer,
        data_structure -> Integer,
        debugging -> Integer,
        practical -> Integer,
    }
}

table! {
    leaderboards (id) {
        id -> BigInt,
        metric -> Text,
        period -> Text,
        starts_on -> crate::sql_types::Day,
        language -> Text,
    }
}

table! {
    leaderboard_entries (leaderboard_id, user_id) {
        leaderboard_id -> BigInt,
        user_id -> BigInt,
        value -> BigInt,
        hidden -> Bool,
    }
}

table! {
    metadata (key) {
        key -> Text,
        value -> Text,
    }
}

// PostgreSQL only.
table! {
    outbox (id) {
        id -> BigInt,
        node -> Text,
        created_at -> crate::sql_types::Instant,
    }
}

joinable!(session_tokens -> sessions (session_id));
joinable!(sessions -> users (user_id));
joinable!(email_tokens -> users (user_id));
joinable!(mails -> users (user_id));
joinable!(messages -> conversations (conversation_id));
joinable!(user_exercises -> exercises (exercise_id));
joinable!(submissions -> user_exercises (user_exercise_id));
joinable!(exercise_requests -> exercises (exercise_id));
joinable!(user_achievements -> achievements (achievement_id));
allow_tables_to_appear_in_same_query!(
    users,
    sessions,
    session_tokens,
    email_tokens,
    mails,
    conversations,
    messages,
    idempotency_keys,
    exercises,
    user_exercises,
    submissions,
    exercise_requests,
    achievements,
    user_achievements,
    leaderboards,
    leaderboard_entries,
);
