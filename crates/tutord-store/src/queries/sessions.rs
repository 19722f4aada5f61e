//! Log-ins and their tokens.

use async_trait::async_trait;
use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::{Adapter, Conn};
use crate::error::Result;
use crate::model::time::Timestamp;
use crate::model::{Identity, NewSessionTokens, Rotation, SessionTokenPurpose, TokenHash};
use crate::prepared::Prepared;
use crate::schema::{session_tokens, sessions, users};
use crate::store::Sessions;

#[async_trait]
impl Sessions for Adapter {
    async fn create_session(&self, user_id: i64, tokens: NewSessionTokens) -> Result<i64> {
        self.transaction(async |conn| {
            let now = Timestamp::now();
            let session_id = diesel::insert_into(sessions::table)
                .values((
                    sessions::user_id.eq(user_id),
                    sessions::created_at.eq(now),
                    sessions::expires_at.eq(tokens.refresh_expires_at),
                ))
                .returning(sessions::id)
                .get_result(conn)
                .await?;
            insert_tokens(conn, session_id, &tokens).await?;
            Prepared(diesel::update(users::table.find(user_id)).set(users::last_login.eq(now))).execute(conn).await?;
            Ok(session_id)
        })
        .await
    }

    async fn identity(&self, access: &TokenHash) -> Result<Option<Identity>> {
        self.read(async |conn| {
            let found: Option<(i64, i64, _, bool, bool, Timestamp)> = session_tokens::table
                .inner_join(sessions::table.inner_join(users::table))
                .filter(session_tokens::token_hash.eq(access.as_slice()))
                .filter(session_tokens::purpose.eq(SessionTokenPurpose::Access))
                .filter(sessions::revoked_at.is_null())
                .select((
                    sessions::id,
                    users::id,
                    users::role,
                    users::email_verified,
                    users::is_active,
                    session_tokens::expires_at,
                ))
                .first(conn)
                .await
                .optional()?;
            Ok(found.map(|(session_id, user_id, role, email_verified, is_active, expires_at)| Identity {
                session_id,
                user_id,
                role,
                email_verified,
                is_active,
                expires_at,
            }))
        })
        .await
    }

    async fn rotate_session(&self, refresh: &TokenHash, successors: NewSessionTokens) -> Result<Rotation> {
        self.transaction(async |conn| {
            let now = Timestamp::now();
            // The update is the decision: of two concurrent refreshes with one token, one changes the row.
            let spent: Option<i64> = Prepared(
                diesel::update(
                    session_tokens::table
                        .find(refresh.as_slice())
                        .filter(session_tokens::purpose.eq(SessionTokenPurpose::Refresh))
                        .filter(session_tokens::used_at.is_null())
                        .filter(session_tokens::expires_at.gt(now)),
                )
                .set(session_tokens::used_at.eq(now))
                .returning(session_tokens::session_id),
            )
            .get_result(conn)
            .await
            .optional()?;
            match spent {
                Some(session_id) => succeed(conn, session_id, &successors).await,
                None => detect_reuse(conn, refresh, now).await,
            }
        })
        .await
    }

    async fn revoke_session(&self, user_id: i64, session_id: i64) -> Result<()> {
        self.write(async |conn| {
            Prepared(
                diesel::update(sessions::table.find(session_id).filter(sessions::user_id.eq(user_id)))
                    .filter(sessions::revoked_at.is_null())
                    .set(sessions::revoked_at.eq(Timestamp::now())),
            )
            .execute(conn)
            .await?;
            Ok(())
        })
        .await
    }

    async fn revoke_session_of(&self, refresh: &TokenHash) -> Result<Option<i64>> {
        self.write(async |conn| {
            let session = session_tokens::table
                .find(refresh.as_slice())
                .filter(session_tokens::purpose.eq(SessionTokenPurpose::Refresh))
                .select(session_tokens::session_id);
            let user = Prepared(
                diesel::update(sessions::table.filter(sessions::id.eq_any(session)))
                    .filter(sessions::revoked_at.is_null())
                    .set(sessions::revoked_at.eq(Timestamp::now()))
                    .returning(sessions::user_id),
            )
            .get_result(conn)
            .await
            .optional()?;
            Ok(user)
        })
        .await
    }

    async fn revoke_sessions(&self, user_id: i64) -> Result<()> {
        self.write(async |conn| Ok(revoke_all(conn, user_id).await?)).await
    }
}

/// Stores the successors of a refresh token that was just spent.
async fn succeed(conn: &mut Conn, session_id: i64, successors: &NewSessionTokens) -> Result<Rotation> {
    let user_id: Option<i64> = sessions::table
        .inner_join(users::table)
        .filter(sessions::id.eq(session_id))
        .filter(sessions::revoked_at.is_null())
        .filter(users::is_active)
        .select(users::id)
        .first(conn)
        .await
        .optional()?;
    let Some(user_id) = user_id else { return Ok(Rotation::Unknown) };
    insert_tokens(conn, session_id, successors).await?;
    Prepared(
        diesel::update(sessions::table.find(session_id)).set(sessions::expires_at.eq(successors.refresh_expires_at)),
    )
    .execute(conn)
    .await?;
    Ok(Rotation::Rotated { user_id })
}

/// A refresh token that can't be spent: when it was spent before, its session is revoked.
async fn detect_reuse(conn: &mut Conn, refresh: &TokenHash, now: Timestamp) -> Result<Rotation> {
    let reused: Option<(i64, i64)> = session_tokens::table
        .inner_join(sessions::table)
        .filter(session_tokens::token_hash.eq(refresh.as_slice()))
        .filter(session_tokens::purpose.eq(SessionTokenPurpose::Refresh))
        .filter(session_tokens::used_at.is_not_null())
        .filter(sessions::revoked_at.is_null())
        .select((sessions::user_id, sessions::id))
        .first(conn)
        .await
        .optional()?;
    let Some((user_id, session_id)) = reused else { return Ok(Rotation::Unknown) };
    Prepared(diesel::update(sessions::table.find(session_id)).set(sessions::revoked_at.eq(now))).execute(conn).await?;
    Ok(Rotation::Reused { user_id, session_id })
}

async fn insert_tokens(conn: &mut Conn, session_id: i64, tokens: &NewSessionTokens) -> Result<()> {
    for (hash, purpose, expires_at) in [
        (&tokens.access, SessionTokenPurpose::Access, tokens.access_expires_at),
        (&tokens.refresh, SessionTokenPurpose::Refresh, tokens.refresh_expires_at),
    ] {
        diesel::insert_into(session_tokens::table)
            .values((
                session_tokens::token_hash.eq(hash.as_slice()),
                session_tokens::session_id.eq(session_id),
                session_tokens::purpose.eq(purpose),
                session_tokens::expires_at.eq(expires_at),
            ))
            .execute(conn)
            .await?;
    }
    Ok(())
}

/// Revokes every session of a user.
pub(super) async fn revoke_all(conn: &mut Conn, user_id: i64) -> QueryResult<()> {
    Prepared(
        diesel::update(sessions::table.filter(sessions::user_id.eq(user_id)))
            .filter(sessions::revoked_at.is_null())
            .set(sessions::revoked_at.eq(Timestamp::now())),
    )
    .execute(conn)
    .await?;
    Ok(())
}
