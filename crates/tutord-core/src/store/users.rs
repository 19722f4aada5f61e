//! Accounts and profiles.

use async_trait::async_trait;

use super::Loaded;
use crate::error::Result;
use crate::model::{Credentials, LearningProfile, NewUser, User, UserChanges};

/// Accounts and profiles.
#[async_trait]
pub trait Users: Send + Sync {
    /// Creates a user. Returns [`Error::Conflict`](crate::Error::Conflict) if the address is already registered in any
    /// of its [forms](crate::rules::address).
    async fn create_user(&self, new: NewUser) -> Result<User>;

    /// Returns the user with this id. 1 statement.
    async fn user(&self, id: i64) -> Result<Option<Loaded<User>>>;

    /// Returns the user with this id if a cache without a first tier holds the user in its second tier. Issues no
    /// statements.
    async fn prefetched_user(&self, _id: i64) -> Option<Loaded<User>> {
        None
    }

    /// Returns the user with this address, in any of its [forms](crate::rules::address), and the password hash. 1
    /// statement.
    async fn credentials(&self, email: &str) -> Result<Option<Credentials>>;

    /// Replaces a password hash if it still equals `old`. 1 statement.
    async fn replace_password_hash(&self, id: i64, old: &str, new: &str) -> Result<()>;

    /// Returns the ids of users whose address equals an earlier user's address in the current compared form. 1
    /// statement.
    async fn address_collisions(&self, limit: i64) -> Result<Vec<i64>>;

    /// Updates the given fields. Returns `None` if the user does not exist. 1 statement.
    async fn update_user(&self, id: i64, changes: UserChanges) -> Result<Option<User>>;

    /// Stores the learning fields of a user. Returns `None` if the onboarding is already completed. 1 statement.
    async fn complete_onboarding(&self, id: i64, profile: LearningProfile) -> Result<Option<User>>;
}
