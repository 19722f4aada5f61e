//! Conversations and messages.

use async_trait::async_trait;

use super::Loaded;
use crate::error::Result;
use crate::model::{
    AppendOutcome, Conversation, ConversationPage, NewConversation, NewReply, NewUserMessage, Order, StoredExchange,
    StoredMessage,
};
use crate::page::{Page, PageRequest};

/// Conversations and messages.
#[async_trait]
pub trait Conversations: Send + Sync {
    /// Returns a page of a student's conversations, newest activity first, ties by id. Reads no messages. 1 statement
    /// for the first page, 2 in 1 round trip for others.
    async fn list_conversations(&self, user_id: i64, page: &PageRequest) -> Result<Loaded<Page<Conversation>>>;

    /// Returns the list with N+1 queries: 1 statement, and 2 more **for each conversation**, which count its messages
    /// and find the newest. Demonstrates what `querywatch` detects, and what it costs.
    async fn naive_conversations(&self, user_id: i64, limit: i64) -> Result<Vec<Conversation>>;

    /// Returns a conversation and a page of its messages. 2 statements in 1 round trip; the cost does not grow with the
    /// page's depth.
    async fn conversation_page(
        &self,
        user_id: i64,
        id: i64,
        order: Order,
        page: &PageRequest,
    ) -> Result<Option<Loaded<ConversationPage>>>;

    /// Creates a conversation. Returns `None` if its exercise does not exist for this student. 1 statement.
    async fn create_conversation(&self, new: NewConversation) -> Result<Option<Conversation>>;

    /// Renames a conversation. 1 statement.
    async fn rename_conversation(&self, user_id: i64, id: i64, title: &str) -> Result<Option<Conversation>>;

    /// Hides a conversation permanently; [`purge_conversations`](crate::operations::Administration::purge_conversations) removes its rows.
    /// 1 statement.
    async fn delete_conversation(&self, user_id: i64, id: i64) -> Result<bool>;

    /// Stores a student's message and updates its conversation's counters in one transaction, in 1 round trip; a
    /// repeated idempotency key costs 1 more.
    async fn append_user_message(&self, new: NewUserMessage) -> Result<AppendOutcome>;

    /// Stores a reply and updates its conversation's counters in one transaction, in 1 round trip. Returns `None` if the conversation is
    /// deleted, and [`Error::Conflict`](crate::Error::Conflict) if the message already has a reply.
    async fn append_reply(&self, new: NewReply) -> Result<Option<StoredMessage>>;

    /// Replaces an [incomplete](crate::model::Message::is_incomplete) reply by a complete or longer one, in one
    /// transaction of 2 round trips. Returns `None` if there is no such reply.
    async fn replace_reply(&self, new: NewReply) -> Result<Option<StoredMessage>>;

    /// Returns the newest message of the student in a conversation, its reply, and a history of at most `history`
    /// messages. Returns `None` if there is no such conversation or message. 3 statements in 1 round trip.
    async fn last_exchange(&self, user_id: i64, id: i64, history: i64) -> Result<Option<StoredExchange>>;
}
