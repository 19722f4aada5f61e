//! Conversations and their messages.

use std::sync::Arc;
use std::time::Duration;

use diesel::prelude::*;
use serde::{Deserialize, Serialize};

use super::{ContextType, MessageRole};
use crate::model::time::Timestamp;
use crate::page::{Cursor, List, Page};
use crate::schema::{conversations, messages};

/// How many characters of a conversation's newest message its preview shows.
pub const PREVIEW_CHARS: usize = 120;

/// How long a repeated request with the same idempotency key is recognised.
pub const IDEMPOTENCY_KEY_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// The `finish_reason` of a reply whose student left before its end, or whose server stopped.
pub const INTERRUPTED: &str = "interrupted";

/// The `finish_reason` of a reply that the model's endpoint broke off.
pub const BROKEN_OFF: &str = "error";

/// The `finish_reason`s of replies that can be replaced.
pub const INCOMPLETE_REASONS: [&str; 2] = [INTERRUPTED, BROKEN_OFF];

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

impl Conversation {
    /// Where the list goes on after this one.
    pub(crate) fn cursor(&self) -> Cursor {
        Cursor::after_time(List::Conversations, self.last_message_at, self.id)
    }
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

impl Message {
    /// Whether it is a reply that broke off, which a [retry](crate::store::Conversations::replace_reply) replaces.
    pub fn is_incomplete(&self) -> bool {
        self.finish_reason.as_deref().is_some_and(|reason| INCOMPLETE_REASONS.contains(&reason))
    }
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConversationPage {
    /// The conversation.
    pub conversation: Conversation,
    /// The page.
    pub messages: Page<Message>,
}

impl ConversationPage {
    /// What the first page of at most `limit` messages is after one more was stored; `None` unless it is the next one
    /// after those that this page knows of.
    pub fn after(&self, stored: &Stored, order: Order, limit: i64) -> Option<Self> {
        let Stored { message, conversation } = stored;
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
    /// What the first page of at most `limit` conversations is after a message was stored in one of them, which it may
    /// have begun; `None` where that does not follow from this page.
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

/// A page of messages of a conversation that has so many: what precedes and what follows it, by its outermost positions.
pub(crate) fn message_page(items: Vec<Message>, counted: i64, order: Order) -> Page<Message> {
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
    Stored(Stored),
    /// The same idempotency key came before: this is what was stored then.
    Repeated(StoredExchange),
    /// There is no such conversation of this student's.
    NotFound,
}

/// A message that was stored, and its conversation as that left it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The message.
    pub message: Message,
    /// Its conversation.
    pub conversation: Conversation,
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
    /// The student's message that it answers; a second reply to it is a conflict, unless the first broke off.
    pub reply_to: i64,
    /// The text; shared, as it may be long and is handed from layer to layer.
    pub content: Arc<str>,
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
