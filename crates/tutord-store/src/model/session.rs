//! Log-ins and the tokens that prove them.

use super::{EmailTokenPurpose, Role};
use crate::model::time::Timestamp;

/// SHA-256 of a random token: what the store keeps in place of the token.
pub type TokenHash = [u8; 32];

/// Who makes a request, by the access token presented.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The session that the token belongs to.
    pub session_id: i64,
    /// The user of that session.
    pub user_id: i64,
    /// What the user may do.
    pub role: Role,
    /// Whether the user's address is verified.
    pub email_verified: bool,
    /// Whether the user may use the service at all.
    pub is_active: bool,
    /// When the token stops being accepted.
    pub expires_at: Timestamp,
}

/// The two tokens that a log-in or a refresh hands out, hashed.
#[derive(Debug, Clone)]
pub struct NewSessionTokens {
    /// Hash of the access token.
    pub access: TokenHash,
    /// When the access token expires.
    pub access_expires_at: Timestamp,
    /// Hash of the refresh token.
    pub refresh: TokenHash,
    /// When the refresh token, and with it the session, expires.
    pub refresh_expires_at: Timestamp,
}

/// What became of an attempt to rotate a refresh token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rotation {
    /// The new tokens are valid.
    Rotated {
        /// The user of the session.
        user_id: i64,
    },
    /// The token was retired: two clients hold tokens of the session. The session is revoked.
    Reused {
        /// The user of the session.
        user_id: i64,
        /// The session that was revoked.
        session_id: i64,
    },
    /// No such token, or it expired, or its session was revoked, or its user is inactive.
    Unknown,
}

/// A token that goes out by mail, hashed.
#[derive(Debug, Clone)]
pub struct NewEmailToken {
    /// Whose it is.
    pub user_id: i64,
    /// What it is good for.
    pub purpose: EmailTokenPurpose,
    /// Hash of the token.
    pub hash: TokenHash,
    /// When it stops being accepted.
    pub expires_at: Timestamp,
    /// Whether earlier tokens of the same user and purpose stay good.
    pub keeps_earlier: bool,
}
