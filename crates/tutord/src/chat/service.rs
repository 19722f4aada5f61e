//! The rules of conversations.

use tutord_core::PageRequest;
use tutord_core::model::{ContextType, Conversation, NewConversation, Order};

use super::dto::NewConversationRequest;
use super::state::ChatState;
use crate::http::error::ApiError;

const UNTITLED: &str = "New conversation";

/// Creates a conversation without messages.
pub(super) async fn create(
    state: &ChatState,
    user_id: i64,
    request: NewConversationRequest,
) -> Result<Conversation, ApiError> {
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
    state.store.create_conversation(new).await?.ok_or_else(|| ApiError::not_found("exercise"))
}

/// Hides a conversation at once; a background task removes its rows in bounded batches.
pub(super) async fn delete(state: &ChatState, user_id: i64, id: i64) -> Result<(), ApiError> {
    if !state.store.delete_conversation(user_id, id).await? {
        return Err(no_conversation());
    }
    state.purge.notify_one();
    Ok(())
}

/// Returns `true` if the conversation exists and belongs to the user.
pub(super) async fn exists(state: &ChatState, user_id: i64, id: i64) -> Result<bool, ApiError> {
    Ok(state.store.conversation_page(user_id, id, Order::Desc, &PageRequest::first(1)).await?.is_some())
}

/// Returns the error for a conversation that does not exist or belongs to another user.
pub(super) fn no_conversation() -> ApiError {
    ApiError::not_found("conversation")
}
