//! The rules of conversations.

use tutord_core::PageRequest;
use tutord_core::model::{ContextType, Conversation, NewConversation, Order};

use super::wire::NewConversationRequest;
use crate::app::App;
use crate::error::ApiError;

const UNTITLED: &str = "New conversation";

/// Creates a conversation without messages.
pub(super) async fn create(app: &App, user_id: i64, request: NewConversationRequest) -> Result<Conversation, ApiError> {
    let context_type = match (request.context_type, request.exercise_id) {
        (Some(ContextType::Exercise), None) => {
            return Err(ApiError::validation("exercise_id", "exercise_id is required when context_type is exercise"));
        }
        (Some(ContextType::General), Some(_)) => {
            return Err(ApiError::validation("exercise_id", "exercise_id requires context_type exercise"));
        }
        (_, Some(_)) => ContextType::Exercise,
        (_, None) => ContextType::General,
    };
    let new = NewConversation {
        user_id,
        title: request.title.unwrap_or_else(|| UNTITLED.to_owned()),
        context_type,
        exercise_id: request.exercise_id,
    };
    app.store.create_conversation(new).await?.ok_or_else(|| ApiError::not_found("exercise"))
}

/// Hides a conversation at once; a background task removes its rows in bounded batches.
pub(super) async fn delete(app: &App, user_id: i64, id: i64) -> Result<(), ApiError> {
    if !app.store.delete_conversation(user_id, id).await? {
        return Err(no_conversation());
    }
    app.purge.notify_one();
    Ok(())
}

/// Returns `true` if the conversation exists and belongs to the user.
pub(super) async fn exists(app: &App, user_id: i64, id: i64) -> Result<bool, ApiError> {
    Ok(app.store.conversation_page(user_id, id, Order::Desc, &PageRequest::first(1)).await?.is_some())
}

/// Returns the error for a conversation that does not exist or belongs to another user.
pub(super) fn no_conversation() -> ApiError {
    ApiError::not_found("conversation")
}
