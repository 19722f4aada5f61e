//! Single-use tokens sent by mail.

use async_trait::async_trait;

use crate::error::Result;
use crate::model::{Credentials, EmailTokenPurpose, NewEmailToken, TokenHash, User};

/// Single-use tokens sent by mail.
#[async_trait]
pub trait EmailTokens: Send + Sync {
    /// Stores a token. Invalidates earlier ones of the same user and purpose, unless it
    /// [keeps](NewEmailToken::keeps_earlier) them.
    async fn create_email_token(&self, token: NewEmailToken) -> Result<()>;

    /// Returns the owner of an unused and unexpired token. 1 statement.
    async fn email_token_owner(&self, hash: &TokenHash, purpose: EmailTokenPurpose) -> Result<Option<Credentials>>;

    /// Uses a verification token and marks its owner's address as verified. Returns `None` if the token is invalid.
    async fn verify_email(&self, hash: &TokenHash) -> Result<Option<User>>;

    /// Uses a reset token, stores the new password hash, and revokes all sessions and trusted browsers. Returns `None`
    /// if the token is invalid.
    async fn reset_password(&self, hash: &TokenHash, password_hash: &str) -> Result<Option<i64>>;
}
