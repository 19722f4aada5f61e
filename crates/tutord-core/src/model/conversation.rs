//! Conversations and their messages.

use std::sync::Arc;
use std::time::Duration;

use diesel::prelude::*;
use serde::{Deserialize, Serialize};

use super::{ContextType, MessageRole};
use crate::page::{Cursor, List, Page};
use crate::schema::{conversations, messages};
use crate::time::Timestamp;

/// The maximum number of characters of a preview, which shows the newest message of a conversation.
pub const PREVIEW_CHARS: usize = 120;

/// The time for which an idempotency key is valid.
pub const IDEMPOTENCY_KEY_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// The `finish_reason` of a reply that was interrupted because the student disconnected or the server shut down.
pub const INTERRUPTED: &str = "interrupted";

/// The `finish_reason` of a reply that the model's endpoint interrupted.
pub const BROKEN_OFF: &str = "error";

/// The `finish_reason`s of replies that can be replaced.
pub const INCOMPLETE_REASONS: [&str; 2] = [INTERRUPTED, BROKEN_OFF];

/// A conversation, with the summary of its messages for lists.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Serialize, Deserialize)]
#[diesel(table_name = conversations)]
pub struct Conversation {
    /// Positive id.
    pub id: i64,
    /// The title.
    pub title: String,
    /// The kind of context.
    pub context_type: ContextType,
    /// The exercise of the conversation, if the context is an exercise.
    pub exercise_id: Option<i64>,
    /// The number of messages; also the position of the newest one.
    pub message_count: i64,
    /// The time of the newest message; `updated_at` if there is none.
    pub last_message_at: Timestamp,
    /// The first [`PREVIEW_CHARS`] characters of the newest message.
    pub last_message_preview: Option<String>,
    /// The time of creation.
    pub created_at: Timestamp,
    /// The time of the last change of the title or the messages.
    pub updated_at: Timestamp,
}

impl Conversation {
    /// Returns the cursor of the page that follows this conversation.
    pub fn cursor(&self) -> Cursor {
        Cursor::after_time(List::Conversations, self.last_message_at, self.id)
    }
}

/// A new conversation.
#[derive(Debug, Clone)]
pub struct NewConversation {
    /// The owner.
    pub user_id: i64,
    /// The title.
    pub title: String,
    /// The kind of context.
    pub context_type: ContextType,
    /// The exercise of the conversation.
    pub exercise_id: Option<i64>,
}

/// A message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Serialize, Deserialize)]
#[diesel(table_name = messages)]
pub struct Message {
    /// Positive id.
    pub id: i64,
    /// The conversation.
    pub conversation_id: i64,
    /// 1 for the oldest of its conversation, without gaps.
    pub position: i64,
    /// The author's role.
    pub role: MessageRole,
    /// The text as written.
    pub content: String,
    /// The number of tokens of this exchange, as counted by the model.
    pub tokens_used: Option<i32>,
    /// The model that wrote the message.
    pub model_used: Option<String>,
    /// The provider that served the model.
    pub provider: Option<String>,
    /// The model's reason to stop; `interrupted` if the student disconnected first.
    pub finish_reason: Option<String>,
    /// Set if the reply came from a cache.
    pub cached: bool,
    /// The time until the model's reply was complete, in milliseconds.
    pub response_time_ms: Option<i32>,
    /// The message that this reply belongs to.
    pub reply_to: Option<i64>,
    /// The time of creation; never earlier than that of the previous message.
    pub created_at: Timestamp,
}

impl Message {
    /// Returns `true` for an incomplete reply, which a [retry](crate::store::Conversations::replace_reply) replaces.
    pub fn is_incomplete(&self) -> bool {
        self.finish_reason.as_deref().is_some_and(|reason| INCOMPLETE_REASONS.contains(&reason))
    }
}

/// The order of the messages in a page.
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConversationPage {
    /// The conversation.
    pub conversation: Conversation,
    /// The page of messages.
    pub messages: Page<Message>,
}

impl ConversationPage {
    /// Returns the first page of at most `limit` messages after another message was stored, or `None` unless that
    /// message directly follows those of this page.
    pub fn after(&self, stored: &StoredMessage, order: Order, limit: i64) -> Option<Self> {
        let StoredMessage { message, conversation } = stored;
        let counted = self.conversation.message_count;
        if (conversation.id, conversation.message_count) != (self.conversation.id, counted + 1)
            || message.position != counted + 1
            || self.messages.total != counted
        {
            return None;
        }
        let mut items = self.messages.items.clone();
        match order {
            Order::Asc if counted < limit => items.push(message.clone()),
            Order::Asc => {}
            Order::Desc => {
                items.insert(0, message.clone());
                items.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
            }
        }
        Some(Self { conversation: conversation.clone(), messages: message_page(items, counted + 1, order) })
    }
}

