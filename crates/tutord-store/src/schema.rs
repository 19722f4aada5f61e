//! The tables that the typed queries know, as the migrations of both databases make them.

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
        timezone -> Text,
        current_streak -> Integer,
        longest_streak -> Integer,
        exercises_completed -> Integer,
        last_exercise_date -> Nullable<crate::sql_types::Day>,
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
    }
}

table! {
    session_tokens (token_hash) {
        token_hash -> Binary,
        session_id -> BigInt,
        purpose -> Text,
        expires_at -> crate::sql_types::Instant,
        used_at -> Nullable<crate::sql_types::Instant>,
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

joinable!(session_tokens -> sessions (session_id));
joinable!(sessions -> users (user_id));
joinable!(email_tokens -> users (user_id));
joinable!(messages -> conversations (conversation_id));
allow_tables_to_appear_in_same_query!(
    users,
    sessions,
    session_tokens,
    email_tokens,
    conversations,
    messages,
    idempotency_keys,
);

table! {
    exercises (id) {
        id -> BigInt,
        title -> Text,
        description -> Text,
        instructions -> Text,
        exercise_type -> Text,
        difficulty -> Text,
        programming_language -> Text,
        topics -> Text,
        owner_id -> Nullable<BigInt>,
        created_at -> crate::sql_types::Instant,
    }
}
