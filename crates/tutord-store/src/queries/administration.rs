//! Ends transactions, tells which migrations are applied, and removes what is no longer needed.

use diesel::dsl::{exists, not};
use diesel::prelude::*;
use diesel::sql_types::Text;
use diesel_async::{AsyncConnection, RunQueryDsl, TransactionManager};

use super::Conn;
use crate::error::Result;
use crate::model::IDEMPOTENCY_KEY_LIFETIME;
use crate::model::time::Timestamp;
use crate::schema::{
    conversations, email_tokens, idempotency_keys, messages, session_tokens, sessions, trusted_devices,
};

/// Commits when the outcome is good, otherwise rolls back.
pub(super) async fn end_transaction<T>(conn: &mut Conn, outcome: Result<T>) -> Result<T> {
    type Manager = <Conn as AsyncConnection>::TransactionManager;
    match &outcome {
        Ok(_) => Manager::commit_transaction(conn).await?,
        Err(_) => Manager::rollback_transaction(conn).await?,
    }
    outcome
}

/// A row of the table in which diesel notes applied migrations.
#[derive(QueryableByName)]
struct Applied {
    #[diesel(sql_type = Text)]
    version: String,
}

/// Versions of the migrations that are applied.
pub(super) async fn applied(conn: &mut Conn) -> Result<Vec<String>> {
    let rows = diesel::sql_query("SELECT version FROM __diesel_schema_migrations").load::<Applied>(conn).await;
    match rows {
        Ok(rows) => Ok(rows.into_iter().map(|row| row.version).collect()),
        // No table, no migration was ever applied; asking must not create it. The databases' words differ.
        Err(diesel::result::Error::DatabaseError(_, info))
            if ["does not exist", "no such table"].iter().any(|words| info.message().contains(words)) =>
        {
            Ok(Vec::new())
        }
        Err(error) => Err(error.into()),
    }
}

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

/// Removes sessions, tokens and idempotency keys that ended before `before`, about `batch` of each.
pub(super) async fn purge_expired(conn: &mut Conn, before: Timestamp, batch: i64) -> Result<usize> {
    /// Deletes the oldest rows up to the time of the `batch`-th: keys of any shape will do, and rows of the
    /// same microsecond go together.
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
    Ok(purge_oldest!(session_tokens, expires_at, before)
        + purge_oldest!(sessions, expires_at, before)
        + purge_oldest!(email_tokens, expires_at, before)
        + purge_oldest!(trusted_devices, expires_at, before)
        + purge_oldest!(idempotency_keys, created_at, oldest_key))
}
