//! Removes, in bounded batches, what is no longer needed.

use diesel::dsl::{exists, not};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::Conn;
use crate::error::Result;
use crate::model::IDEMPOTENCY_KEY_LIFETIME;
use crate::model::time::Timestamp;
use crate::schema::{conversations, email_tokens, idempotency_keys, messages, session_tokens, sessions};

/// Removes at most `batch` messages of one deleted conversation, and the conversation with its last message.
pub(super) async fn conversations(conn: &mut Conn, batch: i64) -> Result<usize> {
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

/// Removes sessions, tokens and idempotency keys that ended before `before`.
pub(super) async fn expired(conn: &mut Conn, before: Timestamp) -> Result<usize> {
    let mut removed = 0;
    removed +=
        diesel::delete(session_tokens::table.filter(session_tokens::expires_at.lt(before))).execute(conn).await?;
    removed += diesel::delete(sessions::table.filter(sessions::expires_at.lt(before))).execute(conn).await?;
    removed += diesel::delete(email_tokens::table.filter(email_tokens::expires_at.lt(before))).execute(conn).await?;
    let oldest_key = before - IDEMPOTENCY_KEY_LIFETIME;
    removed += diesel::delete(idempotency_keys::table.filter(idempotency_keys::created_at.lt(oldest_key)))
        .execute(conn)
        .await?;
    Ok(removed)
}
