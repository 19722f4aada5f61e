//! Sessions and their tokens.

use std::time::Duration;

use async_trait::async_trait;
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use tutord_core::model::{Identity, NewSessionTokens, Rotation, SessionTokenPurpose, TokenHash};
use tutord_core::rules::refresh::{self, MAX_GENERATIONS, MAX_SIBLINGS, Verdict};
use tutord_core::schema::{session_tokens, sessions, trusted_devices, users};
use tutord_core::store::{MAX_TRUSTED_DEVICES, Sessions};
use tutord_core::{Result, Timestamp};

use super::{Adapter, Conn};
use crate::cached_statement::CachedStatement;

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
            insert_tokens(conn, session_id, 0, &tokens).await?;
            CachedStatement(diesel::update(users::table.find(user_id)).set(users::last_login.eq(now)))
                .execute(conn)
                .await?;
            Ok(session_id)
        })
        .await
    }

    async fn identity(&self, access: &TokenHash, named: Option<i64>) -> Result<Option<Identity>> {
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
            let found = found.filter(|(_, user_id, ..)| named.is_none_or(|named| named == *user_id));
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

    async fn refresh_token_owner(&self, refresh: &TokenHash) -> Result<Option<i64>> {
        self.read(async |conn| {
            let owner = session_tokens::table
                .inner_join(sessions::table)
                .filter(session_tokens::token_hash.eq(refresh.as_slice()))
                .filter(session_tokens::purpose.eq(SessionTokenPurpose::Refresh))
                .select(sessions::user_id)
                .first(conn)
                .await
                .optional()?;
            Ok(owner)
        })
        .await
    }

    async fn rotate_session(
        &self,
        refresh: &TokenHash,
        successors: NewSessionTokens,
        now: Timestamp,
        grace: Duration,
    ) -> Result<Rotation> {
        self.transaction(async |conn| {
            let Some(session) = lock_session(conn, refresh).await? else { return Ok(Rotation::Unknown) };
            // Read after the lock: a rotation that held it has changed the row.
            let token: Option<(Option<i64>, Option<Timestamp>)> = session_tokens::table
                .inner_join(sessions::table.inner_join(users::table))
                .filter(session_tokens::token_hash.eq(refresh.as_slice()))
                .filter(session_tokens::expires_at.gt(now))
                .filter(users::is_active)
                .select((session_tokens::generation, session_tokens::used_at))
                .first(conn)
                .await
                .optional()?;
            let Some((generation, used_at)) = token else { return Ok(Rotation::Unknown) };
            let generation = generation.unwrap_or_else(|| match used_at {
                None => session.used.saturating_add(1),
                Some(_) => i64::MIN,
            });
            let superseded_at = match used_at {
                None if generation <= session.used => first_use(conn, session.id, generation).await?,
                other => other,
            };
            let user_id = session.user_id;
            let used = match refresh::decide(generation, session.used, used_at.is_some(), superseded_at, now, grace) {
                Verdict::Retired => {
                    revoke(conn, session.id, now).await?;
                    return Ok(Rotation::Reused { user_id, session_id: session.id });
                }
                Verdict::First => {
                    forget_generations(conn, session.id, generation).await?;
                    generation
                }
                Verdict::Again => {
                    forget_siblings(conn, session.id, session.used.saturating_add(1)).await?;
                    session.used
                }
            };
            if used_at.is_none() {
                CachedStatement(
                    diesel::update(session_tokens::table.find(refresh.as_slice())).set(session_tokens::used_at.eq(now)),
                )
                .execute(conn)
                .await?;
            }
            let used_since = if used == session.used { session.used_at } else { Some(now) };
            CachedStatement(diesel::update(sessions::table.find(session.id)).set((
                sessions::used_generation.eq(used),
                sessions::generation_used_at.eq(used_since),
                sessions::expires_at.eq(successors.refresh_expires_at),
            )))
            .execute(conn)
            .await?;
            insert_tokens(conn, session.id, used.saturating_add(1), &successors).await?;
            Ok(Rotation::Rotated { user_id })
        })
        .await
    }

    async fn revoke_session(&self, user_id: i64, session_id: i64) -> Result<()> {
        self.write(async |conn| {
            CachedStatement(
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
            let user = CachedStatement(
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

    async fn is_trusted_device(&self, user_id: i64, device: &TokenHash) -> Result<bool> {
        self.read(async |conn| {
            let found: Option<i64> = trusted_devices::table
                .find((user_id, device.as_slice()))
                .filter(trusted_devices::expires_at.gt(Timestamp::now()))
                .select(trusted_devices::user_id)
                .first(conn)
                .await
                .optional()?;
            Ok(found.is_some())
        })
        .await
    }

    async fn trust_device(&self, user_id: i64, device: &TokenHash, expires_at: Timestamp) -> Result<()> {
        self.write(async |conn| {
            CachedStatement(
                diesel::insert_into(trusted_devices::table)
                    .values((
                        trusted_devices::user_id.eq(user_id),
                        trusted_devices::token_hash.eq(device.as_slice()),
                        trusted_devices::expires_at.eq(expires_at),
                    ))
                    .on_conflict((trusted_devices::user_id, trusted_devices::token_hash))
                    .do_update()
                    .set(trusted_devices::expires_at.eq(expires_at)),
            )
            .execute(conn)
            .await?;
            let of_user = trusted_devices::table.filter(trusted_devices::user_id.eq(user_id));
            let surplus: Option<Timestamp> = of_user
                .order(trusted_devices::expires_at.desc())
                .offset(MAX_TRUSTED_DEVICES)
                .select(trusted_devices::expires_at)
                .first(conn)
                .await
                .optional()?;
            if let Some(oldest) = surplus {
                diesel::delete(of_user.filter(trusted_devices::expires_at.le(oldest))).execute(conn).await?;
            }
            Ok(())
        })
        .await
    }
}

/// A session whose row is locked.
struct LockedSession {
    id: i64,
    user_id: i64,
    /// The newest generation of which a token was used.
    used: i64,
    /// The time of the first use of a token of this generation.
    used_at: Option<Timestamp>,
}

/// Locks the session of a refresh token until the transaction ends, because the token that is used first decides about
/// the others.
async fn lock_session(conn: &mut Conn, refresh: &TokenHash) -> Result<Option<LockedSession>> {
    let session = session_tokens::table
        .filter(session_tokens::token_hash.eq(refresh.as_slice()))
        .filter(session_tokens::purpose.eq(SessionTokenPurpose::Refresh))
        .select(session_tokens::session_id);
    let query = sessions::table.filter(sessions::id.eq_any(session)).filter(sessions::revoked_at.is_null()).select((
        sessions::id,
        sessions::user_id,
        sessions::used_generation,
        sessions::generation_used_at,
    ));
    let found: Option<(i64, i64, i64, Option<Timestamp>)> = for_update!(query).get_result(conn).await.optional()?;
    Ok(found.map(|(id, user_id, used, used_at)| LockedSession { id, user_id, used, used_at }))
}

/// Returns the time of the first use of a token of a generation.
async fn first_use(conn: &mut Conn, session_id: i64, generation: i64) -> Result<Option<Timestamp>> {
    let first = session_tokens::table
        .filter(session_tokens::session_id.eq(session_id))
        .filter(session_tokens::generation.eq(generation))
        .filter(session_tokens::used_at.is_not_null())
        .order(session_tokens::used_at.asc())
        .select(session_tokens::used_at)
        .first(conn)
        .await
        .optional()?;
    Ok(first.flatten())
}

/// Removes the refresh tokens of generations long before `generation`.
async fn forget_generations(conn: &mut Conn, session_id: i64, generation: i64) -> Result<()> {
    if generation <= MAX_GENERATIONS {
        return Ok(());
    }
    let old = session_tokens::table
        .filter(session_tokens::session_id.eq(session_id))
        .filter(session_tokens::generation.lt(generation - MAX_GENERATIONS))
        .filter(session_tokens::purpose.eq(SessionTokenPurpose::Refresh));
    diesel::delete(old).execute(conn).await?;
    Ok(())
}

/// Removes the oldest unused refresh token of a full generation, so that a new one makes [`MAX_SIBLINGS`].
async fn forget_siblings(conn: &mut Conn, session_id: i64, generation: i64) -> Result<()> {
    let siblings = session_tokens::table
        .filter(session_tokens::session_id.eq(session_id))
        .filter(session_tokens::generation.eq(generation))
        .filter(session_tokens::purpose.eq(SessionTokenPurpose::Refresh))
        .filter(session_tokens::used_at.is_null());
    let surplus: Option<Vec<u8>> = siblings
        .order((session_tokens::expires_at.desc(), session_tokens::token_hash.asc()))
        .offset(MAX_SIBLINGS - 1)
        .select(session_tokens::token_hash)
        .first(conn)
        .await
        .optional()?;
    if let Some(hash) = surplus {
        diesel::delete(session_tokens::table.find(hash)).execute(conn).await?;
    }
    Ok(())
}

async fn revoke(conn: &mut Conn, session_id: i64, now: Timestamp) -> Result<()> {
    CachedStatement(diesel::update(sessions::table.find(session_id)).set(sessions::revoked_at.eq(now)))
        .execute(conn)
        .await?;
    Ok(())
}

async fn insert_tokens(conn: &mut Conn, session_id: i64, generation: i64, tokens: &NewSessionTokens) -> Result<()> {
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
                session_tokens::generation.eq(generation),
            ))
            .execute(conn)
            .await?;
    }
    Ok(())
}

/// Revokes all sessions of a user.
pub(super) async fn revoke_all(conn: &mut Conn, user_id: i64) -> QueryResult<()> {
    CachedStatement(
        diesel::update(sessions::table.filter(sessions::user_id.eq(user_id)))
            .filter(sessions::revoked_at.is_null())
            .set(sessions::revoked_at.eq(Timestamp::now())),
    )
    .execute(conn)
    .await?;
    Ok(())
}
