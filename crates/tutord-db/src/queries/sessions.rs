//! Sessions and their tokens.

use std::time::Duration;

use async_trait::async_trait;
use diesel::alias;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Text};
use diesel_async::RunQueryDsl;
use tutord_core::model::{Identity, NewSessionTokens, Rotation, SessionTokenPurpose, TokenHash};
use tutord_core::rules::refresh::{self, MAX_GENERATIONS, MAX_SIBLINGS, Verdict};
use tutord_core::schema::{session_tokens, sessions, trusted_devices, users};
use tutord_core::store::{MAX_TRUSTED_DEVICES, Sessions};
use tutord_core::{Result, Timestamp};

use super::Adapter;
use crate::cached_statement::{CachedStatement, Optional};

/// Revokes all sessions of a user.
macro_rules! revoked_all {
    ($user_id:expr) => {
        CachedStatement(
            diesel::update(sessions::table.filter(sessions::user_id.eq($user_id)))
                .filter(sessions::revoked_at.is_null())
                .set(sessions::revoked_at.eq(Timestamp::now())),
        )
    };
}

pub(super) use revoked_all;

/// Locks the session of a refresh token until the transaction ends, because the token that is used first decides about
/// the others.
macro_rules! locked_session {
    ($refresh:expr) => {{
        let session = session_tokens::table
            .filter(session_tokens::token_hash.eq($refresh.as_slice()))
            .filter(session_tokens::purpose.eq(SessionTokenPurpose::Refresh))
            .select(session_tokens::session_id);
        let query = sessions::table
            .filter(sessions::id.eq_any(session))
            .filter(sessions::revoked_at.is_null())
            .select((sessions::id, sessions::user_id, sessions::used_generation, sessions::generation_used_at));
        for_update!(query)
    }};
}

/// Selects the time of the first use of a token of the generation of a refresh token.
macro_rules! first_use {
    ($refresh:expr) => {{
        let (this, its) = alias!(session_tokens as this, session_tokens as its);
        let session = this
            .filter(this.field(session_tokens::token_hash).eq($refresh.as_slice()))
            .select(this.field(session_tokens::session_id));
        let generation = its
            .filter(its.field(session_tokens::token_hash).eq($refresh.as_slice()))
            .select(its.field(session_tokens::generation));
        session_tokens::table
            .filter(session_tokens::session_id.nullable().eq(session.single_value()))
            .filter(session_tokens::generation.eq(generation.single_value()))
            .filter(session_tokens::used_at.is_not_null())
            .order(session_tokens::used_at.asc())
            .select(session_tokens::used_at)
            .limit(1)
    }};
}

/// Removes the refresh tokens of generations long before `generation`.
macro_rules! old_generations {
    ($session_id:expr, $generation:expr) => {
        diesel::delete(
            session_tokens::table
                .filter(session_tokens::session_id.eq($session_id))
                .filter(session_tokens::generation.lt($generation - MAX_GENERATIONS))
                .filter(session_tokens::purpose.eq(SessionTokenPurpose::Refresh)),
        )
    };
}

/// Inserts a token of a session.
macro_rules! new_token {
    ($session_id:expr, $generation:expr, $hash:expr, $purpose:expr, $expires_at:expr) => {
        CachedStatement(diesel::insert_into(session_tokens::table).values((
            session_tokens::token_hash.eq($hash.as_slice()),
            session_tokens::session_id.eq($session_id),
            session_tokens::purpose.eq($purpose),
            session_tokens::expires_at.eq($expires_at),
            session_tokens::generation.eq($generation),
        )))
    };
}

/// Inserts the access token of a session.
macro_rules! access_token {
    ($session_id:expr, $generation:expr, $tokens:expr) => {
        new_token!($session_id, $generation, $tokens.access, SessionTokenPurpose::Access, $tokens.access_expires_at)
    };
}

/// Inserts the refresh token of a session.
macro_rules! refresh_token {
    ($session_id:expr, $generation:expr, $tokens:expr) => {
        new_token!($session_id, $generation, $tokens.refresh, SessionTokenPurpose::Refresh, $tokens.refresh_expires_at)
    };
}

