//! Conversations and their messages.

use std::time::Duration;

use diesel::prelude::*;
use serde::{Deserialize, Serialize};

use super::{ContextType, MessageRole};
use crate::model::time::Timestamp;
use crate::page::Page;
use crate::schema::{conversations, messages};

/// How many characters of a conversation's newest message its preview shows.
pub const PREVIEW_CHARS: usize = 120;

/// How long a repeated request with the same idempotency key is recognised.
pub const IDEMPOTENCY_KEY_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// A conversation, with what a list shows of its messages.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Serialize, Deserialize)]
#[diesel(table_name = conversations)]
pub struct Conversation {
    /// Positive id.
    pub id: i64,
    /// What it is called.
    pub title: String,
    /// What it is about.
    pub context_type: ContextType,
    /// The exercise it is about, if it is about one.
    pub exercise_id: Option<i64>,
    /// How many messages it holds; also the position of the newest.
    pub message_count: i64,
    /// When the newest message was written; `updated_at` while there is none.
    pub last_message_at: Timestamp,
    /// The first [`PREVIEW_CHARS`] characters of the newest message.
    pub last_message_preview: Option<String>,
    /// When it was begun.
    pub created_at: Timestamp,
    /// When its title or its messages last changed.
    pub updated_at: Timestamp,
}

/// A conversation to be begun.
#[derive(Debug, Clone)]
pub struct NewConversation {
    /// Whose it is.
    pub user_id: i64,
    /// What it is called.
    pub title: String,
    /// What it is about.
    pub context_type: ContextType,
    /// The exercise it is about.
    pub exercise_id: Option<i64>,
}

/// A message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Serialize, Deserialize)]
#[diesel(table_name = messages)]
pub struct Message {
    /// Positive id.
    pub id: i64,
    /// The conversation it belongs to.
    pub conversation_id: i64,
    /// 1 for the oldest of its conversation, without gaps.
    pub position: i64,
    /// Who wrote it.
    pub role: MessageRole,
    /// The text as it was written.
    pub content: String,
    /// Tokens that the model counted for this exchange.
    pub tokens_used: Option<i32>,
    /// The model that wrote it.
    pub model_used: Option<String>,
    /// The provider that served the model.
    pub provider: Option<String>,
    /// Why the model stopped; `interrupted` when the student left first.
    pub finish_reason: Option<String>,
    /// Whether the answer came from a cache.
    pub cached: bool,
    /// Milliseconds until the model's answer was complete.
    pub response_time_ms: Option<i32>,
    /// The message that this one answers.
    pub reply_to: Option<i64>,
    /// When it was written; never earlier than the message before it.
    pub created_at: Timestamp,
}

/// Which end of a conversation a page begins at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Order {
    /// Oldest first.
    #[default]
    Asc,
    /// Newest first.
    Desc,
}

/// A conversation and one page of its messages.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ConversationPage {
    /// The conversation.
    pub conversation: Conversation,
    /// The page.
    pub messages: Page<Message>,
}

/// Where a student's message goes.
#[derive(Debug, Clone)]
pub enum Target {
    /// A conversation of the student's.
    Existing(i64),
    /// A new one with this title, begun in the same transaction.
    New {
        /// What it is called.
        title: String,
    },
}

/// A student's message to be stored.
#[derive(Debug, Clone)]
pub struct NewUserMessage {
    /// Who writes.
    pub user_id: i64,
    /// Where it goes.
    pub target: Target,
    /// The text as it was written.
    pub content: String,
    /// A key by which a repeated request is recognised.
    pub idempotency_key: Option<String>,
}

/// What became of a student's message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Appended {
    /// It is stored.
    Stored(Message),
    /// The same idempotency key came before: this is what was stored then.
    Repeated(StoredExchange),
    /// There is no such conversation of this student's.
    NotFound,
}

/// A stored message of a student's and the reply to it, if there is one yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredExchange {
    /// The student's message.
    pub question: Message,
    /// The tutor's reply.
    pub reply: Option<Message>,
}

/// A tutor's reply to be stored.
#[derive(Debug, Clone)]
pub struct NewReply {
    /// Whose conversation it is.
    pub user_id: i64,
    /// The conversation.
    pub conversation_id: i64,
    /// The student's message that it answers; a second reply to it is a conflict.
    pub reply_to: i64,
    /// The text.
    pub content: String,
    /// Tokens that the model counted for this exchange.
    pub tokens_used: i32,
    /// The model that wrote it.
    pub model_used: String,
    /// The provider that served the model.
    pub provider: String,
    /// Why the model stopped.
    pub finish_reason: String,
    /// Whether the answer came from a cache.
    pub cached: bool,
    /// Milliseconds until the model's answer was complete.
    pub response_time_ms: i32,
}
