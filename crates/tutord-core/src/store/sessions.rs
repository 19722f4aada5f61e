//! Sessions and trusted browsers.

use std::time::Duration;

use async_trait::async_trait;

use crate::error::Result;
use crate::model::{Identity, NewSessionTokens, Rotation, TokenHash};
use crate::time::Timestamp;

/// The maximum number of trusted browsers of a user.
pub const MAX_TRUSTED_DEVICES: i64 = 20;

/// Sessions. The store contains only the hashes of tokens.
#[async_trait]
pub trait Sessions: Send + Sync {
    /// Creates a session and records the log-in time, in 1 round trip.
    async fn create_session(&self, user_id: i64, tokens: NewSessionTokens) -> Result<i64>;

    /// Returns the owner of this access token, or `None` if the token is unknown or its session is revoked. An expired
    /// token is still returned until it is purged, so that the response can say so. `named` is the user that the token
    /// names, if it names one: a token that names another user than its owner is unknown. 1 statement.
    async fn identity(&self, access: &TokenHash, named: Option<i64>) -> Result<Option<Identity>>;

    /// Returns the user of the session of this refresh token, whether or not the token is accepted. 1 statement.
    async fn refresh_token_owner(&self, refresh: &TokenHash) -> Result<Option<i64>>;

    /// Exchanges a refresh token for `successors`, or revokes its session if the token is retired: superseded
    /// more than `grace` before `now`; see [`rules::refresh`](crate::rules::refresh). 2 round trips.
    async fn rotate_session(
        &self,
        refresh: &TokenHash,
        successors: NewSessionTokens,
        now: Timestamp,
        grace: Duration,
    ) -> Result<Rotation>;

    /// Revokes a session of a user. 1 statement.
    async fn revoke_session(&self, user_id: i64, session_id: i64) -> Result<()>;

    /// Revokes the session of this refresh token, used or not. Returns its user, unless the session had already ended.
    /// 1 statement.
    async fn revoke_session_of(&self, refresh: &TokenHash) -> Result<Option<i64>>;

    /// Revokes all sessions of a user. 1 statement.
    async fn revoke_sessions(&self, user_id: i64) -> Result<()>;

    /// Returns `true` if the browser with this device token is trusted for the user. 1 statement.
    async fn is_trusted_device(&self, user_id: i64, device: &TokenHash) -> Result<bool>;

    /// Trusts a browser until `expires_at`, and removes the user's oldest trusted browsers beyond
    /// [`MAX_TRUSTED_DEVICES`]. 2 statements in 1 round trip.
    async fn trust_device(&self, user_id: i64, device: &TokenHash, expires_at: Timestamp) -> Result<()>;
}