#[async_trait]
impl Sessions for Adapter {
    async fn create_session(&self, user_id: i64, tokens: NewSessionTokens) -> Result<i64> {
        self.transaction(async |conn| {
            let now = Timestamp::now();
            let session = diesel::insert_into(sessions::table)
                .values((
                    sessions::user_id.eq(user_id),
                    sessions::created_at.eq(now),
                    sessions::expires_at.eq(tokens.refresh_expires_at),
                ))
                .returning(sessions::id);
            let access = access_token!(last_id!("sessions"), 0, tokens);
            let refresh = refresh_token!(last_id!("sessions"), 0, tokens);
            let user = CachedStatement(diesel::update(users::table.find(user_id)).set(users::last_login.eq(now)));
            let (session, ..) = committed!(conn, session.load::<i64>, access.execute, refresh.execute, user.execute);
            Ok(session.into_iter().next().ok_or(diesel::result::Error::NotFound)?)
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
            // All but the first are read after the lock: a rotation that held it has changed the rows.
            let session = locked_session!(refresh);
            let token = session_tokens::table
                .inner_join(sessions::table.inner_join(users::table))
                .filter(session_tokens::token_hash.eq(refresh.as_slice()))
                .filter(session_tokens::expires_at.gt(now))
                .filter(users::is_active)
                .select((session_tokens::generation, session_tokens::used_at));
            let first_use = first_use!(refresh);
            let (session, token, first_use) = pipelined!(
                conn,
                session.load::<LockedSession>,
                token.load::<(Option<i64>, Option<Timestamp>)>,
                first_use.load::<Option<Timestamp>>,
            );
            let Some((session, (generation, used_at))) = session.into_iter().zip(token).next() else {
                return Ok(Rotation::Unknown);
            };
            let generation = generation.unwrap_or_else(|| match used_at {
                None => session.used.saturating_add(1),
                Some(_) => i64::MIN,
            });
            let superseded_at = match used_at {
                None if generation <= session.used => first_use.into_iter().next().flatten(),
                other => other,
            };
            let user_id = session.user_id;
            let verdict = refresh::decide(generation, session.used, used_at.is_some(), superseded_at, now, grace);
            let used = match verdict {
                Verdict::Retired => {
                    let revoked = CachedStatement(
                        diesel::update(sessions::table.find(session.id)).set(sessions::revoked_at.eq(now)),
                    );
                    committed!(conn, revoked.execute);
                    return Ok(Rotation::Reused { user_id, session_id: session.id });
                }
                Verdict::First => generation,
                Verdict::Again => session.used,
            };
            let next = used.saturating_add(1);
            let is_first = verdict == Verdict::First;
            let forgets_generations = is_first && generation > MAX_GENERATIONS;
            let generations = Optional(forgets_generations.then(|| old_generations!(session.id, generation)));
            let sibling = Optional((!is_first).then(|| {
                CachedStatement(
                    diesel::sql_query(FORGET_SIBLING)
                        .bind::<BigInt, _>(session.id)
                        .bind::<BigInt, _>(next)
                        .bind::<Text, _>(SessionTokenPurpose::Refresh)
                        .bind::<BigInt, _>(MAX_SIBLINGS - 1),
                )
            }));
            let used_token = Optional(used_at.is_none().then(|| {
                let token = session_tokens::table.find(refresh.as_slice());
                CachedStatement(diesel::update(token).set(session_tokens::used_at.eq(now)))
            }));
            let used_since = if used == session.used { session.used_at } else { Some(now) };
            let changed = CachedStatement(diesel::update(sessions::table.find(session.id)).set((
                sessions::used_generation.eq(used),
                sessions::generation_used_at.eq(used_since),
                sessions::expires_at.eq(successors.refresh_expires_at),
            )));
            let access = access_token!(session.id, next, successors);
            let refreshed = refresh_token!(session.id, next, successors);
            committed!(
                conn,
                generations.execute,
                sibling.execute,
                used_token.execute,
                changed.execute,
                access.execute,
                refreshed.execute,
            );
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
        self.write(async |conn| Ok(revoked_all!(user_id).execute(conn).await.map(drop)?)).await
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
            let trusted = CachedStatement(
                diesel::insert_into(trusted_devices::table)
                    .values((
                        trusted_devices::user_id.eq(user_id),
                        trusted_devices::token_hash.eq(device.as_slice()),
                        trusted_devices::expires_at.eq(expires_at),
                    ))
                    .on_conflict((trusted_devices::user_id, trusted_devices::token_hash))
                    .do_update()
                    .set(trusted_devices::expires_at.eq(expires_at)),
            );
            let surplus = CachedStatement(
                diesel::sql_query(FORGET_DEVICES).bind::<BigInt, _>(user_id).bind::<BigInt, _>(MAX_TRUSTED_DEVICES),
            );
            pipelined!(conn, trusted.execute, surplus.execute);
            Ok(())
        })
        .await
    }
}

/// Removes the oldest trusted browsers of a user beyond a number of them.
const FORGET_DEVICES: &str = "DELETE FROM trusted_devices WHERE user_id = $1 AND expires_at <= \
     (SELECT expires_at FROM trusted_devices WHERE user_id = $1 ORDER BY expires_at DESC LIMIT 1 OFFSET $2)";

/// Removes the oldest unused refresh token of a full generation, so that a new one makes [`MAX_SIBLINGS`].
const FORGET_SIBLING: &str = "DELETE FROM session_tokens WHERE token_hash = \
     (SELECT token_hash FROM session_tokens WHERE session_id = $1 AND generation = $2 AND purpose = $3 \
     AND used_at IS NULL ORDER BY expires_at DESC, token_hash LIMIT 1 OFFSET $4)";

/// A session whose row is locked.
#[derive(Queryable)]
struct LockedSession {
    id: i64,
    user_id: i64,
    /// The newest generation of which a token was used.
    used: i64,
    /// The time of the first use of a token of this generation.
    used_at: Option<Timestamp>,
}
