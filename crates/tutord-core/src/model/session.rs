//! Sessions and their tokens.

use serde::{Deserialize, Serialize};

use super::{EmailTokenPurpose, Role};
use crate::time::Timestamp;

/// The SHA-256 of a random token, which the store keeps instead of the token.
pub type TokenHash = [u8; 32];

/// The authenticated user of an access token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The session of the token.
    pub session_id: i64,
    /// The user of that session.
    pub user_id: i64,
    /// The role of the user.
    pub role: Role,
    /// Set if the user's e-mail address is verified.
    pub email_verified: bool,
    /// Set if the account is active.
    pub is_active: bool,
    /// The expiry of the token.
    pub expires_at: Timestamp,
}

/// The hashed tokens of a log-in or a refresh.
#[derive(Debug, Clone)]
pub struct NewSessionTokens {
    /// Hash of the access token.
    pub access: TokenHash,
    /// The expiry of the access token.
    pub access_expires_at: Timestamp,
    /// Hash of the refresh token.
    pub refresh: TokenHash,
    /// The expiry of the refresh token and the session.
    pub refresh_expires_at: Timestamp,
}

/// The result of the rotation of a refresh token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rotation {
    /// The new tokens are valid.
    Rotated {
        /// The user of the session.
        user_id: i64,
    },
    /// The token was retired, so two clients hold tokens of the session. The session is revoked.
    Reused {
        /// The user of the session.
        user_id: i64,
        /// The session that was revoked.
        session_id: i64,
    },
    /// The token is unknown or expired, its session is revoked, or its user is inactive.
    Unknown,
}

/// A hashed token that is sent by mail.
#[derive(Debug, Clone)]
pub struct NewEmailToken {
    /// The user.
    pub user_id: i64,
    /// The purpose.
    pub purpose: EmailTokenPurpose,
    /// Hash of the token.
    pub hash: TokenHash,
    /// The expiry of the token.
    pub expires_at: Timestamp,
    /// Set if earlier tokens of the same user and purpose stay valid.
    pub keeps_earlier: bool,
}
