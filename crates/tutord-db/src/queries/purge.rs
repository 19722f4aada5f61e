//! Removal of deleted conversations and of expired rows.

use std::time::Duration;

use diesel::dsl::{exists, not};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use tutord_core::model::IDEMPOTENCY_KEY_LIFETIME;
use tutord_core::schema::{
    conversations, email_tokens, exercise_requests, idempotency_keys, mails, messages, session_tokens, sessions,
    trusted_devices,
};
use tutord_core::{Result, Timestamp};

use super::Conn;

/// Removes at most `batch` messages of one deleted conversation, and the conversation with its last message.
pub(super) async fn purge_conversations(conn: &mut Conn, batch: i64) -> Result<usize> {
    let deleted: Option<i64> = conversations::table
        .filter(conversations::deleted_at.is_not_null())
        .order(conversations::id.asc())
        .select(conversations::id)
        .first(conn)
        .await
        .optional()?;
    let Some(id) = deleted else { return Ok(0) };
    let of_it = messages::table.filter(messages::conversation_id.eq(id));
    let oldest: Option<i64> =
        of_it.order(messages::position.asc()).select(messages::position).first(conn).await.optional()?;
    let removed = match oldest {
        Some(oldest) => {
            diesel::delete(of_it.filter(messages::position.lt(oldest.saturating_add(batch)))).execute(conn).await?
        }
        None => 0,
    };
    if i64::try_from(removed).unwrap_or(i64::MAX) < batch {
        // Another process may have taken the same batch, so that none was left for this one: the rest stays
        // for the next batch, and does not go all at once with its conversation.
        let emptied = conversations::table.find(id).filter(not(exists(of_it)));
        return Ok(removed + diesel::delete(emptied).execute(conn).await?);
    }
    Ok(removed)
}

/// The retention of given-up mails.
const FAILED_MAIL_LIFETIME: Duration = Duration::from_hours(30 * 24);

/// Removes sessions, tokens, given-up mails and idempotency keys that ended before `before`, about `batch` of each.
pub(super) async fn purge_expired(conn: &mut Conn, before: Timestamp, batch: i64) -> Result<usize> {
    /// Deletes the oldest rows up to the time of the `batch`-th. Works for keys of any form; rows of the same
    /// microsecond are deleted together.
    macro_rules! purge_oldest {
        ($table:ident, $column:ident, $before:expr) => {{
            let ended = $table::table.filter($table::$column.lt($before));
            let last: Option<Timestamp> = ended
                .order($table::$column.asc())
                .select($table::$column)
                .offset(batch - 1)
                .first(conn)
                .await
                .optional()?;
            match last {
                Some(last) => diesel::delete(ended.filter($table::$column.le(last))).execute(conn).await?,
                None => diesel::delete(ended).execute(conn).await?,
            }
        }};
    }
    let oldest_key = before - IDEMPOTENCY_KEY_LIFETIME;
    // A user has at most one of each kind.
    let failed_mails = mails::table.filter(mails::failed_at.lt(before - FAILED_MAIL_LIFETIME));
    Ok(purge_oldest!(session_tokens, expires_at, before)
        + purge_oldest!(sessions, expires_at, before)
        + purge_oldest!(email_tokens, expires_at, before)
        + purge_oldest!(trusted_devices, expires_at, before)
        + purge_oldest!(idempotency_keys, created_at, oldest_key)
        + purge_oldest!(exercise_requests, created_at, oldest_key)
        + diesel::delete(failed_mails).execute(conn).await?)
}
