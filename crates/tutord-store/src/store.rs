//! The [`Store`] trait: all that tutord asks of its database, one sub-trait an aggregate.
//!
//! Reads and writes that concern one student take the student's id and check the owner in the query
//! itself; what belongs to somebody else is answered like what does not exist.

use async_trait::async_trait;

use crate::error::Result;
use crate::model::time::Timestamp;
use crate::model::{
    Appended, Conversation, ConversationPage, Credentials, EmailTokenPurpose, Identity, LearningProfile, Message,
    NewConversation, NewEmailToken, NewReply, NewSessionTokens, NewUser, NewUserMessage, Order, Rotation,
    StoredExchange, TokenHash, User, UserChanges,
};
use crate::page::{Page, PageRequest};
use crate::seed::SeedPlan;

/// All aggregates together.
pub trait Store: Users + Sessions + EmailTokens + Conversations + Administration {}
impl<T: Users + Sessions + EmailTokens + Conversations + Administration> Store for T {}

/// Accounts and profiles.
#[async_trait]
pub trait Users: Send + Sync {
    /// Creates a user. [`Error::Conflict`](crate::Error::Conflict) when the address is taken, whatever its case.
    async fn create_user(&self, new: NewUser) -> Result<User>;

    /// The user with this id. 1 statement.
    async fn user(&self, id: i64) -> Result<Option<User>>;

    /// The user with this address, whatever its case, and the password hash. 1 statement.
    async fn credentials(&self, email: &str) -> Result<Option<Credentials>>;

    /// Changes the given fields; `None` when there is no such user. 1 statement.
    async fn update_user(&self, id: i64, changes: UserChanges) -> Result<Option<User>>;

    /// Stores the learning fields of a user who has not completed the onboarding; `None` when it was completed before. 1 statement.
    async fn complete_onboarding(&self, id: i64, profile: LearningProfile) -> Result<Option<User>>;
}

/// Log-ins. Tokens are known to the store by their hashes alone.
#[async_trait]
pub trait Sessions: Send + Sync {
    /// Begins a session and notes the log-in time.
    async fn create_session(&self, user_id: i64, tokens: NewSessionTokens) -> Result<i64>;

    /// Who presents this access token; `None` when it is unknown or its session was revoked. An
    /// expired one is still reported until it is purged, so that the answer can say so. 1 statement.
    async fn identity(&self, access: &TokenHash) -> Result<Option<Identity>>;

    /// Spends a refresh token and stores its successors, or detects that it was spent before.
    async fn rotate_session(&self, refresh: &TokenHash, successors: NewSessionTokens) -> Result<Rotation>;

    /// Revokes one session. 1 statement.
    async fn revoke_session(&self, session_id: i64) -> Result<()>;

    /// Revokes the session that this refresh token belongs to, spent or not. 1 statement.
    async fn revoke_session_of(&self, refresh: &TokenHash) -> Result<()>;

    /// Revokes every session of a user. 1 statement.
    async fn revoke_sessions(&self, user_id: i64) -> Result<()>;
}

/// Single-use tokens that go out by mail.
#[async_trait]
pub trait EmailTokens: Send + Sync {
    /// Stores a token and makes the user's earlier ones of the same purpose unusable.
    async fn create_email_token(&self, token: NewEmailToken) -> Result<()>;

    /// The owner of a token that is unused and unexpired. 1 statement.
    async fn email_token_owner(&self, hash: &TokenHash, purpose: EmailTokenPurpose) -> Result<Option<Credentials>>;

    /// Spends a verification token and marks its owner's address as verified; `None` when the token is not good.
    async fn verify_email(&self, hash: &TokenHash) -> Result<Option<User>>;

    /// Spends a reset token, stores the new password hash and revokes all sessions; `None` when the token is not good.
    async fn reset_password(&self, hash: &TokenHash, password_hash: &str) -> Result<Option<i64>>;
}

/// Conversations and messages.
#[async_trait]
pub trait Conversations: Send + Sync {
    /// A page of a student's conversations, newest activity first, ties by id. 2 statements in 1 round trip, no message is read.
    async fn list_conversations(&self, user_id: i64, page: &PageRequest) -> Result<Page<Conversation>>;

    /// A conversation and a page of its messages. 2 statements in 1 round trip; the cost does not grow with the page's depth.
    async fn conversation_page(
        &self,
        user_id: i64,
        id: i64,
        order: Order,
        page: &PageRequest,
    ) -> Result<Option<ConversationPage>>;

    /// Begins a conversation; `None` when its exercise does not exist for this student. 1 statement, 2 with an exercise.
    async fn create_conversation(&self, new: NewConversation) -> Result<Option<Conversation>>;

    /// Renames a conversation. 1 statement.
    async fn rename_conversation(&self, user_id: i64, id: i64, title: &str) -> Result<Option<Conversation>>;

    /// Hides a conversation for good; [`purge_conversations`](Administration::purge_conversations) removes its rows. 1 statement.
    async fn delete_conversation(&self, user_id: i64, id: i64) -> Result<bool>;

    /// Stores a student's message with its conversation's counters in one transaction.
    async fn append_user_message(&self, new: NewUserMessage) -> Result<Appended>;

    /// Stores a reply with its conversation's counters in one transaction. `None` when the conversation is gone;
    /// [`Error::Conflict`](crate::Error::Conflict) when the message was answered before.
    async fn append_reply(&self, new: NewReply) -> Result<Option<Message>>;

    /// The messages of a conversation up to `position`, newest first, at most `limit`. 1 statement.
    async fn history(&self, user_id: i64, id: i64, position: i64, limit: i64) -> Result<Vec<Message>>;

    /// The newest message of the student's in a conversation and its reply; `None` when there is no such
    /// conversation or no such message. 2 statements.
    async fn last_exchange(&self, user_id: i64, id: i64) -> Result<Option<StoredExchange>>;
}

/// What operators and background work need.
#[async_trait]
pub trait Administration: Send + Sync {
    /// `postgres` or `sqlite`.
    fn backend(&self) -> &'static str;

    /// Applies pending migrations, one process at a time; returns their names.
    async fn migrate(&self) -> Result<Vec<String>>;

    /// Names of the migrations that are not applied yet.
    async fn pending_migrations(&self) -> Result<Vec<String>>;

    /// Whether the database answers; also its clock. 1 statement.
    async fn ping(&self) -> Result<Timestamp>;

    /// Removes at most `batch` messages of deleted conversations, and the conversations that are empty
    /// then; returns how many rows went. Call until it returns 0.
    async fn purge_conversations(&self, batch: i64) -> Result<usize>;

    /// Removes sessions, tokens and idempotency keys that ended before `before`, about `batch` of each; returns
    /// how many rows went. Call until it returns 0.
    async fn purge_expired(&self, before: Timestamp, batch: i64) -> Result<usize>;

    /// Loads the rows of a plan in one transaction and returns how many they are; `progress` is told now and
    /// then how many are written. [`Error::Conflict`](crate::Error::Conflict) when this plan's students exist.
    async fn seed(&self, plan: &SeedPlan, progress: &(dyn Fn(u64) + Send + Sync)) -> Result<u64>;
}
