//! Single-use tokens sent by mail.

use async_trait::async_trait;
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use tutord_core::model::{Credentials, EmailTokenPurpose, NewEmailToken, TokenHash, User};
use tutord_core::schema::{email_tokens, sessions, trusted_devices, users};
use tutord_core::store::EmailTokens;
use tutord_core::{Result, Timestamp};

use super::rows::user_row;
use super::sessions::revoked_all;
use super::{Adapter, Conn};
use crate::cached_statement::CachedStatement;

#[async_trait]
impl EmailTokens for Adapter {
    async fn create_email_token(&self, token: NewEmailToken) -> Result<()> {
        self.transaction(async |conn| {
            if !token.keeps_earlier {
                diesel::update(
                    email_tokens::table
                        .filter(email_tokens::user_id.eq(token.user_id))
                        .filter(email_tokens::purpose.eq(token.purpose))
                        .filter(email_tokens::used_at.is_null()),
                )
                .set(email_tokens::used_at.eq(Timestamp::now()))
                .execute(conn)
                .await?;
            }
            diesel::insert_into(email_tokens::table)
                .values((
                    email_tokens::token_hash.eq(token.hash.as_slice()),
                    email_tokens::user_id.eq(token.user_id),
                    email_tokens::purpose.eq(token.purpose),
                    email_tokens::expires_at.eq(token.expires_at),
                ))
                .execute(conn)
                .await?;
            Ok(())
        })
        .await
    }

    async fn email_token_owner(&self, hash: &TokenHash, purpose: EmailTokenPurpose) -> Result<Option<Credentials>> {
        self.read(async |conn| {
            let found = email_tokens::table
                .inner_join(users::table)
                .filter(email_tokens::token_hash.eq(hash.as_slice()))
                .filter(email_tokens::purpose.eq(purpose))
                .filter(email_tokens::used_at.is_null())
                .filter(email_tokens::expires_at.gt(Timestamp::now()))
                .select((user_row(), users::password_hash))
                .first(conn)
                .await
                .optional()?;
            Ok(found.map(|(user, password_hash)| Credentials { user, password_hash }))
        })
        .await
    }

    async fn verify_email(&self, hash: &TokenHash) -> Result<Option<User>> {
        self.transaction(async |conn| {
            let Some(user_id) = spend(conn, hash, EmailTokenPurpose::VerifyEmail).await? else { return Ok(None) };
            let user = CachedStatement(
                diesel::update(users::table.find(user_id))
                    .set((users::email_verified.eq(true), users::updated_at.eq(Timestamp::now())))
                    .returning(user_row()),
            );
            Ok(committed!(conn, user.load::<User>).into_iter().next())
        })
        .await
    }

    async fn reset_password(&self, hash: &TokenHash, password_hash: &str) -> Result<Option<i64>> {
        self.transaction(async |conn| {
            let Some(user_id) = spend(conn, hash, EmailTokenPurpose::PasswordReset).await? else { return Ok(None) };
            let user = CachedStatement(
                diesel::update(users::table.find(user_id))
                    .set((users::password_hash.eq(password_hash), users::updated_at.eq(Timestamp::now()))),
            );
            let sessions = revoked_all!(user_id);
            let devices = diesel::delete(trusted_devices::table.filter(trusted_devices::user_id.eq(user_id)));
            committed!(conn, user.execute, sessions.execute, devices.execute);
            Ok(Some(user_id))
        })
        .await
    }
}

/// Marks a token as used and returns its owner, or `None` if the token is invalid.
async fn spend(conn: &mut Conn, hash: &TokenHash, purpose: EmailTokenPurpose) -> QueryResult<Option<i64>> {
    let now = Timestamp::now();
    CachedStatement(
        diesel::update(
            email_tokens::table
                .find(hash.as_slice())
                .filter(email_tokens::purpose.eq(purpose))
                .filter(email_tokens::used_at.is_null())
                .filter(email_tokens::expires_at.gt(now)),
        )
        .set(email_tokens::used_at.eq(now))
        .returning(email_tokens::user_id),
    )
    .get_result(conn)
    .await
    .optional()
}
