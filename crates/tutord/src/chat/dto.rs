//! The JSON of the chat routes.

use garde::Validate;
use serde::{Deserialize, Serialize};
use tutord_core::model::{ContextType, Conversation, Message, MessageRole};
use tutord_core::{Page, PageRequest, Timestamp};
use utoipa::ToSchema;

use crate::http::json::{trimmed, trimmed_option};
use crate::http::pagination::PageInfo;

#[derive(Deserialize, Validate, ToSchema)]
pub(super) struct NewConversationRequest {
    /// At most 200 characters; "New conversation" when absent.
    #[serde(default, deserialize_with = "trimmed_option")]
    #[schema(min_length = 1, max_length = 200)]
    #[garde(length(chars, min = 1, max = 200))]
    pub(super) title: Option<String>,
    #[garde(skip)]
    pub(super) context_type: Option<ContextType>,
    /// The exercise, when `context_type` is `exercise`.
    #[schema(minimum = 1)]
    #[garde(range(min = 1))]
    pub(super) exercise_id: Option<i64>,
}

#[derive(Deserialize, Validate, ToSchema)]
pub(super) struct RenameRequest {
    /// 1 to 200 characters.
    #[serde(deserialize_with = "trimmed")]
    #[schema(min_length = 1, max_length = 200)]
    #[garde(length(chars, min = 1, max = 200))]
    pub(super) title: String,
}

#[derive(Deserialize, Validate, ToSchema)]
pub(super) struct SendRequest {
    /// 1 to 5000 characters.
    #[serde(deserialize_with = "trimmed")]
    #[schema(min_length = 1, max_length = 5000)]
    #[garde(length(chars, min = 1, max = 5000))]
    pub(super) message: String,
    /// Default: the message starts a new conversation.
    #[schema(minimum = 1)]
    #[garde(range(min = 1))]
    pub(super) conversation_id: Option<i64>,
    /// A repeated request with the same key within 24 hours stores nothing. At most 64 characters.
    #[schema(min_length = 1, max_length = 64)]
    #[garde(length(chars, min = 1, max = 64))]
    pub(super) idempotency_key: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct ConversationItem {
    id: i64,
    title: String,
    message_count: i64,
    context_type: ContextType,
    created_at: Timestamp,
    updated_at: Timestamp,
    last_message_at: Timestamp,
    last_message_preview: Option<String>,
}

impl From<Conversation> for ConversationItem {
    fn from(conversation: Conversation) -> Self {
        Self {
            id: conversation.id,
            title: conversation.title,
            message_count: conversation.message_count,
            context_type: conversation.context_type,
            created_at: conversation.created_at,
            updated_at: conversation.updated_at,
            last_message_at: conversation.last_message_at,
            last_message_preview: conversation.last_message_preview,
        }
    }
}

#[derive(Serialize, ToSchema)]
pub(super) struct ConversationResponse {
    pub(super) conversation: ConversationItem,
}

#[derive(Serialize, ToSchema)]
pub(super) struct ConversationList {
    conversations: Vec<ConversationItem>,
    #[serde(flatten)]
    page: PageInfo,
}

impl ConversationList {
    pub(super) fn new(page: Page<Conversation>, request: &PageRequest) -> Self {
        Self {
            page: PageInfo::new(&page, request),
            conversations: page.items.into_iter().map(ConversationItem::from).collect(),
        }
    }
}

#[derive(Serialize, ToSchema)]
pub(super) struct ConversationHead {
    id: i64,
    title: String,
    message_count: i64,
    context_type: ContextType,
    created_at: Timestamp,
    updated_at: Timestamp,
}

#[derive(Serialize, ToSchema)]
pub(super) struct Metadata {
    provider: String,
    finish_reason: Option<String>,
    cached: bool,
    response_time_ms: Option<i32>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct MessageItem {
    id: i64,
    role: MessageRole,
    content: String,
    tokens_used: Option<i32>,
    model_used: Option<String>,
    created_at: Timestamp,
    /// Null on messages that no model wrote.
    metadata: Option<Metadata>,
}

impl From<Message> for MessageItem {
    fn from(message: Message) -> Self {
        Self {
            id: message.id,
            role: message.role,
            content: message.content,
            tokens_used: message.tokens_used,
            model_used: message.model_used,
            created_at: message.created_at,
            metadata: message.provider.map(|provider| Metadata {
                provider,
                finish_reason: message.finish_reason,
                cached: message.cached,
                response_time_ms: message.response_time_ms,
            }),
        }
    }
}

#[derive(Serialize, ToSchema)]
pub(super) struct Pagination {
    #[serde(flatten)]
    page: PageInfo,
    prev_cursor: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct ConversationPageResponse {
    conversation: ConversationHead,
    messages: Vec<MessageItem>,
    pagination: Pagination,
}

impl ConversationPageResponse {
    pub(super) fn new(conversation: Conversation, page: Page<Message>, request: &PageRequest) -> Self {
        Self {
            conversation: ConversationHead {
                id: conversation.id,
                title: conversation.title,
                message_count: conversation.message_count,
                context_type: conversation.context_type,
                created_at: conversation.created_at,
                updated_at: conversation.updated_at,
            },
            pagination: Pagination {
                page: PageInfo::new(&page, request),
                prev_cursor: page.previous.map(|cursor| cursor.encode()),
            },
            messages: page.items.into_iter().map(MessageItem::from).collect(),
        }
    }
}

#[derive(Serialize, ToSchema)]
pub(super) struct DeletedResponse {
    pub(super) message: &'static str,
    pub(super) conversation_id: i64,
}

#[derive(Serialize, ToSchema)]
pub(super) struct ReplyResponse {
    conversation_id: i64,
    message_id: i64,
    user_message_id: i64,
    response: String,
    model: String,
    tokens_used: i32,
    cached: bool,
}

impl ReplyResponse {
    pub(super) fn new(user_message_id: i64, reply: Message) -> Self {
        Self {
            conversation_id: reply.conversation_id,
            message_id: reply.id,
            user_message_id,
            response: reply.content,
            model: reply.model_used.unwrap_or_default(),
            tokens_used: reply.tokens_used.unwrap_or_default(),
            cached: reply.cached,
        }
    }
}