impl Page<Conversation> {
    /// Returns the first page of at most `limit` conversations after a message was stored in one of them, possibly a
    /// new one, or `None` if this page does not determine it.
    pub fn after(&self, stored: &Conversation, begun: bool, limit: i64) -> Option<Self> {
        let mut items = self.items.clone();
        match items.iter().position(|known| known.id == stored.id) {
            Some(place) if items[place].message_count + 1 == stored.message_count && !begun => {
                items.remove(place);
            }
            // It was on a later page, or is new.
            None if self.has_more || begun => {}
            _ => return None,
        }
        let key = |conversation: &Conversation| (conversation.last_message_at, conversation.id);
        if items.first().is_some_and(|first| key(first) > key(stored)) {
            return None;
        }
        items.insert(0, stored.clone());
        items.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        let total = self.total + i64::from(begun);
        let has_more = total > limit;
        let next = items.last().filter(|_| has_more).map(Conversation::cursor);
        Some(Self { items, total, has_more, next, previous: None })
    }
}

/// Creates a page of messages from the conversation's number of messages; the outermost positions determine the
/// cursors.
pub fn message_page(items: Vec<Message>, counted: i64, order: Order) -> Page<Message> {
    // A message may have been committed between the two statements.
    let newest_seen = items.iter().map(|message| message.position).max().unwrap_or(0);
    let total = counted.max(newest_seen);
    let list = match order {
        Order::Asc => List::MessagesAscending,
        Order::Desc => List::MessagesDescending,
    };
    let neighbour = |message: Option<&Message>, backward: bool| {
        let position = message?.position;
        let towards_newest = (order == Order::Asc) != backward;
        let exists = if towards_newest { position < total } else { position > 1 };
        exists.then(|| Cursor::position(list, position, backward))
    };
    let next = neighbour(items.last(), false);
    let previous = neighbour(<[Message]>::first(&items), true);
    Page { total, has_more: next.is_some(), next, previous, items }
}

/// The target of a student's message.
#[derive(Debug, Clone)]
pub enum MessageTarget {
    /// An existing conversation of the student.
    Existing(i64),
    /// A new conversation with this title, created in the same transaction.
    New {
        /// The title.
        title: String,
    },
}

/// A new message of a student.
#[derive(Debug, Clone)]
pub struct NewUserMessage {
    /// The student.
    pub user_id: i64,
    /// The target.
    pub target: MessageTarget,
    /// The text as written.
    pub content: String,
    /// The idempotency key of the request.
    pub idempotency_key: Option<String>,
    /// The maximum number of messages in the returned history; 0 for none.
    pub history: i64,
}

/// The result of storing a student's message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AppendOutcome {
    /// The message is stored. The history is the newest messages up to this one, newest first.
    Stored(StoredMessage, Vec<Message>),
    /// The idempotency key was used before; this is the message stored then.
    Repeated(StoredExchange),
    /// The student has no such conversation.
    NotFound,
}

/// A stored message, and its conversation after the change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredMessage {
    /// The message.
    pub message: Message,
    /// Its conversation.
    pub conversation: Conversation,
}

/// A student's stored message, and the reply to it if there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredExchange {
    /// The student's message.
    pub question: Message,
    /// The tutor's reply.
    pub reply: Option<Message>,
    /// The newest messages up to the student's, newest first, as many as the caller requested.
    pub history: Vec<Message>,
}

/// A new reply of the tutor.
#[derive(Debug, Clone)]
pub struct NewReply {
    /// The owner of the conversation.
    pub user_id: i64,
    /// The conversation.
    pub conversation_id: i64,
    /// The student's message. A second reply to it is a conflict, unless the first one is incomplete.
    pub reply_to: i64,
    /// The text. It is shared between the layers, because it can be long.
    pub content: Arc<str>,
    /// The number of tokens of this exchange, as counted by the model.
    pub tokens_used: i32,
    /// The model that wrote the message.
    pub model_used: String,
    /// The provider that served the model.
    pub provider: String,
    /// The model's reason to stop.
    pub finish_reason: String,
    /// Set if the reply came from a cache.
    pub cached: bool,
    /// The time until the model's reply was complete, in milliseconds.
    pub response_time_ms: i32,
}
